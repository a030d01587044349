# SPDX-License-Identifier: Apache-2.0
"""Displacement of points on a lattice whose nodes blend rigid motions, and its inverse; compiled.

Arrays: weights (Z, Y, X, K + 2) float32: K shares of the organs, then how much of their motion across the wall (x, y)
and along it (z) a node takes over; bend (Z, Y, X, 3) float32: the shape of the deformation; nodes (Z, Y, X, 3) float32:
u at one time; cells (Z, Y, X) int8: MIXED, STILL, or the organ whose motion fills the cell; moves (K, 3, 4): M with
u = M (p, 1).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..compiled import njit

MIXED, STILL = -1, -2
NEAR = 0.2  # of a cell, from its corners: where its squeeze is looked at
MAX_ITERATIONS = 60
FIXED_POINT_STEPS = 2


@njit()
def move_nodes(
    weights: NDArray[Any], bend: NDArray[Any], amount: float, origin: NDArray[Any], step: float, moves: NDArray[Any],
    out: NDArray[Any],
) -> None:  # fmt: skip
    """u of all nodes at one time into `out` (Z, Y, X, 3)."""
    nz, ny, nx, channels = weights.shape
    organs = channels - 2
    for iz in range(nz):
        z = origin[2] + step * iz
        for iy in range(ny):
            y = origin[1] + step * iy
            for ix in range(nx):
                x = origin[0] + step * ix
                node = weights[iz, iy, ix]
                across, along = node[organs], node[organs + 1]
                ux, uy, uz = 0.0, 0.0, 0.0
                if across != 0.0 or along != 0.0:
                    for k in range(organs):
                        w, m = node[k], moves[k]
                        ux += w * (m[0, 0] * x + m[0, 1] * y + m[0, 2] * z + m[0, 3])
                        uy += w * (m[1, 0] * x + m[1, 1] * y + m[1, 2] * z + m[1, 3])
                        uz += w * (m[2, 0] * x + m[2, 1] * y + m[2, 2] * z + m[2, 3])
                out[iz, iy, ix, 0] = across * ux + amount * bend[iz, iy, ix, 0]
                out[iz, iy, ix, 1] = across * uy + amount * bend[iz, iy, ix, 1]
                out[iz, iy, ix, 2] = along * uz + amount * bend[iz, iy, ix, 2]


@njit()
def flow_of(
    shares: NDArray[Any], origin: NDArray[Any], step: float, moves: NDArray[Any], out: NDArray[Any]
) -> None:  # fmt: skip
    """Blend of the organs' motions at all nodes into `out` (Z, Y, X, 3), before any gate."""
    nz, ny, nx, organs = shares.shape
    for iz in range(nz):
        for iy in range(ny):
            for ix in range(nx):
                x, y, z = origin[0] + step * ix, origin[1] + step * iy, origin[2] + step * iz
                for a in range(3):
                    total = 0.0
                    for k in range(organs):
                        m = moves[k, a]
                        total += shares[iz, iy, ix, k] * (m[0] * x + m[1] * y + m[2] * z + m[3])
                    out[iz, iy, ix, a] = total


@njit()
def find_kinds(weights: NDArray[Any], cells: NDArray[Any]) -> None:
    """Kind of each cell from its eight nodes, into `cells` (Z, Y, X); the last layer along each axis is left."""
    nz, ny, nx, channels = weights.shape
    kinds = np.empty((nz, ny, nx), np.int8)
    for iz in range(nz):
        for iy in range(ny):
            for ix in range(nx):
                node = weights[iz, iy, ix]
                kinds[iz, iy, ix] = MIXED
                if node[channels - 2] == 0.0 and node[channels - 1] == 0.0:
                    kinds[iz, iy, ix] = STILL
                elif node[channels - 2] == 1.0 and node[channels - 1] == 1.0:
                    for k in range(channels - 2):
                        if node[k] == 1.0:
                            kinds[iz, iy, ix] = k
    for iz in range(nz - 1):
        for iy in range(ny - 1):
            for ix in range(nx - 1):
                first = kinds[iz, iy, ix]
                same = True
                for corner in range(1, 8):
                    same = same and kinds[iz + (corner >> 2), iy + (corner >> 1 & 1), ix + (corner & 1)] == first
                cells[iz, iy, ix] = first if same else MIXED


