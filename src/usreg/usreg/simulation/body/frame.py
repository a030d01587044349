# SPDX-License-Identifier: Apache-2.0
"""The frame of a body: drawn sizes, vertebral levels, the line of the spine, and the outlines of the trunk's layers.

Axes are LPS with the origin in the middle of the trunk at the disc between L1 and L2: x left, y back, z head.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .config import draw_measures
from .shapes import Array, Lattice, Points

SKIN_MM = 2.0
WALL_SIDE_MM, WALL_FRONT_MM = 14.0, 11.0
VERTEBRA_DEPTH_MM, SPINOUS_MM = 32.0, 62.0  # body front to back; centre of the body to the tip of its process
# Centres of the vertebral bodies, mm above the disc L1/L2 at stature 1.
LEVELS = {
    "L5": -129.0, "L4": -92.0, "L3": -55.0, "L2": -18.0, "L1": 18.0, "T12": 51.0, "T11": 79.0, "T10": 105.0,
    "T9": 130.0, "T8": 154.0, "T7": 177.0, "T6": 199.0, "T5": 220.0, "T4": 240.0,
}  # fmt: skip
BOTTOM_MM, TOP_MM = -165.0, 205.0
STEP_MM = 3.0


@dataclass(frozen=True, eq=False)
class Outline:
    """A layer of the trunk: half width, half depths to the front and back, exponents of its super-ellipse."""

    half_width_mm: float
    front_mm: float
    back_mm: float
    front_power: float
    back_power: float

    def norm(self, x: Array, y: Array, z: Array) -> tuple[Array, Array]:
        """g (1 on the outline) and |grad g|, which is constant along rays from the axis."""
        a, dy = self.half_width_mm * waist(z), y - np.float32(WIDEST_Y_MM)
        front = dy < 0
        b = np.where(front, np.float32(self.front_mm), np.float32(self.back_mm)) * belly(z)
        n = np.where(front, np.float32(self.front_power), np.float32(self.back_power))
        u, v = np.abs(x) / a, np.abs(dy) / b
        g = np.maximum(u**n + v**n, 1e-9) ** (1.0 / n)
        slope = np.sqrt((u / g) ** (2 * n - 2) / a**2 + (v / g) ** (2 * n - 2) / b**2)
        return g.astype(np.float32), slope.astype(np.float32)

    def field(self, lattice: Lattice) -> Array:
        """Field of the inside of the outline."""
        g, slope = self.norm(*lattice.axes())
        return ((g - 1.0) / slope).astype(np.float32)

    def point(self, angle: float, z: float, off_mm: float = 0.0) -> tuple[Points, Points]:
        """Point (3,) and outward normal (3,) at an angle from the back (0) over the left (pi/2) to the front (pi)."""
        direction = np.array([np.sin(angle), np.cos(angle)])
        g, _ = self._norm_at(direction, z)
        edge = direction / g
        steps = (np.array([1e-3, 0.0]), np.array([0.0, 1e-3]))
        normal = np.array([self._norm_at(edge + s, z)[0] - self._norm_at(edge - s, z)[0] for s in steps])
        normal = np.append(normal / np.linalg.norm(normal), 0.0)
        return np.array([edge[0], edge[1] + WIDEST_Y_MM, z]) + off_mm * normal, normal

    def _norm_at(self, xy: Points, z: float) -> tuple[float, float]:
        g, slope = self.norm(np.float64(xy[0]), np.float64(xy[1] + WIDEST_Y_MM), np.float64(z))
        return float(g), float(slope)


WIDEST_Y_MM = 10.0  # the supine trunk is widest behind its middle


def waist(z: Array) -> Array:
    """Width of the trunk along z: narrower at the waist and towards the upper chest."""
    return 1.0 - 0.045 * np.exp(-(((z + 75.0) / 50.0) ** 2)) - 0.10 * smoothstep((z - 70.0) / 150.0)


def belly(z: Array) -> Array:
    """Depth of the trunk along z: a hollow below the costal margin, the chest a little flatter towards its top."""
    return 1.0 - 0.035 * np.exp(-(((z + 15.0) / 60.0) ** 2)) - 0.05 * smoothstep((z - 120.0) / 100.0)


def smoothstep(t: Array) -> Array:
    """0 below 0, 1 above 1, smooth between."""
    t = np.clip(t, 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


@dataclass(frozen=True, eq=False)
class Frame:
    """A drawn body before it has organs.

    Args:
        seed: of everything. measures: drawn sizes by name, see `config.RANGES`.
    """

    seed: int
    measures: dict[str, float]

    @staticmethod
    def draw(seed: int) -> Frame:
        """Sizes from the seed."""
        return Frame(seed, draw_measures(np.random.default_rng([seed, 0])))

    def rng(self, part: int) -> np.random.Generator:
        """The generator of a part (1, 2, ...): a change in one organ leaves the draws of the others alone."""
        return np.random.default_rng([self.seed, part])

    def z(self, level: str, up_mm: float = 0.0) -> float:
        """Height of a vertebral body's centre ("L1"), and so many mm above at stature 1."""
        return (LEVELS[level] + up_mm) * self.stature

    @property
    def stature(self) -> float:
        return self.measures["stature"]

    @property
    def fat_mm(self) -> float:
        return self.measures["fat_mm"]

    @property
    def back_fat_mm(self) -> float:
        return 0.6 * self.fat_mm

    @property
    def width_mm(self) -> float:
        """Left to right skin, at the widest height."""
        return 2 * (self.measures["cavity_half_width_mm"] + WALL_SIDE_MM + 0.8 * self.fat_mm + SKIN_MM)

    @property
    def depth_mm(self) -> float:
        """Front to back skin."""
        front = SKIN_MM + self.fat_mm + WALL_FRONT_MM + self.measures["cavity_depth_mm"]
        return front + VERTEBRA_DEPTH_MM / 2 + SPINOUS_MM + 4.0 + self.back_fat_mm + SKIN_MM

    def spine_y(self, z: Array | float) -> Array:
        """Front-back position of the vertebral bodies' centres: lumbar lordosis, thoracic kyphosis."""
        base = self.depth_mm / 2 - SKIN_MM - self.back_fat_mm - 4.0 - SPINOUS_MM
        height = np.asarray(z) / self.stature
        return base - 7.0 * np.exp(-(((height + 55.0) / 70.0) ** 2)) + 12.0 * smoothstep((height - 20.0) / 160.0)

    def spine_front(self, z: Array | float) -> Array:
        """Front face of the vertebral bodies."""
        return self.spine_y(z) - VERTEBRA_DEPTH_MM / 2

    @property
    def skin(self) -> Outline:
        half = self.depth_mm / 2
        return Outline(self.width_mm / 2, half + WIDEST_Y_MM, half - WIDEST_Y_MM, 2.2, 2.7)

    @property
    def wall(self) -> Outline:
        """Outside of the muscles, under the fat."""
        side, front = SKIN_MM + 0.8 * self.fat_mm, SKIN_MM + self.fat_mm
        outer, back = self.skin, SKIN_MM + self.back_fat_mm
        return Outline(outer.half_width_mm - side, outer.front_mm - front, outer.back_mm - back, 2.2, 2.6)

    @property
    def cavity(self) -> Outline:
        """Inside of the abdominal and chest wall."""
        outer, half = self.wall, self.measures["cavity_half_width_mm"]
        back = float(self.spine_y(60.0)) + 38.0 - WIDEST_Y_MM
        return Outline(half, outer.front_mm - WALL_FRONT_MM, back, 2.15, 2.3)

    def lattice(self, step_mm: float = STEP_MM) -> Lattice:
        """The lattice of the trunk; it reaches beyond the longest grid."""
        x, y = self.width_mm / 2 + 8.0, self.depth_mm / 2 + 8.0
        return Lattice.around((-x, -y, BOTTOM_MM), (x, y, TOP_MM), step_mm)
