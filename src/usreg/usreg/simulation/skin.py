# SPDX-License-Identifier: Apache-2.0
"""The skin as a smooth surface: distance from an axis along the body by angle and height."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.interpolate import RectBivariateSpline

from ..data.types import Volume
from ..errors import GeometryError, NoOverlapError

SMOOTH_MM = 8.0
RAY_STEP_MM = 0.5
ANGLES = 180
HEIGHT_STEP_MM = 3.0


@dataclass(frozen=True, eq=False)
class Skin:
    """Surface p(angle, z) = axis + radius(angle, z) (sin angle, -cos angle): 0 is the front, positive the left.

    Args:
        axis_mm: (2,) x and y of the axis in `ct`. z_range_mm: lowest and highest z that is known.
        spline: radius in mm over (angle, z).
    """

    axis_mm: NDArray[np.float64]
    z_range_mm: tuple[float, float]
    spline: RectBivariateSpline

    def point(self, angle_rad: Any, z_mm: Any) -> NDArray[np.float64]:
        """Points (..., 3) of the surface, mm.

        Raises:
            NoOverlapError: beyond the part of the body that the labels show.
        """
        angle, z = np.broadcast_arrays(_wrapped(angle_rad), np.asarray(z_mm, float))
        self._check(z)
        r = self.spline.ev(angle, z)
        return np.stack([self.axis_mm[0] + r * np.sin(angle), self.axis_mm[1] - r * np.cos(angle), z], -1)

    def normal(self, angle_rad: Any, z_mm: Any) -> NDArray[np.float64]:
        """Unit normals (..., 3) that point outwards."""
        angle, z = np.broadcast_arrays(_wrapped(angle_rad), np.asarray(z_mm, float))
        self._check(z)
        r, by_angle, by_z = (self.spline.ev(angle, z, dx=a, dy=b) for a, b in ((0, 0), (1, 0), (0, 1)))
        s, c = np.sin(angle), np.cos(angle)
        # p_angle x p_z of p_angle = r' (s, -c, 0) + r (c, s, 0) and p_z = (r_z s, -r_z c, 1)
        n = np.stack([s * r - by_angle * c, -(c * r + by_angle * s), -r * by_z], -1)
        return np.asarray(n / np.linalg.norm(n, axis=-1, keepdims=True))

    def coordinates(self, point: NDArray[np.float64]) -> tuple[float, float]:
        """Angle and z of the place on the surface at the angle and height of a point (3,)."""
        return float(np.arctan2(point[0] - self.axis_mm[0], self.axis_mm[1] - point[1])), float(point[2])

    def at(self, x_mm: float, z_mm: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Point (3,) and outward normal (3,) on the front at x and z.

        Raises:
            NoOverlapError: x or z lies beside the body.
        """
        angles = np.linspace(-0.5 * np.pi, 0.5 * np.pi, 721)
        x = self.point(angles, z_mm)[:, 0]
        if not x.min() <= x_mm <= x.max():
            raise NoOverlapError(f"x = {x_mm:.1f} mm lies beside the body, which reaches from {x.min():.1f} to "
                                 f"{x.max():.1f} mm at z = {z_mm:.1f} mm")  # fmt: skip
        angle = float(np.interp(x_mm, x, angles))
        return self.point(angle, z_mm), self.normal(angle, z_mm)

    def hit(self, origin: NDArray[np.float64], direction: NDArray[np.float64]) -> NDArray[np.float64]:
        """Point (3,) where a ray from inside the body leaves it.

        Raises:
            NoOverlapError: it starts outside, or leaves through the part that the labels do not show.
        """
        unit = direction / np.linalg.norm(direction)
        depth = self.depth(origin)
        if depth < 0:
            raise NoOverlapError(f"the ray starts {-depth:.1f} mm outside the body: start inside it")
        low, high = 0.0, 1.0
        while self.depth(origin + high * unit) > 0:
            low, high = high, high + 2.0
        for _ in range(40):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if self.depth(origin + middle * unit) > 0 else (low, middle)
        return np.asarray(origin + low * unit)

    def depth(self, point: NDArray[np.float64]) -> float:
        """How far (mm) a point lies below the surface, measured from the axis; negative outside."""
        self._check(point[2])
        radius = float(np.hypot(*(point[:2] - self.axis_mm)))
        angle, z = self.coordinates(point)
        return float(self.spline.ev(angle, z)) - radius

    def _check(self, z_mm: Any) -> None:
        low, high = self.z_range_mm
        if np.min(z_mm) < low - 1e-6 or np.max(z_mm) > high + 1e-6:
            raise NoOverlapError(f"z = {np.min(z_mm):.1f} to {np.max(z_mm):.1f} mm lies outside the body; its skin is "
                                 f"known from {low:.1f} to {high:.1f} mm")  # fmt: skip


