# SPDX-License-Identifier: Apache-2.0
"""Where the volume lies, from landmarks that a person has pointed at in the room and in the volume."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import GeometryError, ShapeError
from ..geometry import rotation, se3
from ..registration.rigid_fit import rigid_fit

CLICK_MM = 2.0  # standard deviation of a pointed pair along each axis, at best
NEAREST_MM = 10.0  # of two landmarks
LEAST_SPREAD_MM = 5.0  # root mean square distance of the landmarks from the line through them
LARGEST_FRE_MM = 10.0


@dataclass(frozen=True, eq=False)
class PairStart:
    """A pose from landmark pairs.

    Args:
        world_T_ct: (4, 4), mm.
        covariance: (6, 6) of (v, w), mm and rad, world axes, about `pivot`.
        pivot: (3,) in the world, mm.
        residual_mm: root mean square distance of the pairs after the fit (FRE).
    """

    world_T_ct: Tensor
    covariance: Tensor
    pivot: Tensor
    residual_mm: float


def initial_pose(world: Tensor, ct: Tensor, pivot_ct: Tensor | None = None) -> PairStart:
    """The pose that takes landmarks of the volume to those in the room, and how sure it is.

    Each coordinate of a pair is taken to be off by 2 mm and by what the fit leaves: few pairs leave next to nothing,
    however badly they were pointed at, so that the residual alone would promise too much.

    Args:
        world, ct: (N, 3), mm, the same landmarks in the same order.
        pivot_ct: (3,) about which the covariance is stated, the volume's centre; None: the landmarks' middle.

    Raises:
        ShapeError: not N points twice. GeometryError: fewer than three, on a line, too near to one another, or not the
            same landmarks; the message says what to do.
    """
    if world.dim() != 2 or world.shape != ct.shape or world.shape[1] != 3:
        raise ShapeError(f"landmark pairs are (N, 3) points twice, got {tuple(world.shape)} and {tuple(ct.shape)}")
    world, ct = world.to(torch.float64), ct.to(torch.float64)
    _check(world, "image")
    _check(ct, "volume")
    pose = rigid_fit(ct, world, torch.ones(len(ct), dtype=torch.float64))
    square = (se3.transform_points(pose, ct) - world).square().sum()
    residual_mm = float((square / len(ct)).sqrt())
    if residual_mm > LARGEST_FRE_MM:
        raise GeometryError(
            f"the pairs lie {residual_mm:.1f} mm from one another after the best fit, at most {LARGEST_FRE_MM:g} mm is "
            "taken: check that each pair is one landmark, or place the worst one again"
        )
    about = ct.mean(0) if pivot_ct is None else pivot_ct.to(torch.float64)
    pivot = se3.transform_points(pose, about[None])[0]
    variance = CLICK_MM**2 + float(square) / max(1, 3 * len(ct) - 6)
    return PairStart(pose, _covariance(world - pivot, variance), pivot, residual_mm)


def _covariance(offsets: Tensor, variance: float) -> Tensor:
    """Of a left perturbation (v, w) about a pivot, from points (N, 3) relative to it: each moves by v + w x offset."""
    eye = torch.eye(3, dtype=offsets.dtype).expand(len(offsets), 3, 3)
    jacobian = torch.cat([eye, -rotation.hat(offsets)], -1).reshape(-1, 6)
    covariance = torch.linalg.inv(jacobian.T @ jacobian) * variance
    return (covariance + covariance.T) / 2


def _check(points: Tensor, where: str) -> None:
    """Raise unless three points or more determine a pose."""
    if len(points) < 3:
        raise GeometryError(f"{len(points)} landmark pairs came: place three or more")
    if not bool(torch.isfinite(points).all()):
        raise GeometryError(f"a landmark in the {where} is not finite: place it again")
    nearest = torch.pdist(points).min().item()
    if nearest < NEAREST_MM:
        raise GeometryError(
            f"two landmarks in the {where} are {nearest:.1f} mm apart: choose some that are {NEAREST_MM:g} mm apart or "
            "more, the farther the better"
        )
    spread = (torch.linalg.svdvals(points - points.mean(0))[1] / len(points) ** 0.5).item()
    if spread < LEAST_SPREAD_MM:
        raise GeometryError(
            f"the landmarks in the {where} lie on a line (they spread {spread:.1f} mm beside it): choose one that is "
            "well away from that line"
        )
