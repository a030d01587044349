# SPDX-License-Identifier: Apache-2.0
"""Labels without stairs: each voxel keeps the three commonest kinds about it with their shares.

A surface of voxels is a stair; its echoes would be too. Where kinds meet, the one-hot maps are smoothed by the binomial
kernel (1 2 1) / 4 along each axis. Sampling interpolates these shares and sharpens them again (`sample.SHARP`): the
interface is then the smooth surface on which two shares are equal, as thin as before.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...compiled import njit
from .threads import in_threads

KEPT = 3  # kinds by voxel
WHOLE = 255  # the sum of a voxel's shares


def soften(kinds: Tensor) -> tuple[Tensor, Tensor]:
    """Shares, and where they vary.

    Args:
        kinds: (D, H, W) uint8.

    Returns:
        Shares (D, H, W, 6) uint8: three kinds, and their shares that sum to 255. Mixed (D, H, W) uint8: 1 where the
        27 voxels about a voxel are not all of one kind through and through; the border counts as continued.
    """
    voxels = kinds.cpu().numpy()
    mixed = _mixed(voxels)
    out = np.zeros((*voxels.shape, 2 * KEPT), np.uint8)
    in_threads(lambda first, last: _soften(voxels, mixed, out, first, last), len(voxels), 4)
    return torch.from_numpy(out), torch.from_numpy(_widened(mixed))


def _widened(mixed: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """1 where one of the 27 voxels about a voxel is 1."""
    wide = np.pad(mixed, 1)
    for axis in range(3):
        n = mixed.shape[axis]
        a, b, c = (tuple(slice(k, k + n) if d == axis else slice(None) for d in range(3)) for k in range(3))
        wide = np.maximum(np.maximum(wide[a], wide[b]), wide[c])
    return wide


def _mixed(voxels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """1 where a 3x3x3 neighbourhood holds more than one kind."""
    high = low = np.pad(voxels, 1, mode="edge")
    for axis in range(3):
        n = voxels.shape[axis]
        a, b, c = (tuple(slice(k, k + n) if d == axis else slice(None) for d in range(3)) for k in range(3))
        high = np.maximum(np.maximum(high[a], high[b]), high[c])
        low = np.minimum(np.minimum(low[a], low[b]), low[c])
    return (high != low).astype(np.uint8)


@njit()
def _soften(kinds: Any, mixed: Any, out: Any, first: Any, last: Any) -> None:
    depth, height, width = kinds.shape
    found = np.zeros(27, np.int64)
    share = np.zeros(27, np.int64)
    for k in range(first, last):
        for j in range(height):
            for i in range(width):
                if not mixed[k, j, i]:
                    out[k, j, i, :3], out[k, j, i, 3] = kinds[k, j, i], 255
                    continue
                many = 0
                for dk in range(-1, 2):
                    kk, wk = min(max(k + dk, 0), depth - 1), 2 - abs(dk)
                    for dj in range(-1, 2):
                        jj, wj = min(max(j + dj, 0), height - 1), 2 - abs(dj)
                        for di in range(-1, 2):
                            kind = kinds[kk, jj, min(max(i + di, 0), width - 1)]
                            slot = 0
                            while slot < many and found[slot] != kind:
                                slot += 1
                            if slot == many:
                                found[slot], share[slot] = kind, 0
                                many += 1
                            share[slot] += wk * wj * (2 - abs(di))
                _keep(found, share, many, out[k, j, i])


@njit(inline="always")
def _keep(found, share, many, row):
    """The three commonest kinds, and shares that sum to 255; the first takes what rounding leaves."""
    total = 0
    for rank in range(3):
        best = 0
        for slot in range(1, many):
            if share[slot] > share[best]:
                best = slot
        row[rank] = found[best] if share[best] > 0 else row[0]
        row[rank + 3] = min(share[best], 64)
        total += share[best]
        share[best] = 0
    second, third = row[4] * 255 // total, row[5] * 255 // total
    row[3], row[4], row[5] = 255 - second - third, second, third
