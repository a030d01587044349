# SPDX-License-Identifier: Apache-2.0
"""State of the filter, and how errors are put into it and taken out of it.

The pose is moved as (orientation, position of the volume's centre), so that a turn of the volume does not swing it
about the far origin of its file. The error is (v, w) in world axes about that centre, `se3.left_at_pivot`; what a
motion model knows besides the pose (`rest`) stands behind it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from ..geometry import rotation, se3


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
        world_T_ct: (4, 4). pivot: (3,) volume's centre in world, mm.
        rest: (k,) what else the motion model knows: nothing, the rate (6,) per second, or phase, its rate, amplitude.
        covariance: (6 + k, 6 + k).
        strays: gated-out measurements in a row that agree with each other.
    """

    stamp_s: float
    accepted_s: float
    world_T_ct: Tensor
    pivot: Tensor
    rest: Tensor
    covariance: Tensor
    strays: tuple[Measurement, ...] = ()


def carry(world_T_ct: Tensor, pivot: Tensor, twist: Tensor) -> tuple[Tensor, Tensor]:
    """Move the centre along v and turn by w about it; pose and new pivot. Unlike a screw the centre runs straight."""
    return _about(world_T_ct, pivot, rotation.exp(twist[3:]), twist[:3])


def shifted(state: State, error: Tensor, covariance: Tensor) -> State:
    """The state with its error (n,) put into the pose (`se3.left_at_pivot`) and the rest, and a new covariance."""
    step = se3.exp(error[:6])
    pose, pivot = _about(state.world_T_ct, state.pivot, step[:3, :3], step[:3, 3])
    return replace(state, world_T_ct=pose, pivot=pivot, rest=state.rest + error[6:], covariance=covariance)


def difference(world_T_ct: Tensor, other: Tensor, pivot: Tensor) -> Tensor:
    """Twists (..., 6) with other = left_at_pivot(world_T_ct, twist, pivot); `se3.error_at_pivot` with fewer products.

    Poses (..., 4, 4) and pivots (..., 3) are broadcast.
    """
    turn = other[..., :3, :3] @ world_T_ct[..., :3, :3].mT
    arm = (turn @ (world_T_ct[..., :3, 3] - pivot)[..., None])[..., 0]
    return se3.log(se3.from_parts(turn, other[..., :3, 3] - pivot - arm))


def _about(world_T_ct: Tensor, pivot: Tensor, turn: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    there = pivot + shift
    pose = world_T_ct.clone()
    pose[:3, :3] = turn @ world_T_ct[:3, :3]
    pose[:3, 3] = there + turn @ (world_T_ct[:3, 3] - pivot)
    return pose, there
