# SPDX-License-Identifier: Apache-2.0
"""Where tissue is: breathing and the indentation of the probe, tabulated around one image plane."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d, map_coordinates
from scipy.special import lambertw

from .lines import ScanLines

Array = NDArray[np.float64]
INDENTATION_MM = 30.0  # depth over which tissue pressed in at the face comes to rest
NODE_MM = 8.0  # displacement is smooth: nodes of its table
BACK_MM = 0.5
LAMBERT_END = 2.0  # enough for an indentation of 25 mm
ACROSS, ALONG = 33, 41  # places on the plane that are traced back to the body at rest
REACH_NODES = 3


class Moving(Protocol):
    """What a scanner needs of a motion; t_s are seconds."""

    def displacement(self, points: Array, t_s: float) -> Array:
        """How far points (N, 3) of the body at rest have moved, mm."""
        ...

    def reference(self, points: Array, t_s: float) -> Array:
        """Where points (N, 3) that are now here lie in the body at rest."""
        ...


@dataclass(frozen=True, eq=False)
class Warp:
    """A plane's surroundings at one time.

    Args:
        plane: (ALONG, ACROSS, 3) points of the body at rest at even depths (rows) and line coordinates (columns).
        nodes: (nx, ny, nz, 3) float64 displacement at nodes of the body at rest; NaN far from the plane.
        corner_mm: (3,) first node.
        press_mm: (ACROSS,) how far the face lies in the skin at these line coordinates.
    """

    plane: Array
    nodes: Array
    corner_mm: Array
    press_mm: Array


@dataclass(frozen=True, eq=False)
class Skin:
    """Where the body at rest is: labels (D, H, W), zero outside, and (3, 4) from mm to their voxels."""

    labels: NDArray[np.uint8]
    index_T_ct: Array

    def outside(self, points: Array) -> NDArray[np.bool_]:
        """Whether points (N, 3) lie beyond the skin."""
        index = points @ self.index_T_ct[:, :3].T + self.index_T_ct[:, 3]
        return np.asarray(map_coordinates(self.labels, index.T[::-1], order=0, mode="constant") == 0)


def unpressed_mm(depth_mm: Array, press_mm: Array) -> Array:
    """Depth below the face at which the tissue lay that is now at a depth z: d exp(-z / 30 mm) less."""
    return np.asarray(depth_mm - press_mm * np.exp(-np.asarray(depth_mm) / INDENTATION_MM))


@functools.cache
def lambert() -> Array:
    """Lambert's W at even places from 0 to LAMBERT_END: s + L W(d / L exp(-s / L)) solves z - d exp(-z / L) = s."""
    return np.asarray(lambertw(np.linspace(0.0, LAMBERT_END, 2049)).real, dtype=np.float64)


def _press(
    lines: ScanLines, bed_T_image: Array, motion: Moving | None, t_s: float, indentation_mm: float, skin: Skin
) -> Array:  # fmt: skip
    """How far each part of the face lies in the skin (ACROSS,), mm: a curved face dips in less at its ends."""
    back = np.arange(0.0, indentation_mm, BACK_MM)
    coordinate = np.linspace(lines.first, lines.coordinates[-1], ACROSS)
    points = _in_bed(lines.points_mm(-back[:, None], coordinate[None]), bed_T_image).reshape(-1, 3)
    points = points if motion is None else _of(motion.reference(points, t_s))
    outside = skin.outside(points).reshape(back.size, ACROSS)
    reach = np.where(outside.any(0), back[outside.argmax(0)], indentation_mm)
    return np.asarray(gaussian_filter1d(reach, 1.0, mode="nearest"))


def _in_bed(xy_mm: Array, bed_T_image: Array) -> Array:
    return np.asarray(xy_mm[..., :1] * bed_T_image[:3, 0] + xy_mm[..., 1:] * bed_T_image[:3, 1] + bed_T_image[:3, 3])


def make_warp(
    lines: ScanLines, bed_T_image: Array, motion: Moving | None, t_s: float, indentation_mm: float, skin: Skin
) -> Warp:  # fmt: skip
    """Trace the plane back to the body at rest and tabulate the displacement around it.

    Args:
        indentation_mm: of the middle of the face; elsewhere the face lies in the skin by at most that.
    """
    depth = np.linspace(0.0, lines.depth_mm, ALONG)
    coordinate = np.linspace(lines.first, lines.coordinates[-1], ACROSS)
    press = np.zeros(ACROSS)
    if indentation_mm > 0:
        press = _press(lines, bed_T_image, motion, t_s, indentation_mm, skin)
    bed = _in_bed(lines.points_mm(unpressed_mm(depth[:, None], press[None]), coordinate[None]), bed_T_image)
    plane = bed if motion is None else _of(motion.reference(bed.reshape(-1, 3), t_s)).reshape(bed.shape)
    nodes, corner = _nodes(plane.reshape(-1, 3), motion, t_s)
    return Warp(plane, nodes, corner, press)


def _of(points: object) -> Array:
    return np.asarray(points, dtype=np.float64)


def _nodes(points: Array, motion: Moving | None, t_s: float) -> tuple[Array, Array]:
    """Displacement at the nodes within REACH_NODES of the points."""
    index = np.floor(points / NODE_MM).astype(np.int64)
    low = index.min(0) - REACH_NODES
    size = index.max(0) - low + REACH_NODES + 2
    corner = low * NODE_MM
    if motion is None:
        return np.zeros((*size, 3)), corner
    near = np.zeros(size, dtype=bool)
    offsets = np.arange(-REACH_NODES, REACH_NODES + 2)
    i, j, k = np.meshgrid(offsets, offsets, offsets, indexing="ij")
    around = np.unique(index, axis=0)[:, None] - low + np.stack([i, j, k], -1).reshape(1, -1, 3)
    near[around[..., 0], around[..., 1], around[..., 2]] = True
    nodes = np.full((*size, 3), math.nan)
    nodes[near] = _of(motion.displacement(np.argwhere(near) * NODE_MM + corner, t_s))
    return nodes, corner
