# SPDX-License-Identifier: Apache-2.0
"""The pulse in space: its width along range, across the lines and out of the plane, as they change with depth.

Gaussian beam widths after Szabo 2014 (Diagnostic Ultrasound Imaging, ch. 6): an aperture A at depth z resolves about
0.42 lambda z / A (standard deviation of the one-way amplitude); away from a fixed focus the beam widens geometrically.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...compiled import njit
from .config import ScannerConfig
from .lines import ScanLines

Array = NDArray[np.float64]
Image = NDArray[np.float32]
DIFFRACTION = 0.42
REACH_SIGMA = 2.3  # scatterers further out of the plane are left out
FEWEST, FADE = 0.25, 0.2  # smallest share of the scatterers that is used, and over which share they fade out
STRETCH = 0.35  # the pulse at full depth is this much longer: high frequencies are lost on the way


@dataclass(frozen=True, eq=False)
class Beam:
    """Widths and kernels for every sample of a line.

    Args:
        elevation_mm: (samples,) standard deviation of the two-way amplitude out of the plane.
        bend_per_mm: (samples,) curvature of the wavefront out of the plane: range grows by e^2/2 times this.
        axial: (samples, 2a+1) and lateral: (samples, 2b+1) kernels over samples and lines, scaled so that one scatterer
        per mm^3 of strength 1 gives a root mean square of 1 at every depth.
        pulse_mm: (samples,) standard deviation of the pulse along range.
        keep: (samples,) share of the scatterers that is used: fewer where a resolution cell is larger.
    """

    elevation_mm: Array
    bend_per_mm: Array
    axial: Image
    lateral: Image
    pulse_mm: Array
    keep: Array


def make_beam(config: ScannerConfig, lines: ScanLines) -> Beam:
    """The beam of an array over all depths of its lines."""
    depth = lines.depths_mm
    pitch = np.maximum(lines.pitch_mm(depth), 1e-3)
    elevation, bend = _elevation(config, depth)
    pulse = config.pulse_sigma_mm * (1 + STRETCH * depth / max(depth[-1], 1e-9))
    axial = _gaussian(pulse / lines.sample_mm, 0.0)
    width = lateral_mm(config, depth)
    lateral = _gaussian(np.clip(width / pitch, 0.7, 12.0), 10 ** (-config.side_lobe_db / 20))
    cell = pulse * width * elevation
    keep = np.maximum(FEWEST, cell.min() / cell)
    power = _power(axial) * _power(lateral) * lines.sample_mm * pitch * elevation * math.sqrt(math.pi)
    power *= np.square(fading(keep[:, None], np.linspace(0, 1, 256, endpoint=False) + 1 / 512)).mean(1)
    return Beam(elevation, bend, axial, (lateral / np.sqrt(power)[:, None]).astype(np.float32), pulse, keep)


def fading(keep: Array, rank: Array) -> Array:
    """Weight of scatterers by their rank, 0 to 1, so that none appears at once as it moves to another depth."""
    return np.asarray(np.clip((keep * (1 + FADE) - rank) / (FADE * keep), 0.0, 1.0))


def lateral_mm(config: ScannerConfig, depth_mm: Array) -> Array:
    """Standard deviation of the two-way amplitude across the lines: focus of transmission times dynamic receive."""
    transmit = _focused(config.wavelength_mm, config.focus_mm / config.f_number / 1.3, config.focus_mm, depth_mm)
    number = np.maximum(config.f_number, depth_mm / config.aperture_mm)
    return _two_way(transmit, DIFFRACTION * config.wavelength_mm * number)


def _elevation(config: ScannerConfig, depth_mm: Array) -> tuple[Array, Array]:
    """Width out of the plane and curvature of a Gaussian beam with a fixed lens."""
    focus = config.elevation_focus_mm
    one_way = _focused(config.wavelength_mm, config.elevation_mm, focus, depth_mm)
    waist = DIFFRACTION * config.wavelength_mm * focus / config.elevation_mm
    rayleigh = 4 * math.pi * waist**2 / config.wavelength_mm
    away = depth_mm - focus
    return one_way / math.sqrt(2), away / (away**2 + rayleigh**2)


def _focused(wavelength: float, aperture: float, focus: float, depth: Array) -> Array:
    """One-way width of a beam focused once: diffraction and the geometric cone about the focus."""
    diffraction = DIFFRACTION * wavelength * np.maximum(depth, 0.3 * focus) / aperture
    cone = aperture / 4 * np.abs(1 - depth / focus)
    return np.asarray(np.hypot(diffraction, cone))


def _two_way(a: Array, b: Array) -> Array:
    return np.asarray(a * b / np.hypot(a, b))


def _gaussian(sigma: Array, side_lobe: float) -> Image:
    """Kernels (n, 2k+1) with standard deviations in samples; side lobes alternate in sign about the main lobe."""
    reach = 3.0 if side_lobe == 0 else 8.0
    half = max(1, math.ceil(reach * float(sigma.max())))
    x = np.arange(-half, half + 1) / sigma[:, None]
    lobes = side_lobe * np.exp(-0.5 * (x / 3.5) ** 2) * np.cos(2 * math.pi * x / 3.2)
    return np.asarray(np.exp(-0.5 * x**2) + lobes * (np.abs(x) > 0.8), dtype=np.float32)


def _power(kernel: Image) -> Array:
    """Mean energy of a kernel whose input is split linearly between two neighbours, over all places between them."""
    k = kernel.astype(np.float64)
    return np.asarray(2 / 3 * (k**2).sum(1) + 1 / 3 * (k[:, 1:] * k[:, :-1]).sum(1))


@njit()
def convolve(field: Image, axial: Image, lateral: Image, pad: int) -> Image:
    """Echoes (2, samples, lines + 2 pad), real and imaginary, blurred along range and across the lines.

    Sums run in a fixed order: the result does not depend on threads.

    Returns:
        (2, samples, lines): the padding, which only feeds the edges, is cut off.
    """
    parts, rows, width = field.shape
    count = width - 2 * pad
    a, b = axial.shape[1] // 2, lateral.shape[1] // 2
    out = np.zeros((parts, rows, count), np.float32)
    wide = np.zeros(width + 2 * b, np.float32)
    for part in range(parts):
        for row in range(rows):
            wide[:] = 0
            middle = wide[b : b + width]
            for t in range(max(0, row - a), min(rows, row + a + 1)):
                weight = axial[row, t - row + a]
                source = field[part, t]
                for j in range(width):
                    middle[j] += weight * source[j]
            target = out[part, row]
            for t in range(2 * b + 1):
                weight = lateral[row, t]
                if weight != 0:
                    shifted = wide[pad + t : pad + t + count]
                    for j in range(count):
                        target[j] += weight * shifted[j]
    return out
