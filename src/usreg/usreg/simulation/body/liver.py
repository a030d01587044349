# SPDX-License-Identifier: Apache-2.0
"""The liver: the room under the right diaphragm, cut by its visceral surface; the gallbladder in its fossa; lesions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .frame import Frame
from .great_vessels import porta_hepatis
from .shapes import Array, Field, Lattice, Points, ellipsoid, noise, smooth_max, spline, tube
from .trunk import Trunk, dome_height

LESIONS = ("lesion_hypoechoic", "lesion_hyperechoic", "lesion_cyst")


@dataclass(frozen=True, eq=False)
class Liver:
    """Field of the liver, of the gallbladder, and the gallbladder's axis (N, 4) from its neck."""

    field: Field
    gallbladder: Field
    gallbladder_axis: Points


@dataclass(frozen=True, eq=False)
class Lesion:
    """A lesion: name in STRUCTURES, centre (3,), nominal radius, field."""

    structure: str
    centre: Points
    radius_mm: float
    field: Field


def build_liver(frame: Frame, trunk: Trunk, obstacles: Array) -> Liver:
    """Liver and gallbladder.

    Args:
        obstacles: field on the trunk's lattice of what presses into the liver (kidney, aorta, spine), with its gap.

    The visceral surface is moved until the volume is the drawn one.
    """
    rng, lattice = frame.rng(4), trunk.lattice
    bounds, bottom = _envelope(frame, trunk, obstacles, rng), _bottom(frame, lattice, rng)
    visceral = _visceral(frame, lattice, rng)
    axis = _gallbladder_axis(frame, rng)
    fossa = tube(lattice, axis + np.array([0, 0, 0, 1.5]))
    bladder = smooth_max(tube(lattice, axis) + 0.6 * noise(lattice, 22.0, rng), trunk.under + 1.5, 5.0)
    bounds = smooth_max(bounds, -fossa, 5.0)
    drop = 0.0
    for _ in range(3):  # rounding shortens the lower edge: let it down by what is missing
        low_cut = smooth_max(bounds, bottom - 0.8 * np.float32(drop), 12.0)
        field = _filled(lattice, low_cut, visceral, frame.measures["liver_volume_ml"])
        box = liver_box(field)
        drop += frame.measures["liver_length_mm"] - float(box[1][2] - box[0][2])
    return Liver(field, Field(lattice, bladder.astype(np.float32)), axis)


def _filled(lattice: Lattice, bounds: Array, visceral: Array, volume_ml: float) -> Field:
    """The liver with its visceral surface so far down that it has a volume, if its other bounds have room for it."""
    low, high = -40.0, 40.0
    for _ in range(7):
        middle = 0.5 * (low + high)
        field = Field(lattice, smooth_max(bounds, visceral - np.float32(middle), 9.0))
        low, high = (middle, high) if field.volume_ml() < volume_ml else (low, middle)
    return field


def _bottom(frame: Frame, lattice: Lattice, rng: np.random.Generator) -> Array:
    """Below zero above the lower edge, which rises from the right flank to the left and a little towards the back."""
    x, y, z = lattice.axes()
    edge = dome_height(frame) - frame.measures["liver_length_mm"]
    edge = edge + 0.42 * np.maximum(x + 0.70 * frame.cavity.half_width_mm, 0.0) + 0.10 * (y + 20.0)
    return (0.8 * (edge - z) + 4.0 * noise(lattice, 60.0, rng)).astype(np.float32)


def _envelope(frame: Frame, trunk: Trunk, obstacles: Array, rng: np.random.Generator) -> Array:
    """Bounds of the liver above, to the left and behind."""
    lattice = trunk.lattice
    x, y, z = lattice.axes()
    left = frame.measures["cavity_half_width_mm"] * rng.uniform(0.50, 0.76)
    sheer = x - left - 0.25 * (z - frame.z("T10")) + 4.0 * noise(lattice, 50.0, rng)
    values = smooth_max(trunk.under + 0.4, sheer, 16.0)
    # Behind, the liver ends at the vena cava; to the right of it the bare area follows the diaphragm.
    cava_y = frame.spine_front(z) - 0.7 * frame.measures["vena_cava_diameter_mm"] - 6.0
    slope = 2.4 * 10.0 * np.log1p(np.exp(-(x + 31.0) / 10.0))
    values = smooth_max(values, ((y - cava_y - slope) * 0.45).astype(np.float32), 10.0)
    return smooth_max(values, -obstacles, 8.0)


