# SPDX-License-Identifier: Apache-2.0
"""Gaussian pyramids: the same smoothing, in mm, of the volume (all three axes) and of the frame (in its plane).

Smoothing and thinning are one banded matrix per axis; what is unknown or outside the sector has no weight (normalised
convolution).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..compiled import njit
from ..data.types import Frame, ImageGeometry, Volume

# Share of the kernel's weight that must be known for a smoothed value to count. A flat border keeps half; less is
# asked, so that a thin volume is not lost at the coarse levels.
KNOWN_SHARE = 0.25
Array = npt.NDArray[Any]
REACH = 3.0  # standard deviations at which the kernel is cut


@dataclass(frozen=True, eq=False)
class VolumeLevel:
    """A smoothed volume.

    Args:
        data: (D, H, W) float32, NaN where unknown; (D, H, W, C) where a similarity samples several channels.
        index_T_ct: (4, 4) from mm to the voxel index of this level.
        sigma_mm: standard deviation of the smoothing.
        variance: of each channel over the known voxels, where somebody needs it.
    """

    data: Tensor
    index_T_ct: Tensor
    sigma_mm: float
    variance: tuple[float, ...] = ()


@dataclass(frozen=True, eq=False)
class FrameLevel:
    """Samples of a smoothed frame inside its sector.

    Args:
        x_mm, y_mm: (N,) float32, relative to the centre of the image rectangle.
        value: (N,) float32.
        cell: (N,) int64 position in the thinned image of `shape`, row by row.
        spacing_mm: distance of the samples along columns and rows.
    """

    x_mm: Tensor
    y_mm: Tensor
    value: Tensor
    cell: Tensor
    shape: tuple[int, int]
    spacing_mm: tuple[float, float]


def gaussian_matrix(size: int, stride: int, sigma: float, cover: bool = False) -> Tensor:
    """Weights (rows, size), float32: row k is a Gaussian about sample k * stride; sigma in samples.

    Rows sum to 1 except near the ends: what is missing there reads as unknown. With `cover` the last row lies at the
    last sample or beyond it, so that no border is cut off.
    """
    rows = -(-(size - 1) // stride) + 1 if cover else -(-size // stride)
    centres = stride * torch.arange(rows, dtype=torch.float64)
    distance = torch.arange(size, dtype=torch.float64) - centres[:, None]
    if sigma <= 0:
        return (distance == 0).to(torch.float32)
    weight = torch.exp(-0.5 * (distance / sigma) ** 2)
    weight = torch.where(distance.abs() <= max(1.0, REACH * sigma), weight, torch.zeros_like(weight))
    reach = max(1, int(REACH * sigma))
    offsets = torch.arange(-reach, reach + 1, dtype=torch.float64)
    return (weight / torch.exp(-0.5 * (offsets / sigma) ** 2).sum()).to(torch.float32)


def volume_level(volume: Volume, sigma_mm: float, channel: int = 0) -> VolumeLevel:
    """Smooth one channel of a volume and thin it to a spacing of about sigma."""
    data = volume.data[channel].to(torch.float32)
    known = torch.isfinite(data)
    if volume.mask is not None:
        known = known & volume.mask
    strides = [max(1, int(sigma_mm / s)) for s in volume.grid.spacing_mm]
    value = _smooth3(torch.where(known, data, torch.zeros_like(data)), strides, volume.grid.spacing_mm, sigma_mm)
    weight = _smooth3(known.to(torch.float32), strides, volume.grid.spacing_mm, sigma_mm)
    value = torch.where(weight > KNOWN_SHARE, value / weight.clamp_min(1e-6), torch.full_like(value, torch.nan))
    thin = torch.diag(torch.tensor([1.0 / s for s in strides] + [1.0], dtype=torch.float64))
    return VolumeLevel(value.contiguous(), thin @ volume.grid.index_T_ct, sigma_mm)


def _smooth3(data: Tensor, strides: list[int], spacing_mm: tuple[float, float, float], sigma_mm: float) -> Tensor:
    axes = zip(reversed(data.shape), strides, spacing_mm, strict=True)
    mx, my, mz = (gaussian_matrix(n, stride, sigma_mm / mm, cover=True) for n, stride, mm in axes)
    data = my @ (data @ mx.T)
    return (mz @ data.reshape(data.shape[0], -1)).reshape(mz.shape[0], *data.shape[1:])


def frame_level(frame: Frame, sigma_mm: float, step_mm: float) -> FrameLevel:
    """Smooth a frame inside its sector and sample it about every `step_mm`."""
    plan = _plan(frame.geometry, sigma_mm, step_mm)
    smooth = thin(frame.image.contiguous().numpy(), plan.mask.numpy(), *plan.rows, *plan.columns)
    value = smooth.reshape(-1)[plan.cell.numpy()] * plan.scale.numpy()
    return FrameLevel(plan.x_mm, plan.y_mm, torch.from_numpy(value), plan.cell, plan.shape, plan.spacing_mm)


@dataclass(frozen=True, eq=False)
class _Plan:
    """What depends on the geometry alone."""

    rows: tuple[Array, Array]
    columns: tuple[Array, Array]
    mask: Tensor
    scale: Tensor
    x_mm: Tensor
    y_mm: Tensor
    cell: Tensor
    shape: tuple[int, int]
    spacing_mm: tuple[float, float]


@functools.lru_cache(maxsize=16)
def _plan(geometry: ImageGeometry, sigma_mm: float, step_mm: float) -> _Plan:
    plane = geometry.plane
    dx, dy = plane.spacing_mm
    sx, sy = (max(1, round(step_mm / d)) for d in (dx, dy))
    rows, columns = gaussian_matrix(plane.height, sy, sigma_mm / dy), gaussian_matrix(plane.width, sx, sigma_mm / dx)
    weight = rows @ geometry.mask().to(torch.float32) @ columns.T
    keep = geometry.mask()[::sy, ::sx] & (weight > KNOWN_SHARE)
    points = (plane.points_mm() - plane.centre_mm)[::sy, ::sx][keep]
    scale = 1.0 / weight[keep]
    x, y = (points[:, i].to(torch.float32).contiguous() for i in (0, 1))
    shape = (keep.shape[0], keep.shape[1])
    cell = keep.reshape(-1).nonzero()[:, 0]
    return _Plan(_band(rows), _band(columns), geometry.mask(), scale, x, y, cell, shape, (sx * dx, sy * dy))


def _band(matrix: Tensor) -> tuple[Array, Array]:
    """A matrix (m, n), and for each row its first column that is not zero and one past the last (m, 2)."""
    used = (matrix != 0).numpy()
    ends = np.stack([used.argmax(1), matrix.shape[1] - used[:, ::-1].argmax(1)], 1)
    return matrix.numpy(), ends


@njit(fastmath=True)
def thin(image, mask, rows, row_ends, columns, column_ends):
    """rows @ (image * mask) @ columns.T, float32, over the bands alone; no thread but the caller's."""
    out = np.empty((rows.shape[0], columns.shape[0]), np.float32)
    line = np.empty(image.shape[1], np.float32)
    for r in range(rows.shape[0]):
        line[:] = 0.0
        for k in range(row_ends[r, 0], row_ends[r, 1]):
            weight = rows[r, k]
            for c in range(image.shape[1]):
                line[c] += weight * np.float32(image[k, c] * mask[k, c])
        for c in range(columns.shape[0]):
            total = np.float32(0.0)
            for k in range(column_ends[c, 0], column_ends[c, 1]):
                total += columns[c, k] * line[k]
            out[r, c] = total
    return out
