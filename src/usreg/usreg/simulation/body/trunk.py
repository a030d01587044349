# SPDX-License-Identifier: Apache-2.0
"""Layers of the trunk: skin, fat, muscular wall; the diaphragm, and the lungs that it bounds from below."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .frame import SKIN_MM, WIDEST_Y_MM, Frame, smoothstep
from .great_vessels import great_vessels
from .raster import ANY, Canvas
from .shapes import Array, Field, Lattice, ellipsoid, noise, smooth_max, smooth_min, tube

PLEURA_MM, DIAPHRAGM_MM = 0.7, 2.6
LUNGS = ("lung_right", "lung_left")


@dataclass(frozen=True, eq=False)
class Trunk:
    """Fields of the layers on one lattice.

    Args:
        skin, wall, cavity: insides of the skin, of the fascia under the fat, and of the muscular wall.
        dome: distance above the diaphragm. under: the room under the diaphragm and inside the wall.
        margin: height (1, ny, nx), mm, where the diaphragm ends on the wall.
        column: field of what lies behind the diaphragm in the middle: spine and aorta.
    """

    lattice: Lattice
    skin: Array
    wall: Array
    cavity: Array
    dome: Array
    under: Array
    margin: Array
    column: Array


def build_trunk(frame: Frame) -> Trunk:
    """The layers of a drawn body: super-ellipses, bent together by slow noise and each by a little of its own."""
    lattice, rng = frame.lattice(), frame.rng(1)
    x, _, z = lattice.axes()
    common = 2.2 * noise(lattice, 70.0, rng)
    furrow = 6.0 * np.exp(-((x / 13.0) ** 2)) * (lattice.axes()[1] > 0) + 0.0 * z
    navel = ellipsoid(lattice, (2.0, -frame.depth_mm / 2, frame.z("L4", 16.0)), (9.0, 14.0, 8.0))
    skin = smooth_max(frame.skin.field(lattice) + common + furrow, -navel, 12.0)
    fat_waves = 0.06 * frame.fat_mm * noise(lattice, 55.0, rng)
    wall = np.maximum(frame.wall.field(lattice) + common + 0.7 * furrow + fat_waves, skin + SKIN_MM + 2.0)
    own = _wall_relief(frame, lattice) + 0.8 * noise(lattice, 35.0, rng)
    cavity = np.maximum(frame.cavity.field(lattice) + common + own, wall + 5.0).astype(np.float32)
    column = ellipsoid(lattice, (3.0, float(frame.spine_y(80.0)) - 9.0, 0.0), (31.0, 36.0, 1e4))
    dome, margin = _dome(frame, lattice, column[:1], rng)
    under = smooth_max(dome + DIAPHRAGM_MM, cavity + DIAPHRAGM_MM, 5.0)
    return Trunk(lattice, skin, wall, cavity, dome, under, margin, column)


def _wall_relief(frame: Frame, lattice: Lattice) -> Array:
    """What the wall adds to the inside, mm: muscles beside the spine, more of them in the loins; seams in front."""
    x, y, z = lattice.axes()
    back = smoothstep((y - 10.0) / 40.0)
    loin = 9.0 * smoothstep((5.0 - z) / 60.0) + 15.0 * np.exp(-((x / 50.0) ** 2)) * smoothstep((60.0 - z) / 50.0)
    seams = 5.0 * np.exp(-((x / 5.0) ** 2)) + 3.0 * np.exp(-(((np.abs(x) - 78.0) / 7.0) ** 2))
    return (back * loin - seams * (y < -20.0) * smoothstep((70.0 - z) / 30.0)).astype(np.float32)


def dome_height(frame: Frame) -> float:
    """Top of the right dome, between T9 and T8 at the end of expiration."""
    return frame.z("T9", -2.0)


def _dome(frame: Frame, lattice: Lattice, column: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    """Distance above the diaphragm (about mm, below zero underneath), and the height of the costal margin.

    Two domes on a steep flank: the flank makes the costophrenic recess, a wedge of lung between it and the wall.
    """
    x, y, z = lattice.axes()
    g, _ = frame.cavity.norm(x, y, z * 0 + np.float32(60.0))
    g = np.maximum(g[:1], 1.0 - column / 62.0)  # the flank follows the lower chest and, behind, spine and aorta
    s, w, d = frame.stature, frame.cavity.half_width_mm, frame.cavity.front_mm
    right = 24.0 * np.exp(-(((x + 0.52 * w) / (0.42 * w)) ** 2) - ((y + 8.0) / (0.62 * d)) ** 2)
    left = 15.0 * np.exp(-(((x - 0.50 * w) / (0.40 * w)) ** 2) - ((y - 2.0) / (0.60 * d)) ** 2)
    crown = dome_height(frame) - 24.0 + right + left
    front = smoothstep((WIDEST_Y_MM - y) / (0.95 * d)) * np.exp(-((x / (0.62 * w)) ** 2))
    rim = s * (46.0 + 48.0 * front)
    flank = np.maximum(1.0 - np.clip(g, 0.0, 1.0) ** 5, 0.0) ** 0.5
    height = rim + (crown - rim) * flank + 1.8 * noise(lattice, 50.0, rng)[:1]
    slope = np.sqrt(sum(c * c for c in np.gradient(height[0], lattice.step_mm)) + 1.0)
    slope = np.minimum(slope, 6.0)
    return ((z - height) / slope).astype(np.float32), (rim - 54.0 * s * (1.0 - 0.75 * front)).astype(np.float32)


def put_trunk(canvas: Canvas, frame: Frame, trunk: Trunk) -> None:
    """Paint the layers from outside inwards, then lungs, heart and diaphragm into the room above it."""

    def put(values: Array, structure: str, level_mm: float = 0.0, over: tuple[str, ...] = ANY) -> None:
        canvas.put(Field(trunk.lattice, values), structure, over, level_mm, endless=True)

    put(trunk.skin, "skin")
    put(trunk.skin, "subcutaneous_fat", -SKIN_MM)
    put(trunk.wall, "muscle")
    put(trunk.cavity, "visceral_fat")
    _put_fascia(canvas, frame, trunk)
    above = smooth_max(-trunk.dome, trunk.cavity + PLEURA_MM, 3.0)
    middle = _mediastinum(frame, trunk.lattice)
    lung = smooth_max(above, -middle, 8.0)
    x = np.broadcast_to(trunk.lattice.axes()[0], lung.shape)
    put(np.maximum(lung, x), "lung_right", over=("visceral_fat",))
    put(np.maximum(lung, -x), "lung_left", over=("visceral_fat",))
    put(np.maximum(_heart(frame, trunk.lattice), -trunk.dome + 1.0), "muscle", over=("visceral_fat", "lung_left"))
    # Thin layers are painted as what lies between two smooth surfaces: a lattice cannot hold a sheet of 2 mm itself.
    apposition = trunk.margin - 6.0 - trunk.lattice.axes()[2]
    put(np.maximum(np.maximum(trunk.dome, trunk.cavity), apposition), "diaphragm", over=("visceral_fat", *LUNGS))
    put(np.maximum(trunk.dome, trunk.cavity) + DIAPHRAGM_MM, "visceral_fat", over=("diaphragm",))
    put(trunk.column, "visceral_fat", over=("diaphragm",))


def _put_fascia(canvas: Canvas, frame: Frame, trunk: Trunk) -> None:
    """Thin fat between the three flat muscles of the flank, from the costal margin down."""
    x, y, z = trunk.lattice.axes()
    thickness = np.maximum(trunk.cavity - trunk.wall, 4.0)
    flank = np.maximum(np.maximum(80.0 - np.abs(x), y - 45.0), z - frame.z("L1", -26.0))
    for share in (0.36, 0.70):
        for name, over, shift in (("subcutaneous_fat", "muscle", -0.6), ("muscle", "subcutaneous_fat", 0.6)):
            inside = trunk.wall + share * thickness + shift
            field = Field(trunk.lattice, np.maximum(inside, 0.2 * flank).astype(np.float32))
            canvas.put(field, name, (over,), endless=True)


def _mediastinum(frame: Frame, lattice: Lattice) -> Array:
    """What the lungs leave free: spine, great vessels, heart with its fat, down to the central tendon."""
    x, y, z = lattice.axes()
    back = np.sqrt(((x - 4.0) / 30.0) ** 2 + ((y - frame.spine_y(z) + 12.0) / 34.0) ** 2) - 1.0
    front = np.abs(x - 7.0) / 17.0 - 1.0 + 0.0 * y
    cava = great_vessels(frame).cava
    vessel = tube(lattice, cava + np.array([0.0, 0.0, 0.0, 3.0]), 8.0)
    column = smooth_min((25.0 * back).astype(np.float32), (14.0 * front + 0.0 * z).astype(np.float32), 14.0)
    return smooth_min(smooth_min(column, _heart(frame, lattice) - 6.0, 10.0), vessel, 6.0)


def _heart(frame: Frame, lattice: Lattice) -> Array:
    """The lower heart: it lies on the left of the central tendon."""
    centre = (18.0, -0.21 * frame.depth_mm, frame.z("T8", 10.0))
    turn = np.array([[0.80, -0.45, -0.40], [0.49, 0.87, 0.0], [0.35, -0.20, 0.92]])
    return ellipsoid(lattice, centre, (62.0, 38.0, 42.0), turn)