def _visceral(frame: Frame, lattice: Lattice, rng: np.random.Generator) -> Array:
    """Below zero above the visceral surface: it faces to the left, back and down, hollowed by stomach and colon."""
    x, y, z = lattice.axes()
    p = porta_hepatis(frame)
    normal = np.array([0.53, 0.46, -0.71]) + rng.uniform(-0.04, 0.04, 3)
    normal /= np.linalg.norm(normal)
    plane = normal[0] * (x - p[0]) + normal[1] * 45.0 * np.tanh((y - p[1]) / 45.0) + normal[2] * (z - p[2])
    stomach = 10.0 * np.exp(-(((x - 30.0) / 38.0) ** 2) - ((y - p[1]) / 45.0) ** 2 - ((z - p[2] - 25.0) / 45.0) ** 2)
    notch = 7.0 * np.exp(-(((x - 12.0) / 6.0) ** 2)) * np.exp(-(((z - p[2]) / 40.0) ** 2))
    hilum = 8.0 * np.exp(-(((x - p[0]) / 26.0) ** 2) - ((y - p[1]) / 14.0) ** 2 - ((z - p[2]) / 16.0) ** 2)
    thin = 0.30 * 15.0 * np.log1p(np.exp((x - 20.0) / 15.0))  # the left lobe tapers
    return (plane + thin + stomach + notch + hilum + 3.5 * noise(lattice, 45.0, rng)).astype(np.float32)


def _gallbladder_axis(frame: Frame, rng: np.random.Generator) -> Points:
    """Pear along the visceral surface: neck at the porta, fundus in front below the liver's edge."""
    length = frame.measures["gallbladder_length_mm"]
    wide = length * rng.uniform(0.18, 0.22)
    start = porta_hepatis(frame) + np.array([-9.0, -14.0, -13.0]) + rng.uniform(-2.0, 2.0, 3)
    way = np.array([-0.36, -0.52, -0.72]) + rng.uniform(-0.06, 0.06, 3)
    way *= (length - wide) / np.linalg.norm(way)
    bend = np.array([-3.0, 3.0, -4.0])
    rows = [(0.0, 0.24), (0.12, 0.36), (0.35, 0.72), (0.65, 1.0), (0.88, 0.95), (1.0, 0.85)]
    return spline(np.array([(*(start + t * way + np.sin(np.pi * t) * bend), r * wide) for t, r in rows]))


def draw_lesions(frame: Frame, liver: Liver, vessels: Points) -> tuple[Lesion, ...]:
    """Two to five lesions inside the liver, away from its surface and its large vessels (N, 8); kinds in turn."""
    rng, (low, high) = frame.rng(6), liver_box(liver.field)
    thick = vessels[np.minimum(vessels[:, 6], vessels[:, 7]) > 2.2]
    middles = 0.5 * (thick[:, :3] + thick[:, 3:6])
    found: list[Lesion] = []
    count = int(rng.integers(2, 6))
    for attempt in range(8000):
        if len(found) == count:
            break
        centre, radius = rng.uniform(low, high), float(rng.uniform(5.0, 15.0 if attempt < 4000 else 7.0))
        deep = liver.field.at(centre[None])[0] < -(radius + 3.0)
        clear = all(np.linalg.norm(centre - f.centre) > radius + f.radius_mm + 8.0 for f in found)
        if deep and clear and np.linalg.norm(middles - centre, axis=1).min(initial=99.0) > radius + 5.0:
            found.append(_lesion(LESIONS[len(found) % len(LESIONS)], centre, radius, rng))
    return tuple(found)


def _lesion(structure: str, centre: Points, radius: float, rng: np.random.Generator) -> Lesion:
    """A rough ball; cysts are smoother."""
    lattice = Lattice.around((centre - 1.6 * radius).tolist(), (centre + 1.6 * radius).tolist(), 1.5)
    values = ellipsoid(lattice, centre.tolist(), (radius * rng.uniform(0.8, 1.2, 3)).tolist())
    rough = 0.03 if structure == "lesion_cyst" else 0.10
    values = values + rough * radius * noise(lattice, 0.8 * radius, rng)
    return Lesion(structure, centre, radius, Field(lattice, values.astype(np.float32)))


def liver_box(field: Field) -> tuple[Points, Points]:
    """Corners of the box around a field's inside, mm."""
    inside = np.argwhere(field.values < 0)[:, ::-1]
    origin, step = np.array(field.lattice.origin_mm), field.lattice.step_mm
    return origin + step * inside.min(axis=0), origin + step * inside.max(axis=0)
