# SPDX-License-Identifier: Apache-2.0
"""Implicit shapes on a coarse lattice: a field is below zero inside and counts in about mm; smooth noise bends it.

Smooth organs need no fine grid: linear interpolation of a field on a 3 mm lattice misses a surface of 30 mm radius by
0.04 mm. The voxels of the body, however fine or tilted, read the lattice (`raster`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...compiled import njit

Array = NDArray[np.floating[Any]]  # a field, float32
Points = NDArray[np.floating[Any]]  # float64
FAR_MM = 60.0


@dataclass(frozen=True)
class Lattice:
    """Points of an axis-aligned lattice. Args: origin_mm of the first point, size (nx, ny, nz), step_mm."""

    origin_mm: tuple[float, float, float]
    size: tuple[int, int, int]
    step_mm: float

    def axes(self) -> tuple[Array, Array, Array]:
        """x (1, 1, nx), y (1, ny, 1), z (nz, 1, 1), mm: they broadcast to a field (nz, ny, nx)."""
        x, y, z = ((self.origin_mm[i] + self.step_mm * np.arange(self.size[i])).astype(np.float32) for i in range(3))
        return x[None, None], y[None, :, None], z[:, None, None]

    @staticmethod
    def around(low: Sequence[float], high: Sequence[float], step_mm: float) -> Lattice:
        """The lattice that covers a box, mm."""
        size = [math.ceil((b - a) / step_mm) + 1 for a, b in zip(low, high, strict=True)]
        return Lattice((float(low[0]), float(low[1]), float(low[2])), (size[0], size[1], size[2]), step_mm)


@dataclass(frozen=True, eq=False)
class Field:
    """An implicit shape: values (nz, ny, nx) float32 on a lattice, below zero inside."""

    lattice: Lattice
    values: Array

    def at(self, points: Points) -> Points:
        """(N,) linearly interpolated at points (N, 3), mm; outside the lattice the nearest point counts."""
        return sample(self.values, np.array(self.lattice.origin_mm), self.lattice.step_mm, np.asarray(points, float))

    def volume_ml(self) -> float:
        """Volume inside, with a linear share for the cells on the surface."""
        share = np.clip(0.5 - self.values / self.lattice.step_mm, 0.0, 1.0)
        return float(share.sum(dtype=np.float64)) * self.lattice.step_mm**3 / 1000.0


@njit()
def trilinear(values, x, y, z):
    """Interpolate at lattice coordinates, clamped to the lattice."""
    nz, ny, nx = values.shape
    x = min(max(x, 0.0), nx - 1.001)
    y = min(max(y, 0.0), ny - 1.001)
    z = min(max(z, 0.0), nz - 1.001)
    i, j, k = int(x), int(y), int(z)
    u, v, w = x - i, y - j, z - k
    a = (values[k, j, i] * (1 - u) + values[k, j, i + 1] * u) * (1 - v)
    a += (values[k, j + 1, i] * (1 - u) + values[k, j + 1, i + 1] * u) * v
    b = (values[k + 1, j, i] * (1 - u) + values[k + 1, j, i + 1] * u) * (1 - v)
    b += (values[k + 1, j + 1, i] * (1 - u) + values[k + 1, j + 1, i + 1] * u) * v
    return a * (1 - w) + b * w


@njit()
def sample(values, origin, step, points):
    """Values (N,) of a field at points (N, 3), mm."""
    out = np.empty(points.shape[0])
    for n in range(points.shape[0]):
        p = (points[n] - origin) / step
        out[n] = trilinear(values, p[0], p[1], p[2])
    return out


def tip(field: Field, way: Points) -> Points:
    """(3,) the end of a field's inside in a direction (3,): the mean of its last 3 mm."""
    inside = np.argwhere(field.values < 0)[:, ::-1] * field.lattice.step_mm + np.array(field.lattice.origin_mm)
    along = inside[:, 0] * way[0] + inside[:, 1] * way[1] + inside[:, 2] * way[2]
    return inside[along > along.max() - 3.0].mean(axis=0)


def noise(lattice: Lattice, scale_mm: float, rng: np.random.Generator) -> Array:
    """Smooth random field of unit variance: cubic B-splines with random coefficients every `scale_mm`."""
    counts = [int(n * lattice.step_mm / scale_mm) + 5 for n in lattice.size]
    values = rng.standard_normal((counts[2], counts[1], counts[0])).astype(np.float32)
    phase = rng.uniform(0.0, 1.0, 3)
    for axis, n in ((0, lattice.size[2]), (1, lattice.size[1]), (2, lattice.size[0])):
        t = np.arange(n) * lattice.step_mm / scale_mm + phase[2 - axis]
        base, u = t.astype(np.int64), (t - np.floor(t)).astype(np.float32)
        weights = ((1 - u) ** 3 / 6, (3 * u**3 - 6 * u**2 + 4) / 6, (-3 * u**3 + 3 * u**2 + 3 * u + 1) / 6, u**3 / 6)
        shape = [-1 if a == axis else 1 for a in range(3)]
        taps = [np.take(values, base + k, axis=axis) * w.reshape(shape) for k, w in enumerate(weights)]
        values = taps[0] + taps[1] + taps[2] + taps[3]
    return (values * np.float32(0.479**-1.5)).astype(np.float32)


