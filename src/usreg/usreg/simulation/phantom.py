# SPDX-License-Identifier: Apache-2.0
"""A rigid abdominal phantom: organs, vessels and lesions with tissue-fixed speckle, as a volume with labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ..config import check_range
from ..data.types import Volume
from ..geometry import rotation
from ..geometry.grid import VoxelGrid
from .tissue import Array, smooth_field, speckle_db

LABELS = {
    1: "soft tissue",
    2: "liver",
    3: "right kidney",
    4: "left kidney",
    5: "vessels",
    6: "lesions",
    7: "gallbladder",
    8: "spine",
}
BODY_MM = (84.0, 68.0)  # half widths of the trunk, left-right and front-back
LESIONS_MM = ((-52, -14, 14), (-30, -34, 22), (-8, -30, 8), (-34, 6, -16), (-44, -26, -18), (-22, -8, 34))
Point = Sequence[float] | Array
Mask = NDArray[np.bool_]
Segment = tuple[Array, Array, float]


@dataclass(frozen=True)
class PhantomConfig:
    """Size and texture.

    Args:
        size: voxels left-right, front-back, foot-head. spacing_mm: of the voxels.
        resolution_mm: resolution cell (full width at half maximum) of the speckle.
        dynamic_range_db: what the grey values span.
        noise_grey: independent noise of the volume itself.
        tilt_deg: rotation of the voxel grid in its physical frame, so that nothing may assume an identity direction.
    """

    size: tuple[int, int, int] = (176, 144, 128)
    spacing_mm: float = 1.0
    resolution_mm: float = 2.2
    dynamic_range_db: float = 60.0
    noise_grey: float = 2.0
    tilt_deg: tuple[float, float, float] = (4.0, -3.0, 6.0)

    def __post_init__(self) -> None:
        for n in self.size:
            check_range("size", n, 16, 512)
        check_range("spacing_mm", self.spacing_mm, 0.3, 5.0)
        check_range("resolution_mm", self.resolution_mm, self.spacing_mm, 10.0)
        check_range("dynamic_range_db", self.dynamic_range_db, 30.0, 120.0)
        check_range("noise_grey", self.noise_grey, 0.0, 50.0)


@dataclass(frozen=True, eq=False)
class Phantom:
    """The phantom as the scanner meets it and as the pre-procedural volume shows it.

    Args:
        echo: grey values (D, H, W) before noise and rounding: what frames are cut from.
        volume: uint8 with its own noise, labels included.
    """

    echo: Array
    volume: Volume


def make_phantom(config: PhantomConfig, rng: np.random.Generator) -> Phantom:
    """Draw a phantom: vessels, lesions and speckle follow from the generator; the organs stay."""
    shape = config.size[::-1]
    points = _points(config)
    labels, mean_db = _organs(points, rng)
    texture = speckle_db(shape, config.resolution_mm / config.spacing_mm, rng)
    texture += 4.5 * smooth_field(shape, 16.0 / config.spacing_mm, rng)
    echo = 150.0 + (mean_db + texture) * 255.0 / config.dynamic_range_db
    echo = np.where(labels > 0, np.clip(echo, 0.0, 255.0), 0.0)
    noisy = echo + config.noise_grey * rng.standard_normal(shape) * (labels > 0)
    data = torch.from_numpy(np.clip(np.rint(noisy), 0, 255).astype(np.uint8))[None]
    marks = torch.from_numpy(labels.astype(np.int16))
    return Phantom(echo, Volume(data, _grid(config), "US", labels=marks, label_names=dict(LABELS)))


def skin_mm(x: float) -> float:
    """Front-back position of the front skin at a left-right position, mm from the centre (front is negative)."""
    a, b = BODY_MM
    return -b * max(0.0, 1.0 - (x / a) ** 4) ** 0.25


def _grid(config: PhantomConfig) -> VoxelGrid:
    r = rotation.exp(torch.tensor([math.radians(a) for a in config.tilt_deg], dtype=torch.float64))
    half = torch.tensor([(n - 1) / 2 * config.spacing_mm for n in config.size], dtype=torch.float64)
    centre = torch.tensor([-31.0, 12.0, 240.0], dtype=torch.float64)  # as in a scan whose origin lies elsewhere
    origin = (centre - r @ half).tolist()
    return VoxelGrid(config.size, (config.spacing_mm,) * 3, tuple(origin), tuple(r.flatten().tolist()))


def _points(config: PhantomConfig) -> Array:
    """Voxel centres (3, D, H, W) in mm from the centre: left, back, head."""
    axes = [(np.arange(n) - (n - 1) / 2) * config.spacing_mm for n in config.size]
    z, y, x = np.meshgrid(axes[2], axes[1], axes[0], indexing="ij")
    return np.stack([x, y, z])


class _Canvas:
    """Labels and mean echogenicity in dB (D, H, W); what is put later covers what was there."""

    def __init__(self, points: Array) -> None:
        self.points = points
        x, y = points[0] / BODY_MM[0], points[1] / BODY_MM[1]
        self.depth = (x**4 + y**4) ** 0.25  # 1 on the skin
        self.labels = (self.depth < 1).astype(np.int64)
        layers = [self.depth > 0.97, self.depth > 0.88, self.depth > 0.84]
        self.mean_db = np.select(layers, [4.0, -9.0, 2.0], default=-8.0)  # skin, fat, muscle, inside

    def put(self, inside: Mask, label: int, mean_db: float) -> None:
        """Fill a region of the body."""
        inside = inside & (self.depth < 1)
        self.labels[inside] = label
        self.mean_db[inside] = mean_db


def _organs(points: Array, rng: np.random.Generator) -> tuple[NDArray[np.int64], Array]:
    """Labels and mean echogenicity in dB (D, H, W)."""
    p, canvas = points, _Canvas(points)
    canvas.put(_ellipsoid(p, (46, -22, 18), (27, 26, 36)), 1, 3.5)  # stomach and bowel
    canvas.put(_ellipsoid(p, (40, 8, -36), (20, 16, 22)), 1, -9.0)
    canvas.put(_ellipsoid(p, (0, 56, 0), (19, 15, 500)), 8, 8.0)
    liver = _ellipsoid(p, (-24, -10, 6), (55, 42, 55)) & (canvas.depth < 0.86)
    canvas.put(liver, 2, 0.0)
    for centre, radii, label in (((-47, 34, -28), (21, 19, 36), 3), ((57, 32, -6), (17, 18, 34), 4)):
        canvas.put(_ellipsoid(p, centre, radii), label, -7.0)
        canvas.put(_ellipsoid(p, centre, [r * 0.45 for r in radii]), label, 6.0)  # renal sinus
    canvas.put(_ellipsoid(p, (-2, -24, -30), (10, 13, 20)), 7, -30.0)
    for start, stop, radius in (((13, 40, -80), (10, 36, 80), 8.0), ((-11, 36, -80), (-15, 26, 80), 9.0)):
        canvas.put(_tube(p, start, stop, radius), 5, -27.0)
    _vessel_trees(canvas, liver, rng)
    _lesions(canvas, rng)
    return canvas.labels, canvas.mean_db


def _vessel_trees(canvas: _Canvas, liver: Mask, rng: np.random.Generator) -> None:
    """A portal tree with bright walls and the hepatic veins without, both inside the liver."""
    portal = _tree((4.0, 10.0, -8.0), (-1.0, -0.35, 0.25), 24.0, 5.5, 5, rng)
    veins = _tree((-15.0, 22.0, 44.0), (-0.45, -0.75, -0.5), 26.0, 5.5, 5, rng)
    for start, stop, radius in portal:
        canvas.put(_tube(canvas.points, start, stop, radius + 1.5) & liver, 5, 6.0)
    for start, stop, radius in [*portal, *veins]:
        canvas.put(_tube(canvas.points, start, stop, radius) & liver, 5, -26.0)


def _tree(
    start: Point, direction: Point, length: float, radius: float, levels: int, rng: np.random.Generator
) -> list[Segment]:
    """Segments (start, stop, radius) of a tree that forks at every end."""
    d = np.asarray(direction, dtype=np.float64)
    d = d / np.linalg.norm(d)
    stop = np.asarray(start) + length * d
    segments: list[Segment] = [(np.asarray(start, dtype=np.float64), stop, radius)]
    if levels > 1:
        side = np.cross(d, rng.standard_normal(3))
        side = side / np.linalg.norm(side)
        for sign in (1.0, -1.0):
            fork = d + sign * rng.uniform(0.4, 0.8) * side
            segments += _tree(stop, fork, length * rng.uniform(0.7, 0.9), radius * 0.75, levels - 1, rng)
    return segments


def _lesions(canvas: _Canvas, rng: np.random.Generator) -> None:
    """Six round lesions spread over the liver, brighter and darker in turn."""
    for i, place in enumerate(LESIONS_MM):
        centre = np.array(place) + rng.uniform(-4, 4, 3)
        radii = rng.uniform(5.0, 9.0) * np.array([1.0, 0.85, 1.1])
        canvas.put(_ellipsoid(canvas.points, centre, radii), 6, 8.0 if i % 2 else -11.0)


def _ellipsoid(p: Array, centre: Point, radii: Point) -> Mask:
    return sum(((p[i] - centre[i]) / radii[i]) ** 2 for i in range(3)) < 1


def _tube(p: Array, start: Point, stop: Point, radius: float) -> Mask:
    """Points nearer to a segment than a radius."""
    a = np.asarray(start, dtype=np.float64)
    d = np.asarray(stop, dtype=np.float64) - a
    length2 = float(d @ d)
    t = np.clip(sum((p[i] - a[i]) * d[i] for i in range(3)) / length2, 0.0, 1.0)
    return sum((p[i] - a[i] - t * d[i]) ** 2 for i in range(3)) < radius**2
