# SPDX-License-Identifier: Apache-2.0
"""The wave on its way: echoes of interfaces, transmission through them, attenuation. All in pressure amplitude.

The impedance change is taken over one pulse length l, not from sample to sample: r(x) = (Z2 - Z1) / (Z2 + Z1) with Z
at x - l/2 and x + l/2, and the transmission is exp(integral log(1 - r^2) dx / l). A sharp step between two tissues is
then seen whole over the length l, and its transmission is exactly 1 - r^2; on soft label maps neither depends on the
step along the ray. Impedances are mixed by their logarithms: (Z2 - Z1) / (Z2 + Z1) = tanh(log(Z2 / Z1) / 2) then has
its maximum in the middle of the interface.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

FLAT = 1e-8  # squared slope of log impedance, 1/mm^2, below which there is no interface
SMALL = 1e-5  # rounds |r| at zero
AHEAD = 3.0  # half pulses above an interface at which the wave that it reflects is taken


@dataclass(frozen=True, eq=False)
class Wave:
    """Along rays (B, R, S).

    Args:
        interface: echo of the interfaces as it comes back to the face.
        arrival: what tissue's own echo is multiplied by on its way.
    """

    interface: Tensor
    arrival: Tensor


def propagate(
    log_impedance: Tensor,
    attenuation: Tensor,
    across: tuple[Tensor, Tensor],
    step_mm: float,
    pulse_mm: float,
    frequency_mhz: float,
    specular: float,
) -> Wave:
    """Go down the lines and back.

    Args:
        log_impedance, attenuation: (B, L, S), natural logarithm; dB/cm/MHz.
        across: derivatives (B, L, S) of log_impedance in the two directions across the line, per mm.
        specular: exponent of the cosine of the angle of incidence.
    """
    half = 0.5 * pulse_mm / step_mm
    change = shifted(log_impedance, half) - shifted(log_impedance, -half)
    r = torch.tanh(0.5 * change)
    log_transmission = integral(torch.log1p(-(1.0 - 1e-6) * r**2), step_mm) / pulse_mm
    absorbed = round_trip(attenuation, step_mm, frequency_mhz)
    along2 = (change / pulse_mm) ** 2
    across2 = sum(window_mean(a, half) ** 2 for a in across)
    cosine2 = (along2 + FLAT) / (along2 + across2 + FLAT)
    size = (r**2 + SMALL**2).sqrt() - SMALL
    # an interface reflects the wave that reaches it, before it has taken its share
    before = shifted(log_transmission, -AHEAD * half)
    return Wave(size * cosine2 ** (0.5 * specular) * (before + absorbed).exp(), (log_transmission + absorbed).exp())


def round_trip(attenuation: Tensor, step_mm: float, frequency_mhz: float) -> Tensor:
    """Logarithm of 10^(-2 a f d / 20) from the face to each sample, (..., S); a in dB/cm/MHz, f in MHz, d in cm."""
    decibel = 2.0 * frequency_mhz * integral(attenuation, step_mm) / 10.0
    return -decibel * (math.log(10.0) / 20.0)


def integral(values: Tensor, step_mm: float) -> Tensor:
    """Integral (..., S) from the first sample on, trapezoidal."""
    middle = 0.5 * (values[..., 1:] + values[..., :-1])
    return torch.nn.functional.pad(middle.cumsum(-1) * step_mm, (1, 0))


def shifted(values: Tensor, samples: float) -> Tensor:
    """values[..., s + samples] with linear interpolation; the ends go on."""
    whole = math.floor(samples)
    part = samples - whole
    last = values.shape[-1] - 1
    index = torch.arange(last + 1, device=values.device) + whole
    low = values.index_select(-1, index.clamp(0, last))
    return low if part == 0.0 else low + part * (values.index_select(-1, (index + 1).clamp(0, last)) - low)


def window_mean(values: Tensor, half: float) -> Tensor:
    """Mean (..., S) over s - half to s + half samples; beyond the ends there is nothing."""
    total = integral(values, 1.0)
    return (shifted(total, half) - shifted(total, -half)) / (2.0 * half)
