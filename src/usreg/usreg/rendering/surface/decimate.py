# SPDX-License-Identifier: Apache-2.0
"""Fewer triangles by edge collapse with quadric errors; a closed two-manifold stays one.

Source: Garland, Heckbert, SIGGRAPH 1997, p. 209 (quadrics); Dey et al., Publ. Inst. Math. 66 (1999) 23 (link
condition). Edges are collapsed in rounds, cheapest first, none beside another of the same round: no heap, and the same
result everywhere.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...compiled import njit

Points = NDArray[np.float64]
Triangles = NDArray[np.int64]
ROUNDS = 200  # at most; a round takes five to ten per cent
SHARE = 0.35  # of the edges, cheapest first, that one round may look at
TURN = 0.2  # least cosine between a triangle's normal before and after


def _quadrics(points: Points, triangles: Triangles) -> Points:
    """(V, 10) sums over the triangles of a vertex of area times (n, d)(n, d)^T; upper triangle, row by row."""
    a, b, c = (points[triangles[:, i]] for i in range(3))
    n = np.cross(b - a, c - a)
    size = np.maximum(np.linalg.norm(n, axis=1), 1e-30)
    plane = np.column_stack([n / size[:, None], -np.einsum("ij,ij->i", n, a) / size])
    q = np.empty((len(points), 10))
    for k, (i, j) in enumerate(zip(*np.triu_indices(4), strict=True)):
        part = 0.5 * size * plane[:, i] * plane[:, j]
        q[:, k] = np.bincount(triangles.ravel(), np.repeat(part, 3), len(points))
    return q


@njit()
def _cost(q, p, i, j, place):
    """Error of the collapse of an edge, with a little of its length so that flat parts get even triangles.

    `place` becomes where the two ends go together: the least quadric error, or the middle where that is not defined.
    Scalars throughout: small arrays would cost more than the arithmetic.
    """
    a0, a1, a2, a3, a4 = q[i, 0] + q[j, 0], q[i, 1] + q[j, 1], q[i, 2] + q[j, 2], q[i, 3] + q[j, 3], q[i, 4] + q[j, 4]
    a5, a6, a7, a8, a9 = q[i, 5] + q[j, 5], q[i, 6] + q[j, 6], q[i, 7] + q[j, 7], q[i, 8] + q[j, 8], q[i, 9] + q[j, 9]
    x, y, z = 0.5 * (p[i, 0] + p[j, 0]), 0.5 * (p[i, 1] + p[j, 1]), 0.5 * (p[i, 2] + p[j, 2])
    length2 = (p[i, 0] - p[j, 0]) ** 2 + (p[i, 1] - p[j, 1]) ** 2 + (p[i, 2] - p[j, 2]) ** 2
    c00, c01, c02 = a4 * a7 - a5 * a5, a2 * a5 - a1 * a7, a1 * a5 - a2 * a4
    det, trace = a0 * c00 + a1 * c01 + a2 * c02, a0 + a4 + a7
    if det > 1e-4 * trace**3:
        c11, c12, c22 = a0 * a7 - a2 * a2, a1 * a2 - a0 * a5, a0 * a4 - a1 * a1
        bx = -(c00 * a3 + c01 * a6 + c02 * a8) / det
        by = -(c01 * a3 + c11 * a6 + c12 * a8) / det
        bz = -(c02 * a3 + c12 * a6 + c22 * a8) / det
        if (bx - x) ** 2 + (by - y) ** 2 + (bz - z) ** 2 <= length2:
            x, y, z = bx, by, bz
    place[0], place[1], place[2] = x, y, z
    error = (
        a0 * x * x + 2 * a1 * x * y + 2 * a2 * x * z + 2 * a3 * x
        + a4 * y * y + 2 * a5 * y * z + 2 * a6 * y + a7 * z * z + 2 * a8 * z + a9
    )  # fmt: skip
    return error + 1e-3 * trace * length2


@njit()
def _costs(points, q, edges):
    """Where each edge goes (E, 3) and what it costs (E,)."""
    places = np.empty((edges.shape[0], 3))
    costs = np.empty(edges.shape[0])
    for e in range(edges.shape[0]):
        costs[e] = _cost(q, points, edges[e, 0], edges[e, 1], places[e])
    return places, costs


@njit()
def _fans(triangles, count):
    """Triangles of every vertex: start (V + 1,) and list."""
    start = np.zeros(count + 1, np.int64)
    for t in range(triangles.shape[0]):
        for c in range(3):
            start[triangles[t, c] + 1] += 1
    for v in range(count):
        start[v + 1] += start[v]
    fill, fans = start[:-1].copy(), np.empty(triangles.size, np.int64)
    for t in range(triangles.shape[0]):
        for c in range(3):
            v = triangles[t, c]
            fans[fill[v]] = t
            fill[v] += 1
    return start, fans


@njit()
def _normal(ax, ay, az, bx, by, bz, cx, cy, cz):
    """Twice the area times the normal of a triangle."""
    ux, uy, uz, vx, vy, vz = bx - ax, by - ay, bz - az, cx - ax, cy - ay, cz - az
    return uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx


@njit()
def _keeps_shape(points, triangles, fan, v, other, place):
    """No triangle of `v` that stays turns over or vanishes when `v` moves to `place`."""
    for t in fan:
        i, j, k = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        if other == i or other == j or other == k:
            continue
        if j == v:
            j, k = k, i
        elif k == v:
            j, k = i, j
        b0, b1, b2, c0, c1, c2 = (
            points[j, 0], points[j, 1], points[j, 2], points[k, 0], points[k, 1], points[k, 2],
        )  # fmt: skip
        nx, ny, nz = _normal(points[v, 0], points[v, 1], points[v, 2], b0, b1, b2, c0, c1, c2)
        mx, my, mz = _normal(place[0], place[1], place[2], b0, b1, b2, c0, c1, c2)
        scale = np.sqrt((nx * nx + ny * ny + nz * nz) * (mx * mx + my * my + mz * mz))
        if nx * mx + ny * my + nz * mz <= TURN * scale:
            return False
    return True


@njit()
def _round(points, triangles, q, edges, order, places, most):
    """Collapse edges in order; returns for each vertex which one it became."""
    count = points.shape[0]
    start, fans = _fans(triangles, count)
    touched = np.zeros(count, np.bool_)
    mark = np.full(count, -1, np.int64)
    became = np.arange(count)
    done = 0
    for e in order:
        i, j = edges[e, 0], edges[e, 1]
        fan_i, fan_j = fans[start[i] : start[i + 1]], fans[start[j] : start[j + 1]]
        free = not (touched[i] or touched[j])
        common = 0
        if not free:
            continue
        for t in fan_i:
            for c in range(3):
                v = triangles[t, c]
                mark[v] = e
                free = free and not touched[v]
        for t in fan_j:
            for c in range(3):
                v = triangles[t, c]
                free = free and not touched[v]
                if mark[v] == e and v != i and v != j:
                    common += 1
                    mark[v] = -1
        if not free or common != 2 or len(fan_i) + len(fan_j) < 9:
            continue
        if not _keeps_shape(points, triangles, fan_i, i, j, places[e]):
            continue
        if not _keeps_shape(points, triangles, fan_j, j, i, places[e]):
            continue
        for c in range(3):
            for t in fan_i:
                touched[triangles[t, c]] = True
            for t in fan_j:
                touched[triangles[t, c]] = True
        points[i] = places[e]
        q[i] += q[j]
        became[j] = i
        done += 1
        if done >= most:
            break
    return became, done


def decimate(points: Points, triangles: Triangles, most: int) -> tuple[Points, Triangles]:
    """Collapse edges until at most `most` triangles are left, or none can be collapsed without harm.

    Args:
        points: (V, 3) of a closed two-manifold. triangles: (T, 3).
    """
    if len(triangles) <= most:
        return points, triangles
    points = points - (centre := points.mean(axis=0))
    q, share = _quadrics(points, triangles), SHARE
    for _ in range(ROUNDS):
        halves = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
        edges = halves[halves[:, 0] < halves[:, 1]]  # of the two halves of an edge, one ascends
        places, costs = _costs(points, q, edges)
        order = np.argsort(costs, kind="stable")[: max(1, int(share * len(costs)))]
        became, done = _round(points, triangles, q, edges, order, places, (len(triangles) - most + 1) // 2)
        triangles = became[triangles]
        apart = (triangles[:, 0] != triangles[:, 1]) & (triangles[:, 1] != triangles[:, 2])
        triangles = triangles[apart & (triangles[:, 2] != triangles[:, 0])]
        if len(triangles) <= most or (done == 0 and share >= 1):
            break
        share = SHARE if 20 * done > len(order) else 1.0  # hardly any of the cheap ones can go: try all
    used, triangles = np.unique(triangles, return_inverse=True)
    return points[used] + centre, triangles.reshape(-1, 3).astype(np.int64)
