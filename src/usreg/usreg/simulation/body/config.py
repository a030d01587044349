# SPDX-License-Identifier: Apache-2.0
"""How a procedural body is sampled, and the ranges that its sizes are drawn from."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ...config import check_range

# name: (low, high, source). Every value is drawn from a bell inside its range and never leaves it.
# "working range": a usual adult span without a single survey behind it.
RANGES: dict[str, tuple[float, float, str]] = {
    "stature": (0.95, 1.06, "craniocaudal scale of the trunk; 1 = lumbar vertebra with its disc 37 mm"),
    "fat_mm": (8.0, 30.0, "subcutaneous fat at the front of the abdomen; working range"),
    "cavity_half_width_mm": (130.0, 148.0, "inside of the lower chest; working range"),
    "cavity_depth_mm": (84.0, 100.0, "front wall to the front of L1, supine; working range"),
    "liver_length_mm": (130.0, 180.0, "craniocaudal span (Kratzer 2003: 140 +- 17 mm; Patzak 2014: 150 +- 15 mm)"),
    "liver_volume_ml": (1100.0, 1900.0, "aimed at inside the drawn span and chest (Vauthey 2002: about 1500 ml)"),
    "kidney_right_length_mm": (95.0, 125.0, "Emamian 1993: median 109 mm"),
    "kidney_left_length_mm": (95.0, 125.0, "Emamian 1993: median 112 mm"),
    "spleen_length_mm": (80.0, 120.0, "Chow 2016, healthy adults"),
    "aorta_diameter_mm": (17.0, 24.0, "above the renal arteries (Rogers 2013)"),
    "vena_cava_diameter_mm": (16.0, 24.0, "below the liver (Prince 1983: mean 20 mm)"),
    "portal_vein_diameter_mm": (11.0, 13.0, "main portal vein (Weinreb 1982: 11 +- 2 mm; normal up to 13 mm)"),
    "hepatic_vein_diameter_mm": (7.5, 10.0, "mean of three at the vena cava; working range"),
    "gallbladder_length_mm": (60.0, 90.0, "fasting; working range"),
}  # fmt: skip
# Follow from what is drawn above; stated here so that readers and tests see what to expect.
DERIVED: dict[str, tuple[float, float, str]] = {
    "trunk_width_mm": (300.0, 390.0, "at the lower ribs; working range"),
    "trunk_depth_mm": (200.0, 260.0, "supine; working range"),
    "kidney_right_volume_ml": (90.0, 250.0, "with medulla and pelvis (Emamian 1993: about 110-190 ml)"),
    "kidney_left_volume_ml": (90.0, 250.0, "as the right"),
    "spleen_volume_ml": (70.0, 350.0, "Prassopoulos 1997: 215 (107-315) ml"),
    "pancreas_volume_ml": (30.0, 120.0, "Saisho 2007: 72 +- 25 ml"),
    "gallbladder_volume_ml": (8.0, 60.0, "fasting; working range"),
}  # fmt: skip


@dataclass(frozen=True)
class BodyConfig:
    """Sampling of a procedural body.

    Args:
        spacing_mm: edge of the cubic voxels. 1 mm makes about 25 million of them; 3 mm serves quick tests.
        tilt_deg: rotation vector of the voxel grid about the middle of the body. The anatomy stays where it is.
        length_mm: craniocaudal extent of the grid.
        margin_mm: air around the skin.
        terminals: end branches of the portal tree, and of the three hepatic veins together.
    """

    spacing_mm: float = 1.0
    tilt_deg: tuple[float, float, float] = (0.0, 0.0, 0.0)
    length_mm: float = 264.0
    margin_mm: float = 10.0
    terminals: int = 160

    def __post_init__(self) -> None:
        check_range("spacing_mm", self.spacing_mm, 0.4, 6.0)
        for angle in self.tilt_deg:
            check_range("tilt_deg", angle, -30.0, 30.0)
        check_range("length_mm", self.length_mm, 200.0, 300.0)
        check_range("margin_mm", self.margin_mm, 2.0, 40.0)
        check_range("terminals", self.terminals, 20, 400)


def draw_measures(rng: np.random.Generator) -> dict[str, float]:
    """One value from each of RANGES, by name. Large people have large organs: a common part goes into every draw."""
    common = rng.standard_normal()
    values: dict[str, float] = {}
    shares: dict[str, float] = {}
    for name, (low, high, _) in RANGES.items():
        share = 0.0 if name == "fat_mm" else 0.1
        bell = 0.5 + share * common + math.sqrt(0.2**2 - share**2) * rng.standard_normal()
        if name == "liver_volume_ml":  # a long liver is a large one
            bell = 0.4 * bell + 0.6 * shares["liver_length_mm"] - 0.05
        shares[name] = float(np.clip(bell, 0.02, 0.98))
        values[name] = low + (high - low) * shares[name]
    return values
