# SPDX-License-Identifier: Apache-2.0
"""What a digital body is: structures by label value, vessels as tubes, landmarks."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...data.types import Volume
from ...errors import ShapeError

# Label values of every digital body; names are the keys of `structures` in config/tissues.yaml.
STRUCTURES = {
    0: "outside",
    1: "skin",
    2: "subcutaneous_fat",
    3: "muscle",
    4: "visceral_fat",
    5: "ribs",
    6: "costal_cartilage",
    7: "spine",
    8: "lung_right",
    9: "lung_left",
    10: "liver",
    11: "portal_vein",
    12: "hepatic_vein",
    13: "gallbladder",
    14: "kidney_right_cortex",
    15: "kidney_right_medulla",
    16: "kidney_right_pelvis",
    17: "kidney_left_cortex",
    18: "kidney_left_medulla",
    19: "kidney_left_pelvis",
    20: "spleen",
    21: "pancreas",
    22: "stomach",
    23: "bowel",
    24: "bowel_gas",
    25: "aorta",
    26: "inferior_vena_cava",
    27: "lesion_hypoechoic",
    28: "lesion_hyperechoic",
    29: "lesion_cyst",
    30: "diaphragm",
}
VALUE = {STRUCTURES[value]: value for value in STRUCTURES}
# Structures that move together in breathing.
ORGANS = {
    "liver": (
        "liver", "portal_vein", "hepatic_vein", "gallbladder", "lesion_hypoechoic", "lesion_hyperechoic", "lesion_cyst",
    ),
    "kidney_right": ("kidney_right_cortex", "kidney_right_medulla", "kidney_right_pelvis"),
    "kidney_left": ("kidney_left_cortex", "kidney_left_medulla", "kidney_left_pelvis"),
    "spleen": ("spleen",),
    "pancreas": ("pancreas",),
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Tube:
    """A piece of a vessel: a truncated cone with round ends.

    Args:
        start_mm, stop_mm: (3,) in `ct`, mm. start_radius_mm, stop_radius_mm: of the lumen.
        structure: name in STRUCTURES.
    """

    start_mm: tuple[float, float, float]
    stop_mm: tuple[float, float, float]
    start_radius_mm: float
    stop_radius_mm: float
    structure: str


@dataclass(frozen=True, eq=False)
class Body:
    """A body of known anatomy, at rest (end of expiration).

    Args:
        labels: data (1, D, H, W) uint8, values and names as STRUCTURES, LPS mm; any direction matrix.
        landmarks: name -> (3,) float64, mm in `ct`: bifurcations of the vessels in the liver, and organ poles.
        tubes: the vessels as they were grown; empty for a body made of a labelled CT.
        measures: what was drawn: name with unit -> value ("liver_length_mm": 158.0).
        seed: of the draw; -1 for a body made of a labelled CT.
    """

    labels: Volume
    landmarks: dict[str, Tensor] = field(default_factory=dict)
    tubes: tuple[Tube, ...] = ()
    measures: dict[str, float] = field(default_factory=dict)
    seed: int = -1

    def __post_init__(self) -> None:
        if self.labels.data.shape[0] != 1 or self.labels.data.dtype != torch.uint8:
            raise ShapeError(
                f"labels of a body are (1, D, H, W) uint8, got {tuple(self.labels.data.shape)} {self.labels.data.dtype}"
            )

    def inside(self, *structures: str) -> Tensor:
        """(D, H, W) bool: voxels of the named structures."""
        values = torch.tensor([VALUE[name] for name in structures], dtype=torch.uint8)
        return torch.isin(self.labels.data[0], values)
