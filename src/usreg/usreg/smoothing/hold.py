# SPDX-License-Identifier: Apache-2.0
"""No smoothing: each accepted estimate stands as it is, for a limited time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from .agreement import FilterUpdate
from .config import FilterConfig
from .motion.agreement import Motion, Transition
from .motion.walk import RandomWalk
from .pose_filter import PoseFilter
from .state import Measurement, State


@dataclass(frozen=True)
class Hold:
    """The rule in place of gate and correction: the newest accepted estimate is the state."""

    motion: Motion

    def apply(self, state: State, measurement: Measurement) -> tuple[State, FilterUpdate]:
        """The measurement itself."""
        return self.motion.begin(measurement), FilterUpdate(True, "held")

    def lag(self, states: Sequence[State]) -> list[tuple[Transition, State]]:
        """Models and states that the fixed-lag output is made from."""
        return [(self.motion, s) for s in states]


class NoSmoothing(PoseFilter):
    """The null object: no gate, no memory, no floor; the same limits, bookkeeping of late results and way to be LOST.

    A held pose is not a silent last one: it carries its age, its covariance grows with it, and after `max_prediction_s`
    nothing is given out.
    """

    def __init__(self, config: FilterConfig | None = None) -> None:
        config = replace(config or FilterConfig(), model="random_walk", floor_mm=0.0, floor_rad=0.0)
        super().__init__(config, Hold(RandomWalk(config)))
