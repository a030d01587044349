# SPDX-License-Identifier: Apache-2.0
"""Spleen, pancreas, stomach and the muscles that the kidneys lie on."""

from __future__ import annotations

import numpy as np

from .frame import Frame
from .great_vessels import at_spine, confluence, splenic_vein
from .shapes import Array, Field, Lattice, Points, noise, norm_field, smooth_max, smooth_min, spline, tube
from .trunk import Trunk


def spleen(frame: Frame, trunk: Trunk, kidney: Field) -> Field:
    """Under the left diaphragm along the tenth rib: convex to the wall, hollow towards stomach and kidney.

    It is a lens on the diaphragm: long and wide as drawn, so thick towards the inside as the lens has it there.
    """
    rng, lattice, length = frame.rng(9), trunk.lattice, frame.measures["spleen_length_mm"]
    w, shift = frame.cavity.half_width_mm, rng.uniform(-3.0, 3.0, 3)
    centre = np.array([0.74 * w, float(frame.spine_y(70.0)) + 2.0, frame.z("T11", -10.0)]) + shift
    long = np.array([0.50, -0.66, -0.56])
    out = np.array([0.80, 0.60, 0.05])
    wide = np.cross(long, out)
    p = [c - np.float32(o) for c, o in zip(lattice.axes(), centre, strict=True)]
    depth = -trunk.under - 1.0
    relief = 1.6 * noise(lattice, 32.0, rng)
    press = smooth_max(-depth, 3.0 - lifted(kidney, lattice), 6.0)
    stretch = 1.0
    for _ in range(3):  # pressed and rounded it comes out shorter than drawn: stretch it
        radii = (0.5 * length * stretch, 0.35 * length * stretch, 0.45 * length)
        q = [
            sum(np.float32(v[i]) * p[i] for i in range(3)) / np.float32(r)
            for v, r in zip((_unit(long), _unit(wide)), radii[:2], strict=True)
        ]
        values = norm_field([*q, depth / np.float32(radii[2])], radii)
        far = p[0] * np.float32(out[0]) + p[1] * np.float32(out[1])  # the same depth is met again under the other dome
        field = Field(lattice, smooth_max(np.maximum(values + relief, -30.0 - far), press, 6.0))
        stretch *= length / longest(field)
    return field


def _unit(v: Points) -> Points:
    return v / np.linalg.norm(v)


def longest(field: Field) -> float:
    """Greatest extent of a field's inside over directions spread over the sphere, mm."""
    inside = np.argwhere(field.values < 0)[:, ::-1] * field.lattice.step_mm
    n = np.arange(300) + 0.5
    z, turn = 1.0 - n / 300, np.pi * (1.0 + 5.0**0.5) * n
    ways = np.stack([np.sqrt(1 - z * z) * np.cos(turn), np.sqrt(1 - z * z) * np.sin(turn), z])
    return max(float(np.ptp(sum(inside[:, i] * way[i] for i in range(3)))) for way in ways.T)


def pancreas(frame: Frame, lattice: Lattice) -> Field:
    """Head in the duodenal loop, neck before the confluence, body across the aorta, tail at the spleen."""
    rng, vein = frame.rng(10), splenic_vein(frame)
    c = confluence(frame)
    rows = [
        (*(c + [-23, 6, -26]), 9.0), (*(c + [-20, 2, -10]), 13.0), (*(c + [-8, -9, 2]), 8.5),
        *((*(p[:3] + [0, -11.0, 2.0]), r) for p, r in zip(vein[[6, 12, 17]], (9.0, 9.5, 8.0), strict=True)),
    ]  # fmt: skip
    rows[2:] = [(*row[:3], row[3] * f) for row, f in zip(rows[2:], rng.uniform(0.9, 1.15, 4), strict=True)]
    curve = spline(np.array(rows))
    values = tube(lattice, curve) + 1.3 * noise(lattice, 11.0, rng)
    return Field(lattice, values.astype(np.float32))


def stomach(frame: Frame, trunk: Trunk, liver: Field) -> tuple[Field, Points]:
    """Fundus under the left dome, body down and forward, antrum across the midline to the pylorus; and its curve."""
    rng, lattice = frame.rng(11), trunk.lattice
    full = rng.uniform(0.85, 1.1)
    front = -0.5 * frame.depth_mm + frame.fat_mm + 14.0
    t11, l1 = frame.z("T10", -14.0), frame.z("L1")
    rows = [
        (*at_spine(frame, 56.0, 6.0, t11 + 14.0), 22.0 * full), (*at_spine(frame, 62.0, 16.0, t11), 31.0 * full),
        (66.0, 0.5 * (front + float(frame.spine_front(l1))) + 6, l1 + 38.0, 29.0 * full),
        (58.0, front + 34.0, l1 + 6.0, 25.0 * full),
        (34.0, front + 30.0, l1 - 18.0, 20.0 * full), (4.0, front + 30.0, l1 - 16.0, 16.0 * full),
        (-18.0, front + 40.0, l1 - 6.0, 10.0),
    ]  # fmt: skip
    curve = spline(np.array(rows))
    values = smooth_min(tube(lattice, curve), 60.0, 4.0) + 2.0 * noise(lattice, 35.0, rng)
    values = smooth_max(values, trunk.under + 3.0, 8.0)
    return Field(lattice, smooth_max(values, 2.0 - liver.values, 5.0)), curve


def crura_and_psoas(frame: Frame) -> list[tuple[str, Points]]:
    """(structure, curve (N, 4)) of the psoas muscles beside the lumbar spine and of the crura before it."""
    found: list[tuple[str, Points]] = []
    for side in (-1.0, 1.0):
        rows = []
        for level, x, back, radius in (
            ("T12", 27, 12, 5),
            ("L1", 31, 10, 9),
            ("L2", 34, 8, 13),
            ("L3", 39, 5, 16),
            ("L4", 45, 0, 18),
            ("L5", 52, -10, 19),
        ):
            z = frame.z(level)
            rows.append((side * x, float(frame.spine_y(z)) + back, z, radius))
        found.append(("muscle", spline(np.array(rows))))
        flank = [(side * x, float(frame.spine_y(frame.z(lv))) + back, frame.z(lv), r) for lv, x, back, r in
                 (("L1", 62, 30, 6), ("L3", 72, 24, 10), ("L5", 80, 16, 12))]  # fmt: skip
        found.append(("muscle", spline(np.array(flank))))
        crus = [(*at_spine(frame, side * x + 4, ahead, frame.z(lv)), r) for lv, x, ahead, r in
                (("L2", 14, 2, 3.0), ("L1", 16, 5, 4.5), ("T12", 18, 9, 5.0), ("T11", 17, 15, 4.5))]  # fmt: skip
        found.append(("diaphragm", spline(np.array(crus))))
    return found


def lifted(field: Field, lattice: Lattice) -> Array:
    """A field from its own lattice on another one; far away where it does not reach."""
    lo, hi = np.array(field.lattice.origin_mm), np.array(field.lattice.size) - 1
    hi = lo + hi * field.lattice.step_mm
    out = np.full(lattice.size[::-1], 60.0, dtype=np.float32)
    axes = [c.ravel() for c in lattice.axes()]
    x, y, z = (np.flatnonzero((c >= a) & (c <= b)) for c, a, b in zip(axes, lo, hi, strict=True))
    points = np.stack(np.meshgrid(axes[2][z], axes[1][y], axes[0][x], indexing="ij")[::-1], axis=-1).reshape(-1, 3)
    out[np.ix_(z, y, x)] = field.at(points.astype(float)).reshape(len(z), len(y), len(x))
    return out
