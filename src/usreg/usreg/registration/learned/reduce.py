# SPDX-License-Identifier: Apache-2.0
"""Frames and volumes on a coarser grid, for networks: smoothed so that nothing aliases, where it lay in mm.

Training and registration both come through here, so that a network meets the images that it was trained on.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ...data.types import Frame, ImageGeometry, Volume
from ...geometry.grid import VoxelGrid
from ...geometry.plane import PlaneGrid
from ..pyramid import KNOWN_SHARE, gaussian_matrix

SIGMA = 0.5  # standard deviation of the smoothing as a share of the new spacing
ROUNDING = 1e-6  # 3 mm are twelve times 0.25 mm, whatever binary fractions say


def stride_of(spacing_mm: float, coarse_mm: float) -> int:
    """How many samples make one of at most `coarse_mm`; at least one."""
    return max(1, int(coarse_mm / spacing_mm + ROUNDING))


def reduce_volume(volume: Volume, coarse_mm: float) -> Volume:
    """A volume of voxels of at most `coarse_mm` (where it was finer), smoothed over what is known.

    Returns:
        data (C, D, H, W) uint8 where it was uint8, else float32, zero where unknown; mask; no labels. The first voxel
        lies where it lay. The volume itself where it is as coarse already.
    """
    strides = tuple(stride_of(s, coarse_mm) for s in volume.grid.spacing_mm)
    if max(strides) == 1:
        return volume
    known = torch.isfinite(volume.data).all(0)
    known = known if volume.mask is None else known & volume.mask
    data = torch.where(known, volume.data.to(torch.float32), torch.zeros(()))
    matrices = [_matrix(n, k) for n, k in zip(reversed(known.shape), strides, strict=True)]
    weight = _smooth(known.to(torch.float32)[None], matrices)[0]
    value = _smooth(data, matrices) / weight.clamp_min(1e-6)
    mask = weight > KNOWN_SHARE
    value = torch.where(mask, value, torch.zeros_like(value))
    if volume.data.dtype == torch.uint8:
        value = value.round().to(torch.uint8)
    d, h, w = mask.shape
    x, y, z = (s * k for s, k in zip(volume.grid.spacing_mm, strides, strict=True))
    grid = VoxelGrid((w, h, d), (x, y, z), volume.grid.origin_mm, volume.grid.direction)
    return replace(volume, data=value, grid=grid, mask=mask, labels=None, label_names={})


def _matrix(size: int, stride: int) -> Tensor:
    """Weights (ceil(size / stride), size) of the smoothing along one axis."""
    return gaussian_matrix(size, stride, SIGMA * stride if stride > 1 else 0.0)


def _smooth(data: Tensor, matrices: list[Tensor]) -> Tensor:
    mx, my, mz = (m.to(data.device) for m in matrices)
    data = my @ (data @ mx.T)
    c, d, h, w = data.shape
    return (mz @ data.reshape(c, d, h * w)).reshape(c, -1, h, w)


def reduce_frame(frame: Frame, coarse_mm: float) -> Frame:
    """A frame of pixels of at most `coarse_mm` (where it was finer), smoothed inside its sector; its first pixel, and
    so the image frame, lie where they lay."""
    images, geometry = reduce_images(frame.image[None], frame.geometry, coarse_mm)
    if geometry is frame.geometry:
        return frame
    return replace(frame, image=images[0].round().to(torch.uint8), geometry=geometry)


def reduce_images(images: Tensor, geometry: ImageGeometry, coarse_mm: float) -> tuple[Tensor, ImageGeometry]:
    """As `reduce_frame`, of images (B, h, w) of one geometry; float32 where anything was done."""
    columns, rows = (stride_of(s, coarse_mm) for s in geometry.plane.spacing_mm)
    if max(columns, rows) == 1:
        return images, geometry
    images = weighted_means(images, geometry.mask(), columns, rows)
    (a, b), (_, d) = geometry.plane.pixel_to_mm
    height, width = images.shape[1:]
    plane = PlaneGrid(height, width, ((a * columns, b * rows), (0.0, d * rows)))
    return images, replace(geometry, plane=plane)


def reduce_mask(mask: Tensor, geometry: ImageGeometry, coarse_mm: float) -> Tensor:
    """A mask (h, w) of an image's pixels on the pixels of `reduce_frame`: true where most of the weight is true."""
    columns, rows = (stride_of(s, coarse_mm) for s in geometry.plane.spacing_mm)
    if max(columns, rows) == 1:
        return mask
    return weighted_means(mask[None], torch.ones_like(mask), columns, rows)[0] > 0.5


def weighted_means(images: Tensor, mask: Tensor, columns: int, rows: int) -> Tensor:
    """Smoothed images (B, m, n), float32: every so many columns and rows of images (B, h, w), inside a mask (h, w)."""
    across, down = (_matrix(n, k).to(images.device) for n, k in zip(mask.shape[::-1], (columns, rows), strict=True))
    inside = mask.to(images.device, torch.float32)
    weight = down @ inside @ across.T
    value = (down @ (images.to(torch.float32) * inside) @ across.T) / weight.clamp_min(1e-6)
    return torch.where(weight > 1e-6, value, torch.zeros_like(value))
