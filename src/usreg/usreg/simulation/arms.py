# SPDX-License-Identifier: Apache-2.0
"""The probe's path over the phantom, and the joints of an arm that follows it within its limits."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from ..geometry import rotation, se3
from ..geometry.grid import VoxelGrid
from ..kinematics import Arm, inverse
from .phantom import skin_mm

SWEEP_SHARE = 0.45  # of the time; the fan follows
ELBOW_UP = (0.0, 0.5, 0.0, -1.5, 0.0, 1.1, 0.0)  # over the patient, probe pointing down


def smoothstep(u: float) -> float:
    """0 to 1 with zero speed at both ends, constant outside."""
    u = min(1.0, max(0.0, u))
    return u * u * (3 - 2 * u)


def body_T_probe(share: float) -> Tensor:
    """Pose (4, 4) of the probe in the body's frame (left, back, head; mm from the centre) at a share of the session
    in [0, 1].

    A sweep from foot to head below the ribs, then a fan about the point of contact; small turns of the hand throughout.
    The probe's z points into the body; its x, the marked side, to the patient's right.
    """
    v = smoothstep((share - SWEEP_SHARE) / (1 - SWEEP_SHARE))
    x = -20.0 + 7.0 * math.sin(2 * math.pi * 0.9 * share)
    head = -24.0 + 40.0 * smoothstep(share / SWEEP_SHARE) - 14.0 * v
    tilt = math.radians(6.0) + math.radians(14.0) * math.sin(2 * math.pi * v)
    yaw = math.radians(14.0) + math.radians(5.0) * math.sin(2 * math.pi * 1.3 * share + 0.4)
    roll = math.radians(3.0) * math.sin(2 * math.pi * 0.8 * share + 1.0)
    facing = torch.tensor([[-1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]], dtype=torch.float64)  # columns x, y, z
    turns = [rotation.exp(torch.tensor(w, dtype=torch.float64)) for w in ((0, 0, yaw), (tilt, 0, 0), (0, roll, 0))]
    contact = torch.tensor([x, skin_mm(x) + 3.0, head], dtype=torch.float64)  # pressed in by 3 mm
    return se3.from_parts(facing @ turns[0] @ turns[1] @ turns[2], contact)


def ct_T_body(grid: VoxelGrid) -> Tensor:
    """Pose (4, 4) of the body's frame: at the centre of the volume, along its voxel axes."""
    direction = torch.tensor(grid.direction, dtype=torch.float64).reshape(3, 3)
    return se3.from_parts(direction, grid.centre_ct)


def follow(arm: Arm, world_T_probe: Iterable[Tensor], start: Sequence[float] = ELBOW_UP) -> Tensor:
    """Joint positions (N, n) that bring the probe to poses (4, 4) one after another; each solution starts from the
    one before.

    Raises:
        KinematicsError: a pose cannot be reached within the limits.
    """
    base_T_world, probe_T_flange = se3.inverse(arm.world_T_base), se3.inverse(arm.flange_T_probe)
    q = torch.tensor(list(start), dtype=torch.float64)
    path = []
    for pose in world_T_probe:
        q = inverse(arm.chain, base_T_world @ pose @ probe_T_flange, q)
        path.append(q)
    return torch.stack(path)


def check_speed(arm: Arm, stamps_s: Tensor, q: Tensor) -> None:
    """Raise KinematicsError where the joints (N, n) move faster than the arm can."""
    speeds = (q[1:] - q[:-1]) / (stamps_s[1:] - stamps_s[:-1])[:, None]
    for row in speeds.tolist():
        arm.chain.limits.check_velocity(row, arm.joint_names)
