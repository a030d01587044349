# SPDX-License-Identifier: Apache-2.0
"""A body that lies still is registered from several recent frames at once: a single one may look like another place.

The arm tells how the frames lie to each other, so that they are one sweep that grows and forgets. Not for a body that
breathes: frames of different phases do not share one pose.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..config import check_range
from ..data.types import Estimate, Problem, TrackedFrame, Volume
from ..geometry import se3
from .registrar import Registrar
from .scene import image_points


@dataclass(frozen=True)
class WindowConfig:
    """Which frames stay.

    Args:
        frames: so many besides the newest. apart_mm: their images differ by at least this much motion of some point.
        max_age_s: older frames are forgotten.
    """

    frames: int = 5
    apart_mm: float = 10.0
    max_age_s: float = 30.0

    def __post_init__(self) -> None:
        check_range("frames", self.frames, 1, 100)
        check_range("apart_mm", self.apart_mm, 0.1, 1000.0)
        check_range("max_age_s", self.max_age_s, 0.01, 3600.0)


class Window(Registrar):
    """A registrar that gives another one the newest frame together with recent ones; it has state: see `reset`."""

    def __init__(self, registrar: Registrar, settings: WindowConfig | None = None) -> None:
        super().__init__(registrar.stages, registrar.config)
        self.settings = settings or WindowConfig()
        self._kept: list[TrackedFrame] = []
        self._volume: Volume | None = None

    def reset(self) -> None:
        """Forget all frames (another start, a clock that jumped, another volume)."""
        self._kept = []

    def __call__(self, problem: Problem, start: Estimate | None = None) -> Estimate:
        """Register the newest frame with those kept; several frames at once are registered as they are.

        Raises:
            UsregError: what a stage raises.
        """
        if isinstance(problem.fixed, Volume) or len(problem.fixed) != 1:
            return super().__call__(problem, start)
        newest = problem.fixed[0]
        self._forget(newest, problem.moving)
        fixed = (newest, *self._kept)
        self._keep(newest)
        return super().__call__(replace(problem, fixed=fixed), start)

    def _forget(self, newest: TrackedFrame, volume: Volume) -> None:
        stamp_s = newest.frame.stamp_s
        back = any(f.frame.stamp_s >= stamp_s for f in self._kept)
        if back or self._volume is not volume:
            self._kept, self._volume = [], volume
        self._kept = [f for f in self._kept if stamp_s - f.frame.stamp_s <= self.settings.max_age_s]

    def _keep(self, newest: TrackedFrame) -> None:
        """The newest frame stays if it shows another place than those that stay; the oldest goes for it."""
        if all(apart_mm(newest, kept) >= self.settings.apart_mm for kept in self._kept):
            self._kept = [newest, *self._kept][: self.settings.frames]


def apart_mm(a: TrackedFrame, b: TrackedFrame) -> float:
    """Largest distance, mm, between points of two images that have the same place in them (those of `a`)."""
    points = image_points(a.frame.geometry)
    there = se3.transform_points(b.world_T_image, points)
    return float((se3.transform_points(a.world_T_image, points) - there).norm(dim=-1).max())
