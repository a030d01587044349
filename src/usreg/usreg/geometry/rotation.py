# SPDX-License-Identifier: Apache-2.0
"""SO(3): exponential, logarithm, quaternion (xyzw) and 6D forms."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..errors import GeometryError, ShapeError

SMALL_ANGLE = 1e-4  # below this the series is more exact than the closed form in float64


def hat(w: Tensor) -> Tensor:
    """Cross-product matrices (..., 3, 3) of vectors (..., 3)."""
    x, y, z = w.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(*w.shape[:-1], 3, 3)


def vee(m: Tensor) -> Tensor:
    """Vectors (..., 3) of the skew part of matrices (..., 3, 3)."""
    return 0.5 * torch.stack(
        [m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]], -1
    )


def angle_terms(w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """sin(a)/a, (1-cos a)/a^2 and (a-sin a)/a^3 of the rotation vectors' angle, (..., 1, 1); smooth at zero."""
    a2 = (w * w).sum(-1)[..., None, None]
    small = a2 < SMALL_ANGLE**2
    safe = torch.where(small, torch.ones_like(a2), a2)
    a = safe.sqrt()
    s = torch.where(small, 1 - a2 / 6, torch.sin(a) / a)
    c = torch.where(small, 0.5 - a2 / 24, 2 * torch.sin(a / 2) ** 2 / safe)
    d = torch.where(small, 1 / 6 - a2 / 120, (a - torch.sin(a)) / (safe * a))
    return s, c, d


def exp(w: Tensor) -> Tensor:
    """Rotation matrices (..., 3, 3) of rotation vectors (..., 3), rad (Rodrigues)."""
    s, c, _ = angle_terms(w)
    k = hat(w)
    return torch.eye(3, dtype=w.dtype, device=w.device) + s * k + c * (k @ k)


def log(r: Tensor) -> Tensor:
    """Rotation vectors (..., 3), rad, of rotation matrices (..., 3, 3); exact also near pi (through the quaternion)."""
    q = to_quat_xyzw(r)
    v, w = q[..., :3], q[..., 3]
    n2 = (v * v).sum(-1)
    small = n2 < 1e-12
    n = torch.where(small, torch.ones_like(n2), n2).sqrt()
    factor = torch.where(
        small, 2 / w.clamp_min(0.5) * (1 - n2 / (3 * w.clamp_min(0.5) ** 2)), 2 * torch.atan2(n, w) / n
    )
    return factor[..., None] * v


def from_quat_xyzw(q: Tensor) -> Tensor:
    """Rotation matrices (..., 3, 3) of quaternions (..., 4), order xyzw; normalised here.

    Raises:
        GeometryError: a quaternion has no length or is not finite.
    """
    if q.shape[-1] != 4:
        raise ShapeError(f"quaternions have 4 numbers (xyzw), got shape {tuple(q.shape)}")
    n = q.norm(dim=-1, keepdim=True)
    if not bool(torch.isfinite(n).all() & (n > 1e-9).all()):
        raise GeometryError("a quaternion is zero or not finite: the source of this pose sends no valid rotation")
    x, y, z, w = (q / n).unbind(-1)
    m = [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w),
         2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w),
         2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)]  # fmt: skip
    return torch.stack(m, -1).reshape(*q.shape[:-1], 3, 3)


def to_quat_xyzw(r: Tensor) -> Tensor:
    """Quaternions (..., 4), order xyzw, w >= 0, of rotations (..., 3, 3): the best-conditioned of four forms."""
    t = r.diagonal(dim1=-2, dim2=-1)
    t0, t1, t2 = t.unbind(-1)
    trace = t.sum(-1)
    a, b, c = r[..., 2, 1], r[..., 0, 2], r[..., 1, 0]
    d, e, f = r[..., 1, 2], r[..., 2, 0], r[..., 0, 1]
    rows = torch.stack([
        torch.stack([1 + t0 - t1 - t2, c + f, b + e, a - d], -1),
        torch.stack([c + f, 1 - t0 + t1 - t2, a + d, b - e], -1),
        torch.stack([b + e, a + d, 1 - t0 - t1 + t2, c - f], -1),
        torch.stack([a - d, b - e, c - f, 1 + trace], -1),
    ], -2)  # fmt: skip
    best = torch.stack([t0, t1, t2, trace], -1).argmax(-1)
    q = torch.take_along_dim(rows, best[..., None, None], -2).squeeze(-2)
    q = q / q.norm(dim=-1, keepdim=True)
    return torch.where(q[..., 3:] < 0, -q, q)


def from_6d(x: Tensor) -> Tensor:
    """Rotation matrices (..., 3, 3) of 6D forms (..., 6) by Gram-Schmidt on two columns (Zhou et al. 2019)."""
    a, b = x[..., :3], x[..., 3:]
    e1 = torch.nn.functional.normalize(a, dim=-1)
    e2 = torch.nn.functional.normalize(b - (e1 * b).sum(-1, keepdim=True) * e1, dim=-1)
    return torch.stack([e1, e2, torch.linalg.cross(e1, e2)], -1)


def to_6d(r: Tensor) -> Tensor:
    """6D forms (..., 6): the first two columns of rotation matrices (..., 3, 3)."""
    return torch.cat([r[..., :, 0], r[..., :, 1]], -1)


def geodesic_angle(a: Tensor, b: Tensor) -> Tensor:
    """Angle (...), rad in [0, pi], between rotations (..., 3, 3)."""
    return log(a.transpose(-1, -2) @ b).norm(dim=-1)


def project(m: Tensor) -> Tensor:
    """Nearest rotation (..., 3, 3) to matrices (..., 3, 3) in the Frobenius norm, determinant +1."""
    u, _, vt = torch.linalg.svd(m)
    sign = torch.linalg.det(u @ vt)
    fix = torch.ones_like(m[..., 0])
    fix[..., 2] = sign
    return (u * fix[..., None, :]) @ vt


def from_axis_angle_deg(axis: tuple[float, float, float], degrees: float) -> Tensor:
    """Rotation (3, 3) in float64 by degrees about an axis."""
    a = torch.tensor(axis, dtype=torch.float64)
    return exp(a / a.norm() * math.radians(degrees))
