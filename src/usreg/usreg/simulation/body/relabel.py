# SPDX-License-Identifier: Apache-2.0
"""Labels on another grid, crisp and smooth: shape-based interpolation, structure by structure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, find_objects, gaussian_filter

from ...geometry.grid import VoxelGrid
from .sampling import Field, axis_positions, sample

Labels = NDArray[np.uint8]
MARGIN = 4  # voxels around a structure that its distances are known in
SMOOTH = 0.6  # of the finest spacing; takes the steps of the source off its surface


def resample_labels(labels: Labels, source: VoxelGrid, target: VoxelGrid) -> Labels:
    """Labels (D, H, W) on a grid made by `regrid`.

    Each structure becomes a map of signed distances to its surface, in mm; the maps are interpolated, and a voxel
    belongs to the structure that it lies deepest in, or to none. The volume of each is kept (up to half a voxel of its
    surface). Nearest neighbours would leave blocks, and linear
    interpolation of a mask leaves them along thick slices.

    Source: Raya, Udupa, IEEE Trans. Med. Imaging 9 (1990) 32.
    """
    if target == source:
        return labels
    result = np.zeros(target.size[::-1], np.uint8)
    deepest = np.zeros(result.shape, np.float32)
    voxels = float(np.prod(source.spacing_mm) / np.prod(target.spacing_mm))  # of the target in one of the source
    positions = [axis_positions(source, target, axis) for axis in (2, 1, 0)]
    for value, found in enumerate(find_objects(labels), start=1):
        if found is None:
            continue
        low = [max(s.start - MARGIN, 0) for s in found]
        box = tuple(slice(a, min(s.stop + MARGIN, n)) for a, s, n in zip(low, found, labels.shape, strict=True))
        distance = signed_distance(labels[box] == value, source)
        inner = [_within(p, b, n) for p, b, n in zip(positions, box, labels.shape, strict=True)]
        depth = sample(distance, [p[i] - a for p, i, a in zip(positions, inner, low, strict=True)])
        part = (inner[0], inner[1], inner[2])
        depth += _offset(depth, float((labels[box] == value).sum()) * voxels, 0.5 * min(source.spacing_mm))
        wins = depth > deepest[part]
        result[part][wins] = value
        deepest[part][wins] = depth[wins]
    return result


def _offset(depth: Field, count: float, limit_mm: float) -> float:
    """What to add to depths so that as many voxels lie inside as the structure had: smoothing shrinks what is round."""
    at = int(np.clip(depth.size - round(count), 0, depth.size - 1))
    return float(np.clip(-np.partition(depth.ravel(), at)[at] + 1e-3, -limit_mm, limit_mm))


def _within(positions: NDArray[np.float64], box: slice, size: int) -> slice:
    """Range of positions in a box; at the border of the volume also those beyond the last centre."""
    first = 0 if box.start == 0 else int(np.searchsorted(positions, box.start))
    last = len(positions) if box.stop == size else int(np.searchsorted(positions, box.stop - 1, side="right"))
    return slice(first, last)


def signed_distance(mask: NDArray[np.bool_], grid: VoxelGrid) -> Field:
    """Distance (D, H, W) to the surface of a mask, mm: positive inside, a little smoothed.

    What lies beyond the array counts as neither: a structure cut off by the volume's border ends there, not before.
    """
    spacing = grid.spacing_mm[::-1]
    if mask.all():
        return np.full(mask.shape, max(spacing), np.float32)
    limit = 2.0 * MARGIN * max(spacing)
    inside = distance_transform_edt(mask, sampling=spacing)
    outside = distance_transform_edt(~mask, sampling=spacing)
    distance = np.clip(inside - outside, -limit, limit).astype(np.float32)
    return gaussian_filter(distance, [SMOOTH * min(spacing) / s for s in spacing], mode="nearest")