def smooth_max(a: Array, b: Array | float, radius_mm: float) -> Array:
    """Intersection with an edge rounded to about the radius (polynomial blend)."""
    blend = np.maximum(radius_mm - np.abs(a - b), 0.0)
    return (np.maximum(a, b) + blend * blend / (4.0 * radius_mm)).astype(np.float32)


def smooth_min(a: Array, b: Array | float, radius_mm: float) -> Array:
    """Union with a rounded crease."""
    return -smooth_max(-a, -np.asarray(b, dtype=np.float32), radius_mm)


def ellipsoid(
    lattice: Lattice, centre: Sequence[float], radii: Sequence[float], axes: Points | None = None, power: float = 2.0
) -> Array:
    """Field of an ellipsoid; rows of `axes` (3, 3) are its own directions. Exact on the surface, about mm near it."""
    turn = np.eye(3) if axes is None else np.asarray(axes)
    p = [c - np.float32(o) for c, o in zip(lattice.axes(), centre, strict=True)]
    q = [sum(np.float32(turn[i, j]) * p[j] for j in range(3)) / np.float32(radii[i]) for i in range(3)]
    return norm_field(q, radii, power)


def norm_field(q: list[Array], radii: Sequence[float], power: float = 2.0) -> Array:
    """Field (g - 1) / |grad g| of the norm g of scaled coordinates q (their gradient is along rays: no far error)."""
    squares = [np.abs(c) ** np.float32(power) for c in q]
    g = np.maximum(squares[0] + squares[1] + squares[2], 1e-6) ** np.float32(1.0 / power)
    slope = sum((np.abs(c) / g) ** np.float32(2 * power - 2) / np.float32(r * r) for c, r in zip(q, radii, strict=True))
    return ((g - 1.0) / np.sqrt(np.maximum(slope, 1e-8))).astype(np.float32)


def spline(points: Points, per_span: int = 6) -> Points:
    """Catmull-Rom curve through points (N, K): ((N - 1) * per_span + 1, K). Columns may be x, y, z and a radius."""
    p = np.asarray(points, dtype=np.float64)
    padded = np.vstack([2 * p[0] - p[1], p, 2 * p[-1] - p[-2]])
    t = (np.arange(per_span) / per_span)[None, :, None]
    a, b, c, d = (padded[k : k + len(p) - 1, None] for k in range(4))
    curve = 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
    return np.vstack([curve.reshape(-1, p.shape[1]), p[-1:]])


def tube(lattice: Lattice, curve: Points, reach_mm: float = 20.0) -> Array:
    """Field of a tube along a curve (N, 4) of x, y, z, radius; `FAR_MM` beyond its reach."""
    values = np.full(lattice.size[::-1], FAR_MM, dtype=np.float32)
    _tube(values, np.array(lattice.origin_mm), lattice.step_mm, np.ascontiguousarray(curve, float), reach_mm)
    return values


@njit()
def _tube(values, origin, step, curve, reach):
    nz, ny, nx = values.shape
    for n in range(curve.shape[0] - 1):
        a, b = curve[n], curve[n + 1]
        pad = max(a[3], b[3]) + reach
        lo = np.zeros(3, np.int64)
        hi = np.zeros(3, np.int64)
        for i in range(3):
            size = (nx, ny, nz)[i]
            lo[i] = max(0, int(np.ceil((min(a[i], b[i]) - pad - origin[i]) / step)))
            hi[i] = min(size, int(np.floor((max(a[i], b[i]) + pad - origin[i]) / step)) + 1)
        dx, dy, dz = b[0] - a[0], b[1] - a[1], b[2] - a[2]
        length2 = max(dx * dx + dy * dy + dz * dz, 1e-9)
        for k in range(lo[2], hi[2]):
            pz = origin[2] + k * step - a[2]
            for j in range(lo[1], hi[1]):
                py = origin[1] + j * step - a[1]
                for i in range(lo[0], hi[0]):
                    px = origin[0] + i * step - a[0]
                    t = min(max((px * dx + py * dy + pz * dz) / length2, 0.0), 1.0)
                    ex, ey, ez = px - t * dx, py - t * dy, pz - t * dz
                    d = np.sqrt(ex * ex + ey * ey + ez * ez) - (a[3] + t * (b[3] - a[3]))
                    if d < values[k, j, i]:
                        values[k, j, i] = d


def tubes_along(curve: Points) -> Points:
    """Tubes (N - 1, 8) of start, stop, start radius, stop radius along a curve (N, 4)."""
    return np.column_stack([curve[:-1, :3], curve[1:, :3], curve[:-1, 3], curve[1:, 3]])
