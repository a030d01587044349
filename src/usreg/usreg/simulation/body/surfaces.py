# SPDX-License-Identifier: Apache-2.0
"""Closed triangle meshes of a body's organs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects, gaussian_filter

from ...errors import ConfigError
from ...rendering.surface import Surface, SurfaceConfig, closed_mesh
from .sampling import structure_values
from .types import ORGANS, STRUCTURES, VALUE, Body

VESSELS_IN_LIVER = ("portal_vein", "hepatic_vein")
LIVER = ("liver", "lesion_hypoechoic", "lesion_hyperechoic", "lesion_cyst")
# Name of a surface: its structures. The liver also takes the vessels that its tissue surrounds.
GROUPS: dict[str, tuple[str, ...]] = {
    "skin": tuple(name for name in VALUE if name != "outside"),
    "liver": LIVER,
    "portal_vein": ("portal_vein",),
    "hepatic_vein": ("hepatic_vein",),
    "lesions": LIVER[1:],
    "gallbladder": ("gallbladder",),
    "kidney_right": ORGANS["kidney_right"],
    "kidney_left": ORGANS["kidney_left"],
    "spleen": ("spleen",),
    "pancreas": ("pancreas",),
    "aorta": ("aorta",),
    "inferior_vena_cava": ("inferior_vena_cava",),
    "spine": ("spine",),
    "ribs": ("ribs", "costal_cartilage"),
}


def surfaces(
    body: Body, organs: Sequence[str] | None = None, config: SurfaceConfig | None = None
) -> dict[str, Surface]:
    """Meshes of a body, each as `closed_mesh` makes it.

    Args:
        organs: names in GROUPS; None: all that the body has.

    Returns:
        Name -> closed two-manifold in `ct`, mm, for any direction matrix; open at no side, also where the volume ends.

    Raises:
        ConfigError: no such surface, or the body has none of it.
    """
    config = config or SurfaceConfig()
    labels = structure_values(body)
    boxes = find_objects(labels, max_label=max(STRUCTURES))
    found = {}
    for name in GROUPS if organs is None else organs:
        if name not in GROUPS:
            raise ConfigError(f"there is no surface '{name}'; choose from {', '.join(GROUPS)}")
        mask, corner = _mask(labels, boxes, name)
        if mask.size and mask.any():
            found[name] = closed_mesh(mask, corner, body.labels.grid, config)
        elif organs is not None:
            raise ConfigError(f"the body has no '{name}' to make a surface of")
    return found


def _mask(labels: NDArray[np.uint8], boxes: list, name: str) -> tuple[NDArray[np.bool_], tuple[int, int, int]]:
    """Voxels of a group in their box, and the box's first corner (z, y, x)."""
    group = [VALUE[s] for s in GROUPS[name]]
    own = [boxes[v - 1] for v in group if boxes[v - 1] is not None]
    if not own:
        return np.zeros((0, 0, 0), bool), (0, 0, 0)
    box = tuple(slice(min(b[a].start for b in own), max(b[a].stop for b in own)) for a in range(3))
    table = np.zeros(256, bool)
    table[group] = True
    mask = table[labels[box]]
    if name == "liver":
        mask = _with_vessels(mask, labels[box])
    return mask, (box[0].start, box[1].start, box[2].start)


def _with_vessels(liver: NDArray[np.bool_], labels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """The liver and the vessels inside it: not those that leave it at the hilum."""
    around = gaussian_filter(liver.astype(np.float32), 5.0, mode="constant", truncate=2.5)
    return liver | (np.isin(labels, [VALUE[v] for v in VESSELS_IN_LIVER]) & (around > 0.3))
