# SPDX-License-Identifier: Apache-2.0
"""Vessel trees that fill an organ: constrained constructive optimisation.

Source: Schreiner and Buxbaum 1993 (IEEE Trans Biomed Eng 40:482): end points are drawn in the organ one after the
other, at least so far from the tree as the room per end point asks; each is joined to that neighbouring segment, at
that fork, which costs the least vessel volume. All ends carry the same flow, and Murray's law r0^3 = r1^3 + r2^3
makes a radius the cube root of the flow.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...compiled import njit
from .shapes import Field, Points

NEIGHBOURS = 14
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Tree:
    """Segments of one or several rooted trees.

    Args:
        start, stop: (N, 3) mm. parent: (N,) index, -1 at a root. flow: (N,) number of ends beyond.
        radius: (N,) mm, constant along a segment.
    """

    start: Points
    stop: Points
    parent: Ints
    flow: Ints
    radius: Points

    def tubes(self) -> Points:
        """(N, 8): start, stop, both radii."""
        return np.column_stack([self.start, self.stop, self.radius, self.radius])

    def children(self, index: int) -> Ints:
        """Indices of the segments that continue a segment."""
        return np.flatnonzero(self.parent == index)


def grow(roots: Points, root_radius_mm: float, field: Field, ends: Points, count: int, avoid: Points) -> Tree:
    """Grow trees from given first segments.

    Args:
        roots: (R, 2, 3) first segments, start and stop, mm.
        root_radius_mm: cube root of the summed cubes of the roots' radii.
        field: of the organ. ends: (M, 3) points drawn in it, tried in order. count: ends wanted.
        avoid: tubes (K, 8) of the other tree, which is never touched.
    """
    size = len(roots) + 2 * count + 2
    owner = np.zeros(size, dtype=np.int64)
    owner[: len(roots)] = np.arange(len(roots))
    start, stop = np.zeros((size, 3)), np.zeros((size, 3))
    parent, flow = np.full(size, -1, dtype=np.int64), np.zeros(size, dtype=np.int64)
    n = len(roots)
    start[:n], stop[:n], flow[:n] = roots[:, 0], roots[:, 1], 1
    inside = field.values
    room_mm = (field.volume_ml() * 1000.0 / max(count, 1)) ** (1 / 3)
    origin, obstacles = np.array(field.lattice.origin_mm), np.ascontiguousarray(avoid, dtype=np.float64)
    n = _grow(
        start, stop, parent, flow, owner, n, inside, origin, field.lattice.step_mm, ends, territories(roots, ends),
        count, room_mm, root_radius_mm, obstacles,
    )  # fmt: skip
    flow = flow[:n]
    unit = root_radius_mm / float(flow[: len(roots)].sum()) ** (1 / 3)
    return Tree(start[:n], stop[:n], parent[:n], flow, unit * flow ** (1 / 3))


def territories(roots: Points, ends: Points) -> Ints:
    """(M,) the root whose line, made longer by half, passes nearest to each end point (M, 3)."""
    away = []
    for a, b in roots:
        d = 1.5 * (b - a)
        t = np.clip(((ends - a) * d).sum(axis=1) / (d * d).sum(), 0.0, 1.0)
        away.append(((ends - a - t[:, None] * d) ** 2).sum(axis=1))
    return np.argmin(np.array(away), axis=0)


@njit()
def _dot(a, b):
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]  # in this order always; BLAS may choose another


@njit()
def _norm(a):
    return np.sqrt(_dot(a, a))


@njit()
def _grow(start, stop, parent, flow, owner, n, inside, origin, step, ends, wanted, count, room, root_radius, avoid):
    """The loop of `grow` over end points; returns the number of segments."""
    made, apart = 0, 0.75 * room
    since = 0
    for m in range(ends.shape[0]):
        if made == count:
            break
        p = ends[m]
        near, away = _nearest(start, stop, owner, n, p, wanted[m])
        since += 1
        if since > 40:
            apart, since = 0.93 * apart, 0
        if away < apart:
            continue
        unit = root_radius / max(made + 1.0, 0.6 * count) ** (1.0 / 3.0)
        best, cost = -1, 1e30
        fork = np.zeros(3)
        for c in range(near.shape[0]):
            j = near[c]
            if owner[j] != wanted[m]:
                continue
            b = _fork(start[j], stop[j], p, flow[j])
            if not _inside(start[j], b, stop[j], p, inside, origin, step, unit):
                continue
            if not (_clear(start[j], b, unit * (flow[j] + 1.0) ** (1.0 / 3.0), avoid) and _clear(b, p, unit, avoid)
                    and _clear(b, stop[j], unit * flow[j] ** (1.0 / 3.0), avoid)):  # fmt: skip
                continue
            if _crosses(start, stop, flow, n, j, b, p, unit):
                continue
            value = _cost(start, stop, parent, flow, j, b, p)
            if value < cost:
                best, cost = j, value
                fork[:] = b
        if best >= 0 and _wider_clear(start, stop, parent, flow, best, unit, avoid):
            n = _join(start, stop, parent, flow, owner, n, best, fork, p)
            made += 1
            since = 0
    return n


@njit()
def _nearest(start, stop, owner, n, p, wanted):
    """Indices of the segments of one tree that are nearest to a point, and the distance to the nearest of any."""
    d = np.empty(n)
    for i in range(n):
        d[i] = _point_segment(p, start[i], stop[i])
    least = d.min()
    for i in range(n):
        if owner[i] != wanted:
            d[i] = 1e9
    return np.argsort(d)[: min(n, NEIGHBOURS)], least


@njit()
def _point_segment(p, a, b):
    d = b - a
    t = min(max(_dot(p - a, d) / (_dot(d, d) + 1e-12), 0.0), 1.0)
    e = p - a - t * d
    return _norm(e)


@njit()
def _fork(a, b, p, flow):
    """The fork that costs least: Weiszfeld's iteration for the point of three weighted ends, weights r^2."""
    w0, w1 = (flow + 1.0) ** (2.0 / 3.0), flow ** (2.0 / 3.0)
    x = 0.4 * a + 0.4 * b + 0.2 * p
    for _ in range(12):
        d0, d1 = max(_norm(x - a), 1e-3), max(_norm(x - b), 1e-3)
        d2 = max(_norm(x - p), 1e-3)
        x = (w0 / d0 * a + w1 / d1 * b + p / d2) / (w0 / d0 + w1 / d1 + 1.0 / d2)
    length = _norm(b - a)
    if _norm(x - a) < 0.12 * length:
        x = a + 0.12 * (b - a) + 0.02 * (p - a)
    if _norm(x - b) < 0.12 * length:
        x = b + 0.12 * (a - b) + 0.02 * (p - b)
    return x


