# SPDX-License-Identifier: Apache-2.0
"""Insertion of image pixels into voxels: compiled kernels and, below them, their slow reference.

Work is split by slabs of the volume. A slab visits frames, rows and columns in their order and writes to its own voxels
only, so that every voxel sums in one fixed order: the result does not depend on the number of threads, to the bit.
"""

from __future__ import annotations

import numpy as np

from ..compiled import njit

MEAN, MAXIMUM, LATEST, MEAN_8BIT = 0, 1, 2, 3
MIN_LINEAR_WEIGHT = (
    0.125  # maximum and latest: a pixel counts for those of its 8 neighbours that it is not far from (as in PLUS)
)
MAX_WEIGHT_8BIT = 255.0  # PLUS keeps weights in 16 bits, 256 a pixel
SLAB = 4  # voxels along z


@njit(inline="always")
def _put(voxels, k, j, i, value, weight, compounding, linear):
    if compounding == MEAN:
        voxels[k, j, i, 0] += np.float32(weight * value)
        voxels[k, j, i, 1] += np.float32(weight)
    elif compounding == MEAN_8BIT:
        # the voxel is 8 bits at every step: PLUS rounds to nearest in linear insertion, down in nearest insertion
        known = voxels[k, j, i, 1]
        mean = (voxels[k, j, i, 0] * known + weight * value) / (known + weight)
        voxels[k, j, i, 0] = np.float32(np.floor(mean + (0.5 if linear else 0.0)))
        voxels[k, j, i, 1] = np.float32(min(known + weight, MAX_WEIGHT_8BIT))
    elif weight >= MIN_LINEAR_WEIGHT:
        if compounding == LATEST or voxels[k, j, i, 1] == 0 or value > voxels[k, j, i, 0]:
            voxels[k, j, i, 0] = value
        voxels[k, j, i, 1] = 1.0


@njit()
def _columns(start, step, low, high, width):
    """Range of columns c with start + c * step in [low, high], one column wider on both sides."""
    if abs(step) < 1e-12:
        return (0, width) if low <= start <= high else (0, 0)
    a, b = (low - start) / step, (high - start) / step
    if a > b:
        a, b = b, a
    if b < 0 or a > width:
        return 0, 0
    return max(0, int(np.floor(a)) - 1), min(width, int(np.ceil(b)) + 2)


@njit()
def _nearest_row(voxels, pixels, inside, p, d, low, high, compounding):
    _, height, width, _ = voxels.shape
    first, last = _columns(p[2], d[2], low - 0.5, high - 0.5, pixels.shape[0])
    for c in range(first, last):
        k = int(np.floor(p[2] + c * d[2] + 0.5))
        if not inside[c] or k < low or k >= high:
            continue
        i = int(np.floor(p[0] + c * d[0] + 0.5))
        j = int(np.floor(p[1] + c * d[1] + 0.5))
        if 0 <= i < width and 0 <= j < height:
            _put(voxels, k, j, i, np.float32(pixels[c]), 1.0, compounding, False)


@njit()
def _linear_row(voxels, pixels, inside, p, d, low, high, compounding):
    _, height, width, _ = voxels.shape
    first, last = _columns(p[2], d[2], low - 1.0, high * 1.0, pixels.shape[0])
    for c in range(first, last):
        z = p[2] + c * d[2]
        k = int(np.floor(z))
        if not inside[c] or k < low - 1 or k >= high:
            continue
        x, y = p[0] + c * d[0], p[1] + c * d[1]
        i, j = int(np.floor(x)), int(np.floor(y))
        if i < -1 or j < -1 or i >= width or j >= height:
            continue
        fx, fy, fz = x - i, y - j, z - k
        value = np.float32(pixels[c])
        for kk in range(max(k, low), min(k + 2, high)):
            wz = fz if kk > k else 1.0 - fz
            for jj in range(max(j, 0), min(j + 2, height)):
                wy = wz * (fy if jj > j else 1.0 - fy)
                for ii in range(max(i, 0), min(i + 2, width)):
                    w = wy * (fx if ii > i else 1.0 - fx)
                    if w > 0.0:
                        _put(voxels, kk, jj, ii, value, w, compounding, True)


