# SPDX-License-Identifier: Apache-2.0
"""What a finished body measures: volumes on its own voxels, lengths between its poles."""

from __future__ import annotations

import numpy as np

from .frame import Frame
from .kidneys import Kidney
from .liver import Lesion, liver_box
from .organs import longest
from .raster import Canvas
from .shapes import Field
from .types import ORGANS, VALUE

SINGLE = ("gallbladder", "stomach", "aorta", "inferior_vena_cava", "lung_right", "lung_left")
VOLUMES = {**ORGANS, **{name: (name,) for name in SINGLE}}


def sizes(
    frame: Frame, canvas: Canvas, liver: Field, kidneys: dict[str, Kidney], spleen: Field, lesions: tuple[Lesion, ...]
) -> dict[str, float]:
    """Name with unit -> value: what was drawn, and what came of it."""
    found = {**frame.measures, "trunk_width_mm": frame.width_mm, "trunk_depth_mm": frame.depth_mm}
    millilitres = float(np.prod(canvas.grid.spacing_mm)) / 1000.0
    counts = np.bincount(canvas.labels.ravel(), minlength=256) * millilitres
    found |= {
        f"{organ}_achieved_volume_ml": float(sum(counts[VALUE[n]] for n in names)) for organ, names in VOLUMES.items()
    }
    box = liver_box(liver)
    found["liver_achieved_length_mm"] = float(box[1][2] - box[0][2])
    for side, kidney in kidneys.items():
        found[f"kidney_{side}_achieved_length_mm"] = longest(kidney.capsule)
    found["spleen_achieved_length_mm"] = longest(spleen)
    return found | {f"lesion_{i}_diameter_mm": 2 * lesion.radius_mm for i, lesion in enumerate(lesions, start=1)}
