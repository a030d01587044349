# SPDX-License-Identifier: Apache-2.0
"""The rigid motion that takes points to points in the least-squares sense, and how sure it is.

Kabsch 1976 with the determinant of Umeyama 1991; points may lie in a plane, which is what a frame's do.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import GeometryError, ShapeError
from ..geometry import rotation, se3

LEAST_WEIGHT = 1e-9
FLAT_MM, FLAT_RAD = 1000.0, 3.0  # standard deviations of what the points do not tell


def rigid_fit(source: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Poses (..., 4, 4) with target = pose @ source in the weighted mean square.

    Args:
        source, target: (..., N, 3) float64, mm. weight: (..., N), none negative.

    Raises:
        ShapeError: shapes that do not fit. GeometryError: not finite, or no weight on three points.
    """
    if source.shape != target.shape or source.shape[-1] != 3 or weight.shape != source.shape[:-1]:
        raise ShapeError(
            f"points (..., N, 3) twice and weights (..., N), got {tuple(source.shape)}, {tuple(target.shape)} and "
            f"{tuple(weight.shape)}"
        )
    total = weight.sum(-1)
    finite = torch.isfinite(source).all() & torch.isfinite(target).all() & torch.isfinite(weight).all()
    if not bool(finite) or bool((weight < 0).any()) or bool((total <= LEAST_WEIGHT).any()) or source.shape[-2] < 3:
        raise GeometryError("a rigid fit needs three finite points or more, with weights that are not negative")
    share = (weight / total[..., None])[..., None]
    middle_s, middle_t = (share * source).sum(-2, keepdim=True), (share * target).sum(-2, keepdim=True)
    cross = (share * (target - middle_t)).transpose(-1, -2) @ (source - middle_s)
    turn = rotation.project(cross)
    shift = middle_t[..., 0, :] - (turn @ middle_s.transpose(-1, -2))[..., 0]
    return se3.from_parts(turn, shift)


def fit_covariance(source: Tensor, target: Tensor, weight: Tensor, pose: Tensor, independent: float = 1.0) -> Tensor:
    """Covariance (6, 6) of the twist (v, w), mm and rad, by which `pose` is off on the right, in axes of `source`.

    From the residuals: each weight is taken as inversely proportional to a point's variance.

    Args:
        source, target: (N, 3), weight: (N,), pose: (4, 4), as of `rigid_fit`.
        independent: share of the points whose errors are independent of those of others.
    """
    off = se3.transform_points(se3.inverse(pose), target) - source
    jacobian = torch.cat([torch.eye(3, dtype=source.dtype).expand(len(source), 3, 3), -rotation.hat(source)], -1)
    information = (weight[:, None, None] * (jacobian.transpose(-1, -2) @ jacobian)).sum(0)
    freedom = max(1.0, 3 * independent * len(source) - 6)
    variance = (weight[:, None] * off**2).sum() * independent / freedom
    flat = torch.tensor([FLAT_MM**-2] * 3 + [FLAT_RAD**-2] * 3, dtype=source.dtype)
    return torch.linalg.inv(independent * information / variance.clamp_min(1e-12) + torch.diag(flat))


def frames_of(triples: Tensor) -> Tensor:
    """Rotations (..., 3, 3) whose columns follow from three points (..., 3, 3): along the first side, in their plane,
    and normal to it. Points on a line give NaN."""
    a, b, c = triples.unbind(-2)
    x = torch.nn.functional.normalize(b - a, dim=-1)
    side = c - a
    y = side - (x * side).sum(-1, keepdim=True) * x
    y = y / y.norm(dim=-1, keepdim=True)
    return torch.stack([x, y, torch.linalg.cross(x, y)], -1)


def triple_fit(source: Tensor, target: Tensor) -> Tensor:
    """Poses (N, 4, 4) that take three points (N, 3, 3) to three others: their planes and middles agree."""
    turn = frames_of(target) @ frames_of(source).transpose(-1, -2)
    shift = target.mean(-2) - (turn @ source.mean(-2)[..., None])[..., 0]
    return se3.from_parts(turn, shift)
