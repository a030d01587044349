# SPDX-License-Identifier: Apache-2.0
"""Filling of voxels between the frames that no pixel reached."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from ..compiled import njit

# 13 directions through a voxel, shortest step first
STICKS = np.array(
    sorted(
        ((x, y, z) for z in (0, 1) for y in (-1, 0, 1) for x in (-1, 0, 1) if (z, y, x) > (0, 0, 0)),
        key=lambda s: sum(c * c for c in s),
    ),
    dtype=np.int64,
)
_NORMS = np.sqrt((STICKS**2).sum(1).astype(np.float64))


@njit()
def _reach(filled, k, j, i, dk, dj, di, limit):
    """Steps to the first filled voxel along a direction, 0 if there is none within the limit."""
    depth, height, width = filled.shape
    for step in range(1, limit + 1):
        k, j, i = k + dk, j + dj, i + di
        if k < 0 or j < 0 or i < 0 or k >= depth or j >= height or i >= width:
            return 0
        if filled[k, j, i]:
            return step
    return 0


@njit()
def _stick_value(values, filled, k, j, i, sticks, norms, length):
    """Interpolated value on the shortest stick through a hole, mean of equally short ones; -1 if there is none."""
    best, total, count = np.inf, 0.0, 0
    for s in range(sticks.shape[0]):
        # an end-to-end distance above `steps` is too long, or longer than the best one
        steps = min(length - 1, int(best / norms[s] + 1e-6)) if best < np.inf else length - 1
        di, dj, dk = sticks[s]
        a = _reach(filled, k, j, i, dk, dj, di, steps - 1)
        if a == 0:
            continue
        b = _reach(filled, k, j, i, -dk, -dj, -di, steps - a)
        if b == 0:
            continue
        value = (b * values[k + a * dk, j + a * dj, i + a * di] + a * values[k - b * dk, j - b * dj, i - b * di]) / (
            a + b
        )
        distance = (a + b) * norms[s]
        if distance < best - 1e-6:
            best, total, count = distance, value, 1
        else:
            total, count = total + value, count + 1
    return total / count if count else -1.0


@njit()
def stick_lane(values, filled, near, out, known, sticks, norms, length, rounding, lane, lanes):
    """Fill the holes of planes lane, lane + lanes, ... of `out` and `known` from `values` and `filled` (D, H, W).

    `rounding` is added before digits are cut off: 0.5 rounds to nearest, 0 down.
    `near` (D/b, H/b, W/b) with b = length - 1 says which blocks have a filled voxel in reach: the others are left out.
    """
    depth, height, width = values.shape
    block = length - 1
    for k in range(lane, depth, lanes):
        for j in range(height):
            for i in range(width):
                if filled[k, j, i] or not near[k // block, j // block, i // block]:
                    continue
                value = _stick_value(values, filled, k, j, i, sticks, norms, length)
                if value >= 0:
                    out[k, j, i] = np.uint8(value + rounding)
                    known[k, j, i] = True


def stick_arguments(filled: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What `stick_lane` takes besides the volume: blocks with a filled voxel in reach, directions, their lengths."""
    block = length - 1
    pooled = torch.nn.functional.max_pool3d(
        torch.from_numpy(filled)[None, None].to(torch.float32), block, ceil_mode=True
    )
    near = torch.nn.functional.max_pool3d(pooled, 3, stride=1, padding=1)[0, 0] > 0
    return near.numpy(), STICKS, _NORMS


def stick_reference(values: np.ndarray, filled: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """What `stick_lane` computes, hole by hole; for parity tests."""
    out, known = values.copy(), filled.copy()
    for at in map(np.array, np.argwhere(~filled)):
        found = [f for s in STICKS if (f := _stick_ends(values, filled, at, s[::-1], length))]
        if found:
            shortest = min(d for d, _ in found)
            value = np.mean([v for d, v in found if d < shortest + 1e-6])
            out[tuple(at)], known[tuple(at)] = np.uint8(value + 0.5), True
    return out, known


def _stick_ends(values, filled, at, step, length):
    ends = []
    for sign in (1, -1):
        for n in range(1, length):
            q = at + sign * n * step
            if (q < 0).any() or (q >= filled.shape).any():
                break
            if filled[tuple(q)]:
                ends.append((n, float(values[tuple(q)])))
                break
    if len(ends) < 2 or ends[0][0] + ends[1][0] > length - 1:
        return None
    (a, first), (b, second) = ends
    return (a + b) * math.sqrt(float((step**2).sum())), (b * first + a * second) / (a + b)


def gaussian_fill(values: Tensor, filled: Tensor, sigma_voxels: float, min_known: float) -> tuple[Tensor, Tensor]:
    """Fill holes with the Gaussian mean of the known voxels around them (normalised convolution).

    Args:
        values: (D, H, W) uint8. filled: (D, H, W) bool.
        sigma_voxels: width; the kernel is cut off at two sigma.
        min_known: share of the kernel's weight that must be known.
    """
    radius = max(1, math.ceil(2 * sigma_voxels))
    x = torch.arange(-radius, radius + 1, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (x / sigma_voxels) ** 2)
    known = filled.to(torch.float32)
    weight = _smooth(known, kernel / kernel.sum())
    total = _smooth(values.to(torch.float32) * known, kernel / kernel.sum())
    fill = ~filled & (weight >= min_known) & (weight > 1e-6)
    mean = (total / weight.clamp_min(1e-6) + 0.5).clamp(0, 255).to(torch.uint8)
    return torch.where(fill, mean, values), filled | fill


def _smooth(x: Tensor, kernel: Tensor) -> Tensor:
    radius = kernel.numel() // 2
    for axis in range(3):
        shape = [1, 1, 1, 1, 1]
        shape[2 + axis] = kernel.numel()
        padding = [radius if a == axis else 0 for a in range(3)]
        x = torch.nn.functional.conv3d(x[None, None], kernel.reshape(shape), padding=padding)[0, 0]
    return x