@njit()
def insert_lane(voxels, image, inside, index_A_pixel, linear, compounding, lane, lanes):
    """Insert one frame into the slabs of one lane.

    Args:
        voxels: (D, H, W, 2) float32, sum and weight, or value and 1 for maximum and latest.
        image: (h, w) uint8. inside: (h, w) bool.
        index_A_pixel: (3, 3) float64; columns are the voxel index per column, per row, and of pixel (0, 0).
        linear: spread over 8 neighbours instead of the nearest voxel.
        compounding: MEAN, MAXIMUM, LATEST or MEAN_8BIT.
        lane, lanes: this call works on the slabs lane, lane + lanes, ...: neighbours in z share the work evenly.
    """
    depth = voxels.shape[0]
    d = index_A_pixel[:, 0].copy()
    p = np.empty(3)
    for slab in range(lane, (depth + SLAB - 1) // SLAB, lanes):
        low, high = slab * SLAB, min(depth, (slab + 1) * SLAB)
        for r in range(image.shape[0]):
            for axis in range(3):
                p[axis] = index_A_pixel[axis, 2] + r * index_A_pixel[axis, 1]
            if linear:
                _linear_row(voxels, image[r], inside[r], p, d, low, high, compounding)
            else:
                _nearest_row(voxels, image[r], inside[r], p, d, low, high, compounding)


@njit()
def finish_lane(voxels, values, filled, compounding, lane, lanes):
    """Round what was compounded (for MEAN: divide by the weights first): values (D, H, W) uint8, filled (D, H, W) bool.

    Works on the planes lane, lane + lanes, ...
    """
    depth, height, width, _ = voxels.shape
    for k in range(lane, depth, lanes):
        for j in range(height):
            for i in range(width):
                weight = voxels[k, j, i, 1]
                filled[k, j, i] = weight > 0
                scale = weight if compounding == MEAN and weight > 0 else np.float32(1.0)
                values[k, j, i] = np.uint8(voxels[k, j, i, 0] / scale + np.float32(0.5))


def insert_reference(voxels, image, inside, index_A_pixel, linear, compounding):
    """What `insert_lane` over all lanes computes, in plain numpy with float64 sums, in place; for parity tests."""
    rows, columns = np.nonzero(inside)
    index = np.stack([columns, rows, np.ones_like(rows)], -1) @ index_A_pixel.T
    base = np.floor(index if linear else index + 0.5).astype(np.int64)
    fraction = index - base if linear else np.zeros_like(index)
    values = image[rows, columns].astype(np.float64)
    corners = np.array(list(np.ndindex(2, 2, 2))) if linear else np.zeros((1, 3), np.int64)
    at = base[:, None] + corners
    weights = np.where(corners, fraction[:, None], 1 - fraction[:, None]).prod(-1)
    limit = np.array(voxels.shape[2::-1])
    keep = ((at >= 0) & (at < limit)).all(-1) & (weights > 0)
    if compounding != MEAN:
        keep &= weights >= MIN_LINEAR_WEIGHT
    x, y, z = at[keep].T
    _compound(voxels, (z, y, x), np.broadcast_to(values[:, None], weights.shape)[keep], weights[keep], compounding)


def _compound(voxels, at, values, weights, compounding):
    if compounding == MEAN:
        np.add.at(voxels[..., 0], at, values * weights)
        np.add.at(voxels[..., 1], at, weights)
        return
    if compounding == MAXIMUM:
        np.maximum.at(voxels[..., 0], at, values)
    else:
        for n in range(len(values)):
            voxels[at[0][n], at[1][n], at[2][n], 0] = values[n]
    voxels[..., 1][at] = 1
