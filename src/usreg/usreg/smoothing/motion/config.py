# SPDX-License-Identifier: Apache-2.0
"""Configuration of the breathing model."""

from __future__ import annotations

from dataclasses import dataclass

from ...config import check_range
from ...errors import ConfigError


@dataclass(frozen=True)
class BreathingModelConfig:
    """How breathing is learnt and followed.

    Args:
        min_period_s, max_period_s: length of a breath; others are not learnt from. min_depth_mm: a motion of less than
            this is no breathing.
        memory_s: how far back cycles are looked at. cycles: how many of them, the newest, the path is learnt from.
        harmonics: of the Fourier series of the path.
        jitter: random walk of the phase, cycles/sqrt(s). rest_mm, rest_rad: random walk of the resting pose,
            mm/sqrt(s), rad/sqrt(s).
        least_rate_spread, least_amplitude_spread: relative standard deviations of a cycle's rate and depth that are
            believed at least.
        switch_s: mean time after which another model of the bank takes over.
        window_s: length of what is compared with the path to find the phase.
        lost_phase: standard deviation of the phase, in cycles, beyond which it is searched anew.
    """

    min_period_s: float = 1.5
    max_period_s: float = 12.0
    min_depth_mm: float = 3.0
    memory_s: float = 45.0
    cycles: int = 8
    harmonics: int = 5
    jitter: float = 0.03
    rest_mm: float = 0.5
    rest_rad: float = 0.005
    least_rate_spread: float = 0.1
    least_amplitude_spread: float = 0.15
    switch_s: float = 3.0
    window_s: float = 1.5
    lost_phase: float = 0.12

    def __post_init__(self) -> None:
        ranges = {
            "min_period_s": (0.5, 10.0), "max_period_s": (1.0, 60.0), "min_depth_mm": (0.1, 100.0),
            "memory_s": (5.0, 600.0), "cycles": (1, 100), "harmonics": (1, 12), "jitter": (0.0, 1.0),
            "rest_mm": (0.0, 100.0), "rest_rad": (0.0, 1.0), "least_rate_spread": (0.01, 1.0),
            "least_amplitude_spread": (0.01, 1.0), "switch_s": (0.1, 1000.0), "window_s": (0.3, 10.0),
            "lost_phase": (0.01, 0.5),
        }  # fmt: skip
        for name, (low, high) in ranges.items():
            check_range(name, getattr(self, name), low, high)
        if self.min_period_s >= self.max_period_s:
            raise ConfigError(f"'min_period_s' {self.min_period_s} must be below 'max_period_s' {self.max_period_s}")
