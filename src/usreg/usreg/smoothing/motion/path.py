# SPDX-License-Identifier: Apache-2.0
"""The closed way of the volume over one breath: a Fourier series over the phase, in SE(3) about the volume's centre."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class BreathPath:
    """P(phase) (6,): shift of the volume's centre, mm, and rotation vector, rad, world axes, from the resting pose.

    Inspiration and expiration have phases of their own, so that they may take different ways (hysteresis).

    Args:
        weights: (2 K, 6) of cos(2 pi k phase), k = 1..K, then of the sines. offset: (6,), so that P is 0 at rest.
        rate_hz: mean cycles per second. rate_spread, amplitude_spread: relative standard deviations over the cycles.
        base: (6,) of the resting pose relative to the memory's reference. sigma: (6,) standard deviation of a point of
            the path, from the scatter of the estimates about it. cycles: how many it was learnt from.
        learnt_s: end of the newest of them.
    """

    weights: Array
    offset: Array
    rate_hz: float
    rate_spread: float
    amplitude_spread: float
    base: Array
    sigma: Array
    cycles: int
    learnt_s: float

    def at(self, phase: Array | float) -> Array:
        """P (..., 6) at phases (...), in cycles."""
        return np.asarray(harmonics(phase, len(self.weights) // 2) @ self.weights + self.offset)

    def slope(self, phase: Array | float) -> Array:
        """dP/dphase (..., 6), per cycle."""
        count = len(self.weights) // 2
        waves = harmonics(phase, count)
        turn = 2 * np.pi * np.arange(1, count + 1)
        return np.asarray(np.concatenate([-turn * waves[..., count:], turn * waves[..., :count]], -1) @ self.weights)


def harmonics(phase: Array | float, count: int) -> Array:
    """Cosines, then sines (..., 2 count) of the multiples 1..count of phases (...), in cycles."""
    angle = 2 * np.pi * np.asarray(phase, dtype=np.float64)[..., None] * np.arange(1, count + 1)
    return np.concatenate([np.cos(angle), np.sin(angle)], -1)
