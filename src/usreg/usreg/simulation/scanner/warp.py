# SPDX-License-Identifier: Apache-2.0
"""Where tissue is: breathing and the indentation of the probe, tabulated around one image plane."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .lines import ScanLines

Array = NDArray[np.float64]
INDENTATION_MM = 30.0  # depth over which tissue pressed in at the face comes to rest
NODE_MM = 8.0  # displacement is smooth: nodes of its table
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
        depth_of: (K,) image depth at even depths of the unpressed body, from -indentation to the last sample.
        indentation_mm: of the face into the skin.
    """

    plane: Array
    nodes: Array
    corner_mm: Array
    depth_of: Array
    indentation_mm: float


def unpressed_mm(depth_mm: Array, indentation_mm: float) -> Array:
    """Depth below the face at which the tissue lay that is now at a depth: d exp(-z / 30 mm) less."""
    return np.asarray(depth_mm - indentation_mm * np.exp(-np.asarray(depth_mm) / INDENTATION_MM))


def make_warp(
    lines: ScanLines, bed_T_image: Array, motion: Moving | None, t_s: float, indentation_mm: float
) -> Warp:  # fmt: skip
    """Trace the plane back to the body at rest and tabulate the displacement around it."""
    depth = np.linspace(0.0, lines.depth_mm, ALONG)
    coordinate = np.linspace(lines.first, lines.coordinates[-1], ACROSS)
    xy = lines.points_mm(unpressed_mm(depth, indentation_mm)[:, None], coordinate[None])
    bed = xy @ bed_T_image[:3, :2].T + bed_T_image[:3, 3]
    plane = bed if motion is None else _of(motion.reference(bed.reshape(-1, 3), t_s)).reshape(bed.shape)
    nodes, corner = _nodes(plane.reshape(-1, 3), motion, t_s)
    pressed = np.linspace(0.0, lines.depth_mm, 2048)
    even = np.linspace(-indentation_mm, lines.depth_mm, 2048)
    depth_of = np.interp(even, unpressed_mm(pressed, indentation_mm), pressed)
    return Warp(plane, nodes, corner, depth_of, indentation_mm)


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