@njit()
def _depth(p, inside, origin, step):
    q = (p - origin) / step
    nz, ny, nx = inside.shape
    i, j, k = int(np.rint(q[0])), int(np.rint(q[1])), int(np.rint(q[2]))
    if i < 0 or j < 0 or k < 0 or i >= nx or j >= ny or k >= nz:
        return -99.0
    return -inside[k, j, i]


@njit()
def _inside(a, b, c, p, inside, origin, step, margin):
    """Whether the fork and the way to both ends stay in the organ."""
    if _depth(b, inside, origin, step) < 3.0 + margin:
        return False
    for t in (0.25, 0.5, 0.75):
        if _depth(b + t * (p - b), inside, origin, step) < 2.0 + margin:
            return False
        if _depth(b + t * (c - b), inside, origin, step) < 2.0 + margin:
            return False
    return True


@njit()
def segment_distance(a, b, c, d):
    """Least distance of two segments (Ericson 2005, Real-Time Collision Detection, 5.1.9)."""
    u, v, w = b - a, d - c, a - c
    uu, vv, uv, uw, vw = _dot(u, u), _dot(v, v), _dot(u, v), _dot(u, w), _dot(v, w)
    uu, vv = uu + 1e-12, vv + 1e-12
    det = uu * vv - uv * uv
    s = min(max((uv * vw - uw * vv) / det, 0.0), 1.0) if det > 1e-12 else 0.0
    t = (uv * s + vw) / vv
    if t < 0.0:
        t = 0.0
        s = min(max(-uw / uu, 0.0), 1.0)
    elif t > 1.0:
        t = 1.0
        s = min(max((uv - uw) / uu, 0.0), 1.0)
    e = w + s * u - t * v
    return _norm(e)


GAP_MM = 2.0  # tissue between the two trees while they grow


@njit()
def closer(a, b, c, d, limit):
    """Whether two segments are nearer than a limit; far ones are told by the balls around both."""
    dx, dy, dz = a[0] + b[0] - c[0] - d[0], a[1] + b[1] - c[1] - d[1], a[2] + b[2] - c[2] - d[2]
    reach = 2.0 * limit + _norm(b - a) + _norm(d - c)
    return dx * dx + dy * dy + dz * dz < reach * reach and segment_distance(a, b, c, d) < limit


@njit()
def _clear(a, b, radius, avoid):
    """Whether a segment keeps its distance from all tubes."""
    for k in range(avoid.shape[0]):
        t = avoid[k]
        if closer(a, b, t[:3], t[3:6], radius + max(t[6], t[7]) + GAP_MM):
            return False
    return True


@njit()
def _wider_clear(start, stop, parent, flow, j, unit, avoid):
    """Whether the segments that lead to a new branch may widen for it."""
    k = parent[j]
    while k >= 0:
        if not _clear(start[k], stop[k], unit * (flow[k] + 1.0) ** (1.0 / 3.0), avoid):
            return False
        k = parent[k]
    return True


@njit()
def _crosses(start, stop, flow, n, j, b, p, unit):
    """Whether a new branch would run into another branch of its own tree."""
    a = b + 0.25 * (p - b)
    for k in range(n):
        if k != j and closer(a, p, start[k], stop[k], unit * (1.0 + flow[k] ** (1.0 / 3.0)) + 0.8):
            return True
    return False


@njit()
def _cost(start, stop, parent, flow, j, b, p):
    """Growth of the summed r^2 l: three new pieces for one, and more flow in every segment before."""
    q = float(flow[j])
    old = q ** (2.0 / 3.0) * _norm(stop[j] - start[j])
    new = (q + 1) ** (2.0 / 3.0) * _norm(b - start[j]) + q ** (2.0 / 3.0) * _norm(stop[j] - b)
    value = new + _norm(p - b) - old
    k = parent[j]
    while k >= 0:
        f = float(flow[k])
        value += ((f + 1) ** (2.0 / 3.0) - f ** (2.0 / 3.0)) * _norm(stop[k] - start[k])
        k = parent[k]
    return value


@njit()
def _join(start, stop, parent, flow, owner, n, j, b, p):
    """Split segment j at the fork: j keeps its start, n is its old end, n + 1 the new branch."""
    for k in range(n):
        if parent[k] == j:
            parent[k] = n
    start[n], stop[n], parent[n], flow[n] = b, stop[j], j, flow[j]
    start[n + 1], stop[n + 1], parent[n + 1], flow[n + 1] = b, p, j, 1
    stop[j] = b
    owner[n] = owner[n + 1] = owner[j]
    k = j
    while k >= 0:
        flow[k] += 1
        k = parent[k]
    return n + 2
