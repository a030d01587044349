# SPDX-License-Identifier: Apache-2.0
"""What a finished body measures: volumes on its own voxels, lengths between its poles."""

from __future__ import annotations

import numpy as np

from .kidneys import Kidney
from .landmarks import ends
from .organs import longest
from .raster import Canvas
from .shapes import Field
from .types import ORGANS, VALUE

VOLUMES = {**ORGANS, "stomach": ("stomach",), "aorta": ("aorta",), "inferior_vena_cava": ("inferior_vena_cava",)}


def achieved(canvas: Canvas, liver: Field, kidneys: dict[str, Kidney], spleen: Field) -> dict[str, float]:
    """Name with unit -> value."""
    millilitres = float(np.prod(canvas.grid.spacing_mm)) / 1000.0
    counts = np.bincount(canvas.labels.ravel(), minlength=256) * millilitres
    found = {f"{organ}_achieved_volume_ml": float(sum(counts[VALUE[n]] for n in names)) for organ, names in VOLUMES.items()}
    found["gallbladder_achieved_volume_ml"] = float(counts[VALUE["gallbladder"]])
    found["liver_achieved_length_mm"] = float(np.ptp(ends(liver)[:, 2]))
    for side, kidney in kidneys.items():
        found[f"kidney_{side}_achieved_length_mm"] = float(np.linalg.norm(kidney.poles[0] - kidney.poles[1]))
    found["spleen_achieved_length_mm"] = longest(spleen)
    return found
