# SPDX-License-Identifier: Apache-2.0
"""What the images of a body share: resampling along the axes of a grid, blur of a scanner, slow variation in tissue."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from ...errors import ShapeError
from ...geometry.grid import VoxelGrid
from .types import STRUCTURES, Body

Field = NDArray[np.float32]


def structure_values(body: Body) -> NDArray[np.uint8]:
    """Label values (D, H, W) of a body, known to be in STRUCTURES.

    Raises:
        ShapeError: a value that is none of STRUCTURES.
    """
    labels = body.labels.data[0].numpy()
    highest = int(labels.max())
    if highest > max(STRUCTURES):
        raise ShapeError(
            f"the labels of the body hold the value {highest}, known are 0 to {max(STRUCTURES)}: map them first "
            "(body_from_labels)"
        )
    return labels


def regrid(grid: VoxelGrid, spacing_mm: tuple[float, float, float]) -> VoxelGrid:
    """The grid with another spacing: the same box of voxels (faces, not centres), rounded up to whole voxels."""
    sizes, origin = [], torch.tensor(grid.origin_mm, dtype=torch.float64)
    direction = torch.tensor(grid.direction, dtype=torch.float64).reshape(3, 3)
    for axis in range(3):
        count = grid.size[axis] * grid.spacing_mm[axis] / spacing_mm[axis]
        sizes.append(max(1, int(np.ceil(count - 1e-6))))
        origin = origin + direction[:, axis] * (spacing_mm[axis] - grid.spacing_mm[axis]) / 2
    x, y, z = origin.tolist()
    return VoxelGrid((sizes[0], sizes[1], sizes[2]), spacing_mm, (x, y, z), grid.direction)


def resample(data: NDArray[np.floating], source: VoxelGrid, target: VoxelGrid) -> Field:
    """Trilinear samples (d, h, w) float32 of an array (D, H, W) on a grid of `regrid`; constant past the border."""
    return sample(data, [axis_positions(source, target, axis) for axis in (2, 1, 0)])


def axis_positions(source: VoxelGrid, target: VoxelGrid, axis: int) -> NDArray[np.float64]:
    """Where the voxels of a grid made by `regrid` lie along an axis (0 x, 1 y, 2 z), in voxels of its source."""
    centres = np.arange(target.size[axis], dtype=np.float64) + 0.5
    return np.asarray(centres * (target.spacing_mm[axis] / source.spacing_mm[axis]) - 0.5, np.float64)


def sample(data: NDArray[np.floating], positions: list[NDArray[np.float64]]) -> Field:
    """Trilinear samples float32 of an array (D, H, W) at the product of positions along z, y and x, in voxels."""
    result = data.astype(np.float32, copy=False)
    for axis in range(3):
        result = _along(result, axis, np.clip(positions[axis], 0.0, data.shape[axis] - 1.0))
    return result


def _along(data: Field, axis: int, position: NDArray[np.float64]) -> Field:
    low = np.minimum(position.astype(np.int64), max(data.shape[axis] - 2, 0))
    weight = (position - low).astype(np.float32)
    if not weight.any():
        return data if len(low) == data.shape[axis] else data.take(low, axis)
    shape = [1, 1, 1]
    shape[axis] = -1
    high = np.minimum(low + 1, data.shape[axis] - 1)
    result = data.take(low, axis)
    step = data.take(high, axis)
    step -= result
    step *= weight.reshape(shape)
    result += step
    return result


def blur(data: Field, grid: VoxelGrid, sigma_mm: tuple[float, float, float]) -> Field:
    """Gaussian blur in place, (D, H, W); sigma along x, y, z of the grid."""
    sigma = [s / d for s, d in zip(sigma_mm[::-1], grid.spacing_mm[::-1], strict=True)]
    return gaussian_filter(data, sigma, output=data, mode="nearest", truncate=3.0)


def scanner_sigma_mm(psf_mm: float, own: VoxelGrid, target: VoxelGrid) -> tuple[float, float, float]:
    """Blur along each axis that a scanner with voxels of `target` adds to voxels of `own`.

    The variances add: of the point spread, of the width of the scanner's voxel (a box, s^2/12), and of the body's own
    voxels, which are boxes too and not points.
    """
    widths = zip(own.spacing_mm, target.spacing_mm, strict=True)
    x, y, z = (float(np.sqrt(psf_mm**2 + a**2 / 12 + b**2 / 12)) for a, b in widths)
    return x, y, z


def slow_field(grid: VoxelGrid, scale_mm: float, rng: np.random.Generator) -> Field:
    """Smooth random field (D, H, W), zero mean and unit variance, changing over `scale_mm`.

    Drawn on coarse knots and interpolated: a band-limited field needs no value a voxel. Linear interpolation takes
    variance between the knots, so the field is scaled to unit variance at the end.
    """
    knot = tuple(max(scale_mm, s) for s in grid.spacing_mm)
    coarse = regrid(grid, (knot[0], knot[1], knot[2]))
    field = gaussian_filter(rng.standard_normal(coarse.size[::-1]), 0.6, mode="wrap")
    fine = resample(field, coarse, grid)
    fine -= fine.mean(dtype=np.float64)
    deviation = float(fine.std(dtype=np.float64))
    fine /= np.float32(deviation if deviation > 0 else 1.0)
    return fine