@njit()
def _displace(
    x: float, y: float, z: float, origin: NDArray[Any], per_mm: float, nodes: NDArray[Any], cells: NDArray[Any],
    moves: NDArray[Any], gradient: NDArray[Any], wanted: bool,
) -> tuple[float, float, float]:  # fmt: skip
    """u of one point; where `wanted`, and the cell is mixed, also d u / d p into `gradient` (3, 3)."""
    nz, ny, nx = nodes.shape[0], nodes.shape[1], nodes.shape[2]
    gx = min(max((x - origin[0]) * per_mm, 0.0), nx - 1.000001)
    gy = min(max((y - origin[1]) * per_mm, 0.0), ny - 1.000001)
    gz = min(max((z - origin[2]) * per_mm, 0.0), nz - 1.000001)
    ix, iy, iz = int(gx), int(gy), int(gz)
    kind = cells[iz, iy, ix]
    if kind >= 0:
        m = moves[kind]
        if wanted:
            gradient[...] = m[:, :3]
        return (m[0, 0] * x + m[0, 1] * y + m[0, 2] * z + m[0, 3], m[1, 0] * x + m[1, 1] * y + m[1, 2] * z + m[1, 3],
                m[2, 0] * x + m[2, 1] * y + m[2, 2] * z + m[2, 3])  # fmt: skip
    if kind == STILL:
        if wanted:
            gradient[...] = 0.0
        return 0.0, 0.0, 0.0
    fx, fy, fz = gx - ix, gy - iy, gz - iz
    ux, uy, uz = 0.0, 0.0, 0.0
    if wanted:
        gradient[...] = 0.0
    for c in range(2):
        wz = fz if c else 1.0 - fz
        for b in range(2):
            wy = fy if b else 1.0 - fy
            first, last = nodes[iz + c, iy + b, ix], nodes[iz + c, iy + b, ix + 1]
            vx, vy, vz = first[0] + fx * (last[0] - first[0]), first[1] + fx * (last[1] - first[1]), first[2] + fx * (
                last[2] - first[2])  # fmt: skip
            ux, uy, uz = ux + wz * wy * vx, uy + wz * wy * vy, uz + wz * wy * vz
            if wanted:
                sy, sz = wz * (per_mm if b else -per_mm), wy * (per_mm if c else -per_mm)
                sx = wz * wy * per_mm
                gradient[0, 0] += sx * (last[0] - first[0])
                gradient[1, 0] += sx * (last[1] - first[1])
                gradient[2, 0] += sx * (last[2] - first[2])
                gradient[0, 1] += sy * vx
                gradient[1, 1] += sy * vy
                gradient[2, 1] += sy * vz
                gradient[0, 2] += sz * vx
                gradient[1, 2] += sz * vy
                gradient[2, 2] += sz * vz
    return ux, uy, uz


@njit()
def displace_many(
    points: NDArray[Any], origin: NDArray[Any], per_mm: float, nodes: NDArray[Any], cells: NDArray[Any],
    moves: NDArray[Any], out: NDArray[Any],
) -> None:  # fmt: skip
    """u of points (N, 3) into `out`."""
    nothing = np.zeros((3, 3))
    for i in range(points.shape[0]):
        x, y, z = np.float64(points[i, 0]), np.float64(points[i, 1]), np.float64(points[i, 2])
        u = _displace(x, y, z, origin, per_mm, nodes, cells, moves, nothing, False)
        out[i, 0], out[i, 1], out[i, 2] = u


@njit()
def squeezes(
    index: NDArray[Any], origin: NDArray[Any], per_mm: float, nodes: NDArray[Any], cells: NDArray[Any],
    moves: NDArray[Any], out: NDArray[Any],
) -> None:  # fmt: skip
    """Least det(1 + grad u) at eight points of cells of indices z, y, x (N, 3), into `out` (N,)."""
    g = np.zeros((3, 3))
    for i in range(index.shape[0]):
        least = 1e30
        for corner in range(8):
            x = origin[0] + (index[i, 2] + ((1.0 - NEAR) if corner & 1 else NEAR)) / per_mm
            y = origin[1] + (index[i, 1] + ((1.0 - NEAR) if corner & 2 else NEAR)) / per_mm
            z = origin[2] + (index[i, 0] + ((1.0 - NEAR) if corner & 4 else NEAR)) / per_mm
            _displace(x, y, z, origin, per_mm, nodes, cells, moves, g, True)
            least = min(least, _solve(g, 0.0, 0.0, 0.0)[3])
        out[i] = least


