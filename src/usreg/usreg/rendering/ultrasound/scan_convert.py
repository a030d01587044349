# SPDX-License-Identifier: Apache-2.0
"""Lines and depths to the pixels of the image, in millimetres: image millimetres equal CT millimetres."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from ...geometry.sector import SectorGeometry


@dataclass(frozen=True, eq=False)
class PixelMap:
    """For each pixel (M,) inside the sector: its place in the image, the first of its four samples, and the parts.

    Args:
        pixel: (M,) flat index into the image. sample: (M,) flat index into (L, S).
        line_part, depth_part: (M,) position between the samples, 0 to 1.
    """

    pixel: Tensor
    sample: Tensor
    line_part: Tensor
    depth_part: Tensor
    depths: int


@functools.lru_cache(maxsize=16)
def pixel_map(geometry: SectorGeometry, lines: int, depths: int) -> PixelMap:
    """Where the pixels of a sector lie among lines and depths that span it from edge to edge."""
    x, y = geometry.plane.points_mm()[..., :2].reshape(-1, 2).unbind(-1)
    if geometry.kind == "linear":
        x0, y0, x1, y1 = geometry.clip_mm
        across, along = (x - x0) / (x1 - x0), (y - y0) / (y1 - y0)
    else:
        (r0, r1), (a0, a1) = geometry.radius_mm, geometry.angle_rad
        dx, dy = x - geometry.apex_mm[0], y - geometry.apex_mm[1]
        across, along = (torch.atan2(dx, dy) - a0) / (a1 - a0), (torch.hypot(dx, dy) - r0) / (r1 - r0)
    pixel = geometry.mask().reshape(-1).nonzero()[:, 0]
    line, line_part = _split(across[pixel], lines)
    depth, depth_part = _split(along[pixel], depths)
    return PixelMap(pixel, line * depths + depth, line_part, depth_part, depths)


def _split(share: Tensor, count: int) -> tuple[Tensor, Tensor]:
    at = (share * (count - 1)).clamp(0.0, count - 1.0)
    low = at.floor().long().clamp_max(count - 2)
    return low, at - low


def scan_convert(polar: Tensor, geometry: SectorGeometry) -> Tensor:
    """Images (B, 1, h, w) of values (B, L, S) on lines and depths; zero outside the sector."""
    batch, lines, depths = polar.shape
    at = pixel_map(geometry, lines, depths)
    pixel, sample = at.pixel.to(polar.device), at.sample.to(polar.device)
    u, v = at.line_part.to(polar), at.depth_part.to(polar)
    flat = polar.reshape(batch, -1)
    low = torch.lerp(flat[:, sample], flat[:, sample + 1], v)
    high = torch.lerp(flat[:, sample + depths], flat[:, sample + depths + 1], v)
    plane = geometry.plane
    image = polar.new_zeros(batch, plane.height * plane.width)
    return image.index_copy(1, pixel, torch.lerp(low, high, u)).reshape(batch, 1, plane.height, plane.width)
