# SPDX-License-Identifier: Apache-2.0
"""A robot, or a hand that leads a passive arm, takes the probe along a path: joints over time within limits."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..config import check_range
from ..errors import ConfigError, KinematicsError
from ..geometry import se3
from ..kinematics import Arm
from ..kinematics.path import PathIkConfig, inverse_path
from .paths import ScanPath

STARTS = 48  # postures that are tried for the first pose
ATTEMPTS = 8  # of them, the roomiest ones, with which the whole path is tried


@dataclass(frozen=True)
class RobotConfig:
    """How the joints are found and reported.

    Args:
        joint_hz: rate of joint states. inverse: limits of the search.
        posture_seed: of the postures that are tried; another one may find another elbow.
    """

    joint_hz: float = 200.0
    inverse: PathIkConfig = field(default_factory=PathIkConfig)
    posture_seed: int = 0

    def __post_init__(self) -> None:
        check_range("joint_hz", self.joint_hz, 100.0, 500.0)
        check_range("posture_seed", self.posture_seed, 0, 2**31 - 1)


@dataclass(frozen=True, eq=False)
class JointTrack:
    """Joints over time.

    Args:
        t_s: (N,) true times of the samples from the path's beginning. stamps_s: (N,) what the arm's clock says.
        joints: (N, n) true positions, measured: (N, n) as the encoders report them; rad, mm for prismatic joints.
    """

    t_s: NDArray[np.float64]
    stamps_s: NDArray[np.float64]
    joints: Tensor
    measured: Tensor


def follow_path(
    arm: Arm, path: ScanPath, world_T_bed: Tensor, rng: np.random.Generator, config: RobotConfig | None = None
) -> JointTrack:
    """A robot follows a path; its encoders have noise of `arm.sigma_rad`.

    Args:
        world_T_bed: (4, 4) where the body lies; the arm stands at `arm.world_T_base`. rng: of the noise.

    Raises:
        KinematicsError: the path is out of reach or too fast; the message says when, which joint, and what to change.
    """
    config = config or RobotConfig()
    t = sample_times(path.duration_s, config.joint_hz)
    joints = solve_path(arm, path, world_T_bed, t, config)
    noise = torch.from_numpy(rng.standard_normal(tuple(joints.shape))) * arm.sigma_rad
    return JointTrack(t, t.copy(), joints, joints + noise)


def sample_times(duration_s: float, hz: float) -> NDArray[np.float64]:
    """Times from 0 to the end of the path at a rate, in whole nanoseconds.

    Raises:
        ConfigError: no time.
    """
    if not duration_s > 0:
        raise ConfigError(f"a path of {duration_s} s is none: ask for more than zero seconds")
    return np.asarray(np.rint(np.arange(int(duration_s * hz + 1e-9) + 1) * 1e9 / hz) / 1e9)


def solve_path(
    arm: Arm, path: ScanPath, world_T_bed: Tensor, t_s: NDArray[np.float64], config: RobotConfig,
    given: NDArray[np.float64] | None = None,
) -> Tensor:  # fmt: skip
    """Joint positions (N, n) at times (N,); `given` as in `inverse_path`.

    The roomiest of several postures for the first pose is tried first.

    Raises:
        KinematicsError: as `follow_path`, for the posture that came farthest.
    """
    left = se3.inverse(arm.world_T_base) @ world_T_bed
    targets = (left @ torch.from_numpy(path.poses(t_s)) @ se3.inverse(arm.flange_T_probe)).numpy()
    first = None if given is None else given[:1]
    starts = _postures(arm, targets[:1], t_s[:1], config, first)
    errors: list[KinematicsError] = []
    for start in starts[:ATTEMPTS]:
        try:
            return inverse_path(arm.chain, targets, t_s, start, config.inverse, given)
        except KinematicsError as error:
            errors.append(error)
    if not errors:  # not even the first pose: say why, from the middle of the joints' ranges
        return inverse_path(arm.chain, targets, t_s, _middle(arm), config.inverse, given)
    raise errors[0]


def _postures(
    arm: Arm, target: NDArray[np.float64], stamp: NDArray[np.float64], config: RobotConfig,
    given: NDArray[np.float64] | None,
) -> list[Tensor]:  # fmt: skip
    """Solutions of the first pose, the one farthest from all joint limits first."""
    rng = np.random.Generator(np.random.PCG64(config.posture_seed))
    low, high = _range(arm)
    found: list[tuple[float, Tensor]] = []
    for _ in range(STARTS):
        start = torch.from_numpy(low + (high - low) * rng.uniform(0.15, 0.85, len(low)))
        try:
            q = inverse_path(arm.chain, target, stamp, start, config.inverse, given)[0]
        except KinematicsError:
            continue
        room = np.minimum(q.numpy() - low, high - q.numpy()) / (high - low)
        found.append((float(room.min()), q))
    return [q for _, q in sorted(found, key=lambda f: -f[0])]


def _range(arm: Arm) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    low, high = np.array(arm.chain.limits.lower), np.array(arm.chain.limits.upper)
    return np.where(np.isfinite(low), low, -np.pi), np.where(np.isfinite(high), high, np.pi)


def _middle(arm: Arm) -> Tensor:
    low, high = _range(arm)
    return torch.from_numpy(0.5 * (low + high))
