# SPDX-License-Identifier: Apache-2.0
"""What regression networks see: the volume in a box about the start image, and the frame, on one grid (section 3.1).

The box is the paper's "initially transformed volume": voxels of one size in the axes of the start image (x lateral,
y depth, z = x × y), centred on the image. Nothing is stretched: where volume or frame end there are zeros.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...config import check_range
from ...data.types import Frame, ImageGeometry, Volume
from ...errors import NoOverlapError, ShapeError
from ...geometry import se3
from ...geometry.plane import PlaneGrid
from ...rendering.slicing import check_poses, slice_volume
from ...workers import run_ranges
from ..resample_kernel import resample
from .reduce import reduce_images

KNOWN_SHARE = 0.5  # of a pixel's weight must fall on pixels inside the sector
LEAST_PLANES = 16  # for each thread


@dataclass(frozen=True)
class Crop:
    """The grid of a network's input. As published: 0.5 mm, (400, 320, 240).

    Args:
        spacing_mm: of voxels and pixels.
        size: (W, H, D) along x, y, z of the image.
    """

    spacing_mm: float = 2.0
    size: tuple[int, int, int] = (96, 80, 48)

    def __post_init__(self) -> None:
        check_range("spacing_mm", self.spacing_mm, 0.05, 20.0)
        for axis, count in zip("WHD", self.size, strict=True):
            check_range(f"size {axis}", count, 1, 1024)

    @property
    def plane(self) -> PlaneGrid:
        """Pixels of the cropped frame: its own image frame, the first pixel at its origin."""
        width, height, _ = self.size
        return PlaneGrid(height, width, ((self.spacing_mm, 0.0), (0.0, self.spacing_mm)))

    def image_T_planes(self, centre_mm: Tensor) -> Tensor:
        """Poses (D, 4, 4) of the box's planes in the frame of an image with that centre (3,), mm."""
        planes = se3.translation(centre_mm - self.plane.centre_mm).repeat(self.size[2], 1, 1)
        planes[:, 2, 3] += self.spacing_mm * (torch.arange(self.size[2], dtype=planes.dtype) - (self.size[2] - 1) / 2)
        return planes


def crop_volume(volume: Volume, ct_T_image_start: Tensor, geometry: ImageGeometry, crop: Crop) -> tuple[Tensor, Tensor]:
    """The volume in the box about each start image.

    Args:
        volume: (1, D, H, W), brought to about the crop's spacing before (`reduce_volume`), or it aliases.
        ct_T_image_start: (B, 4, 4) or (4, 4), mm.

    Returns:
        Values (B, 1, D, H, W) float32 in 0..1, zero where unknown, and masks of that shape, true where known.

    Raises:
        ShapeError: more than one channel. GeometryError: a pose that is not finite.
        NoOverlapError: a box without a known voxel.
    """
    if volume.data.shape[0] != 1:
        raise ShapeError(f"the volume has {volume.data.shape[0]} channels; a crop takes one: choose it before")
    poses = check_poses(ct_T_image_start)
    planes = poses[:, None].double() @ crop.image_T_planes(geometry.plane.centre_mm).to(poses.device)
    fast = volume.data.device.type == poses.device.type == "cpu" and not ct_T_image_start.requires_grad
    values, masks = (sampled_fast if fast else sampled)(volume, planes.flatten(0, 1), crop.plane)
    width, height, depth = crop.size
    masks = masks.reshape(len(poses), 1, depth, height, width)
    if not bool(masks.flatten(1).any(1).all()):
        raise NoOverlapError("the box about the image holds no known voxel: check the start pose and the volume")
    low, high = intensity_range(volume)
    values = (values.reshape(masks.shape) - low) / (high - low)
    return torch.where(masks, values, torch.zeros_like(values)), masks


def sampled(volume: Volume, ct_T_planes: Tensor, plane: PlaneGrid) -> tuple[Tensor, Tensor]:
    """Values and masks (N, h, w) on planes (N, 4, 4): the reference, on any device, differentiable in the pose."""
    values, masks = slice_volume(volume, ct_T_planes.float(), plane)
    return values[:, 0], masks[:, 0]


