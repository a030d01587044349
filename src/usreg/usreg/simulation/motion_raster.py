# SPDX-License-Identifier: Apache-2.0
"""A coarse raster along the axes of `ct` over a body: which nodes its structures reach."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..compiled import njit
from .body.types import VALUE, Body

COARSE = 3  # every so many voxels are looked at for the extent
MARGIN = 2  # nodes around everything labelled


@dataclass(frozen=True, eq=False)
class Raster:
    """Nodes of a lattice over a body.

    Args:
        body: any grid. origin_mm: (3,) of node (0, 0, 0). step_mm: between nodes. shape: nodes along z, y, x.
    """

    body: Body
    origin_mm: NDArray[np.float64]
    step_mm: float
    shape: tuple[int, int, int]

    @property
    def labels(self) -> NDArray[np.uint8]:
        """Label values (D, H, W)."""
        return np.asarray(self.body.labels.data[0].numpy())

    def axes(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Coordinates of the nodes that broadcast to `shape`: z (Z, 1, 1), y (Y, 1), x (X,), mm."""
        z, y, x = (self.step_mm * np.arange(n) + o for n, o in zip(self.shape, self.origin_mm[::-1], strict=True))
        return z[:, None, None], y[:, None], x

    def marked(self, groups: list[tuple[str, ...]]) -> tuple[NDArray[np.int8], NDArray[np.float64]]:
        """Per node the first group of structures that reaches into one of its eight cells, -1 for none; and the middles
        (K, 3) of the groups, mm."""
        of_value = np.full(256, -1, np.int8)
        for k, parts in enumerate(groups):
            of_value[[VALUE[part] for part in parts]] = k
        node, sums = np.full(self.shape, -1, np.int8), np.zeros((len(groups), 4))
        matrix = self.body.labels.grid.ct_T_index.numpy()
        half = 0.5 * np.abs(matrix[:3, :3]).sum(1)
        _mark(self.labels, of_value, matrix, half, self.origin_mm, 1.0 / self.step_mm, node, sums)
        middles = sums[:, :3] / np.maximum(sums[:, 3:], 1.0)
        return node, middles @ matrix[:3, :3].T + matrix[:3, 3]

    def nearest(self) -> NDArray[np.uint8]:
        """Label value of the voxel nearest to each node; beyond the volume that of its border."""
        index_T_ct = self.body.labels.grid.index_T_ct.numpy()
        z, y, x = self.axes()
        picked = []
        for row, size in zip(index_T_ct[:3], self.labels.shape[::-1], strict=True):
            index = row[0] * x + row[1] * y + row[2] * z + row[3]
            picked.append(np.clip(np.rint(index), 0, size - 1).astype(np.intp))
        return self.labels[picked[2], picked[1], picked[0]]

    def distance(self, mask: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Distance (mm) of every node to the nearest node of the mask; very far where it is empty."""
        if not mask.any():
            return np.full(mask.shape, 1e4, np.float32)
        return np.asarray(ndimage.distance_transform_edt(~mask) * self.step_mm, np.float32)


def make_raster(body: Body, step_mm: float) -> Raster:
    """The raster around everything labelled."""
    labels, matrix = body.labels.data[0].numpy(), body.labels.grid.ct_T_index.numpy()
    index = np.argwhere(labels[::COARSE, ::COARSE, ::COARSE] != VALUE["outside"])[:, ::-1] * COARSE
    points = index @ matrix[:3, :3].T + matrix[:3, 3]
    reach = COARSE * np.abs(matrix[:3, :3]).sum(1) + MARGIN * step_mm
    low, high = points.min(0) - reach, points.max(0) + reach
    z, y, x = (int(n) for n in np.ceil((high - low) / step_mm)[::-1] + 1)
    return Raster(body, low, step_mm, (z, y, x))


@njit()
def _mark(
    labels: NDArray[Any], of_value: NDArray[Any], matrix: NDArray[Any], half: NDArray[Any], origin: NDArray[Any],
    per_mm: float, core: NDArray[Any], sums: NDArray[Any],
) -> None:  # fmt: skip
    low, high = np.empty(3, np.int64), np.empty(3, np.int64)
    for k in range(labels.shape[0]):
        for j in range(labels.shape[1]):
            for i in range(labels.shape[2]):
                group = of_value[labels[k, j, i]]
                if group < 0:
                    continue
                sums[group, 0] += i
                sums[group, 1] += j
                sums[group, 2] += k
                sums[group, 3] += 1.0
                for a in range(3):
                    p = matrix[a, 0] * i + matrix[a, 1] * j + matrix[a, 2] * k + matrix[a, 3] - origin[a]
                    low[a] = max(int(np.floor((p - half[a]) * per_mm)), 0)
                    high[a] = min(int(np.floor((p + half[a]) * per_mm)) + 1, core.shape[2 - a] - 1)
                for c in range(low[2], high[2] + 1):
                    for b in range(low[1], high[1] + 1):
                        for a in range(low[0], high[0] + 1):
                            if core[c, b, a] < 0 or core[c, b, a] > group:
                                core[c, b, a] = group