@njit()
def undo(
    points: NDArray[Any], origin: NDArray[Any], per_mm: float, nodes: NDArray[Any], cells: NDArray[Any],
    moves: NDArray[Any], residual: float, out: NDArray[Any],
) -> float:  # fmt: skip
    """Reference points of points (N, 3) into `out`; the largest residual that is left, mm.

    Newton's iteration on p + u(p) = point, damped where it does not come closer. (The fixed point p <- point - u(p)
    circles where the shear along the wall is steep.)
    """
    worst = 0.0
    best, other, g = np.empty(3), np.empty(3), np.zeros((3, 3))
    for i in range(points.shape[0]):
        tx, ty, tz = np.float64(points[i, 0]), np.float64(points[i, 1]), np.float64(points[i, 2])
        x, y, z, least, damping = tx, ty, tz, 1e30, 1.0
        for _ in range(MAX_ITERATIONS):
            ux, uy, uz = _displace(x, y, z, origin, per_mm, nodes, cells, moves, g, True)
            ex, ey, ez = tx - x - ux, ty - y - uy, tz - z - uz
            left = np.sqrt(ex * ex + ey * ey + ez * ez)
            damping = max(0.5 * damping, 0.1) if left >= least else min(1.0, 1.5 * damping)
            if left < least:
                least, best[0], best[1], best[2] = left, x, y, z
            if left <= residual:
                break
            sx, sy, sz, det = _solve(g, ex, ey, ez)
            if det > 0.02:
                ex, ey, ez = sx, sy, sz
            x, y, z = x + damping * ex, y + damping * ey, z + damping * ez
        if least > residual:
            least = _around(best, least, tx, ty, tz, origin, per_mm, nodes, cells, moves, g, residual)
        for attempt in range(48):  # from other places, where a border of cells holds it
            if least <= residual:
                break
            far = 1.5 * (1 + attempt // 8)
            other[0] = best[0] + (far if attempt & 1 else -far)
            other[1] = best[1] + (far if attempt & 2 else -far)
            other[2] = best[2] + (far if attempt & 4 else -far)
            left = _around(other, 1e30, tx, ty, tz, origin, per_mm, nodes, cells, moves, g, residual)
            if left < least:
                least, best[0], best[1], best[2] = left, other[0], other[1], other[2]
        worst = max(worst, least)
        out[i, 0], out[i, 1], out[i, 2] = best[0], best[1], best[2]
    return worst


@njit()
def _around(
    best: NDArray[Any], least: float, tx: float, ty: float, tz: float, origin: NDArray[Any], per_mm: float,
    nodes: NDArray[Any], cells: NDArray[Any], moves: NDArray[Any], g: NDArray[Any], residual: float,
) -> float:  # fmt: skip
    """Newton's steps with the gradients of the cells around, where that of a point's own cell leads to and fro across a
    border of cells; `best` is moved, the residual that is left is returned."""
    reach = 0.4
    for _ in range(MAX_ITERATIONS):
        start = least
        for corner in range(8):
            ox = reach if corner & 1 else -reach
            oy = reach if corner & 2 else -reach
            oz = reach if corner & 4 else -reach
            _displace(best[0] + ox, best[1] + oy, best[2] + oz, origin, per_mm, nodes, cells, moves, g, True)
            ux, uy, uz = _displace(best[0], best[1], best[2], origin, per_mm, nodes, cells, moves, g, False)
            sx, sy, sz, _ = _solve(g, tx - best[0] - ux, ty - best[1] - uy, tz - best[2] - uz)
            for halving in range(4):
                share = 0.5**halving
                x, y, z = best[0] + share * sx, best[1] + share * sy, best[2] + share * sz
                ux, uy, uz = _displace(x, y, z, origin, per_mm, nodes, cells, moves, g, False)
                left = np.sqrt((tx - x - ux) ** 2 + (ty - y - uy) ** 2 + (tz - z - uz) ** 2)
                if left < least:
                    least, best[0], best[1], best[2] = left, x, y, z
                    break
            if least <= residual:
                return least
        if least > 0.7 * start:
            reach = 0.5 * reach if reach > 0.02 else 1.6
    return least


@njit()
def _solve(g: NDArray[Any], ex: float, ey: float, ez: float) -> tuple[float, float, float, float]:
    """(1 + g)^-1 e by Cramer's rule, and the determinant; e itself where that is near zero."""
    ax, ay, az = 1.0 + g[0, 0], g[1, 0], g[2, 0]
    bx, by, bz = g[0, 1], 1.0 + g[1, 1], g[2, 1]
    cx, cy, cz = g[0, 2], g[1, 2], 1.0 + g[2, 2]
    px, py, pz = by * cz - bz * cy, bz * cx - bx * cz, bx * cy - by * cx  # b x c
    det = ax * px + ay * py + az * pz
    if abs(det) < 1e-6:
        return ex, ey, ez, det
    qx, qy, qz = cy * az - cz * ay, cz * ax - cx * az, cx * ay - cy * ax  # c x a
    rx, ry, rz = ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx  # a x b
    return ((px * ex + py * ey + pz * ez) / det, (qx * ex + qy * ey + qz * ez) / det,
            (rx * ex + ry * ey + rz * ez) / det, det)  # fmt: skip