def sampled_fast(volume: Volume, ct_T_planes: Tensor, plane: PlaneGrid) -> tuple[Tensor, Tensor]:
    """As `sampled`, compiled."""
    count, pixels = len(ct_T_planes), plane.height * plane.width
    known = torch.isfinite(volume.data[0])
    known = known if volume.mask is None else known & volume.mask
    data = torch.where(known, volume.data[0].to(torch.float32), torch.full((), torch.nan))[..., None].contiguous()
    matrices = (volume.grid.index_T_ct @ ct_T_planes.detach())[:, :3, [0, 1, 3]].contiguous().numpy()
    x, y, _ = plane.points_mm().to(torch.float32).reshape(-1, 3).T.contiguous().numpy()
    values, masks = np.zeros((count, 1, pixels), np.float32), np.zeros((count, pixels), np.bool_)
    counts, cells, voxels = np.zeros(count), np.arange(pixels), data.numpy()

    def work(first: int, last: int) -> None:
        resample(voxels, matrices, x, y, cells, values, masks, counts, first, last)

    run_ranges(work, count, LEAST_PLANES)
    shape = (count, plane.height, plane.width)
    return torch.from_numpy(values).reshape(shape), torch.from_numpy(masks).reshape(shape)


def intensity_range(volume: Volume) -> tuple[float, float]:
    """Values that become 0 and 1: of uint8 the ends of its range, else the least and the largest known."""
    if volume.data.dtype == torch.uint8:
        return 0.0, 255.0
    known = torch.isfinite(volume.data[0])
    values = volume.data[0][known if volume.mask is None else known & volume.mask]
    if not len(values):
        raise NoOverlapError("no voxel of the volume is known: check its mask")
    low, high = float(values.min()), float(values.max())
    return low, high if high > low else low + 1.0


def crop_frame(frame: Frame, crop: Crop) -> tuple[Tensor, Tensor]:
    """The frame on the x, y grid of the box: image (1, 1, H, W) float32 in 0..1 and mask, true inside the sector."""
    return crop_images(frame.image[None].to(torch.float32) / 255.0, frame.geometry, crop)


def crop_images(images: Tensor, geometry: ImageGeometry, crop: Crop) -> tuple[Tensor, Tensor]:
    """Images of one geometry on the x, y grid of the box, bilinear over what lies in the sector.

    Args:
        images: (B, h, w) floating point; where they are finer than the crop they are smoothed first.

    Returns:
        (B, 1, H, W) of the type of the images, zero outside the sector, and masks (B, 1, H, W).

    Raises:
        ShapeError: images of another size than the geometry says.
    """
    plane = geometry.plane
    if images.dim() != 3 or images.shape[1:] != (plane.height, plane.width) or not images.is_floating_point():
        raise ShapeError(
            f"images must be (B, {plane.height}, {plane.width}) float as their geometry says, "
            f"got {tuple(images.shape)} {images.dtype}"
        )
    # the grid lies about the centre of the image, which that of the reduced image misses by part of a pixel
    x_mm, y_mm, _ = plane.centre_mm.tolist()
    reduced, geometry = reduce_images(images, geometry, crop.spacing_mm)
    index, weight, mask = (part.to(images.device) for part in _gather(geometry, crop, (x_mm, y_mm)))
    values = (reduced.to(images).flatten(1)[:, index] * weight.to(images)).sum(-1)
    shape = (len(images), 1, crop.size[1], crop.size[0])
    return values.reshape(shape), mask.expand(shape)


@functools.lru_cache(maxsize=32)
def _gather(geometry: ImageGeometry, crop: Crop, centre_mm: tuple[float, float]) -> tuple[Tensor, Tensor, Tensor]:
    """For each pixel of the crop four pixels of the image (P, 4), their weights (P, 4), and whether it counts (P,)."""
    plane = geometry.plane
    centred = crop.plane.points_mm()[..., :2] - crop.plane.centre_mm[:2] + torch.tensor(centre_mm).double()
    image_T_pixel = plane.image_T_pixel[:2, :2]
    column, row = torch.linalg.solve(image_T_pixel, centred.reshape(-1, 2).T)
    sector, corners = geometry.mask(), []
    for dx in (0, 1):
        for dy in (0, 1):
            u, v = column.floor() + dx, row.floor() + dy
            share = (1 - (column - u).abs()) * (1 - (row - v).abs())
            inside = (u >= 0) & (v >= 0) & (u < plane.width) & (v < plane.height)
            i, j = u.long().clamp(0, plane.width - 1), v.long().clamp(0, plane.height - 1)
            corners.append((j * plane.width + i, torch.where(inside & sector[j, i], share, 0.0)))
    index, weight = (torch.stack(part, -1) for part in zip(*corners, strict=True))
    whole = weight.sum(-1)
    mask = whole >= KNOWN_SHARE
    weight = torch.where(mask[:, None], weight / whole.clamp_min(KNOWN_SHARE)[:, None], 0.0)
    return index, weight.to(torch.float32), mask.reshape(crop.size[1], crop.size[0])
