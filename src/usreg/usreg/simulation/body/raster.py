# SPDX-License-Identifier: Apache-2.0
"""The voxels of a body: fields, tubes and ribbons become labels on a grid of any spacing and rotation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from ...compiled import njit
from ...data.types import Volume
from ...geometry.grid import VoxelGrid
from .shapes import Field, Points, trilinear
from .types import STRUCTURES, VALUE

ANY = tuple(VALUE)  # the names of all structures


class Canvas:
    """Labels (D, H, W) being painted. What is put names what it may cover, so that nothing is overwritten unnoticed."""

    def __init__(self, grid: VoxelGrid) -> None:
        self.grid = grid
        self.labels: NDArray[np.uint8] = np.zeros(grid.size[::-1], dtype=np.uint8)
        self._ct_T_index = grid.ct_T_index.numpy()[:3]
        self._index_T_ct = grid.index_T_ct.numpy()[:3]

    def put(
        self, field: Field, structure: str, over: Sequence[str], level_mm: float = 0.0, endless: bool = False
    ) -> None:
        """Fill where a field lies below a level. `endless`: beyond its lattice the field goes on as at the border."""
        corners = np.array(np.meshgrid(*(
            (o, o + (n - 1) * field.lattice.step_mm)
            for o, n in zip(field.lattice.origin_mm, field.lattice.size, strict=True)
        ))).reshape(3, -1).T  # fmt: skip
        low, high = self._box(corners, 0.0) if not endless else (np.zeros(3, np.int64), np.array(self.grid.size))
        origin = np.array(field.lattice.origin_mm)
        to_lattice = self._ct_T_index.copy()
        to_lattice[:, 3] -= origin
        to_lattice /= field.lattice.step_mm
        paint_field(
            self.labels, field.values, to_lattice, low, high, level_mm, VALUE[structure], allowed(over), endless
        )

    def put_tubes(self, tubes: Points, structure: str, over: Sequence[str]) -> None:
        """Fill truncated cones (N, 8): start, stop, start radius, stop radius."""
        for row in np.asarray(tubes, dtype=np.float64):
            low, high = self._box(row[:6].reshape(2, 3), float(max(row[6], row[7])))
            paint_tube(self.labels, self._ct_T_index, low, high, row, VALUE[structure], allowed(over))

    def put_ribbon(self, curve: Points, structure: str, over: Sequence[str]) -> None:
        """Fill a flat rod along a curve (N, 8): x, y, z, unit normal of its flat side, half thickness, half height."""
        curve = np.asarray(curve, dtype=np.float64)
        for a, b in zip(curve[:-1], curve[1:], strict=True):
            low, high = self._box(np.stack([a[:3], b[:3]]), float(max(a[6], a[7], b[6], b[7])))
            paint_ribbon(self.labels, self._ct_T_index, low, high, a, b, VALUE[structure], allowed(over))

    def volume(self) -> Volume:
        """The labels with the names of all structures."""
        return Volume(torch.from_numpy(self.labels[None]), self.grid, label_names=dict(STRUCTURES))

    def _box(self, points: Points, pad_mm: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Index ranges that hold points (N, 3) with a pad."""
        index = points @ self._index_T_ct[:, :3].T + self._index_T_ct[:, 3]
        pad = pad_mm / self.grid.spacing_mm[0] + 1.0
        size = np.array(self.grid.size)
        low = np.clip(np.floor(index.min(axis=0) - pad), 0, size).astype(np.int64)
        return low, np.clip(np.ceil(index.max(axis=0) + pad) + 1, low, size).astype(np.int64)


def allowed(over: Sequence[str]) -> NDArray[np.bool_]:
    """(256,) bool: label values that may be covered."""
    table = np.zeros(256, dtype=np.bool_)
    table[[VALUE[name] for name in over]] = True
    return table


@njit()
def paint_field(labels, values, to_lattice, low, high, level, value, over, endless):
    """Voxels of an index range whose interpolated field lies below a level."""
    nz, ny, nx = values.shape
    m = to_lattice
    for k in range(low[2], high[2]):
        for j in range(low[1], high[1]):
            for i in range(low[0], high[0]):
                if not over[labels[k, j, i]]:
                    continue
                x = m[0, 0] * i + m[0, 1] * j + m[0, 2] * k + m[0, 3]
                y = m[1, 0] * i + m[1, 1] * j + m[1, 2] * k + m[1, 3]
                z = m[2, 0] * i + m[2, 1] * j + m[2, 2] * k + m[2, 3]
                inside = 0 <= x <= nx - 1 and 0 <= y <= ny - 1 and 0 <= z <= nz - 1
                if (inside or endless) and trilinear(values, x, y, z) < level:
                    labels[k, j, i] = value


@njit()
def paint_tube(labels, ct_T_index, low, high, row, value, over):
    """Voxels of an index range inside a truncated cone with round ends."""
    m = ct_T_index
    dx, dy, dz = row[3] - row[0], row[4] - row[1], row[5] - row[2]
    length2 = max(dx * dx + dy * dy + dz * dz, 1e-12)
    for k in range(low[2], high[2]):
        for j in range(low[1], high[1]):
            for i in range(low[0], high[0]):
                if not over[labels[k, j, i]]:
                    continue
                x = m[0, 0] * i + m[0, 1] * j + m[0, 2] * k + m[0, 3] - row[0]
                y = m[1, 0] * i + m[1, 1] * j + m[1, 2] * k + m[1, 3] - row[1]
                z = m[2, 0] * i + m[2, 1] * j + m[2, 2] * k + m[2, 3] - row[2]
                t = min(max((x * dx + y * dy + z * dz) / length2, 0.0), 1.0)
                radius = row[6] + t * (row[7] - row[6])
                x, y, z = x - t * dx, y - t * dy, z - t * dz
                if x * x + y * y + z * z < radius * radius:
                    labels[k, j, i] = value


@njit()
def paint_ribbon(labels, ct_T_index, low, high, a, b, value, over):
    """Voxels of an index range inside a rod of elliptic section; its normal turns from one end to the other."""
    m = ct_T_index
    dx, dy, dz = b[0] - a[0], b[1] - a[1], b[2] - a[2]
    length2 = max(dx * dx + dy * dy + dz * dz, 1e-12)
    for k in range(low[2], high[2]):
        for j in range(low[1], high[1]):
            for i in range(low[0], high[0]):
                if not over[labels[k, j, i]]:
                    continue
                x = m[0, 0] * i + m[0, 1] * j + m[0, 2] * k + m[0, 3] - a[0]
                y = m[1, 0] * i + m[1, 1] * j + m[1, 2] * k + m[1, 3] - a[1]
                z = m[2, 0] * i + m[2, 1] * j + m[2, 2] * k + m[2, 3] - a[2]
                t = min(max((x * dx + y * dy + z * dz) / length2, 0.0), 1.0)
                x, y, z = x - t * dx, y - t * dy, z - t * dz
                nx, ny, nz = a[3] + t * (b[3] - a[3]), a[4] + t * (b[4] - a[4]), a[5] + t * (b[5] - a[5])
                across = x * nx + y * ny + z * nz
                along2 = max(x * x + y * y + z * z - across * across, 0.0)
                thick, high_ = a[6] + t * (b[6] - a[6]), a[7] + t * (b[7] - a[7])
                if across * across / (thick * thick) + along2 / (high_ * high_) < 1.0:
                    labels[k, j, i] = value
