# SPDX-License-Identifier: Apache-2.0
"""Frames and volumes on a coarser grid, for networks: smoothed so that nothing aliases, where it lay in mm.

Training and registration both come through here, so that a network meets the images that it was trained on.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ...data.types import Frame, Volume
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
    mx, my, mz = matrices
    data = my @ (data @ mx.T)
    c, d, h, w = data.shape
    return (mz @ data.reshape(c, d, h * w)).reshape(c, -1, h, w)


def reduce_frame(frame: Frame, coarse_mm: float) -> Frame:
    """A frame of pixels of at most `coarse_mm` (where it was finer), smoothed inside its sector; its first pixel, and
    so the image frame, lie where they lay."""
    columns, rows = (stride_of(s, coarse_mm) for s in frame.plane.spacing_mm)
    if max(columns, rows) == 1:
        return frame
    sector = frame.geometry.mask()
    matrices = _matrix(frame.plane.width, columns), _matrix(frame.plane.height, rows)
    image = reduce_image(frame.image, sector, *matrices).round().to(torch.uint8)
    (a, b), (_, d) = frame.plane.pixel_to_mm
    plane = PlaneGrid(*image.shape, ((a * columns, b * rows), (0.0, d * rows)))
    return replace(frame, image=image, geometry=replace(frame.geometry, plane=plane))


def reduce_mask(mask: Tensor, frame: Frame, coarse_mm: float) -> Tensor:
    """A mask (h, w) of a frame's pixels on the pixels of `reduce_frame`: true where most of the weight is true."""
    columns, rows = (stride_of(s, coarse_mm) for s in frame.plane.spacing_mm)
    if max(columns, rows) == 1:
        return mask
    matrices = _matrix(frame.plane.width, columns), _matrix(frame.plane.height, rows)
    return reduce_image(mask, torch.ones_like(mask), *matrices) > 0.5


def reduce_image(image: Tensor, mask: Tensor, columns: Tensor, rows: Tensor) -> Tensor:
    """Weighted means (m, n), float32, of an image (h, w) inside a mask (h, w); zero where nothing is inside."""
    inside = mask.to(torch.float32)
    weight = rows @ inside @ columns.T
    return torch.where(weight > 1e-6, (rows @ (image.to(torch.float32) * inside) @ columns.T) / weight.clamp_min(1e-6),
                       torch.zeros(()))  # fmt: skip
