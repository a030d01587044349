# SPDX-License-Identifier: Apache-2.0
"""How likely each kind of echo is where a scan line meets each class of tissue."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.cluster.hierarchy import fcluster, linkage

from ...config import load_yaml
from ...data.share import share_dir
from ...errors import FileFormatError
from .echoes import DARK_END, KINDS
from .kernel import MODELS
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
    """Log-probabilities of kinds (CLASSES, KINDS, MODELS) float32 from counts (bodies, CLASSES, KINDS) at true poses.

    The first model is that of all bodies, the others are those of groups of bodies whose tissues look alike: gain,
    compression and the echogenicity of organs differ from one examination to the next (Ward, JASA 58 (1963) 236).
    """
    smooth = _smooth(counts.astype(np.float64))
    anywhere = counts.sum((0, 1)) + 1.0
    anywhere = anywhere / anywhere.sum()
    every = _given(smooth.sum(0), np.broadcast_to(anywhere, counts.shape[1:]))
    groups = _groups(np.stack([_given(s, every) for s in smooth]), counts.sum((0, 2)))
    models = [every] + [_given(smooth[groups == g].sum(0), every) for g in np.unique(groups)]
    models += [every] * (MODELS - len(models))
    return np.log(np.stack(models, -1)).astype(np.float32)


def _smooth(counts: Array) -> Array:
    """Counts (bodies, CLASSES, KINDS) of a bin of Hounsfield units shared with its neighbours."""
    out = counts.copy()
    middles = np.array([HU_EDGES[0] - 25, *np.convolve(HU_EDGES, [0.5, 0.5], "valid"), HU_EDGES[-1] + 25])
    weight = np.exp(-0.5 * ((middles[:, None] - middles) / SMOOTH_HU) ** 2)
    for zone in range(2):
        rows = slice(FIRST + zone * BINS, FIRST + (zone + 1) * BINS)
        out[:, rows] = weight @ counts[:, rows]
    return out


def _given(counts: Array, before: Array) -> Array:
    """Probabilities (CLASSES, KINDS) of the kinds given the class, `before` where there is little to learn from."""
    return np.asarray((counts + PSEUDO * before) / (counts.sum(1, keepdims=True) + PSEUDO))


def _groups(given: Array, often: Array) -> Array:
    """Group (bodies,) of each body: at most MODELS - 1 of them, by how their tissues look where many samples lie."""
    if len(given) < MODELS:
        return np.arange(len(given))
    features = np.sqrt(given * (often / often.sum())[:, None]).reshape(len(given), -1)
    return np.asarray(fcluster(linkage(features, "ward"), MODELS - 1, "maxclust"))


def ratios(table: Array, kind: Array, length: Array, shadow_weight: float) -> Array:
    """Log-likelihood ratios (CLASSES, KINDS, MODELS) of classes over "anywhere in these frames".

    Samples of shadows count less: a shadow is one event, however many samples it darkens.

    Args:
        table: as `learn` gives it. kind: (R, K) of `Echoes`. length: (R,).
    """
    seen = np.bincount(kind[np.arange(kind.shape[1]) < length[:, None]], minlength=KINDS) + 1.0
    out = (table - np.log(seen / seen.sum())[:, None]).astype(np.float32)
    out[SHADOW_GAS:] *= np.float32(shadow_weight)
    out[:, DARK_END] *= np.float32(shadow_weight)
    return out


@functools.lru_cache(maxsize=1)
def shipped() -> Array:
    """The table that ships, (CLASSES, KINDS, MODELS) float32, learnt on simulated bodies. Shared: do not write into it.

    Raises:
        MissingFileError, FileFormatError: it is not there, or of another shape.
    """
    content = load_yaml(share_dir() / "config" / FILE)
    models = [content.get(f"model {k}") for k in range(MODELS)]
    if any(not isinstance(m, dict) or sorted(m) != sorted(class_names()) for m in models):
        raise FileFormatError(f"'{FILE}' must hold {MODELS} models, each with a row for every one of {class_names()}")
    rows = [m[name] for m in models if m for name in class_names()]
    if any(not isinstance(r, list) or len(r) != KINDS for r in rows):
        raise FileFormatError(f"each row of '{FILE}' must hold {KINDS} numbers, one for each kind of echo")
    table = np.moveaxis(np.array(rows, np.float32).reshape(MODELS, CLASSES, KINDS), 0, -1).copy()
    if not np.isfinite(table).all():
        raise FileFormatError(f"'{FILE}' holds NaN or infinity")
    table.setflags(write=False)
    return table


def as_yaml(table: Array) -> str:
    """The text of the file that `shipped` reads."""
    head = "# SPDX-License-Identifier: Apache-2.0\n# " + "\n# ".join(
        (
            "What the global start knows of ultrasound: the logarithm of how likely each kind of echo is",
            "(columns: brightness by contrast, last the dark end of a line) where a scan line meets a class of the CT.",
            "Model 0 is that of all bodies, the others of groups of bodies that look alike.",
            "Learnt on simulated bodies; made again by `python benchmarks/bench_global.py --learn FILE`.",
        )
    )
    models = []
    for k in range(table.shape[-1]):
        rows = zip(class_names(), table[..., k], strict=True)
        text = [f"  {name}: [{', '.join(f'{v:.2f}' for v in row)}]" for name, row in rows]
        models.append("\n".join([f"model {k}:", *text]))
    return head + "\n" + "\n".join(models) + "\n"
