# SPDX-License-Identifier: Apache-2.0
"""A CT of a body: Hounsfield units by structure and contrast phase, partial volume, correlated noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from ...config import check_range
from ...data.types import Volume
from ...errors import ConfigError
from ...geometry.grid import VoxelGrid
from .sampling import Field, blur, regrid, resample, scanner_sigma_mm, slow_field, structure_values
from .types import STRUCTURES, Body

Contrast = Literal["none", "arterial", "portal"]
PHASES = ("none", "arterial", "portal")
# HU unenhanced, late arterial (35 s), portal venous (70 s), and their spread (one standard deviation, used both
# between bodies and within an organ). Rounded typical adult values at 120 kV: unenhanced within the ranges of Lamba et
# al., AJR 203 (2014) 1013 (soft tissues) and Kalender, Computed Tomography (3rd ed. 2011), table 1.2 (bone, lung,
# fat); enhanced from the time-attenuation curves in Bae, Radiology 256 (2010) 32. Ribs and spine: cortical and
# trabecular bone with marrow, as a voxel of 1 mm sees them. Lung bases: at the end of expiration.
# fmt: off
HU: dict[str, tuple[float, float, float, float]] = {
    "outside":              (-1000, -1000, -1000,  0),
    "skin":                 (   40,    45,    55,  6),
    "subcutaneous_fat":     ( -105,  -105,  -103,  6),
    "muscle":               (   52,    58,    65,  6),
    "visceral_fat":         (  -98,   -98,   -96,  7),
    "ribs":                 (  430,   430,   430, 70),
    "costal_cartilage":     (  110,   110,   112, 12),
    "spine":                (  240,   245,   250, 50),
    "lung_right":           ( -780,  -775,  -775, 25),
    "lung_left":            ( -780,  -775,  -775, 25),
    "liver":                (   57,    72,   110,  4),
    "portal_vein":          (   40,   110,   170,  4),
    "hepatic_vein":         (   40,    55,   160,  4),
    "gallbladder":          (    8,     8,     9,  3),
    "kidney_right_cortex":  (   32,   160,   185,  6),
    "kidney_right_medulla": (   30,    65,   150,  6),
    "kidney_right_pelvis":  (    8,     8,    12,  4),
    "kidney_left_cortex":   (   32,   160,   185,  6),
    "kidney_left_medulla":  (   30,    65,   150,  6),
    "kidney_left_pelvis":   (    8,     8,    12,  4),
    "spleen":               (   48,   115,   120,  4),
    "pancreas":             (   40,   100,    92,  6),
    "stomach":              (   25,    30,    32,  8),
    "bowel":                (   32,    50,    60, 10),
    "bowel_gas":            ( -950,  -950,  -950, 15),
    "aorta":                (   40,   300,   160,  5),
    "inferior_vena_cava":   (   40,    90,   140,  6),
    "lesion_hypoechoic":    (   42,    50,    68,  5),
    "lesion_hyperechoic":   (   40,   105,   135,  6),
    "lesion_cyst":          (    6,     6,     7,  3),
    "diaphragm":            (   50,    58,    65,  5),
}
# fmt: on


@dataclass(frozen=True)
class CtConfig:
    """How the CT is taken.

    Args:
        contrast: none, arterial (35 s after injection) or portal (70 s).
        spacing_mm: of the voxels along x, y, z of the body's grid; None: the body's own. (0.8, 0.8, 5.0) gives thick
            slices.
        psf_mm: standard deviation of the scanner's point spread; the width of the voxels is added to it.
        noise_hu: standard deviation of the noise.
        grain_mm: size of its grain in the slice: the noise of a soft-tissue kernel is band-pass.
        scale_mm: over which tissue varies within an organ.
    """

    contrast: Contrast = "portal"
    spacing_mm: tuple[float, float, float] | None = None
    psf_mm: float = 0.7
    noise_hu: float = 12.0
    grain_mm: float = 0.7
    scale_mm: float = 6.0

    def __post_init__(self) -> None:
        if self.contrast not in PHASES:
            raise ConfigError(f"'contrast' is '{self.contrast}'; choose one of {', '.join(PHASES)}")
        for s in self.spacing_mm or ():
            check_range("spacing_mm", s, 0.3, 20.0)
        check_range("psf_mm", self.psf_mm, 0.0, 5.0)
        check_range("noise_hu", self.noise_hu, 0.0, 200.0)
        check_range("grain_mm", self.grain_mm, 0.1, 5.0)
        check_range("scale_mm", self.scale_mm, 1.0, 100.0)


def ct_image(body: Body, rng: np.random.Generator, config: CtConfig | None = None) -> Volume:
    """Take a CT of a body.

    Partial volume: attenuation of a mixture is linear in its parts, so the Hounsfield map blurred by the point spread
    is the sum over structures of their soft (anti-aliased) maps times their values, without a map per structure.

    Args:
        body: at rest. rng: what noise and tissue follow from.

    Returns:
        int16 HU (1, D, H, W), modality "CT", on the body's grid or one of another spacing over the same box.

    Raises:
        ShapeError: a label value that is not in STRUCTURES. ConfigError: a value out of its range.
    """
    config = config or CtConfig()
    grid = body.labels.grid
    target = grid if config.spacing_mm is None else regrid(grid, config.spacing_mm)
    hu = _tissue(body, rng, config)
    blur(hu, grid, scanner_sigma_mm(config.psf_mm, grid, target))
    if target is not grid:
        hu = resample(hu, grid, target)
    if config.noise_hu > 0:
        hu += ct_noise(target, rng, config)
    np.clip(np.rint(hu, out=hu), -1024, 3071, out=hu)
    return Volume(torch.from_numpy(hu.astype(np.int16))[None], target, "CT")


def hu_table(contrast: Contrast) -> tuple[Field, Field]:
    """Mean and spread by label value, HU."""
    rows = [HU[STRUCTURES[v]] for v in sorted(STRUCTURES)]
    phase = PHASES.index(contrast)
    return np.array([r[phase] for r in rows], np.float32), np.array([r[3] for r in rows], np.float32)


def _tissue(body: Body, rng: np.random.Generator, config: CtConfig) -> Field:
    """Sharp HU (D, H, W): the body's own mean of every structure, and slow variation within."""
    labels = structure_values(body)
    mean, spread = hu_table(config.contrast)
    mean = mean + spread * rng.standard_normal(len(mean)).clip(-2, 2).astype(np.float32)
    hu = slow_field(body.labels.grid, config.scale_mm, rng)
    hu *= spread[labels]
    hu += mean[labels]
    return hu


def ct_noise(grid: VoxelGrid, rng: np.random.Generator, config: CtConfig) -> Field:
    """Noise (D, H, W), HU: band-pass in the slice as filtered back-projection leaves it, correlated along z.

    Source: Riederer, Pelc, Chesler, Phys. Med. Biol. 23 (1978) 446: the noise power rises with frequency (ramp) and
    falls with the kernel; here the difference of two Gaussians.
    """
    noise = rng.standard_normal(grid.size[::-1], dtype=np.float32)
    grain = config.grain_mm
    blur(noise, grid, (grain, grain, grain))
    noise -= 0.8 * blur(noise.copy(), grid, (2 * grain, 2 * grain, 0.0))
    noise *= np.float32(config.noise_hu / max(float(noise.std(dtype=np.float64)), 1e-6))
    return noise
