# SPDX-License-Identifier: Apache-2.0
"""Kidneys: bean-shaped, on psoas and diaphragm, with cortex, pyramids of medulla, sinus and pelvis."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .frame import Frame
from .great_vessels import renal_hilum
from .raster import Canvas
from .shapes import Array, Field, Lattice, Points, noise, smooth_max, smooth_min, tip

STEP_MM = 1.5


@dataclass(frozen=True, eq=False)
class Kidney:
    """Field of the capsule, of medulla, of the sinus and of the pelvis inside it; poles (2, 3), upper first."""

    capsule: Field
    medulla: Array
    sinus: Array
    pelvis: Array
    poles: Points


def build_kidney(frame: Frame, side: float) -> Kidney:
    """One kidney (side -1 right, 1 left) in its own axes: lateral, back, up along its length."""
    name = "left" if side > 0 else "right"
    rng, length = frame.rng(7 if side > 0 else 8), frame.measures[f"kidney_{name}_length_mm"]
    half = np.array([0.262, 0.225, 0.5]) * length * np.append(rng.uniform(0.94, 1.06, 2), 1.0)
    turn = _axes(side, rng)
    hilum = renal_hilum(frame, side)
    centre = hilum + turn[0] * (0.62 * half[0]) + turn[2] * rng.uniform(-4.0, 4.0) + np.array([0.0, -1.0, 0.0])
    reach = 1.25 * half[2]
    local = Lattice.around(centre - [48, 48, reach], centre + [48, 48, reach], STEP_MM)
    p = [c - np.float32(o) for c, o in zip(local.axes(), centre, strict=True)]
    u, v, w = (sum(np.float32(turn[i, j]) * p[j] for j in range(3)) for i in range(3))
    u = u + np.float32(0.16 * half[0]) * ((w / half[2]) ** 2 * 1.6 - 0.35)  # the poles lean to the midline
    rough = noise(local, 24.0, rng)
    body = _ball(u, v, w, half) + 0.9 * rough * (1 - (w / half[2]) ** 2)
    sinus = _ball(u + 0.62 * half[0], v + 1.0, w, half * [0.72, 0.40, 0.52]) + 1.2 * noise(local, 9.0, rng)
    mouth = _ball(u + 1.05 * half[0], v + 1.0, w, half * [0.55, 0.42, 0.30])
    capsule = smooth_max(body, -mouth, 5.0)
    pelvis = _pelvis(local, u, v, w, half)
    medulla = _pyramids(u, v, w, half, capsule, sinus, rng)
    shape = Field(local, capsule)
    poles = np.array([tip(shape, turn[2]), tip(shape, -turn[2])])
    return Kidney(shape, medulla, sinus.astype(np.float32), pelvis, poles)


def _axes(side: float, rng: np.random.Generator) -> Points:
    """Rows: lateral, back, up. Upper poles lean to the midline and back, the hilum looks forward and inward."""
    lean, back, spin = np.radians([12.0, 12.0, 30.0] + rng.uniform(-4.0, 4.0, 3))
    up = np.array([-side * np.sin(lean), np.sin(back), 1.0])
    up /= np.linalg.norm(up)
    lateral = np.array([side * np.cos(spin), np.sin(spin), 0.0])
    lateral -= up * (lateral @ up)
    lateral /= np.linalg.norm(lateral)
    return np.array([lateral, side * np.cross(up, lateral), up])


def _ball(u: Array, v: Array, w: Array, radii: Points) -> Array:
    """Ellipsoid with somewhat full poles, about mm."""
    g = ((u / radii[0]) ** 2 + (v / radii[1]) ** 2 + np.abs(w / radii[2]) ** 2.2) ** 0.5
    slope = np.sqrt((u / radii[0] ** 2) ** 2 + (v / radii[1] ** 2) ** 2 + (w / radii[2] ** 2) ** 2) / np.maximum(
        g, 1e-3
    )
    return ((g - 1.0) / np.maximum(slope, 1e-3)).astype(np.float32)


def _pelvis(local: Lattice, u: Array, v: Array, w: Array, half: Points) -> Array:
    """Flat funnel from the sinus to the hilum, with two long calyces."""
    funnel = _ball(u + 0.80 * half[0], v, w + 2.0, half * [0.48, 0.17, 0.17])
    for tilt in (-0.62, 0.62):
        a, b = u + 0.45 * half[0], w - tilt * 0.36 * half[2]
        calyx = _ball(a, v, b, np.array([0.20 * half[0], 0.15 * half[1], 0.26 * half[2]]))
        funnel = smooth_min(funnel, calyx, 3.0)
    return funnel


def _pyramids(
    u: Array, v: Array, w: Array, half: Points, capsule: Array, sinus: Array, rng: np.random.Generator
) -> Array:
    """Cones from the sinus outwards, parted by columns of cortex: cells about directions spread over the kidney."""
    rows = []
    for tilt, count in ((-1.05, 2), (-0.5, 3), (0.0, 3), (0.5, 3), (1.05, 2)):
        for i in range(count):
            turn = np.pi * (i + 0.5) / count - 0.5 * np.pi + rng.uniform(-0.12, 0.12)
            rows.append((np.cos(tilt) * np.cos(turn), np.cos(tilt) * np.sin(turn), np.sin(tilt)))
    a, b, c = (u + 0.45 * half[0]) / half[0], v / half[1], w / half[2]
    radius = np.sqrt(a * a + b * b + c * c) + 1e-3
    best = np.full(np.broadcast(a, b, c).shape, -2.0, dtype=np.float32)
    for row in rows:
        best = np.maximum(best, ((a * row[0] + b * row[1] + c * row[2]) / radius).astype(np.float32))
    cone = (np.arccos(np.clip(best, -1, 1)) - 0.30) * (radius * 0.8 * half[0])  # mm beyond the side of the cone
    cortex = 7.5 + capsule  # above zero within 7.5 mm of the capsule
    return np.maximum(np.maximum(cone, cortex), -sinus + 1.0).astype(np.float32)


def put_kidney(canvas: Canvas, kidney: Kidney, side: float) -> None:
    """Paint cortex, medulla, sinus fat and pelvis."""
    name, local = "kidney_left" if side > 0 else "kidney_right", kidney.capsule.lattice
    cortex = f"{name}_cortex"
    canvas.put(kidney.capsule, cortex, ("visceral_fat", "muscle", "diaphragm"))
    canvas.put(Field(local, kidney.medulla), f"{name}_medulla", (cortex,))
    canvas.put(Field(local, kidney.sinus), "visceral_fat", (cortex, f"{name}_medulla"))
    limit = np.maximum(kidney.pelvis, kidney.capsule.values - 6.0).astype(np.float32)
    canvas.put(Field(local, limit), f"{name}_pelvis", ("visceral_fat",))
