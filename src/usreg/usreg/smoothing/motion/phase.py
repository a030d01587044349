# SPDX-License-Identifier: Apache-2.0
"""Breathing along a learnt path: phase, its rate and the depth of the breath are in the state."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..state import State, carry
from .config import BreathingModelConfig
from .path import BreathPath

PHASE, RATE, DEPTH = range(3)  # in the rest of the state


@dataclass(frozen=True, eq=False)
class PhaseMotion:
    """The volume at rest_pose + depth P(phase); error (9,) of (v, w, phase, rate, depth).

    The pose itself is in the state, and moves by what the path moves: its covariances with phase and depth hold it to
    the path. The resting pose drifts, the phase jitters, rate and depth come back to the mean of the cycles within
    about one of them (Ornstein-Uhlenbeck). After the phase oscillators of Righetti, Buchli and Ijspeert, "Dynamic
    Hebbian learning in adaptive frequency oscillators" (Physica D 2006), as an extended Kalman filter.
    """

    config: BreathingModelConfig
    path: BreathPath

    def begin(self, state: State, phase: float, rate_hz: float, depth: float, spread: Tensor) -> State:
        """A state at a phase; pose, pivot and its covariance from `state`, that of the rest (3, 3) given."""
        rest = torch.tensor([phase, rate_hz, depth], dtype=torch.float64)
        return replace(state, rest=rest, covariance=torch.block_diag(state.covariance[:6, :6], spread))

    def advance(self, state: State, stamp_s: float) -> State:
        """Along the path."""
        dt = stamp_s - state.stamp_s
        if dt <= 0:
            return state
        rest = self._rest(state.rest, dt)
        way = torch.from_numpy(self._place(rest) - self._place(state.rest))
        f = self.transition(state, dt)
        covariance = f @ state.covariance @ f.T + self._noise(rest, dt)
        pose, pivot = carry(state.world_T_ct, state.pivot, way)
        return replace(state, stamp_s=stamp_s, world_T_ct=pose, pivot=pivot, rest=rest, covariance=covariance)

    def transition(self, state: State, dt: float) -> Tensor:
        """F (9, 9)."""
        after, keep, depth_keep = self._rest(state.rest, dt), self._keep(dt), self._keep(dt, 2.0)
        swing = self._swing(dt)
        then, now = (self.path.slope(float(r[PHASE])) * float(r[DEPTH]) for r in (after, state.rest))
        f = np.eye(9)
        f[:6, 6] = then - now
        f[:6, 7] = then * swing
        f[:6, 8] = depth_keep * self.path.at(float(after[PHASE])) - self.path.at(float(state.rest[PHASE]))
        f[6, 7], f[7, 7], f[8, 8] = swing, keep, depth_keep
        return torch.from_numpy(f)

    def clipped(self, state: State) -> State:
        """Rate and depth kept to what a breath can be."""
        phase, rate, depth = state.rest.tolist()
        rate = min(max(rate, 0.1 * self.path.rate_hz), 2.5 * self.path.rate_hz)
        return replace(state, rest=torch.tensor([phase, rate, min(max(depth, 0.2), 2.5)], dtype=torch.float64))

    def _keep(self, dt: float, cycles: float = 1.0) -> float:
        """What is left of a deviation from the mean."""
        return math.exp(-dt * self.path.rate_hz / cycles)

    def _swing(self, dt: float) -> float:
        """Phase by which a deviation of the rate of 1 Hz has led."""
        return (1.0 - self._keep(dt)) / self.path.rate_hz

    def _rest(self, rest: Tensor, dt: float) -> Tensor:
        phase, rate, depth = rest.tolist()
        off = rate - self.path.rate_hz
        return torch.tensor(
            [phase + self.path.rate_hz * dt + off * self._swing(dt), self.path.rate_hz + off * self._keep(dt),
             1.0 + (depth - 1.0) * self._keep(dt, 2.0)],
            dtype=torch.float64,
        )  # fmt: skip

    def _place(self, rest: Tensor) -> np.ndarray:
        return float(rest[DEPTH]) * self.path.at(float(rest[PHASE]))

    def spread(self) -> tuple[float, float]:
        """Standard deviations of rate, Hz, and depth over cycles."""
        c, p = self.config, self.path
        rate = max(c.least_rate_spread, p.rate_spread) * p.rate_hz
        return rate, max(c.least_amplitude_spread, p.amplitude_spread)

    def _noise(self, rest: Tensor, dt: float) -> Tensor:
        """Q (9, 9): drift of the resting pose; jitter of the phase and wander of the depth, which move the pose too."""
        c, (rate, depth) = self.config, self.spread()
        g = np.eye(9)
        g[:6, 6] = self.path.slope(float(rest[PHASE])) * float(rest[DEPTH])
        g[:6, 8] = self.path.at(float(rest[PHASE]))
        q = [c.rest_mm**2 * dt] * 3 + [c.rest_rad**2 * dt] * 3
        q += [c.jitter**2 * dt, rate**2 * (1 - self._keep(dt) ** 2), depth**2 * (1 - self._keep(dt, 2.0) ** 2)]
        return torch.from_numpy((g * np.array(q)) @ g.T)
