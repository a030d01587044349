# SPDX-License-Identifier: Apache-2.0
"""The "+correction" of the paper on DeepRS2V: LNCC of frame and slice, climbed by stochastic gradient descent.

There is nothing stochastic in it: one frame is the whole batch. What is kept is the best pose on the way, which may be
the start. The slice and its derivatives come from the engine (`image_objective`), whose reference goes through
`rendering.slicing`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from ..config import check_range
from ..data.types import Estimate, Problem, Volume
from ..errors import ConfigError, NoOverlapError, ShapeError
from ..geometry import se3
from ..similarity import LnccConfig, lncc
from .image_objective import ImageObjective
from .normal import views, world_T_ref
from .optimisers.agreement import Budget, Objective, Terms, Walk
from .pyramid import VolumeLevel, volume_level
from .refine import Refine, RefineConfig


@dataclass(frozen=True)
class CorrectionConfig:
    """What is compared, and how the descent goes.

    Args:
        spacing_mm: of the pixels that are compared. sigma_mm: standard deviation of the smoothing before. window:
            pixels.
        steps: at most so many. momentum: of the descent.
        rate_low, rate_high: the rate goes from one to the other within `rise` steps, and back.
        unit_mm: one unit of translation, as published about half the volume; a unit of rotation is one radian.
        still: it ends when the standard deviation of the last `last` scores is below this, `least` steps at the
            earliest.
        judge: gate and covariance of the result.
    """

    spacing_mm: float = 1.0
    sigma_mm: float = 0.5
    window: int = 51
    steps: int = 100
    momentum: float = 0.9
    rate_low: float = 1e-3
    rate_high: float = 3e-3
    rise: int = 20
    unit_mm: float = 60.0
    still: float = 1e-4
    last: int = 5
    least: int = 10
    judge: RefineConfig = field(default_factory=RefineConfig)

    def __post_init__(self) -> None:
        LnccConfig(self.window)
        check_range("spacing_mm", self.spacing_mm, 0.05, 20.0)
        check_range("sigma_mm", self.sigma_mm, 0.0, 20.0)
        check_range("steps", self.steps, 1, 100_000)
        check_range("momentum", self.momentum, 0.0, 0.9999)
        check_range("rate_low", self.rate_low, 0.0, self.rate_high)
        check_range("rate_high", self.rate_high, 1e-9, 1e3)
        check_range("rise", self.rise, 1, 100_000)
        check_range("unit_mm", self.unit_mm, 1e-3, 1e4)
        check_range("still", self.still, 0.0, 1.0)
        check_range("last", self.last, 2, 1000)
        if self.least < self.last:
            raise ConfigError(f"'least' is {self.least}; it must be at least 'last', {self.last}")

    def rate(self, step: int) -> float:
        """Of a step, counted from 0: a triangle wave."""
        along = step % (2 * self.rise) / self.rise
        return self.rate_low + (self.rate_high - self.rate_low) * min(along, 2.0 - along)


class Correction:
    """A stage that climbs LNCC from where it is given; of one or several tracked frames."""

    def __init__(self, config: CorrectionConfig | None = None) -> None:
        self.config = config or CorrectionConfig()
        self._judge = Refine(self.config.judge)
        self._level: tuple[Volume, VolumeLevel] | None = None

    def prepare(self, volume: Volume) -> None:
        """Smooth the volume (kept for this volume object)."""
        self._judge.prepare(volume)
        self._smooth(volume)

    def _smooth(self, volume: Volume) -> VolumeLevel:
        if self._level is None or self._level[0] is not volume:
            self._level = (volume, volume_level(volume, self.config.sigma_mm, self.config.judge.channel))
        return self._level[1]

    def __call__(self, problem: Problem, estimate: Estimate) -> Estimate:
        """Climb, and judge what was found.

        Raises:
            ShapeError: `fixed` is not one or several tracked frames.
            NoOverlapError: too little of the sector inside the volume at the start.
        """
        if isinstance(problem.fixed, Volume) or not problem.fixed:
            raise ShapeError("the correction needs one or several tracked frames as 'fixed'")
        c, reference = self.config, world_T_ref(problem.fixed)
        seen = views(problem.fixed, c.sigma_mm, c.spacing_mm)
        objective = ImageObjective(self._smooth(problem.moving), seen, partial(lncc, window=c.window))
        start = se3.inverse(estimate.world_T_ct) @ reference
        overlap = float(objective(start[None], slopes=False).overlap)
        if overlap < c.judge.min_overlap:
            raise NoOverlapError(
                f"{overlap:.0%} of the sector lies inside the volume where the correction begins, at least "
                f"{c.judge.min_overlap:.0%} must: check the start, the calibration and the volume"
            )
        ct_T_ref = se3.check_rigid(descend(objective, start, c), "the corrected pose")
        return self._judge.judge(problem, reference @ se3.inverse(ct_T_ref))


def descend(objective: Objective, start: Tensor, config: CorrectionConfig) -> Tensor:
    """The best pose (4, 4) on the way from a start (4, 4)."""
    terms = Terms(config.unit_mm, config.judge.min_overlap)
    walk = Walk(objective, start[None], terms, Budget(config.steps + 1), slopes=True)
    row, place, speed = torch.zeros(1, dtype=torch.int64), torch.zeros(1, 6, dtype=torch.float64), start.new_zeros(1, 6)
    gradient, scores = walk.first.gradient, deque([float(walk.first.score)], config.last)
    for number in range(config.steps):
        speed = config.momentum * speed + config.unit_mm * gradient
        place = place + config.unit_mm * config.rate(number) * speed
        looked = walk.look(place, row)
        if not bool(looked.allowed):
            break  # out of the volume: there is nothing to compare
        gradient = looked.gradient
        scores.append(float(looked.score))
        if number + 1 >= config.least and float(torch.tensor(scores).std()) < config.still:
            break
    return walk.found().poses[0]
