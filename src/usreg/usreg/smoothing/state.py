# SPDX-License-Identifier: Apache-2.0
"""State of the filter and how it moves on: the two motion models.

The pose is moved as (orientation, position of the volume's centre), so that a turn of the volume does not swing it
about the far origin of its file. The error is (v, w) in world axes about that centre, `se3.left_at_pivot`; with
constant velocity its rate stands behind it, (12,).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..geometry import rotation, se3
from .config import FilterConfig


@dataclass(frozen=True, eq=False)
class Measurement:
    """An accepted estimate as the filter sees it: pose, covariance about `pivot` with the floor added."""

    stamp_s: float
    world_T_ct: Tensor
    covariance: Tensor
    pivot: Tensor


@dataclass(frozen=True, eq=False)
class State:
    """What is believed at a stamp. A value: rolling back is taking an older one.

    Args:
        stamp_s: time for which it holds. accepted_s: stamp of the newest accepted estimate in it.
        world_T_ct: (4, 4). pivot: (3,) volume's centre in world, mm. rate: (6,) of (v, w) per second.
        covariance: (6, 6), or (12, 12) with the rate's.
        strays: gated-out measurements in a row that agree with each other.
    """

    stamp_s: float
    accepted_s: float
    world_T_ct: Tensor
    pivot: Tensor
    rate: Tensor
    covariance: Tensor
    strays: tuple[Measurement, ...] = ()


class Motion:
    """Transition and noise of a motion model."""

    def __init__(self, config: FilterConfig) -> None:
        self.moving = config.model == "constant_velocity"
        self._walk = torch.tensor([*config.walk_mm, *config.walk_rad], dtype=torch.float64) ** 2
        self._shake = torch.tensor([*config.acceleration_mm, *config.acceleration_rad], dtype=torch.float64) ** 2
        rate = [config.velocity_mm_s] * 3 + [config.velocity_rad_s] * 3
        self._first_rate = torch.tensor(rate, dtype=torch.float64) ** 2

    def begin(self, measurement: Measurement) -> State:
        """A state at rest with the covariance of a measurement."""
        zero = torch.zeros(6, dtype=torch.float64)
        covariance = measurement.covariance
        if self.moving:
            covariance = torch.block_diag(covariance, torch.diag(self._first_rate))
        stamp = measurement.stamp_s
        return State(stamp, stamp, measurement.world_T_ct, measurement.pivot, zero, covariance)

    def transition(self, dt: float) -> Tensor:
        """F (n, n) of the error: x' = F x."""
        f = torch.eye(12 if self.moving else 6, dtype=torch.float64)
        if self.moving:
            f[:6, 6:].diagonal().fill_(dt)
        return f

    def noise(self, dt: float) -> Tensor:
        """Q (n, n): random walk; with constant velocity also white acceleration (Bar-Shalom 2001, section 6.2.2)."""
        if not self.moving:
            return torch.diag(self._walk * dt)
        q = torch.zeros(12, 12, dtype=torch.float64)
        q[:6, :6].diagonal().copy_(self._walk * dt + self._shake * dt**3 / 3)
        q[6:, 6:].diagonal().copy_(self._shake * dt)
        q[:6, 6:].diagonal().copy_(self._shake * dt**2 / 2)
        q[6:, :6].diagonal().copy_(self._shake * dt**2 / 2)
        return q

    def advance(self, state: State, stamp_s: float) -> State:
        """The state at a later stamp."""
        dt = stamp_s - state.stamp_s
        if dt <= 0:
            return state
        if not self.moving:
            return replace(state, stamp_s=stamp_s, covariance=state.covariance + self.noise(dt))
        f = self.transition(dt)
        covariance = f @ state.covariance @ f.T + self.noise(dt)
        pose, pivot = carry(state.world_T_ct, state.pivot, state.rate * dt)
        return replace(state, stamp_s=stamp_s, world_T_ct=pose, pivot=pivot, covariance=covariance)


def carry(world_T_ct: Tensor, pivot: Tensor, twist: Tensor) -> tuple[Tensor, Tensor]:
    """Move the centre along v and turn by w about it; pose and new pivot. Unlike a screw the centre runs straight."""
    return _about(world_T_ct, pivot, rotation.exp(twist[3:]), twist[:3])


def shifted(state: State, error: Tensor, covariance: Tensor) -> State:
    """The state with its error (n,) put into the pose (`se3.left_at_pivot`) and the rate, and a new covariance."""
    step = se3.exp(error[:6])
    pose, pivot = _about(state.world_T_ct, state.pivot, step[:3, :3], step[:3, 3])
    rate = state.rate + error[6:] if len(error) == 12 else state.rate
    return replace(state, world_T_ct=pose, pivot=pivot, rate=rate, covariance=covariance)


def difference(world_T_ct: Tensor, other: Tensor, pivot: Tensor) -> Tensor:
    """Twist (6,) with other = left_at_pivot(world_T_ct, twist, pivot); `se3.error_at_pivot` with fewer products."""
    turn = other[:3, :3] @ world_T_ct[:3, :3].T
    step = other.clone()
    step[:3, :3] = turn
    step[:3, 3] = other[:3, 3] - pivot - turn @ (world_T_ct[:3, 3] - pivot)
    return se3.log(step)


def _about(world_T_ct: Tensor, pivot: Tensor, turn: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    there = pivot + shift
    pose = world_T_ct.clone()
    pose[:3, :3] = turn @ world_T_ct[:3, :3]
    pose[:3, 3] = there + turn @ (world_T_ct[:3, 3] - pivot)
    return pose, there
