# SPDX-License-Identifier: Apache-2.0
"""Fewer triangles by edge collapse with quadric errors; a closed two-manifold stays one.

Source: Garland, Heckbert, SIGGRAPH 1997, p. 209 (quadrics); Dey et al., Publ. Inst. Math. 66 (1999) 23 (link condition).
Edges are collapsed in rounds, cheapest first, none beside another of the same round: no heap, and the same result
everywhere.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...compiled import njit

Points = NDArray[np.float64]
Triangles = NDArray[np.int64]
ROUNDS = 60
SHARE = 0.35  # of the edges, cheapest first, that one round may look at
TURN = 0.2  # least cosine between a triangle's normal before and after


@njit()
def _quadrics(points, triangles):  # type: ignore[no-untyped-def]
    """(V, 10) sums over the triangles of a vertex of area times (n, d)(n, d)^T; upper triangle, row by row."""
    q = np.zeros((points.shape[0], 10))
    for t in range(triangles.shape[0]):
        a, b, c = points[triangles[t, 0]], points[triangles[t, 1]], points[triangles[t, 2]]
        n = np.cross(b - a, c - a)
        size = np.sqrt((n * n).sum())
        if size <= 0:
            continue
        n = n / size
        plane = np.array([n[0], n[1], n[2], -(n * a).sum()])
        for corner in range(3):
            k = 0
            for i in range(4):
                for j in range(i, 4):
                    q[triangles[t, corner], k] += 0.5 * size * plane[i] * plane[j]
                    k += 1
    return q


@njit()
def _error(q, p):  # type: ignore[no-untyped-def]
    x, y, z = p[0], p[1], p[2]
    return (
        q[0] * x * x + 2 * q[1] * x * y + 2 * q[2] * x * z + 2 * q[3] * x
        + q[4] * y * y + 2 * q[5] * y * z + 2 * q[6] * y + q[7] * z * z + 2 * q[8] * z + q[9]
    )  # fmt: skip


@njit()
def _place(q, a, b):  # type: ignore[no-untyped-def]
    """Where the two ends of an edge go together: the least quadric error, or the middle where that is not defined."""
    middle = 0.5 * (a + b)
    c00 = q[4] * q[7] - q[5] * q[5]
    c01 = q[2] * q[5] - q[1] * q[7]
    c02 = q[1] * q[5] - q[2] * q[4]
    det = q[0] * c00 + q[1] * c01 + q[2] * c02
    trace = q[0] + q[4] + q[7]
    if det > 1e-4 * trace**3:
        c11 = q[0] * q[7] - q[2] * q[2]
        c12 = q[1] * q[2] - q[0] * q[5]
        c22 = q[0] * q[4] - q[1] * q[1]
        best = np.empty(3)
        best[0] = -(c00 * q[3] + c01 * q[6] + c02 * q[8]) / det
        best[1] = -(c01 * q[3] + c11 * q[6] + c12 * q[8]) / det
        best[2] = -(c02 * q[3] + c12 * q[6] + c22 * q[8]) / det
        if ((best - middle) ** 2).sum() <= ((a - b) ** 2).sum():
            return best
    return middle


@njit()
def _costs(points, q, edges):  # type: ignore[no-untyped-def]
    """Error of each edge's collapse, with a little of its length so that flat parts get even triangles."""
    places = np.empty((edges.shape[0], 3))
    costs = np.empty(edges.shape[0])
    for e in range(edges.shape[0]):
        i, j = edges[e]
        both = q[i] + q[j]
        places[e] = _place(both, points[i], points[j])
        trace = both[0] + both[4] + both[7]
        length2 = ((points[i] - points[j]) ** 2).sum()
        costs[e] = _error(both, places[e]) + 1e-3 * trace * length2
    return places, costs


@njit()
def _fans(triangles, count):  # type: ignore[no-untyped-def]
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
def _keeps_shape(points, triangles, fan, v, other, place):  # type: ignore[no-untyped-def]
    """No triangle of `v` that stays turns over or vanishes when `v` moves to `place`."""
    for t in fan:
        a, b, c = triangles[t]
        if other == a or other == b or other == c:
            continue
        before = np.cross(points[b] - points[a], points[c] - points[a])
        pa = place if a == v else points[a]
        pb = place if b == v else points[b]
        pc = place if c == v else points[c]
        after = np.cross(pb - pa, pc - pa)
        scale = np.sqrt((before * before).sum() * (after * after).sum())
        if (before * after).sum() <= TURN * scale:
            return False
    return True


@njit()
def _round(points, triangles, q, edges, order, places, most):  # type: ignore[no-untyped-def]
    """Collapse edges in order; returns for each vertex which one it became."""
    count = points.shape[0]
    start, fans = _fans(triangles, count)
    touched = np.zeros(count, np.bool_)
    mark = np.full(count, -1, np.int64)
    became = np.arange(count)
    done = 0
    for e in order:
        i, j = edges[e]
        fan_i, fan_j = fans[start[i] : start[i + 1]], fans[start[j] : start[j + 1]]
        free = not (touched[i] or touched[j])
        common = 0
        for t in fan_i:
            for v in triangles[t]:
                mark[v] = e
                free = free and not touched[v]
        for t in fan_j:
            for v in triangles[t]:
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
        for t in fan_i:
            for v in triangles[t]:
                touched[v] = True
        for t in fan_j:
            for v in triangles[t]:
                touched[v] = True
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
    q = _quadrics(points, triangles)
    for _ in range(ROUNDS):
        halves = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
        edges = halves[halves[:, 0] < halves[:, 1]]  # of the two halves of an edge, one ascends
        places, costs = _costs(points, q, edges)
        order = np.argsort(costs, kind="stable")[: max(1, int(SHARE * len(costs)))]
        became, done = _round(points, triangles, q, edges, order, places, (len(triangles) - most + 1) // 2)
        triangles = became[triangles]
        apart = (triangles[:, 0] != triangles[:, 1]) & (triangles[:, 1] != triangles[:, 2])
        triangles = triangles[apart & (triangles[:, 2] != triangles[:, 0])]
        if len(triangles) <= most or done == 0:
            break
    used, triangles = np.unique(triangles, return_inverse=True)
    return points[used] + centre, triangles.reshape(-1, 3).astype(np.int64)
