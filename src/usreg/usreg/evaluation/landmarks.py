# SPDX-License-Identifier: Apache-2.0
"""Errors at named points of the body: what counts for a target that lies outside the image."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from ..data.types import check_pose
from ..errors import ShapeError
from ..geometry import se3

VESSELS = ("portal_", "hepatic_")  # how the names of bifurcations in the liver begin


def vessel_points(landmarks: Mapping[str, Tensor]) -> Tensor:
    """Points (N, 3), mm, of the bifurcations in the liver; of all landmarks where none is named so.

    Raises:
        ShapeError: there are no landmarks.
    """
    chosen = [point for name, point in landmarks.items() if name.startswith(VESSELS)] or list(landmarks.values())
    if not chosen:
        raise ShapeError("there are no landmarks to measure errors at")
    return torch.stack([p.to(torch.float64) for p in chosen])


def landmark_tre_mm(world_T_ct: Tensor, true_world_T_ct: Tensor, points: Tensor) -> float:
    """Mean distance of points of the volume from where they truly lie in the world, mm.

    Unlike the TRE in the image it holds the error of the tracking too, and points far from the image weigh as much.

    Args:
        world_T_ct, true_world_T_ct: (4, 4) float64, mm.
        points: (N, 3), mm, in the volume's frame.

    Raises:
        ShapeError, GeometryError: a pose is not a finite rigid float64 4x4, or there are no points.
    """
    check_pose(world_T_ct, "world_T_ct")
    check_pose(true_world_T_ct, "true world_T_ct")
    if points.dim() != 2 or points.shape[1] != 3 or not len(points):
        raise ShapeError(f"landmarks are (N, 3), got {tuple(points.shape)}")
    moved = se3.transform_points(world_T_ct, points) - se3.transform_points(true_world_T_ct, points)
    return moved.norm(dim=-1).mean().item() if bool(moved.isfinite().all()) else math.nan
