# SPDX-License-Identifier: Apache-2.0
"""Configuration of the pose filter."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ..config import check_range
from ..errors import ConfigError
from .motion.config import BreathingModelConfig

Axes = tuple[float, float, float]


@dataclass(frozen=True)
class FilterConfig:
    """How the volume may move, what is believed, and when the pose is lost.

    Args:
        model: "random_walk" (the volume rests or drifts), "constant_velocity" (slow shifts, breathing), or "breathing":
            both beside a path of the breath that is learnt on the way, weighted by how well each foretells.
        walk_mm, walk_rad: random walk of the volume's centre and orientation per world axis, mm/sqrt(s), rad/sqrt(s).
        acceleration_mm, acceleration_rad: white acceleration per world axis of the constant-velocity model, mm/s^1.5,
            rad/s^1.5. velocity_mm_s, velocity_rad_s: its standard deviation of velocity at the beginning.
        gate_probability: an estimate is gated out beyond this quantile of chi-square with 6 degrees of freedom.
        floor_mm, floor_rad: standard deviation added in quadrature to every estimate. Estimates of neighbouring frames
            start from this filter's prediction and share tracking and calibration, so their errors are not independent;
            without a floor the covariance would shrink as if they were.
        max_prediction_s: a pose is given out at most this long after the newest accepted estimate.
        max_sigma_mm, max_sigma_rad: standard deviation in the worst direction, at the volume's centre, up to which a
            pose is given out.
        history: estimates that are kept for late results and for `lagged`.
        max_late_s: an estimate may be this much older than the newest one.
        lag_s: of the fixed-lag output.
        jump_count: so many gated-out estimates in a row that agree with each other re-initialise the filter; 0: never.
        jump_gap_s: they may lie at most this far apart in time.
        regain_count: without an accepted estimate for regain_after_s, so many of them in a row that agree with each
            other begin anew; 1: a single one inside the gate goes on.
        breathing: how the path of the breath is learnt and followed.
    """

    model: Literal["random_walk", "constant_velocity", "breathing"] = "random_walk"
    walk_mm: Axes = (2.0, 2.0, 2.0)
    walk_rad: Axes = (0.02, 0.02, 0.02)
    acceleration_mm: Axes = (10.0, 10.0, 10.0)
    acceleration_rad: Axes = (0.05, 0.05, 0.05)
    velocity_mm_s: float = 10.0
    velocity_rad_s: float = 0.05
    gate_probability: float = 0.999
    floor_mm: float = 0.2
    floor_rad: float = 0.002
    max_prediction_s: float = 0.3
    max_sigma_mm: float = 5.0
    max_sigma_rad: float = 0.1
    history: int = 128
    max_late_s: float = 1.0
    lag_s: float = 1.0
    jump_count: int = 5
    jump_gap_s: float = 0.5
    regain_count: int = 1
    regain_after_s: float = 1.0
    breathing: BreathingModelConfig = field(default_factory=BreathingModelConfig)

    def __post_init__(self) -> None:
        for name in ("walk_mm", "walk_rad", "acceleration_mm", "acceleration_rad"):
            axes = getattr(self, name)
            if len(axes) != 3:
                raise ConfigError(f"'{name}' has {len(axes)} values; one for each of x, y, z is expected")
            for axis, value in zip("xyz", axes, strict=True):
                check_range(f"{name}.{axis}", value, 0, 1e6)
        for name in ("velocity_mm_s", "velocity_rad_s", "floor_mm", "floor_rad"):
            check_range(name, getattr(self, name), 0, 1e6)
        for name in ("max_sigma_mm", "max_sigma_rad"):
            check_range(name, getattr(self, name), 1e-6, 1e6)
        check_range("gate_probability", self.gate_probability, 0.5, 1 - 1e-12)
        check_range("max_prediction_s", self.max_prediction_s, 0, 10)
        check_range("history", self.history, 2, 10000)
        check_range("max_late_s", self.max_late_s, 0, 60)
        check_range("lag_s", self.lag_s, 0, 60)
        check_range("jump_count", self.jump_count, 0, 1000)
        check_range("regain_count", self.regain_count, 1, 1000)
        check_range("regain_after_s", self.regain_after_s, 0, 60)
        check_range("jump_gap_s", self.jump_gap_s, 1e-3, 60)
        if self.jump_count == 1:
            raise ConfigError("'jump_count' is 1: a single outlier would re-initialise; give 0 (never) or 2 and more")
