# SPDX-License-Identifier: Apache-2.0
"""Displacement of points by blended rigid motions on a lattice, and its inverse; compiled.

Lattice: weights (Z, Y, X, K + 2) float32: K shares of the organs, then how much of the motion across the wall (x, y) and
along it (z) is taken over; bend (Z, Y, X, 3) float32: the shape of the deformation; cells (Z, Y, X) int8: MIXED, STILL, or the
organ whose motion fills the cell.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..compiled import njit

MIXED, STILL = -1, -2
MAX_ITERATIONS = 60
FIXED_POINT_STEPS = 4
H = 0.02  # mm, of the differences


@njit()
def displace(
    x: float, y: float, z: float, origin: NDArray[Any], per_mm: float, weights: NDArray[Any], bend: NDArray[Any],
    cells: NDArray[Any], moves: NDArray[Any], amount: float,
) -> tuple[float, float, float]:  # fmt: skip
    """u of one point."""
    nz, ny, nx, channels = weights.shape
    gx = min(max((x - origin[0]) * per_mm, 0.0), nx - 1.000001)
    gy = min(max((y - origin[1]) * per_mm, 0.0), ny - 1.000001)
    gz = min(max((z - origin[2]) * per_mm, 0.0), nz - 1.000001)
    ix, iy, iz = int(gx), int(gy), int(gz)
    kind = cells[iz, iy, ix]
    ux, uy, uz = 0.0, 0.0, 0.0
    organs = channels - 2
    if kind >= 0:
        m = moves[kind]
        ux = m[0, 0] * x + m[0, 1] * y + m[0, 2] * z + m[0, 3]
        uy = m[1, 0] * x + m[1, 1] * y + m[1, 2] * z + m[1, 3]
        uz = m[2, 0] * x + m[2, 1] * y + m[2, 2] * z + m[2, 3]
    if kind != MIXED and amount == 0.0:
        return ux, uy, uz
    fx, fy, fz = gx - ix, gy - iy, gz - iz
    if kind == MIXED:
        across, along = 0.0, 0.0
        for corner in range(8):
            a, b, c = corner & 1, (corner >> 1) & 1, corner >> 2
            share = (fx if a else 1.0 - fx) * (fy if b else 1.0 - fy) * (fz if c else 1.0 - fz)
            node = weights[iz + c, iy + b, ix + a]
            across += share * node[organs]
            along += share * node[organs + 1]
            for k in range(organs):
                w = share * node[k]
                if w != 0.0:
                    m = moves[k]
                    ux += w * (m[0, 0] * x + m[0, 1] * y + m[0, 2] * z + m[0, 3])
                    uy += w * (m[1, 0] * x + m[1, 1] * y + m[1, 2] * z + m[1, 3])
                    uz += w * (m[2, 0] * x + m[2, 1] * y + m[2, 2] * z + m[2, 3])
        ux, uy, uz = across * ux, across * uy, along * uz
    if amount != 0.0:
        for corner in range(8):
            a, b, c = corner & 1, (corner >> 1) & 1, corner >> 2
            share = amount * (fx if a else 1.0 - fx) * (fy if b else 1.0 - fy) * (fz if c else 1.0 - fz)
            node = bend[iz + c, iy + b, ix + a]
            ux += share * node[0]
            uy += share * node[1]
            uz += share * node[2]
    return ux, uy, uz


@njit()
def displace_many(
    points: NDArray[Any], origin: NDArray[Any], per_mm: float, weights: NDArray[Any], bend: NDArray[Any],
    cells: NDArray[Any], moves: NDArray[Any], amount: float, out: NDArray[Any],
) -> None:  # fmt: skip
    """u of points (N, 3) into `out`."""
    for i in range(points.shape[0]):
        x, y, z = np.float64(points[i, 0]), np.float64(points[i, 1]), np.float64(points[i, 2])
        u = displace(x, y, z, origin, per_mm, weights, bend, cells, moves, amount)
        out[i, 0], out[i, 1], out[i, 2] = u


@njit()
def undo(
    points: NDArray[Any], origin: NDArray[Any], per_mm: float, weights: NDArray[Any], bend: NDArray[Any],
    cells: NDArray[Any], moves: NDArray[Any], amount: float, residual: float, out: NDArray[Any],
) -> float:  # fmt: skip
    """Reference points of points (N, 3) into `out`; the largest residual that is left, mm.

    Fixed point p <- point - u(p); from the fourth step on Newton's, whose Jacobian comes from differences, since fixed
    points circle where the shear is steep.
    """
    worst = 0.0
    best = np.empty(3)
    for i in range(points.shape[0]):
        tx, ty, tz = np.float64(points[i, 0]), np.float64(points[i, 1]), np.float64(points[i, 2])
        x, y, z, least, damping = tx, ty, tz, 1e30, 1.0
        for iteration in range(MAX_ITERATIONS):
            ux, uy, uz = displace(x, y, z, origin, per_mm, weights, bend, cells, moves, amount)
            ex, ey, ez = tx - x - ux, ty - y - uy, tz - z - uz
            left = np.sqrt(ex * ex + ey * ey + ez * ez)
            damping = max(0.5 * damping, 0.1) if left >= least else min(1.0, 1.5 * damping)
            if left < least:
                least, best[0], best[1], best[2] = left, x, y, z
            if left <= residual:
                break
            if iteration >= FIXED_POINT_STEPS:
                ax, ay, az = displace(x + H, y, z, origin, per_mm, weights, bend, cells, moves, amount)
                bx, by, bz = displace(x, y + H, z, origin, per_mm, weights, bend, cells, moves, amount)
                cx, cy, cz = displace(x, y, z + H, origin, per_mm, weights, bend, cells, moves, amount)
                ax, ay, az = 1.0 + (ax - ux) / H, (ay - uy) / H, (az - uz) / H
                bx, by, bz = (bx - ux) / H, 1.0 + (by - uy) / H, (bz - uz) / H
                cx, cy, cz = (cx - ux) / H, (cy - uy) / H, 1.0 + (cz - uz) / H
                px, py, pz = by * cz - bz * cy, bz * cx - bx * cz, bx * cy - by * cx  # b x c
                det = ax * px + ay * py + az * pz
                if det > 0.05:
                    qx, qy, qz = cy * az - cz * ay, cz * ax - cx * az, cx * ay - cy * ax  # c x a
                    rx, ry, rz = ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx  # a x b
                    ex, ey, ez = ((px * ex + py * ey + pz * ez) / det, (qx * ex + qy * ey + qz * ez) / det,
                                  (rx * ex + ry * ey + rz * ez) / det)  # fmt: skip
            x, y, z = x + damping * ex, y + damping * ey, z + damping * ez
        worst = max(worst, least)
        out[i, 0], out[i, 1], out[i, 2] = best[0], best[1], best[2]
    return worst
