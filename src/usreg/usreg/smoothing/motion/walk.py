# SPDX-License-Identifier: Apache-2.0
"""Random walk: the volume rests or drifts."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ..config import FilterConfig
from ..state import Measurement, State


class RandomWalk:
    """The pose stays; its variance grows with time. Error (6,)."""

    def __init__(self, config: FilterConfig) -> None:
        self._walk = torch.tensor([*config.walk_mm, *config.walk_rad], dtype=torch.float64) ** 2

    def begin(self, measurement: Measurement) -> State:
        """The measurement itself."""
        stamp, none = measurement.stamp_s, torch.zeros(0, dtype=torch.float64)
        return State(stamp, stamp, measurement.world_T_ct, measurement.pivot, none, measurement.covariance)

    def advance(self, state: State, stamp_s: float) -> State:
        """The same pose, less certain."""
        dt = stamp_s - state.stamp_s
        if dt <= 0:
            return state
        return replace(state, stamp_s=stamp_s, covariance=state.covariance + torch.diag(self._walk * dt))

    def held(self, state: State) -> State:
        """The state: nothing moves."""
        return state

    def transition(self, state: State, dt: float) -> Tensor:
        """Identity."""
        return torch.eye(6, dtype=torch.float64)
