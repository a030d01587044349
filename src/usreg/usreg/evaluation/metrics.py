# SPDX-License-Identifier: Apache-2.0
"""Errors of one pose against the truth, measured at points inside the sector."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..data.types import ImageGeometry, check_pose
from ..geometry import rotation, se3
from ..geometry.sector import SectorGeometry, full_rectangle


@dataclass(frozen=True)
class PoseError:
    """How far an image plane lies from where it should.

    Args:
        tre_mm: mean distance of the sample points from their true places.
        translation_mm: distance of the sector's centre (mean of the sample points) from its true place.
        rotation_deg: angle between the two orientations, 0 to 180.
        out_of_plane_mm: mean absolute distance of the sample points from the true image plane.
    """

    tre_mm: float
    translation_mm: float
    rotation_deg: float
    out_of_plane_mm: float


def sample_points(geometry: ImageGeometry, count: int = 5) -> Tensor:
    """Points (count^2, 3), mm in the image frame, where errors are measured; without a sector: over the rectangle."""
    sector = geometry if isinstance(geometry, SectorGeometry) else full_rectangle(geometry.plane)
    return sector.sample_points_mm(count)


def tre_mm(ct_T_image: Tensor, ct_T_image_true: Tensor, geometry: ImageGeometry) -> float:
    """Target registration error: mean over a 5x5 grid of points inside the sector, mm."""
    return pose_error(ct_T_image, ct_T_image_true, geometry).tre_mm


def pose_error(ct_T_image: Tensor, ct_T_image_true: Tensor, geometry: ImageGeometry) -> PoseError:
    """All errors of an image pose.

    Args:
        ct_T_image: estimated, (4, 4) float64, mm.
        ct_T_image_true: true, (4, 4) float64, mm.
        geometry: of the image.

    Raises:
        ShapeError, GeometryError: a pose is not a finite rigid float64 4x4.
    """
    check_pose(ct_T_image, "ct_T_image")
    check_pose(ct_T_image_true, "ct_T_image_true")
    points = sample_points(geometry)
    moved = se3.transform_points(se3.inverse(ct_T_image_true) @ ct_T_image, points) - points  # in the true image's axes
    angle = rotation.geodesic_angle(ct_T_image[:3, :3], ct_T_image_true[:3, :3]).item()
    return PoseError(
        tre_mm=moved.norm(dim=-1).mean().item(),
        translation_mm=moved.mean(0).norm().item(),
        rotation_deg=math.degrees(angle),
        out_of_plane_mm=moved[:, 2].abs().mean().item(),
    )


def world_points(world_T_image: Tensor, geometry: ImageGeometry) -> Tensor:
    """The sample points (25, 3) in `world`, mm."""
    return se3.transform_points(world_T_image.to(torch.float64), sample_points(geometry))
