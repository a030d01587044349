# SPDX-License-Identifier: Apache-2.0
"""The point-spread function: a pulse with a carrier along depth, a beam across that widens with depth."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ...geometry.sector import SectorGeometry
from .beams import Beams, make_beams
from .config import FWHM_PER_SIGMA, SOUND_SPEED_MM_US, UltrasoundConfig

REACH = 3.0  # standard deviations that a kernel holds
MOST_LINES = 12  # half width of the beam's kernel, in lines


@dataclass(frozen=True, eq=False)
class PointSpread:
    """Separable kernels of one geometry, after demodulation (IQ), and the gains that keep echoes comparable.

    Args:
        axial: (A,) envelope of the pulse, sum 1. lateral: (T, S) profile of the beam over rays at each depth, sum 1.
        rays: per line.
        speckle_gain: (L, S): brings scatterers of mean square 1 back to mean square 1, whatever step, pitch and width.
        mirror_gain: (L, S): brings a wide interface with echo r back to r.
    """

    axial: Tensor
    lateral: Tensor
    rays: int
    speckle_gain: Tensor
    mirror_gain: Tensor

    def blurred(self, planes: Tensor) -> Tensor:
        """Lines (..., L, S) of rays (..., R, S): convolved with the beam across and the pulse along depth."""
        return self._blur(planes, self.axial.to(planes), self.lateral.to(planes))

    def blurred_power(self, power: Tensor) -> Tensor:
        """Expected power (..., L, S) of independent scatterers of power (..., R, S): the kernels are squared."""
        axial, lateral = (self.axial**2).to(power), (self.lateral**2).to(power)
        weight = self._blur(torch.ones_like(power[:1]), axial, lateral)
        return self._blur(power, axial, lateral) / weight

    def _blur(self, planes: Tensor, axial: Tensor, lateral: Tensor) -> Tensor:
        rays, depths = planes.shape[-2:]
        half = len(lateral) // 2
        padded = torch.nn.functional.pad(planes, (0, 0, half, half))
        total = padded[..., 0 : rays : self.rays, :] * lateral[0]
        for tap in range(1, len(lateral)):
            total = total + padded[..., tap : tap + rays : self.rays, :] * lateral[tap]
        flat = total.reshape(-1, 1, depths)
        return torch.nn.functional.conv1d(flat, axial[None, None], padding=len(axial) // 2).reshape(total.shape)


def carrier_pulse(distance_mm: Tensor, config: UltrasoundConfig) -> Tensor:
    """The two-way pulse itself, complex, at distances along depth: exp(-t^2 / 2 s^2) exp(2 i k t)."""
    envelope = torch.exp(-0.5 * (distance_mm / config.axial_sigma_mm) ** 2)
    return torch.polar(envelope, 4.0 * math.pi / config.wavelength_mm * distance_mm)


def radio_frequency(iq: Tensor, depth_mm: Tensor, config: UltrasoundConfig, rate_mhz: float) -> tuple[Tensor, Tensor]:
    """Radio-frequency lines of complex IQ lines: the carrier put back.

    Args:
        iq: (..., S) complex at depths (S,).
        rate_mhz: sampling rate of the result, above twice the frequency.

    Returns:
        Real lines (..., R) and their depths (R,), mm.
    """
    step = SOUND_SPEED_MM_US / (2.0 * rate_mhz)
    fine = torch.arange(float(depth_mm[0]), float(depth_mm[-1]), step, dtype=depth_mm.dtype, device=depth_mm.device)
    at = (fine - depth_mm[0]) / (depth_mm[1] - depth_mm[0])
    low = at.floor().long().clamp(0, len(depth_mm) - 2)
    part = (at - low).to(iq.real)
    base = iq[..., low] * (1.0 - part) + iq[..., low + 1] * part
    phase = 4.0 * math.pi / config.wavelength_mm * fine
    return (base * torch.polar(torch.ones_like(phase), phase).to(iq)).real, fine


@functools.lru_cache(maxsize=8)
def point_spread(geometry: SectorGeometry, config: UltrasoundConfig, field_sigma_mm: float) -> PointSpread:
    """Kernels and gains for a geometry.

    Args:
        field_sigma_mm: s of the scatterers' covariance exp(-d^2 / 4 s^2).
    """
    beams = make_beams(geometry, config)
    axial = _axial(beams, config)
    lateral = _lateral(beams, config)
    return PointSpread(axial, lateral, config.rays, *_gains(beams, config, axial, lateral, field_sigma_mm))


def beam_sigma_mm(depth_mm: Tensor, config: UltrasoundConfig) -> Tensor:
    """Standard deviation (S,) of the two-way beam across the lines.

    Dynamic focusing: at a constant f-number near the face, then with the whole aperture.
    """
    f_number = (config.f_number**2 + (depth_mm / config.aperture_mm) ** 2).sqrt()
    return config.wavelength_mm * f_number / FWHM_PER_SIGMA


def cell_mm3(geometry: SectorGeometry, config: UltrasoundConfig) -> float:
    """Volume of the resolution cell at half depth: the product of the three full widths at half maximum."""
    middle = make_beams(geometry, config).depth_mm.mean()
    lateral = float(beam_sigma_mm(middle, config)) * FWHM_PER_SIGMA
    return 0.5 * config.pulse_mm * lateral * config.elevation_mm


def _axial(beams: Beams, config: UltrasoundConfig) -> Tensor:
    sigma = config.axial_sigma_mm / beams.step_mm
    half = max(1, math.ceil(REACH * sigma))
    kernel = torch.exp(-0.5 * (torch.arange(-half, half + 1, dtype=torch.float64) / sigma) ** 2)
    return kernel / kernel.sum()


def _lateral(beams: Beams, config: UltrasoundConfig) -> Tensor:
    most = MOST_LINES * config.rays
    sigma = (beam_sigma_mm(beams.depth_mm, config) / beams.pitch_mm.clamp_min(1e-6)).clamp_max(4.0 * most)
    half = min(most, max(1, math.ceil(REACH * float(sigma.max()))))
    distance = torch.arange(-half, half + 1, dtype=torch.float64)[:, None]
    kernel = torch.exp(-0.5 * (distance / sigma) ** 2)
    kernel[distance.abs() > REACH * sigma + 1.0] = 0.0
    return kernel / kernel.sum(0)


def _gains(beams: Beams, config: UltrasoundConfig, axial: Tensor, lateral: Tensor, s: float) -> tuple[Tensor, Tensor]:
    """Speckle and mirror gain (L, S): 1 / root of the power of blurred unit scatterers, 1 / weight on existing rays."""
    (taps, depths), rays = lateral.shape, len(beams.origin_mm)
    inside = _within(rays, taps)[:: config.rays]
    count = len(inside)
    along = _power(axial * _within(depths, len(axial)), beams.depth_mm.new_full((1,), beams.step_mm), s)
    distance = torch.arange(taps, dtype=torch.float64)
    distance = (distance[:, None] - distance).abs()
    across = torch.empty(count, depths, dtype=torch.float64)
    for d in range(depths):
        covariance = torch.exp(-((distance * beams.pitch_mm[d]) ** 2) / (4.0 * s * s))
        w = inside * lateral[:, d]
        across[:, d] = ((w @ covariance) * w).sum(-1)
    # a sharp interface is seen over one pulse: the share of the pulse's envelope within half a length on either side
    seen = math.erf(0.5 * config.pulse_mm / (math.sqrt(2.0) * config.axial_sigma_mm))
    return (along * across).rsqrt(), 1.0 / ((inside @ lateral) * seen)


def _power(weights: Tensor, step: Tensor, s: float) -> Tensor:
    """Power (N,) of sums with weights (N, T) of unit scatterers at equal steps."""
    t = torch.arange(weights.shape[1], dtype=torch.float64)
    covariance = torch.exp(-(((t[:, None] - t) * step) ** 2) / (4.0 * s * s))
    return ((weights @ covariance) * weights).sum(-1)


def _within(count: int, taps: int) -> Tensor:
    """(count, taps) 1 where a kernel about each position meets an existing one."""
    at = torch.arange(count)[:, None] + torch.arange(taps) - taps // 2
    return ((at >= 0) & (at < count)).to(torch.float64)
