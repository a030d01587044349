# SPDX-License-Identifier: Apache-2.0
"""Joint limits: position and velocity, rad (mm for prismatic joints)."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from ..errors import KinematicsError


@dataclass(frozen=True)
class JointLimits:
    """Limits per joint in the order of the chain.

    Args:
        lower, upper: rad or mm; infinite for continuous joints.
        velocity: rad/s or mm/s, above zero; infinite where none is stated.
        tolerance: measured values may pass a position limit by this much (encoder offset, compliance of the stop).
    """

    lower: tuple[float, ...]
    upper: tuple[float, ...]
    velocity: tuple[float, ...]
    tolerance: float = 0.01

    def __post_init__(self) -> None:
        if not len(self.lower) == len(self.upper) == len(self.velocity):
            raise KinematicsError(
                f"limits differ in count: {len(self.lower)} lower, {len(self.upper)} upper, {len(self.velocity)} "
                "velocity"
            )
        for low, high, speed in zip(self.lower, self.upper, self.velocity, strict=True):
            if not low < high or not speed > 0:
                raise KinematicsError(f"a joint needs lower < upper and velocity > 0, got [{low}, {high}] and {speed}")

    def check(self, position: Sequence[float], names: Sequence[str], sliding: Collection[str] = ()) -> None:
        """Raise KinematicsError that names the first joint outside its limits, or any that is not finite; `sliding` are
        the names of the prismatic joints."""
        if not math.isfinite(sum(position)):  # one sum instead of n calls: this runs at 500 Hz
            bad = [n for n, p in zip(names, position, strict=True) if not math.isfinite(p)]
            raise KinematicsError(f"joint position of {bad} is not finite: the driver sends no valid encoder values")
        t = self.tolerance
        for name, p, low, high in zip(names, position, self.lower, self.upper, strict=True):
            if p < low - t or p > high + t:
                raise KinematicsError(_outside(name, p, low, high, name in sliding))

    def check_velocity(self, velocity: Sequence[float], names: Sequence[str]) -> None:
        """Raise KinematicsError that names the first joint faster than its limit, or not finite."""
        for name, v, limit in zip(names, velocity, self.velocity, strict=True):
            if not abs(v) <= limit:
                raise KinematicsError(
                    f"joint '{name}' moves at {v:.4f} per second, its limit is {limit:.4f}: slow the path down"
                )


def _outside(name: str, position: float, low: float, high: float, slides: bool) -> str:
    if slides:
        return (
            f"joint '{name}' is at {position:.3f} mm, its limits are [{low:.3f}, {high:.3f}] mm: positions of sliding "
            "joints are expected in metres in JointState, in mm here; check the arm's model and its names"
        )
    return (
        f"joint '{name}' is at {position:.4f} ({math.degrees(position):.1f} deg), its limits are [{low:.4f}, "
        f"{high:.4f}]: positions are expected in radians; check the arm's model and its names"
    )
