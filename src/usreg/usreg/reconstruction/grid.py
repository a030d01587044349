# SPDX-License-Identifier: Apache-2.0
"""The voxel grid that holds every image point of a sweep."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..data.types import TrackedFrame
from ..errors import GeometryError, MissingTransformError
from ..geometry import se3
from ..geometry.grid import VoxelGrid
from ..geometry.plane import ProjectionGeometry

MAX_VOXELS = 512**3
_log = logging.getLogger(__name__)


def tracked_only(frames: Sequence[TrackedFrame | None]) -> tuple[list[TrackedFrame], int]:
    """The frames that have a pose, and how many have none.

    Raises:
        MissingTransformError: not a single frame has a pose.
        GeometryError: a frame is a projection, whose pixels are no points of a plane through the body.
    """
    tracked = [f for f in frames if f is not None]
    if not tracked:
        raise MissingTransformError(
            f"none of {len(frames)} frames has a valid pose, at least one is needed: "
            "check the tracker's status and the names of the frames"
        )
    if any(isinstance(f.frame.geometry, ProjectionGeometry) for f in tracked):
        raise GeometryError("an X-ray projection cannot be inserted as a plane; give ultrasound frames")
    skipped = len(frames) - len(tracked)
    if skipped:
        _log.warning("%d of %d frames have no valid pose and are left out", skipped, len(frames))
    return tracked, skipped


def grid_for(frames: Sequence[TrackedFrame | None], spacing_mm: float, max_voxels: int = MAX_VOXELS) -> VoxelGrid:
    """The smallest grid along the axes of `world` that holds every pixel inside the sector of every tracked frame.

    Args:
        frames: those without a pose are None.
        spacing_mm: edge of a voxel.
        max_voxels: bound of the grid's size.

    Raises:
        GeometryError: spacing not above zero, empty sectors, or more than `max_voxels` voxels.
    """
    if not (math.isfinite(spacing_mm) and spacing_mm > 0):
        raise GeometryError(f"voxel spacing must be above zero, got {spacing_mm} mm")
    tracked, _ = tracked_only(frames)
    points = torch.cat([se3.transform_points(f.world_T_image, _extreme_points(f)) for f in tracked])
    if points.shape[0] == 0:
        raise GeometryError(
            "no pixel of any frame lies inside its sector: check the sector of the calibration against the image size"
        )
    low, high = points.min(0).values, points.max(0).values
    # one voxel more than the last point's floor, so that linear insertion finds both neighbours
    extent = ((high - low) / spacing_mm - 1e-9).clamp_min(0).ceil() + 1
    if extent.prod().item() > max_voxels:
        raise GeometryError(_too_large(extent, high - low, spacing_mm, max_voxels))
    return VoxelGrid(tuple(int(n) for n in extent), (spacing_mm,) * 3, tuple(low.tolist()))  # type: ignore[arg-type]


def _extreme_points(frame: TrackedFrame) -> Tensor:
    """First and last pixel of each row inside the sector, (N, 3) mm in the image frame: they span its convex hull."""
    mask = frame.frame.geometry.mask()
    rows = mask.any(1).nonzero()[:, 0]
    columns = torch.arange(mask.shape[1])
    first = torch.where(mask[rows], columns, mask.shape[1]).min(1).values
    last = torch.where(mask[rows], columns, -1).max(1).values
    pixel = torch.stack([torch.cat([first, last]), rows.repeat(2), torch.zeros(2 * len(rows), dtype=torch.long)], -1)
    return se3.transform_points(frame.frame.plane.image_T_pixel, pixel.to(torch.float64))


def _too_large(extent: Tensor, span_mm: Tensor, spacing_mm: float, max_voxels: int) -> str:
    size = " x ".join(f"{n:.0f}" for n in extent)
    span = " x ".join(f"{s:.0f}" for s in span_mm)
    fits = (span_mm.clamp_min(spacing_mm).prod().item() / max_voxels) ** (1 / 3)
    return (
        f"the sweep spans {span} mm: at {spacing_mm} mm that is {size} voxels, more than {max_voxels}. "
        f"Take a spacing above {fits:.2g} mm, fewer frames, or check the poses for outliers"
    )
