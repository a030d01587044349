# SPDX-License-Identifier: Apache-2.0
"""Chains from tables: standard Denavit-Hartenberg rows, or joints with origin and axis as in a URDF."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor

from ..errors import KinematicsError
from ..geometry import rotation, se3
from .chain import Chain, JointKind
from .limits import JointLimits

Vector3 = tuple[float, float, float]


@dataclass(frozen=True)
class DhRow:
    """A revolute joint in standard DH: Rot_z(q + offset) Trans_z(d) Trans_x(a) Rot_x(alpha)."""

    d_mm: float = 0.0
    a_mm: float = 0.0
    alpha_deg: float = 0.0
    offset_deg: float = 0.0
    limit_deg: tuple[float, float] = (-180.0, 180.0)
    velocity_deg_s: float = math.inf


@dataclass(frozen=True)
class JointRow:
    """A joint with its origin in the link before and its axis, as a URDF has it.

    Args:
        limit_deg, velocity_deg_s: of joints that turn. limit_mm, velocity_mm_s: of prismatic joints, which slide along
        their axis; a library position of theirs is in mm.
    """

    xyz_mm: Vector3 = (0.0, 0.0, 0.0)
    rpy_deg: Vector3 = (0.0, 0.0, 0.0)
    axis: Vector3 = (0.0, 0.0, 1.0)
    type: Literal["revolute", "continuous", "prismatic"] = "revolute"
    limit_deg: tuple[float, float] = (-180.0, 180.0)
    velocity_deg_s: float = math.inf
    limit_mm: tuple[float, float] = (-100.0, 100.0)
    velocity_mm_s: float = math.inf


def rpy_pose(xyz_mm: Sequence[float], rpy_rad: Sequence[float]) -> Tensor:
    """Pose (4, 4) of URDF's origin: R = Rz(yaw) Ry(pitch) Rx(roll), xyz in mm."""
    turns = torch.diag(torch.tensor(list(rpy_rad), dtype=torch.float64))
    r = rotation.exp(turns[2]) @ rotation.exp(turns[1]) @ rotation.exp(turns[0])
    return se3.from_parts(r, torch.tensor(list(xyz_mm), dtype=torch.float64))


def limits_of_rows(rows: Sequence[DhRow | JointRow]) -> JointLimits:
    """Limits of rows in radians (mm for prismatic joints); continuous joints have none."""
    lower, upper, velocity = zip(*(_limits(row) for row in rows), strict=True)
    return JointLimits(lower, upper, velocity)


def _limits(row: DhRow | JointRow) -> tuple[float, float, float]:
    if isinstance(row, JointRow) and row.type == "prismatic":
        return *row.limit_mm, row.velocity_mm_s
    speed = math.radians(row.velocity_deg_s)
    if isinstance(row, JointRow) and row.type == "continuous":
        return -math.inf, math.inf, speed
    return math.radians(row.limit_deg[0]), math.radians(row.limit_deg[1]), speed


def chain_from_dh(rows: Sequence[DhRow], joint_names: Sequence[str], link_names: Sequence[str]) -> Chain:
    """Chain of standard DH rows; the flange coincides with the last DH frame."""
    _check_count(len(rows), joint_names)
    origins = [rpy_pose((0, 0, 0), (0, 0, math.radians(r.offset_deg))) for r in rows]
    tails = [rpy_pose((r.a_mm, 0, r.d_mm), (math.radians(r.alpha_deg), 0, 0)) for r in rows]
    axes = torch.tensor([[0.0, 0.0, 1.0]] * len(rows), dtype=torch.float64)
    kinds = cast("tuple[JointKind, ...]", ("revolute",) * len(rows))
    names, links, limits = tuple(joint_names), tuple(link_names), limits_of_rows(rows)
    return Chain(names, links, kinds, torch.stack(origins), axes, se3.identity(), limits, torch.stack(tails))


def chain_from_joints(
    rows: Sequence[JointRow], tip: Tensor, joint_names: Sequence[str], link_names: Sequence[str]
) -> Chain:
    """Chain of joints with origin and axis; `tip` (4, 4) leads from the last link to the flange, mm."""
    _check_count(len(rows), joint_names)
    origins = torch.stack([rpy_pose(r.xyz_mm, [math.radians(a) for a in r.rpy_deg]) for r in rows])
    axes = torch.stack([unit_axis(r.axis) for r in rows])
    kinds = cast("tuple[JointKind, ...]", tuple(r.type for r in rows))
    return Chain(tuple(joint_names), tuple(link_names), kinds, origins, axes, tip, limits_of_rows(rows))


def unit_axis(axis: Sequence[float]) -> Tensor:
    """Axis (3,) of length one.

    Raises:
        KinematicsError: it has no length or is not finite.
    """
    a = torch.tensor(list(axis), dtype=torch.float64)
    length = a.norm().item() if a.shape == (3,) else math.nan
    if not (math.isfinite(length) and length > 1e-6):
        raise KinematicsError(f"a joint axis needs three finite numbers that are not all zero, got {tuple(axis)}")
    return a / length


def _check_count(rows: int, joint_names: Sequence[str]) -> None:
    if rows == 0 or rows != len(joint_names):
        raise KinematicsError(
            f"the arm has {rows} rows but {len(joint_names)} joint names {tuple(joint_names)}: one name per row"
        )
