# SPDX-License-Identifier: Apache-2.0
"""Isosurfaces by marching tetrahedra: closed two-manifolds by construction, without ambiguous cases.

Source: Payne, Toga, IEEE Comput. Graph. Appl. 10 (1990) 33, with Kuhn's six tetrahedra a cube. Written here because a
library for it (scikit-image) brings five further packages for one function, and leaves edges shared by four triangles
where cubes touch.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...compiled import njit

Field = NDArray[np.float32]

# Corners of the six tetrahedra of a cube as bit masks (x 1, y 2, z 4), along the diagonal 0 -> 7; the last column is 1
# where the corners are right-handed.
TETRAHEDRA = np.array([
    [0, 1, 3, 7, 1], [0, 1, 5, 7, 0], [0, 2, 3, 7, 0], [0, 2, 6, 7, 1], [0, 4, 5, 7, 1], [0, 4, 6, 7, 0],
])  # fmt: skip
# For each set of corners inside (bits): an even order (i, j, k, l), the corners inside first (where one is outside:
# that one), and the kind: triangles, -1 where one corner is outside.
ORDERS = np.array([
    [0, 1, 2, 3, 0], [0, 1, 2, 3, 1], [1, 0, 3, 2, 1], [0, 1, 2, 3, 2], [2, 0, 1, 3, 1], [0, 2, 3, 1, 2],
    [1, 2, 0, 3, 2], [3, 0, 2, 1, -1], [3, 0, 2, 1, 1], [0, 3, 1, 2, 2], [1, 3, 2, 0, 2], [2, 0, 1, 3, -1],
    [2, 3, 0, 1, 2], [1, 0, 3, 2, -1], [0, 1, 2, 3, -1], [0, 1, 2, 3, 0],
])  # fmt: skip


@njit()
def _emit(keys, count, low, i, j):
    """Key of the edge between two corners of a tetrahedron: lower lattice point and direction."""
    a, b = min(i, j), max(i, j)
    keys[count] = low[a] * 7 + (low[4 + b] ^ low[4 + a]) - 1


@njit()
def _march(field, iso, keys, tetrahedra, orders):
    """Edge keys of all triangles, three each, outward where x, y, z are right-handed; returns how many keys.

    Written only while there is room: a first call with an empty array counts.
    """
    nz, ny, nx = field.shape
    inside = np.zeros(8, np.bool_)
    low = np.zeros(8, np.int64)
    count, room = 0, keys.shape[0]
    for z in range(nz - 1):
        for y in range(ny - 1):
            for x in range(nx - 1):
                total = 0
                for c in range(8):
                    inside[c] = field[z + (c >> 2), y + ((c >> 1) & 1), x + (c & 1)] > iso
                    total += inside[c]
                if total == 0 or total == 8:
                    continue
                for t in range(6):
                    case = 0
                    for c in range(4):
                        m = tetrahedra[t, c]
                        low[c] = ((z + (m >> 2)) * ny + y + ((m >> 1) & 1)) * nx + x + (m & 1)
                        low[4 + c] = m
                        case |= inside[m] << c
                    i, j, k, l, kind = orders[case]
                    if kind == 0:
                        continue
                    size = 6 if kind == 2 else 3
                    if count + size <= room:
                        if kind == 2:
                            _emit(keys, count, low, i, k)
                            _emit(keys, count + 1, low, i, l)
                            _emit(keys, count + 2, low, j, l)
                            _emit(keys, count + 3, low, i, k)
                            _emit(keys, count + 4, low, j, l)
                            _emit(keys, count + 5, low, j, k)
                        else:
                            _emit(keys, count, low, i, j)
                            _emit(keys, count + 1, low, i, k)
                            _emit(keys, count + 2, low, i, l)
                        if (kind == -1) != (tetrahedra[t, 4] == 0):  # one corner outside, or a left-handed one: turn
                            for first in range(count, count + size, 3):
                                keys[first + 1], keys[first + 2] = keys[first + 2], keys[first + 1]
                    count += size
    return count


def isosurface(field: NDArray[np.float32], iso: float) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Surface between voxels above `iso` and the others; closed where the border of the array lies below.

    Args:
        field: (D, H, W) float32.

    Returns:
        Vertices (V, 3) in voxels (x, y, z) and triangles (T, 3), normals towards lower values.
    """
    field = np.ascontiguousarray(field, np.float32)
    level = np.float32(iso)
    count = _march(field, level, np.empty(0, np.int64), TETRAHEDRA, ORDERS)
    keys = np.empty(count, np.int64)
    _march(field, level, keys, TETRAHEDRA, ORDERS)
    edges, triangles = np.unique(keys, return_inverse=True)
    return _crossings(field, float(level), edges), triangles.reshape(-1, 3).astype(np.int64)


def _crossings(field: NDArray[np.float32], iso: float, edges: NDArray[np.int64]) -> NDArray[np.float64]:
    """Where the field crosses the level on edges of the lattice, (V, 3) in voxels (x, y, z)."""
    start, direction = edges // 7, edges % 7 + 1
    step = np.stack([direction & 1, (direction >> 1) & 1, direction >> 2], axis=1)
    z, y, x = np.unravel_index(start, field.shape)
    a = field[z, y, x].astype(np.float64)
    b = field[z + step[:, 2], y + step[:, 1], x + step[:, 0]].astype(np.float64)
    part = np.clip((iso - a) / (b - a), 0.02, 0.98)  # no two corners of a triangle at one place
    return np.stack([x, y, z], axis=1) + part[:, None] * step
