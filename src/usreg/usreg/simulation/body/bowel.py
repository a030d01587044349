# SPDX-License-Identifier: Apache-2.0
"""Duodenum, colon and loops of small bowel in the room that is left, with pockets of gas towards the front."""

from __future__ import annotations

import numpy as np

from .frame import Frame
from .great_vessels import confluence
from .raster import Canvas
from .shapes import Array, Field, Points, noise, smooth_max, spline, tube
from .trunk import Trunk

LOOP_MM = 25.0  # spacing of the loops of small bowel


def put_bowel(canvas: Canvas, frame: Frame, trunk: Trunk, stomach: tuple[Field, Points], taken: Array) -> None:
    """Paint the gut and its gas over fat only.

    Args:
        taken: field on the trunk's lattice of all organs that are there already.
    """
    rng = frame.rng(12)
    room = np.maximum(trunk.under + 3.0, 1.5 - taken)
    _gas(canvas, trunk, stomach[0].values, stomach[1], rng, "stomach", share=0.5)
    for curve in (duodenum(frame, stomach[1]), *colon(frame, rng)):
        room = np.maximum(room, 1.5 - _put_gut(canvas, trunk, room, curve, rng, 0.35))
    for curve in loops(frame, room, trunk, rng):
        _put_gut(canvas, trunk, room, curve, rng, 0.15)


def _put_gut(canvas: Canvas, trunk: Trunk, room: Array, curve: Points, rng: np.random.Generator, share: float) -> Array:
    values = smooth_max(tube(trunk.lattice, curve, 8.0) + 0.8 * noise(trunk.lattice, 14.0, rng), room, 4.0)
    canvas.put(Field(trunk.lattice, values), "bowel", ("visceral_fat",))
    _gas(canvas, trunk, values, curve, rng, "bowel", share)
    return values


def _gas(
    canvas: Canvas, trunk: Trunk, values: Array, curve: Points, rng: np.random.Generator, over: str, share: float
) -> None:
    """Gas rises in the supine body: the front of the lumen along some stretches of the gut."""
    waves = np.convolve(rng.standard_normal(len(curve) + 8), np.ones(9) / 3.0, "valid")
    filled = np.clip((waves - np.quantile(waves, 1.0 - share)) * 2.0, -1.0, 1.0)
    bubble = curve.copy()
    bubble[:, 1] -= 0.35 * curve[:, 3]
    bubble[:, 3] *= 0.78 * filled  # below zero: no gas
    inside = np.maximum(tube(trunk.lattice, bubble, 4.0), values + 2.5)
    canvas.put(Field(trunk.lattice, inside), "bowel_gas", (over,))


def duodenum(frame: Frame, stomach: Points) -> Points:
    """Curve (N, 4): from the pylorus down around the head of the pancreas and across to the left."""
    c, end = confluence(frame), stomach[-1]
    low = frame.z("L3", 8.0)
    return spline(np.array([
        end, (c[0] - 40.0, c[1] - 8.0, c[2] + 6.0, 11.0), (c[0] - 47.0, c[1] + 6.0, c[2] - 22.0, 12.5),
        (c[0] - 40.0, c[1] + 8.0, low + 6.0, 12.5), (-12.0, float(frame.spine_front(low)) - 33.0, low, 11.0),
        (22.0, float(frame.spine_front(low)) - 32.0, low + 8.0, 11.0), (34.0, c[1] - 14.0, low + 24.0, 11.0),
    ]))  # fmt: skip


def colon(frame: Frame, rng: np.random.Generator) -> list[Points]:
    """Curves (N, 4) of the colon: ascending, transverse and descending, with haustra."""
    w, front = frame.cavity.half_width_mm * 0.955, -0.5 * frame.depth_mm + frame.fat_mm + 14.0
    z, back = frame.z, float(frame.spine_y(0.0))
    sag = rng.uniform(-1.0, 1.0)
    rows = [
        (-0.74 * w, back - 24, z("L5", -30), 26), (-0.76 * w, back - 12, z("L4"), 24),
        (-0.74 * w, back - 18, z("L3", 14), 22),
        (-0.56 * w, front + 38, z("L3", 8), 19), (-0.25 * w, front + 24, z("L3", -4 + 9 * sag), 18),
        (0.15 * w, front + 23, z("L3", -8 + 10 * sag), 17), (0.50 * w, front + 26, z("L2", -14), 16),
        (0.74 * w, front + 50, z("L1", 4), 16), (0.80 * w, back - 24, z("L1", 12), 16),
        (0.80 * w, back - 2, z("L2"), 14), (0.79 * w, back - 2, z("L3"), 14), (0.77 * w, back - 10, z("L4", -10), 14),
        (0.70 * w, back - 26, z("L5", -30), 14),
    ]  # fmt: skip
    curve = spline(np.array(rows, dtype=np.float64), 10)
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(curve[:, :3], axis=0), axis=1))])
    curve[:, 3] *= 0.90 + 0.13 * np.abs(np.sin(np.pi * along / 32.0))
    return [curve]


def loops(frame: Frame, room: Array, trunk: Trunk, rng: np.random.Generator) -> list[Points]:
    """Curves (N, 4) of small bowel: a walk through points spread over the free room below the transverse colon."""
    field, w = Field(trunk.lattice, room), frame.cavity.half_width_mm
    top, front = frame.z("L2", 4.0), -0.5 * frame.depth_mm
    low, high = (-0.62 * w, front, -160.0), (0.66 * w, float(frame.spine_front(-50.0)) - 8.0, top)
    axes = [np.arange(a + 0.4 * LOOP_MM, b, LOOP_MM) for a, b in zip(low, high, strict=True)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    points = points + rng.uniform(-5.0, 5.0, points.shape)
    points = points[field.at(points) < -5.0]
    order, left = [], list(range(len(points)))
    here = np.array([34.0, front + 50.0, top])
    while left:  # the nearest point that is left, loops preferring their own level
        away = np.linalg.norm((points[left] - here) * (1.0, 1.0, 1.3), axis=1)
        order.append(left.pop(int(np.argmin(away))))
        here = points[order[-1]]
    chain = np.column_stack([points[order], rng.uniform(10.0, 12.5, len(order))])
    breaks = np.flatnonzero(np.linalg.norm(np.diff(chain[:, :3], axis=0), axis=1) > 1.9 * LOOP_MM) + 1
    return [spline(part) for part in np.split(chain, breaks) if len(part) >= 3]
