# SPDX-License-Identifier: Apache-2.0
"""Errors of one pose against the truth, measured at points inside the sector."""

from __future__ import annotations

import math
from collections.abc import Sequence
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
    return poses_error(ct_T_image[None], ct_T_image_true[None], [geometry])


def poses_error(ct_T_images: Tensor, true_ct_T_images: Tensor, geometries: Sequence[ImageGeometry]) -> PoseError:
    """All errors of the images of a sweep, as those of one image.

    Args:
        ct_T_images: estimated, (N, 4, 4) float64, mm. true_ct_T_images: true. geometries: of each image.

    Returns:
        TRE and out-of-plane part as means over all images' points, the distance of the sweep's centre (mean of all
        points) from its true place, and the mean angle.

    Raises:
        ShapeError, GeometryError: a pose is not a finite rigid float64 4x4.
    """
    off, moved, angles = [], [], []
    for found, true, geometry in zip(ct_T_images, true_ct_T_images, geometries, strict=True):
        check_pose(found, "ct_T_image")
        check_pose(true, "ct_T_image_true")
        points = sample_points(geometry)
        shift = se3.transform_points(se3.inverse(true) @ found, points) - points  # in the true image's axes
        off.append(shift)
        moved.append(shift @ true[:3, :3].T)
        angles.append(rotation.geodesic_angle(found[:3, :3], true[:3, :3]).item())
    shifts = torch.cat(off)
    return PoseError(
        tre_mm=shifts.norm(dim=-1).mean().item(),
        translation_mm=torch.cat(moved).mean(0).norm().item(),
        rotation_deg=math.degrees(sum(angles) / len(angles)),
        out_of_plane_mm=shifts[:, 2].abs().mean().item(),
    )


def world_points(world_T_image: Tensor, geometry: ImageGeometry) -> Tensor:
    """The sample points (25, 3) in `world`, mm."""
    return se3.transform_points(world_T_image.to(torch.float64), sample_points(geometry))
