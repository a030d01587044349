# SPDX-License-Identifier: Apache-2.0
"""MR-like images of a body: T1- and T2-weighted signals from relaxation times, bias field, Rician noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from ...config import check_range
from ...data.types import Volume
from ...errors import ConfigError
from .sampling import Field, blur, regrid, resample, scanner_sigma_mm, slow_field, structure_values
from .types import STRUCTURES, VALUE, Body

Weighting = Literal["t1", "t2"]
FULL_SCALE = 1000.0  # of the brightest tissue, before bias
# T1 and T2 in ms at 1.5 T and 3 T, and proton density relative to water. Liver, kidney, spleen, pancreas, muscle,
# marrow (spine, ribs) and fat: de Bazelaire et al., Radiology 230 (2004) 652. Blood and cartilage: Stanisz et al.,
# Magn. Reson. Med. 54 (2005) 507. Assumed, so that the order of grey values is that of clinical images: bile, urine and
# cyst (nearly water), skin, stomach, bowel, lesions, lung, and all proton densities.
# fmt: off
RELAXATION: dict[str, tuple[float, float, float, float, float]] = {
    #                        T1 1.5   T2 1.5   T1 3    T2 3   density
    "outside":              (1000.0,    1.0, 1000.0,    1.0, 0.00),
    "skin":                 ( 700.0,   35.0,  850.0,   30.0, 0.60),
    "subcutaneous_fat":     ( 343.0,   58.0,  382.0,   68.0, 0.90),
    "muscle":               ( 856.0,   27.0,  898.0,   29.0, 0.80),
    "visceral_fat":         ( 343.0,   58.0,  382.0,   68.0, 0.90),
    "ribs":                 ( 549.0,   49.0,  586.0,   49.0, 0.35),
    "costal_cartilage":     (1024.0,   30.0, 1168.0,   27.0, 0.70),
    "spine":                ( 549.0,   49.0,  586.0,   49.0, 0.65),
    "lung_right":           (1200.0,   30.0, 1270.0,   25.0, 0.15),
    "lung_left":            (1200.0,   30.0, 1270.0,   25.0, 0.15),
    "liver":                ( 586.0,   46.0,  809.0,   34.0, 0.80),
    "portal_vein":          (1441.0,  290.0, 1932.0,  275.0, 0.85),
    "hepatic_vein":         (1441.0,  290.0, 1932.0,  275.0, 0.85),
    "gallbladder":          (2000.0,  500.0, 2500.0,  450.0, 0.95),
    "kidney_right_cortex":  ( 966.0,   87.0, 1142.0,   76.0, 0.85),
    "kidney_right_medulla": (1412.0,   85.0, 1545.0,   81.0, 0.85),
    "kidney_right_pelvis":  (2500.0,  600.0, 3000.0,  500.0, 0.95),
    "kidney_left_cortex":   ( 966.0,   87.0, 1142.0,   76.0, 0.85),
    "kidney_left_medulla":  (1412.0,   85.0, 1545.0,   81.0, 0.85),
    "kidney_left_pelvis":   (2500.0,  600.0, 3000.0,  500.0, 0.95),
    "spleen":               (1057.0,   79.0, 1328.0,   61.0, 0.85),
    "pancreas":             ( 584.0,   46.0,  725.0,   43.0, 0.80),
    "stomach":              (1200.0,  100.0, 1400.0,   90.0, 0.85),
    "bowel":                (1100.0,   80.0, 1300.0,   75.0, 0.85),
    "bowel_gas":            (1000.0,    1.0, 1000.0,    1.0, 0.00),
    "aorta":                (1441.0,  290.0, 1932.0,  275.0, 0.85),
    "inferior_vena_cava":   (1441.0,  290.0, 1932.0,  275.0, 0.85),
    "lesion_hypoechoic":    ( 900.0,   75.0, 1150.0,   62.0, 0.85),
    "lesion_hyperechoic":   (1300.0,  140.0, 1600.0,  120.0, 0.90),
    "lesion_cyst":          (2600.0,  700.0, 3200.0,  600.0, 1.00),
    "diaphragm":            ( 856.0,   27.0,  898.0,   29.0, 0.80),
}
# fmt: on


@dataclass(frozen=True)
class MrConfig:
    """How the MR is taken.

    Args:
        weighting: "t1": 3D spoiled gradient echo; "t2": spin echo.
        field_t: 1.5 or 3.0.
        gradient_ms: repetition and echo time of the gradient echo; flip_deg: its angle. spin_ms: of the spin echo.
        spacing_mm: of the voxels along x, y, z of the body's grid; None: the body's own.
        psf_mm: standard deviation of the point spread; the width of the voxels is added to it.
        snr: signal of the liver over the standard deviation of the noise in each of the two channels.
        bias: relative standard deviation of the slow sensitivity of the coils, over bias_mm.
        variation: relative standard deviation of the signal within an organ, over scale_mm.
    """

    weighting: Weighting = "t1"
    field_t: float = 3.0
    gradient_ms: tuple[float, float] = (4.5, 2.2)
    flip_deg: float = 12.0
    spin_ms: tuple[float, float] = (3000.0, 80.0)
    spacing_mm: tuple[float, float, float] | None = None
    psf_mm: float = 0.7
    snr: float = 25.0
    bias: float = 0.12
    bias_mm: float = 120.0
    variation: float = 0.04
    scale_mm: float = 6.0

    def __post_init__(self) -> None:
        if self.weighting not in ("t1", "t2") or self.field_t not in (1.5, 3.0):
            given = f"'weighting' is '{self.weighting}', 'field_t' {self.field_t}"
            raise ConfigError(f"{given}; choose t1 or t2, and 1.5 or 3.0")
        for repetition, echo in (self.gradient_ms, self.spin_ms):
            check_range("repetition_ms", repetition, 1.0, 20000.0)
            check_range("echo_ms", echo, 0.1, repetition)
        check_range("flip_deg", self.flip_deg, 1.0, 90.0)
        for s in self.spacing_mm or ():
            check_range("spacing_mm", s, 0.3, 20.0)
        check_range("psf_mm", self.psf_mm, 0.0, 5.0)
        check_range("snr", self.snr, 1.0, 1e6)
        check_range("bias", self.bias, 0.0, 0.5)
        check_range("bias_mm", self.bias_mm, 20.0, 1000.0)
        check_range("variation", self.variation, 0.0, 0.3)
        check_range("scale_mm", self.scale_mm, 1.0, 100.0)


def mr_image(body: Body, rng: np.random.Generator, config: MrConfig | None = None) -> Volume:
    """Take an MR image of a body; flow, chemical shift and susceptibility are left out.

    Args:
        body: at rest. rng: what noise, bias and tissue follow from.

    Returns:
        int16 (1, D, H, W), modality "MR", the brightest tissue near 1000; on the body's grid or one of another spacing
        over the same box.

    Raises:
        ShapeError: a label value that is not in STRUCTURES. ConfigError: a value out of its range.
    """
    config = config or MrConfig()
    grid = body.labels.grid
    target = grid if config.spacing_mm is None else regrid(grid, config.spacing_mm)
    table = signals(config)
    signal = slow_field(grid, config.scale_mm, rng)
    signal *= np.float32(config.variation)
    signal += 1.0
    signal *= table[structure_values(body)]
    blur(signal, grid, scanner_sigma_mm(config.psf_mm, grid, target))  # signals of a mixture add: partial volume
    if target is not grid:
        signal = resample(signal, grid, target)
    if config.bias > 0:
        signal *= np.exp(np.float32(config.bias) * slow_field(target, config.bias_mm, rng))
    data = rician(signal, float(table[VALUE["liver"]]) / config.snr, rng)
    np.clip(np.rint(data, out=data), 0, 32767, out=data)
    return Volume(torch.from_numpy(data.astype(np.int16))[None], target, "MR")


def signals(config: MrConfig) -> Field:
    """Signal by label value, the largest FULL_SCALE.

    Source: spoiled gradient echo s = d sin(a) (1 - E1) / (1 - cos(a) E1) exp(-TE/T2) (T2* taken as T2: the echo time is
    short); spin echo s = d (1 - exp(-TR/T1)) exp(-TE/T2). Haacke et al., Magnetic Resonance Imaging (1999), ch. 8, 18.
    """
    rows = np.array([RELAXATION[STRUCTURES[v]] for v in sorted(STRUCTURES)])
    t1, t2 = (rows[:, 0], rows[:, 1]) if config.field_t == 1.5 else (rows[:, 2], rows[:, 3])
    if config.weighting == "t1":
        repetition, echo = config.gradient_ms
        angle, e1 = np.radians(config.flip_deg), np.exp(-repetition / t1)
        signal = np.sin(angle) * (1 - e1) / (1 - np.cos(angle) * e1)
    else:
        repetition, echo = config.spin_ms
        signal = 1 - np.exp(-repetition / t1)
    signal = rows[:, 4] * signal * np.exp(-echo / t2)
    return (FULL_SCALE * signal / signal.max()).astype(np.float32)


def rician(signal: Field, sigma: float, rng: np.random.Generator) -> Field:
    """Magnitude of a signal with independent Gaussian noise in its two channels, in place.

    Source: Gudbjartsson, Patz, Magn. Reson. Med. 34 (1995) 910.
    """
    noise = rng.standard_normal(signal.shape, dtype=np.float32)
    noise *= np.float32(sigma)
    signal += noise
    rng.standard_normal(dtype=np.float32, out=noise)
    noise *= np.float32(sigma)
    return np.hypot(signal, noise, out=signal)
