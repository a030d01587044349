# SPDX-License-Identifier: Apache-2.0
"""How much more likely each kind of echo is where a scan line meets each class of tissue, than anywhere."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt

from ...config import load_yaml
from ...data.share import share_dir
from ...errors import FileFormatError
from .echoes import DARK_END, KINDS
from .tissue_map import BINS, CLASSES, FIRST, HU_EDGES, SHADOW_GAS

Array = npt.NDArray[Any]
FILE = "global_start.yaml"
SMOOTH_HU = 8.0  # patients' organs differ by so much: what is learnt at one value holds for its neighbours
PSEUDO = 50.0  # samples of the mean over all classes that every class begins with


def class_names() -> list[str]:
    """Names (CLASSES,) of what a scan line may meet."""
    edges = ["low", *(str(e) for e in HU_EDGES), "high"]
    bins = [f"{a} to {b} HU" for a, b in zip(edges, edges[1:], strict=False)]
    soft = [f"{zone}, {b}" for zone in ("wall", "below the wall") for b in bins]
    return ["air", "gas", "bone", *soft, "behind gas", "behind bone", "behind cartilage"]


def learn(counts: Array) -> Array:
    """Log-likelihood ratios (CLASSES, KINDS) float32 from counts of samples at true poses."""
    smooth = counts.astype(np.float64).copy()
    middles = np.array([HU_EDGES[0] - 25, *np.convolve(HU_EDGES, [0.5, 0.5], "valid"), HU_EDGES[-1] + 25])
    weight = np.exp(-0.5 * ((middles[:, None] - middles) / SMOOTH_HU) ** 2)
    for zone in range(2):
        rows = slice(FIRST + zone * BINS, FIRST + (zone + 1) * BINS)
        smooth[rows] = weight @ counts[rows]
    anywhere = counts.sum(0) + 1.0
    anywhere = anywhere / anywhere.sum()
    given = (smooth + PSEUDO * anywhere) / (smooth.sum(1, keepdims=True) + PSEUDO)
    return np.log(given / anywhere).astype(np.float32)


def weighted(table: Array, shadow_weight: float) -> Array:
    """The table with the samples of shadows counting less: a shadow is one event, however many samples it darkens."""
    out = table.astype(np.float32).copy()
    out[SHADOW_GAS:] *= np.float32(shadow_weight)
    out[:, DARK_END] *= np.float32(shadow_weight)
    return out


@functools.lru_cache(maxsize=1)
def shipped() -> Array:
    """The table that ships, (CLASSES, KINDS) float32, learnt on simulated bodies. Shared: do not write into it.

    Raises:
        MissingFileError, FileFormatError: it is not there, or of another shape.
    """
    content = load_yaml(share_dir() / "config" / FILE)
    rows = [content.get(name) for name in class_names()]
    if any(not isinstance(r, list) or len(r) != KINDS for r in rows) or len(content) != CLASSES:
        raise FileFormatError(f"'{FILE}' must hold {KINDS} numbers for each of {class_names()}")
    table = np.array(rows, np.float32)
    if not np.isfinite(table).all():
        raise FileFormatError(f"'{FILE}' holds NaN or infinity")
    table.setflags(write=False)
    return table


def as_yaml(table: Array) -> str:
    """The text of the file that `shipped` reads."""
    head = "# SPDX-License-Identifier: Apache-2.0\n# " + "\n# ".join(
        (
            "What the global start knows of ultrasound: the logarithm of how much more likely each kind of echo is",
            "(columns: brightness by contrast, last the dark end of a line) where a scan line meets a class of the CT.",
            "Learnt on simulated bodies; made again by `python benchmarks/bench_global.py --learn FILE`.",
        )
    )
    rows = [f"{name}: [{', '.join(f'{v:.2f}' for v in row)}]" for name, row in zip(class_names(), table, strict=True)]
    return head + "\n" + "\n".join(rows) + "\n"
