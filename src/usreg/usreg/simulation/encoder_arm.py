# SPDX-License-Identifier: Apache-2.0
"""A counterbalanced arm with encoders, led by a hand or held by its brake, and a motor that moves the probe."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..config import check_range
from ..errors import ConfigError
from ..kinematics import Arm
from .motor import Motor, motor_of
from .paths import ScanPath
from .robot import JointTrack, RobotConfig, sample_times, solve_path


@dataclass(frozen=True)
class EncoderConfig:
    """What the encoders make of the true positions; one value for all turning joints.

    Args:
        bits: counts per turn are 2^bits. slide_step_mm: of a count of a prismatic joint.
        bias_deg, slide_bias_mm: standard deviation of each joint's constant offset.
        backlash_deg, slide_backlash_mm: play between joint and encoder, full width.
        joint_hz: rate of joint states. jitter_s: half width of the draw around even times. offset_s: what the arm's
            clock is ahead; drift_ppm: how much faster it runs.
    """

    bits: int = 16
    slide_step_mm: float = 0.01
    bias_deg: float = 0.01
    slide_bias_mm: float = 0.02
    backlash_deg: float = 0.01
    slide_backlash_mm: float = 0.02
    joint_hz: float = 250.0
    jitter_s: float = 0.0002
    offset_s: float = 0.0
    drift_ppm: float = 0.0
    robot: RobotConfig = field(default_factory=RobotConfig)

    def __post_init__(self) -> None:
        ranges = {
            "bits": (8, 32), "slide_step_mm": (1e-6, 1.0), "bias_deg": (0.0, 5.0), "slide_bias_mm": (0.0, 5.0),
            "backlash_deg": (0.0, 5.0), "slide_backlash_mm": (0.0, 5.0), "joint_hz": (100.0, 500.0),
            "offset_s": (-10.0, 10.0), "drift_ppm": (-500.0, 500.0), "jitter_s": (0.0, 0.25 / self.joint_hz),
        }  # fmt: skip
        for name, (low, high) in ranges.items():
            check_range(name, getattr(self, name), low, high)


def lead_arm(
    arm: Arm, path: ScanPath, world_T_bed: Tensor, rng: np.random.Generator, config: EncoderConfig | None = None
) -> JointTrack:
    """Joints of an arm whose hand follows a path while its motor follows its own plan.

    Args:
        arm: passive joints and, last, the motor that `path.motor` was taken from (`motor_of`).
        world_T_bed: (4, 4). rng: of bias and jitter.

    Raises:
        ConfigError: the path was made for another motor. KinematicsError: out of reach or too fast.
    """
    config = config or EncoderConfig()
    _check_motor(arm, path.motor)
    t = sample_times(path.duration_s, config.joint_hz)
    t = t + np.rint(rng.uniform(-config.jitter_s, config.jitter_s, len(t)) * 1e9) / 1e9
    t[0] = max(t[0], 0.0)
    given = np.full((len(t), arm.chain.count), np.nan)
    given[:, -1] = path.motor_position(t)
    joints = _braked(arm, path, world_T_bed, t, given, config)
    stamps = np.rint((t * (1.0 + 1e-6 * config.drift_ppm) + config.offset_s) * 1e9) / 1e9
    return JointTrack(t, stamps, joints, encode(arm, joints, rng, config))


def encode(arm: Arm, joints: Tensor, rng: np.random.Generator, config: EncoderConfig) -> Tensor:
    """What encoders report of true positions (N, n): play, then a constant offset, then whole counts."""
    slides = np.array([kind == "prismatic" for kind in arm.chain.kinds])
    step = np.where(slides, config.slide_step_mm, 2 * math.pi / 2**config.bits)
    bias = np.where(slides, config.slide_bias_mm, math.radians(config.bias_deg)) * rng.standard_normal(len(slides))
    play = np.where(slides, config.slide_backlash_mm, math.radians(config.backlash_deg))
    return torch.from_numpy(step * np.rint((with_play(joints.numpy(), play) + bias) / step))


def with_play(joints: NDArray[np.float64], play: NDArray[np.float64]) -> NDArray[np.float64]:
    """Positions (N, n) of encoder shafts that joints drag along only after their play (n,), full width, is used up."""
    out = np.empty_like(joints)
    out[0] = joints[0]
    for i in range(1, len(joints)):
        out[i] = np.clip(out[i - 1], joints[i] - 0.5 * play, joints[i] + 0.5 * play)
    return out


def _braked(
    arm: Arm, path: ScanPath, world_T_bed: Tensor, t: NDArray[np.float64], given: NDArray[np.float64],
    config: EncoderConfig,
) -> Tensor:  # fmt: skip
    """Solve the path; while the brake holds, passive joints keep the posture in which it was closed, to the bit.

    Only a brake from the beginning of a path is known: the hand's pose under it is that of the first sample.
    """
    locked = path.locked(t)
    joints = solve_path(arm, path, world_T_bed, t, config.robot, given)
    joints[torch.from_numpy(locked), :-1] = joints[0, :-1]
    return joints


def _check_motor(arm: Arm, motor: Motor | None) -> None:
    if motor is None:
        raise ConfigError("the path has no motor: make it with `volunteer_path` and the motor of the arm")
    own = motor_of(arm)
    off = np.cross(own.axis, motor.point - own.point) if own.kind == "tilt" else np.zeros(3)
    if own.kind != motor.kind or np.abs(own.axis - motor.axis).max() > 1e-9 or np.abs(off).max() > 1e-6:
        raise ConfigError(
            f"the path was made for another motor ({motor.kind}) than that of arm '{arm.name}' ({own.kind})"
        )
