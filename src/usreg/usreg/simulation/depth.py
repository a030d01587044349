# SPDX-License-Identifier: Apache-2.0
"""A probe's image at another depth, and where that image lies in the probe."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..config import check_range
from ..geometry import rotation, se3
from ..geometry.plane import PlaneGrid
from ..geometry.sector import SectorGeometry

FACING = ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0), (0.0, 1.0, 0.0))  # probe_R_image: the image's y is the beam, the probe's z
MARGIN_PX = 2.0


def at_depth(geometry: SectorGeometry, depth_mm: float) -> SectorGeometry:
    """The same probe and image size at another depth: the array stays, the pixels scale so that the sector fits.

    Raises:
        ConfigError: a depth outside 10 to 400 mm.
    """
    check_range("depth_mm", depth_mm, 10.0, 400.0)
    near = geometry.radius_mm[0]
    width, height = geometry.plane.width, geometry.plane.height
    left, right, top, bottom = _extent(geometry, near, near + depth_mm)
    pixel = max((right - left) / (width - 1 - 2 * MARGIN_PX), (bottom - top) / (height - 1 - 2 * MARGIN_PX))
    pixel = math.ceil(pixel * 1000) / 1000
    apex = ((width - 1) * pixel / 2 - (left + right) / 2, MARGIN_PX * pixel - top)
    plane = PlaneGrid(height, width, ((pixel, 0.0), (0.0, pixel)))
    x0, y0, x1, y1 = (round(v, 6) for v in (apex[0] + left, apex[1] + top, apex[0] + right, apex[1] + bottom))
    far = depth_mm if geometry.kind == "linear" else near + depth_mm
    return replace(
        geometry, plane=plane, apex_mm=(round(apex[0], 6), round(apex[1], 6)), radius_mm=(near, far), depth_mm=depth_mm,
        clip_mm=(x0, y0, x1, y1),
    )  # fmt: skip


def _extent(geometry: SectorGeometry, near: float, far: float) -> tuple[float, float, float, float]:
    """Left, right, top and bottom of the sector from its apex, mm."""
    if geometry.kind == "linear":
        half = (geometry.clip_mm[2] - geometry.clip_mm[0]) / 2
        return -half, half, 0.0, far
    first, last = geometry.angle_rad
    widest = [r * math.sin(a) for r in (near, far) for a in (first, last)]
    lowest = far if first <= 0 <= last else max(far * math.cos(a) for a in (first, last))
    return min(widest), max(widest), min(near * math.cos(a) for a in (first, last)), lowest


def image_in_probe(geometry: SectorGeometry, turn_deg: Sequence[float] = (1.5, -2.0, 1.0)) -> Tensor:
    """probe_T_image (4, 4): the middle of the face is the probe's origin, the beam its z, but for the turn that a real
    holder has (rotation vector, degrees)."""
    face = torch.tensor([geometry.apex_mm[0], geometry.apex_mm[1] + geometry.radius_mm[0], 0.0], dtype=torch.float64)
    turn = rotation.exp(torch.tensor([math.radians(a) for a in turn_deg], dtype=torch.float64))
    probe_R_image = turn @ torch.tensor(FACING, dtype=torch.float64)
    return se3.from_parts(probe_R_image, -(probe_R_image @ face))