def find_skin(labels: Volume) -> Skin:
    """Skin of a labelled body: data (1, D, H, W), 0 outside; any grid.

    Raises:
        GeometryError: nothing is labelled.
    """
    data, grid = labels.data[0].numpy(), labels.grid
    index = np.argwhere(data[::4, ::4, ::4] > 0)[:, ::-1] * 4.0
    if len(index) < 8:
        raise GeometryError("the labels show no body: there is no skin to scan on")
    matrix = grid.ct_T_index.numpy()
    inside = index @ matrix[:3, :3].T + matrix[:3, 3]
    axis = 0.5 * (np.percentile(inside[:, :2], 1, axis=0) + np.percentile(inside[:, :2], 99, axis=0))
    low, high = float(inside[:, 2].min()), float(inside[:, 2].max())
    z = np.linspace(low, high, max(8, int((high - low) / HEIGHT_STEP_MM)))
    angle = np.linspace(-np.pi, np.pi, ANGLES, endpoint=False)
    radius = _cast(data, grid.index_T_ct.numpy(), axis, angle, z)
    arc = np.median(radius) * 2 * np.pi / ANGLES
    radius = ndimage.gaussian_filter1d(radius, SMOOTH_MM / arc, axis=0, mode="wrap")
    radius = ndimage.gaussian_filter1d(radius, SMOOTH_MM / (z[1] - z[0]), axis=1, mode="nearest")
    pad = 8
    around = np.concatenate([angle[-pad:] - 2 * np.pi, angle, angle[: pad + 1] + 2 * np.pi])
    wrapped = np.concatenate([radius[-pad:], radius, radius[: pad + 1]])
    return Skin(axis, (low, high), RectBivariateSpline(around, z, wrapped, kx=3, ky=3))


def _cast(
    data: NDArray[np.uint8], index_T_ct: NDArray[np.float64], axis: NDArray[np.float64], angle: NDArray[np.float64],
    z: NDArray[np.float64],
) -> NDArray[np.float64]:  # fmt: skip
    """Distance (angles, heights) to the outermost labelled voxel along rays from the axis."""
    reach = np.arange(0.0, 400.0, RAY_STEP_MM)
    far = np.array(data.shape[::-1]) - 1
    out = np.zeros((len(angle), len(z)))
    for i, a in enumerate(angle):
        p = np.stack(np.broadcast_arrays(axis[0] + reach * np.sin(a), axis[1] - reach * np.cos(a), z[:, None]), -1)
        index = np.rint(p @ index_T_ct[:3, :3].T + index_T_ct[:3, 3]).astype(np.int64)
        known = ((index >= 0) & (index <= far)).all(-1)
        index = np.clip(index, 0, far)
        body = known & (data[index[..., 2], index[..., 1], index[..., 0]] > 0)
        out[i] = np.where(body, reach, 0.0).max(-1)
    return out


def _wrapped(angle_rad: Any) -> NDArray[np.float64]:
    return np.asarray(np.mod(np.asarray(angle_rad, float) + np.pi, 2 * np.pi) - np.pi)
