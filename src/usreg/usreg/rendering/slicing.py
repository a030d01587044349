# SPDX-License-Identifier: Apache-2.0
"""A volume on image planes, differentiable in the pose. The only place with normalised grid coordinates."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from ..data.types import Volume
from ..errors import GeometryError, ShapeError
from ..geometry.grid import VoxelGrid
from ..geometry.plane import PlaneGrid

UNKNOWN_LIMIT = 1e-6  # a sample with more weight than this on unknown voxels is unknown


def slice_volume(volume: Volume, ct_T_image: Tensor, plane: PlaneGrid) -> tuple[Tensor, Tensor]:
    """Sample a volume on image planes, trilinear.

    Args:
        volume: voxels (C, D, H, W) with its own physical frame, mm.
        ct_T_image: poses (B, 4, 4) or one (4, 4), mm; device and precision of the work follow it.
        plane: pixel grid of the image, mm.

    Returns:
        Images (B, C, h, w), floating point, zero outside, and masks (B, 1, h, w), true where all of the sample's weight
        lies on known voxels inside the volume.

    Raises:
        ShapeError, GeometryError: a pose of another shape, or not finite.
    """
    poses = check_poses(ct_T_image)
    grid = grid_coordinates(volume.grid, poses, plane)
    known = _known(volume, grid)
    data = torch.where(known, volume.data.to(grid), torch.zeros((), dtype=grid.dtype, device=grid.device))
    batch = len(poses)
    images = _trilinear(data.expand(batch, *data.shape), grid)
    inside = (grid.detach().abs() < 1.0).all(-1)[:, None]
    unknown = torch.zeros_like(images[:, :1])
    if not bool(known.all()):
        gaps = (~known).to(grid).expand(batch, 1, *known.shape)
        unknown = _trilinear(gaps, grid.detach())
    mask = inside & (unknown.detach() <= UNKNOWN_LIMIT)
    return torch.where(mask, images, torch.zeros_like(images)), mask


def _trilinear(data: Tensor, grid: Tensor) -> Tensor:
    """(B, C, h, w) of (B, C, D, H, W) at (B, h, w, 3): to grid_sample a plane is a grid of depth 1."""
    return grid_sample(data, grid[:, None], mode="bilinear", padding_mode="zeros", align_corners=True)[:, :, 0]


def grid_coordinates(grid: VoxelGrid, ct_T_image: Tensor, plane: PlaneGrid) -> Tensor:
    """Normalised align-corners coordinates (B, h, w, 3), x y z; -1 and 1 are the outermost voxels' centres.

    Everything up to the voxel index is composed in mm; the division by the size comes last.
    """
    index_T_image = grid.index_T_ct.to(ct_T_image) @ ct_T_image
    points = plane.points_mm().to(ct_T_image)
    index = points @ index_T_image[:, None, :3, :3].transpose(-1, -2) + index_T_image[:, None, None, :3, 3]
    # an axis of one voxel has no extent: any index but 0 lies outside
    half = index.new_tensor([max(n - 1, 1e-9) / 2 for n in grid.size])
    return index / half - 1.0


def check_poses(ct_T_image: Tensor) -> Tensor:
    poses = ct_T_image[None] if ct_T_image.dim() == 2 else ct_T_image
    if poses.dim() != 3 or poses.shape[1:] != (4, 4) or not poses.is_floating_point():
        raise ShapeError(f"'ct_T_image' must be (B, 4, 4) float, got {tuple(ct_T_image.shape)} {ct_T_image.dtype}")
    if not bool(torch.isfinite(poses.detach()).all()):
        raise GeometryError("'ct_T_image' holds NaN or infinity")
    return poses


def _known(volume: Volume, like: Tensor) -> Tensor:
    """Where all channels hold a finite value that the mask calls known, (D, H, W)."""
    known = torch.isfinite(volume.data).all(0)
    return (known if volume.mask is None else known & volume.mask).to(like.device)
