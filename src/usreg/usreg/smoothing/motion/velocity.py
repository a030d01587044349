# SPDX-License-Identifier: Apache-2.0
"""Constant velocity: slow shifts, and breathing that was not learnt."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ..config import FilterConfig
from ..state import Measurement, State, carry


class ConstantVelocity:
    """Pose and rate; `rest` of the state is the rate (6,) of (v, w) per second. Error (12,)."""

    def __init__(self, config: FilterConfig) -> None:
        self._walk = torch.tensor([*config.walk_mm, *config.walk_rad], dtype=torch.float64) ** 2
        self._shake = torch.tensor([*config.acceleration_mm, *config.acceleration_rad], dtype=torch.float64) ** 2
        rate = [config.velocity_mm_s] * 3 + [config.velocity_rad_s] * 3
        self._first_rate = torch.tensor(rate, dtype=torch.float64) ** 2

    def begin(self, measurement: Measurement) -> State:
        """At rest, with the rate unknown by as much as the configuration says."""
        stamp, zero = measurement.stamp_s, torch.zeros(6, dtype=torch.float64)
        covariance = torch.block_diag(measurement.covariance, torch.diag(self._first_rate))
        return State(stamp, stamp, measurement.world_T_ct, measurement.pivot, zero, covariance)

    def advance(self, state: State, stamp_s: float) -> State:
        """Along the rate."""
        dt = stamp_s - state.stamp_s
        if dt <= 0:
            return state
        f = self.transition(state, dt)
        covariance = f @ state.covariance @ f.T + self.noise(dt)
        pose, pivot = carry(state.world_T_ct, state.pivot, state.rest * dt)
        return replace(state, stamp_s=stamp_s, world_T_ct=pose, pivot=pivot, covariance=covariance)

    def held(self, state: State) -> State:
        """At rest where it is."""
        return replace(state, rest=torch.zeros_like(state.rest))

    def transition(self, state: State, dt: float) -> Tensor:
        """F (12, 12)."""
        f = torch.eye(12, dtype=torch.float64)
        f[:6, 6:].diagonal().fill_(dt)
        return f

    def noise(self, dt: float) -> Tensor:
        """Q (12, 12): random walk and white acceleration (Bar-Shalom 2001, section 6.2.2)."""
        q = torch.zeros(12, 12, dtype=torch.float64)
        q[:6, :6].diagonal().copy_(self._walk * dt + self._shake * dt**3 / 3)
        q[6:, 6:].diagonal().copy_(self._shake * dt)
        q[:6, 6:].diagonal().copy_(self._shake * dt**2 / 2)
        q[6:, :6].diagonal().copy_(self._shake * dt**2 / 2)
        return q
