# SPDX-License-Identifier: Apache-2.0
"""A serial chain: forward kinematics and geometric Jacobian, batched. Millimetres and radians."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from ..errors import KinematicsError
from ..geometry import rotation, se3
from .limits import JointLimits

JointKind = Literal["revolute", "continuous", "prismatic"]


@dataclass(frozen=True, eq=False)
class Chain:
    """Movable joints in a row: base_T_flange = origin_1 J_1(q_1) origin_2 J_2(q_2) ... tip.

    Args:
        joint_names: n names, base to flange.
        link_names: n + 2 names: base, the link behind each joint, flange.
        kinds: n of "revolute", "continuous", "prismatic".
        origins: (n, 4, 4), from the link before to the joint's frame, mm.
        axes: (n, 3) unit vectors in the joint's frame.
        tip: (4, 4), last link to flange, mm.
        limits: per joint.
        links_tail: (n, 4, 4), joint's frame after its motion to the link's frame; DH tables need it, URDF does not.
    """

    joint_names: tuple[str, ...]
    link_names: tuple[str, ...]
    kinds: tuple[JointKind, ...]
    origins: Tensor
    axes: Tensor
    tip: Tensor
    limits: JointLimits
    links_tail: Tensor | None = field(default=None)

    def __post_init__(self) -> None:
        n = len(self.joint_names)
        if (
            n == 0
            or len(set(self.joint_names)) != n
            or len(self.link_names) != n + 2
            or len(set(self.link_names)) != n + 2
        ):
            raise KinematicsError(
                f"a chain needs distinct names of joints and two more links, got {self.joint_names}, {self.link_names}"
            )
        if (
            len(self.kinds) != n
            or len(self.limits.lower) != n
            or self.origins.shape != (n, 4, 4)
            or self.axes.shape != (n, 3)
        ):
            raise KinematicsError(f"a chain of {n} joints needs {n} kinds, limits, origins and axes")
        given = [self.origins, self.tip] if self.links_tail is None else [self.origins, self.tip, self.links_tail]
        if not all(bool(torch.isfinite(t).all()) for t in given):
            raise KinematicsError("the arm's description holds NaN or infinity")
        if not bool(((self.axes.norm(dim=-1) - 1).abs() < 1e-6).all()):
            raise KinematicsError(f"joint axes must be unit vectors, got {self.axes.tolist()}")

    @property
    def count(self) -> int:
        """Number of movable joints."""
        return len(self.joint_names)

    @cached_property
    def sliding(self) -> frozenset[str]:
        """Names of the prismatic joints."""
        return frozenset(n for n, kind in zip(self.joint_names, self.kinds, strict=True) if kind == "prismatic")

    @cached_property
    def _terms(self) -> tuple[Tensor, Tensor]:
        """Constants (4, n, 4, 4) of link_i-1 to link_i as a sum: 1, sin q, 1 - cos q, q; and which joints turn (n,)."""
        n = self.count
        k = torch.zeros(n, 4, 4, dtype=torch.float64)
        k[:, :3, :3] = rotation.hat(self.axes)
        slide = torch.zeros(n, 4, 4, dtype=torch.float64)
        slide[:, :3, 3] = self.axes
        tail = torch.eye(4, dtype=torch.float64).expand(n, 4, 4) if self.links_tail is None else self.links_tail
        parts = [self.origins @ m @ tail for m in (torch.eye(4, dtype=torch.float64), k, k @ k, slide)]
        return torch.stack(parts), torch.tensor([kind != "prismatic" for kind in self.kinds])

    def _checked(self, q: Tensor) -> Tensor:
        if q.shape[-1:] != (self.count,):
            raise KinematicsError(
                f"this arm has {self.count} joints {self.joint_names}, got positions of shape {tuple(q.shape)}"
            )
        if not bool(torch.isfinite(q).all()):
            raise KinematicsError("joint positions hold NaN or infinity: the driver sends no valid encoder values")
        return q.to(torch.float64)

    def links(self, q: Tensor) -> Tensor:
        """Poses base_T_link (..., n + 2, 4, 4) of base, links and flange at joint positions (..., n), rad or mm.

        Raises:
            KinematicsError: wrong count or not finite.
        """
        q = self._checked(q)
        terms, turns = self._terms
        zero = torch.zeros_like(q)
        weights = torch.stack([torch.ones_like(q), torch.where(turns, q.sin(), zero),
                               torch.where(turns, 1 - q.cos(), zero), torch.where(turns, zero, q)])  # fmt: skip
        local = torch.einsum("k...n,knab->...nab", weights, terms)
        poses = [torch.eye(4, dtype=torch.float64).expand(*q.shape[:-1], 4, 4)]
        for i in range(self.count):
            poses.append(poses[-1] @ local[..., i, :, :])
        return torch.stack([*poses, poses[-1] @ self.tip], -3)

    def forward(self, q: Tensor) -> Tensor:
        """base_T_flange (..., 4, 4), mm, at joint positions (..., n), rad or mm."""
        return self.links(q)[..., -1, :, :]

    def jacobian(self, q: Tensor) -> Tensor:
        """Geometric Jacobian (..., 6, n): (v, w) of the flange's origin in base axes per joint speed, mm and rad.

        Source: Siciliano et al., Robotics, eq. 3.30.
        """
        links = self.links(q)
        joints = links[..., :-2, :, :] @ self.origins  # frame of joint i before it moves
        axis = (joints[..., :3, :3] @ self.axes[..., None]).squeeze(-1)
        arm = links[..., -1:, :3, 3] - joints[..., :3, 3]
        turns = self._terms[1][:, None]
        v = torch.where(turns, torch.linalg.cross(axis, arm, dim=-1), axis)
        w = torch.where(turns, axis, torch.zeros_like(axis))
        return torch.cat([v, w], -1).transpose(-1, -2)

    def check(self, q: Tensor) -> None:
        """Raise KinematicsError unless every row of q (..., n) is finite and within the position limits."""
        for row in self._checked(q).reshape(-1, self.count).tolist():
            self.limits.check(row, self.joint_names, self.sliding)

    def extended(self, length_mm: float) -> Chain:
        """The same chain with the flange moved along its own z, as a media flange does."""
        shift = se3.translation(torch.tensor([0.0, 0.0, length_mm], dtype=torch.float64))
        return Chain(
            self.joint_names,
            self.link_names,
            self.kinds,
            self.origins,
            self.axes,
            self.tip @ shift,
            self.limits,
            self.links_tail,
        )
