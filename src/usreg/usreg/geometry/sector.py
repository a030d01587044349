# SPDX-License-Identifier: Apache-2.0
"""The field of view of linear, convex and phased ultrasound probes."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from ..errors import GeometryError, ShapeError
from .plane import Matrix2, PlaneGrid

EDGE_MM = 1e-6  # a pixel centre on the clip edge stays inside after mm -> m -> mm
ProbeKind = Literal["linear", "convex", "phased"]


@dataclass(frozen=True)
class SectorGeometry:
    """Sector of an ultrasound image, in mm of the image frame (x to the marked side, y away from the transducer).

    Args:
        kind: "linear" (the clip rectangle alone), "convex" or "phased" (fan inside the clip rectangle).
        plane: pixel grid of the image with `pixel_to_mm` (spacing and shear).
        apex_mm: centre (x, y) of the arcs; for linear probes the middle of the array.
        radius_mm: near and far radius about the apex; for linear probes 0 and depth.
        angle_rad: first and last angle from +y towards +x; for linear probes 0, 0.
        clip_mm: x_min, y_min, x_max, y_max of the rectangle with image content.
        depth_mm: imaging depth, near arc (or edge) to far arc.
        orientation: letters of PLUS; in memory always "MF".
        sound_speed_m_s: assumed by the scanner.
    """

    kind: ProbeKind
    plane: PlaneGrid
    apex_mm: tuple[float, float]
    radius_mm: tuple[float, float]
    angle_rad: tuple[float, float]
    clip_mm: tuple[float, float, float, float]
    depth_mm: float
    orientation: str = "MF"
    sound_speed_m_s: float = 1540.0
    probe_id: str = ""

    def __post_init__(self) -> None:
        numbers = (*self.apex_mm, *self.radius_mm, *self.angle_rad, *self.clip_mm, self.depth_mm, self.sound_speed_m_s)
        if len(numbers) != 12 or not all(map(math.isfinite, numbers)):
            raise GeometryError(f"sector geometry must be 12 finite numbers, got {numbers}")
        if self.kind not in ("linear", "convex", "phased"):
            raise GeometryError(f"probe kind is {self.kind!r}; choose linear, convex or phased")
        x0, y0, x1, y1 = self.clip_mm
        if x1 <= x0 or y1 <= y0 or self.depth_mm <= 0:
            raise GeometryError(f"clip rectangle {self.clip_mm} mm or depth {self.depth_mm} mm is empty")
        if self.kind != "linear":
            self._check_fan()

    def _check_fan(self) -> None:
        (r0, r1), (a0, a1) = self.radius_mm, self.angle_rad
        if not (0 <= r0 < r1 and -math.pi <= a0 < a1 <= math.pi):
            raise GeometryError(
                "a fan needs 0 <= near < far radius and first < last angle, "
                f"got {self.radius_mm} mm, {self.angle_rad} rad"
            )

    @property
    def pixel_to_mm(self) -> Matrix2:
        """Upper-triangular 2x2: spacing and shear."""
        return self.plane.pixel_to_mm

    def contains(self, xy_mm: Tensor) -> Tensor:
        """True (...) where points (..., 2), mm, lie inside the sector."""
        x, y = xy_mm.unbind(-1)
        x0, y0, x1, y1 = self.clip_mm
        e = EDGE_MM
        inside = (x >= x0 - e) & (x <= x1 + e) & (y >= y0 - e) & (y <= y1 + e)
        if self.kind == "linear":
            return inside
        dx, dy = x - self.apex_mm[0], y - self.apex_mm[1]
        r, a = torch.hypot(dx, dy), torch.atan2(dx, dy)
        return (
            inside
            & (r >= self.radius_mm[0])
            & (r <= self.radius_mm[1])
            & (a >= self.angle_rad[0])
            & (a <= self.angle_rad[1])
        )

    def mask(self) -> Tensor:
        """Pixels (height, width) whose centre lies inside the sector. Shared between callers: do not write into it."""
        return _mask(self)

    def outline_mm(self, step_mm: float = 2.0) -> Tensor:
        """Closed outline (N, 2), mm, first point not repeated."""
        x0, y0, x1, y1 = self.clip_mm
        if self.kind == "linear":
            return torch.tensor([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], dtype=torch.float64)
        near, far = (self._arc(r, step_mm) for r in self.radius_mm)
        return _clipped(torch.cat([near, far.flip(0)]), self.clip_mm)

    def _arc(self, radius: float, step_mm: float) -> Tensor:
        a0, a1 = self.angle_rad
        count = max(2, math.ceil(radius * (a1 - a0) / step_mm) + 1) if radius > 0 else 1
        a = torch.linspace(a0, a1, count, dtype=torch.float64)
        return torch.stack([self.apex_mm[0] + radius * a.sin(), self.apex_mm[1] + radius * a.cos()], -1)

    def sample_points_mm(self, count: int = 5) -> Tensor:
        """A count x count grid of points (count^2, 3) that covers the sector, z = 0, mm: where TRE is measured.

        Fans: equidistant in angle and radius, from edge to edge. Linear: equidistant in x and y. Points outside
        the clip rectangle are moved to its edge.
        """
        x0, y0, x1, y1 = self.clip_mm
        u = torch.linspace(0, 1, count, dtype=torch.float64)
        first, second = torch.meshgrid(u, u, indexing="ij")
        if self.kind == "linear":
            x, y = x0 + (x1 - x0) * second, y0 + (y1 - y0) * first
        else:
            r = self.radius_mm[0] + (self.radius_mm[1] - self.radius_mm[0]) * first
            a = self.angle_rad[0] + (self.angle_rad[1] - self.angle_rad[0]) * second
            x, y = self.apex_mm[0] + r * a.sin(), self.apex_mm[1] + r * a.cos()
        return torch.stack([x.clamp(x0, x1), y.clamp(y0, y1), torch.zeros_like(x)], -1).reshape(-1, 3)

    def resized(self, height: int, width: int) -> SectorGeometry:
        """The same field of view on another pixel grid: pixels cover the same mm to within half a pixel."""
        if height < 1 or width < 1:
            raise ShapeError(f"cannot resize to {width}x{height}")
        (a, b), (_, d) = self.pixel_to_mm
        fx, fy = self.plane.width / width, self.plane.height / height
        # the origin stays the centre of the first pixel, so the frame itself does not move
        return replace(self, plane=PlaneGrid(height, width, ((a * fx, b * fy), (0.0, d * fy))))


def _clipped(outline: Tensor, clip_mm: tuple[float, float, float, float]) -> Tensor:
    """The part (M, 2) of a closed outline (N, 2) inside a rectangle, side by side (Sutherland and Hodgman 1974)."""
    x0, y0, x1, y1 = clip_mm
    points = outline.tolist()
    for axis, sign, limit in ((0, 1.0, x0), (1, 1.0, y0), (0, -1.0, -x1), (1, -1.0, -y1)):
        kept = []
        for p, q in zip(points, points[1:] + points[:1], strict=True):
            here, there = sign * p[axis] - limit, sign * q[axis] - limit
            if here >= 0:
                kept.append(p)
            if (here >= 0) != (there >= 0):
                u = here / (here - there)
                kept.append([p[0] + u * (q[0] - p[0]), p[1] + u * (q[1] - p[1])])
        points = kept
    return outline.new_tensor(points).reshape(-1, 2)


def full_rectangle(plane: PlaneGrid, probe_id: str = "") -> SectorGeometry:
    """A linear sector over the whole image rectangle."""
    corners = plane.image_T_pixel[:2, :2] @ torch.tensor(
        [[0, plane.width - 1, 0, plane.width - 1], [0, 0, plane.height - 1, plane.height - 1]], dtype=torch.float64
    )
    x0, y0 = corners.min(1).values.tolist()
    x1, y1 = corners.max(1).values.tolist()
    return SectorGeometry(
        "linear", plane, ((x0 + x1) / 2, y0), (0.0, y1 - y0), (0.0, 0.0), (x0, y0, x1, y1), y1 - y0, probe_id=probe_id
    )


@functools.lru_cache(maxsize=16)
def _mask(geometry: SectorGeometry) -> Tensor:
    return geometry.contains(geometry.plane.points_mm()[..., :2])
