# SPDX-License-Identifier: Apache-2.0
"""Optimisers over poses behind one call, by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from ...config import check_range
from ...errors import ConfigError
from .adam import Adam, AdamConfig
from .agreement import Budget, Found, Looked, Objective, Optimiser, Terms
from .bobyqa import Bobyqa
from .cmaes import Cmaes, CmaesConfig
from .halving import HalvingConfig, successive_halving
from .lbfgs import Lbfgs, LbfgsConfig

__all__ = ["OPTIMISERS", "Budget", "Found", "HalvingConfig", "Looked", "Objective", "Optimiser", "OptimiserConfig",
           "Terms", "build_optimiser", "successive_halving"]  # fmt: skip

# evaluations for each start at one level, enough for each method to end by itself nearly always
EVALUATIONS = {"adam": 60, "lbfgs": 40, "bobyqa": 120, "cmaes": 400}


@dataclass(frozen=True)
class OptimiserConfig:
    """Which optimiser, its budget, and the lengths that it begins with.

    Args:
        name: one of `OPTIMISERS`.
        evaluations: for each start at each level (replay); 0 = `EVALUATIONS`. seconds: for one climb of all its starts
            at one level (live); 0 = no limit. Whichever is used up first ends the climb.
        step: first step in standard deviations of the level's smoothing, at least `least_step_mm`.
        reach: half width of the box about the start that a climb does not leave, likewise.
    """

    name: str = "lbfgs"
    evaluations: int = 0
    seconds: float = 0.0
    step: float = 0.5
    least_step_mm: float = 0.5
    reach: float = 4.0
    least_reach_mm: float = 3.0
    adam: AdamConfig = field(default_factory=AdamConfig)
    lbfgs: LbfgsConfig = field(default_factory=LbfgsConfig)
    cmaes: CmaesConfig = field(default_factory=CmaesConfig)

    def __post_init__(self) -> None:
        if self.name not in OPTIMISERS:
            raise ConfigError(f"there is no optimiser '{self.name}'; choose one of {sorted(OPTIMISERS)}")
        check_range("evaluations", self.evaluations, 0, 10_000_000)
        check_range("seconds", self.seconds, 0.0, 1e6)
        check_range("step", self.step, 0.0, 100.0)
        check_range("least_step_mm", self.least_step_mm, 1e-3, 100.0)
        check_range("reach", self.reach, self.step, 100.0)
        check_range("least_reach_mm", self.least_reach_mm, self.least_step_mm, 1000.0)

    def budget(self, clock: Callable[[], float]) -> Budget:
        """For one climb."""
        return Budget(self.evaluations or EVALUATIONS[self.name], self.seconds or math.inf, clock)

    def terms(self, sigma_mm: float, radius_mm: float, min_overlap: float, tolerance_mm: float) -> Terms:
        """For one climb at a level of this smoothing."""
        step, reach = max(self.least_step_mm, self.step * sigma_mm), max(self.least_reach_mm, self.reach * sigma_mm)
        return Terms(radius_mm, min_overlap, tolerance_mm, step, reach)


OPTIMISERS: dict[str, Callable[[OptimiserConfig], Optimiser]] = {
    "adam": lambda c: Adam(c.adam),
    "lbfgs": lambda c: Lbfgs(c.lbfgs),
    "bobyqa": lambda c: Bobyqa(),
    "cmaes": lambda c: Cmaes(c.cmaes),
}


def build_optimiser(config: OptimiserConfig) -> Optimiser:
    """The optimiser that the configuration names."""
    return OPTIMISERS[config.name](config)
