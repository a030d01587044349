# SPDX-License-Identifier: Apache-2.0
"""SE(3): poses (..., 4, 4), twists (..., 6) = (v, w) in mm and rad, adjoints, interpolation, perturbations.

`a_T_b` maps a point from `b` into `a`: `p_a = a_T_b @ p_b`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import GeometryError, ShapeError
from . import rotation

RIGID_TOLERANCE = 1e-3  # of R^T R - I; text files with five digits stay below it


def from_parts(r: Tensor, t: Tensor) -> Tensor:
    """Poses (..., 4, 4) of rotations (..., 3, 3) and translations (..., 3), mm."""
    shape = torch.broadcast_tensors(r[..., 0, 0], t[..., 0])[0].shape  # torch.broadcast_shapes imports sympy: 0.5 s
    top = torch.cat([r.expand(*shape, 3, 3), t.expand(*shape, 3)[..., None]], -1)
    bottom = torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=r.dtype, device=r.device).expand(*shape, 1, 4)
    return torch.cat([top, bottom], -2)


def translation(t: Tensor) -> Tensor:
    """Pure translations (..., 4, 4) of vectors (..., 3), mm."""
    return from_parts(torch.eye(3, dtype=t.dtype, device=t.device), t)


def identity(dtype: torch.dtype = torch.float64) -> Tensor:
    """Identity pose (4, 4)."""
    return torch.eye(4, dtype=dtype)


def inverse(a_T_b: Tensor) -> Tensor:
    """b_T_a of rigid a_T_b (..., 4, 4)."""
    r = a_T_b[..., :3, :3].transpose(-1, -2)
    return from_parts(r, -(r @ a_T_b[..., :3, 3:]).squeeze(-1))


def exp(twist: Tensor) -> Tensor:
    """Poses (..., 4, 4) of twists (..., 6) = (v, w), mm and rad."""
    v, w = twist[..., :3], twist[..., 3:]
    s, c, d = rotation.angle_terms(w)
    k = rotation.hat(w)
    eye = torch.eye(3, dtype=twist.dtype, device=twist.device)
    r = eye + s * k + c * (k @ k)
    left_jacobian = eye + c * k + d * (k @ k)
    return from_parts(r, (left_jacobian @ v[..., None]).squeeze(-1))


def log(pose: Tensor) -> Tensor:
    """Twists (..., 6) = (v, w) of poses (..., 4, 4)."""
    w = rotation.log(pose[..., :3, :3])
    s, c, _ = rotation.angle_terms(w)
    k = rotation.hat(w)
    a2 = (w * w).sum(-1)[..., None, None]
    small = a2 < 1e-6
    closed = (1 - s / (2 * c)) / torch.where(small, torch.ones_like(a2), a2)
    factor = torch.where(small, 1 / 12 + a2 / 720, closed)
    inverse_jacobian = torch.eye(3, dtype=pose.dtype, device=pose.device) - 0.5 * k + factor * (k @ k)
    v = (inverse_jacobian @ pose[..., :3, 3:]).squeeze(-1)
    return torch.cat([v, w], -1)


def adjoint(a_T_b: Tensor) -> Tensor:
    """Matrices (..., 6, 6) that carry twists (v, w) from b to a: a_T_b Exp(x) b_T_a = Exp(adjoint @ x)."""
    r, t = a_T_b[..., :3, :3], a_T_b[..., :3, 3]
    top = torch.cat([r, rotation.hat(t) @ r], -1)
    bottom = torch.cat([torch.zeros_like(r), r], -1)
    return torch.cat([top, bottom], -2)


def move_pivot(covariance: Tensor, offset: Tensor) -> Tensor:
    """Covariance (..., 6, 6) of a left perturbation about a new pivot = old pivot + offset (3,), same axes.

    With x about p, the same motion about p + d has v' = v + w x d.
    """
    a = adjoint(translation(-offset))
    return a @ covariance @ a.transpose(-1, -2)


def transform_points(a_T_b: Tensor, points: Tensor) -> Tensor:
    """Points (..., N, 3) of b in a, by poses or affine maps (..., 4, 4)."""
    return points @ a_T_b[..., :3, :3].transpose(-1, -2) + a_T_b[..., None, :3, 3]


def left_at_pivot(pose: Tensor, twist: Tensor, pivot: Tensor) -> Tensor:
    """Trans(p) Exp(twist) Trans(-p) pose: a perturbation in the target's axes about its point (..., 3)."""
    return translation(pivot) @ exp(twist) @ translation(-pivot) @ pose


def right_at_centre(pose: Tensor, shift: Tensor, rotation_vector: Tensor, centre: Tensor) -> Tensor:
    """pose @ Trans(c) @ Trans(t) @ Exp(r) @ Trans(-c): a perturbation in the source's axes about its point c."""
    moved = from_parts(rotation.exp(rotation_vector), shift)
    return pose @ translation(centre) @ moved @ translation(-centre)


def error_at_pivot(estimate: Tensor, truth: Tensor, pivot: Tensor) -> Tensor:
    """Twist (..., 6) with truth = left_at_pivot(estimate, twist, pivot)."""
    return log(translation(-pivot) @ truth @ inverse(estimate) @ translation(pivot))


def interpolate(a: Tensor, b: Tensor, u: Tensor | float) -> Tensor:
    """Screw-linear interpolation from pose a (u = 0) to pose b (u = 1); u is a number or (...)."""
    u = torch.as_tensor(u, dtype=a.dtype, device=a.device)[..., None]
    return a @ exp(u * log(inverse(a) @ b))


def check_rigid(pose: Tensor, name: str, tolerance: float = RIGID_TOLERANCE) -> Tensor:
    """Return the pose (..., 4, 4) as float64 with its rotation made exactly orthonormal.

    Raises:
        ShapeError: not 4x4. GeometryError: not finite, scaled, sheared or mirrored, or a last row other than 0 0 0 1.
    """
    if pose.shape[-2:] != (4, 4):
        raise ShapeError(f"'{name}' must be 4x4, got shape {tuple(pose.shape)}")
    pose = pose.to(torch.float64)
    if not bool(torch.isfinite(pose).all()):
        raise GeometryError(f"'{name}' holds NaN or infinity")
    r = pose[..., :3, :3]
    off = (r.transpose(-1, -2) @ r - torch.eye(3, dtype=r.dtype)).abs().max().item()
    last = (pose[..., 3, :] - torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=r.dtype)).abs().max().item()
    if off > tolerance or last > tolerance or bool((torch.linalg.det(r) < 0).any()):
        raise GeometryError(
            f"'{name}' is not rigid (R^T R differs from 1 by {off:.2g}, last row by {last:.2g}, or it is mirrored): "
            "separate pixel size or scale from the pose first"
        )
    return from_parts(rotation.project(r), pose[..., :3, 3])
