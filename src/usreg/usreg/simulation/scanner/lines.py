# SPDX-License-Identifier: Apache-2.0
"""Scan lines of a probe: which point of the image lies at which depth of which line, and back."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...errors import ConfigError
from ...geometry.sector import SectorGeometry

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ScanLines:
    """Lines from the face into the body. A line's coordinate is its angle (fans) or its x (linear probes).

    Args:
        fan: whether lines diverge. near_mm: radius of the face.
        centre_mm: apex, or (0, y of the face) for linear probes.
        first, step, count: coordinate of the first line, distance of neighbours, how many.
        depth_mm: of the last sample. sample_mm: distance of samples along a line; sample 0 lies on the face.
    """

    fan: bool
    centre_mm: tuple[float, float]
    near_mm: float
    first: float
    step: float
    count: int
    depth_mm: float
    sample_mm: float

    @property
    def samples(self) -> int:
        """Samples of a line."""
        return math.ceil(self.depth_mm / self.sample_mm) + 1

    @property
    def depths_mm(self) -> Array:
        """Depth of every sample below the face, (samples,)."""
        return np.asarray(np.arange(self.samples) * self.sample_mm, dtype=np.float64)

    @property
    def coordinates(self) -> Array:
        """Of every line, (count,)."""
        return np.asarray(self.first + self.step * np.arange(self.count), dtype=np.float64)

    def pitch_mm(self, depth_mm: Array) -> Array:
        """Distance of neighbouring lines at depths."""
        return self.step * (self.near_mm + np.asarray(depth_mm)) if self.fan else np.full(np.shape(depth_mm), self.step)

    def points_mm(self, depth_mm: Array, coordinate: Array) -> Array:
        """Points (..., 2) of the image plane at depths and line coordinates that broadcast."""
        depth, s = np.broadcast_arrays(depth_mm, coordinate)
        if not self.fan:
            return np.stack([s, self.centre_mm[1] + depth], -1)
        r = self.near_mm + depth
        return np.stack([self.centre_mm[0] + r * np.sin(s), self.centre_mm[1] + r * np.cos(s)], -1)

    def locate(self, xy_mm: Array) -> tuple[Array, Array]:
        """Depth below the face and line number (fractional) of points (..., 2)."""
        x, y = xy_mm[..., 0] - self.centre_mm[0], xy_mm[..., 1] - self.centre_mm[1]
        if not self.fan:
            return y, (xy_mm[..., 0] - self.first) / self.step
        return np.hypot(x, y) - self.near_mm, (np.arctan2(x, y) - self.first) / self.step


def scan_lines(geometry: SectorGeometry, count: int, sample_mm: float) -> ScanLines:
    """The lines that cover a sector.

    Raises:
        ConfigError: the depth is no multiple worth sampling (more than 16384 samples).
    """
    near, far = geometry.radius_mm
    if far - near > 16384 * sample_mm:
        raise ConfigError(
            f"{far - near:.0f} mm of depth at {sample_mm:.3f} mm are too many samples: lower the frequency"
        )
    if geometry.kind == "linear":
        x0, _, x1, _ = geometry.clip_mm
        face = geometry.apex_mm[1] + near
        return ScanLines(False, (0.0, face), 0.0, x0, (x1 - x0) / (count - 1), count, far - near, sample_mm)
    a0, a1 = geometry.angle_rad
    step = (a1 - a0) / (count - 1)
    return ScanLines(True, geometry.apex_mm, near, a0, step, count, far - near, sample_mm)


@dataclass(frozen=True, eq=False)
class Conversion:
    """Scan conversion: for every pixel of the sector its place among samples and lines.

    Args:
        inside: (h, w) bool. row, column: (N,) float32, places of the pixels inside.
    """

    inside: NDArray[np.bool_]
    row: NDArray[np.float32]
    column: NDArray[np.float32]


@functools.lru_cache(maxsize=8)
def conversion(geometry: SectorGeometry, lines: ScanLines, keep_every: int) -> Conversion:
    """Where the pixels of a sector lie in an image of every `keep_every`-th sample."""
    inside = geometry.mask().numpy().copy()
    xy = geometry.plane.points_mm()[..., :2].numpy()[inside]
    depth, column = lines.locate(xy)
    return Conversion(inside, (depth / (lines.sample_mm * keep_every)).astype(np.float32), column.astype(np.float32))
