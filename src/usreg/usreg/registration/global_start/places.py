# SPDX-License-Identifier: Apache-2.0
"""Where the search begins: on the skin with the beam inwards, or anywhere in the volume in any orientation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from ..spread import halton
from .config import GlobalStartConfig
from .echoes import Echoes
from .table import Array
from .tissue_map import AIR, UNKNOWN, TissueMap

SMOOTH_MM = 8.0  # of the skin's normal
LEAST_SHARE = 0.15  # of the voxels of a full piece of skin: what has fewer is a corner
LEAST_PLACES = 40  # a volume that shows less skin is searched without it
BLOCK = 40_000  # poses at a time


@dataclass(frozen=True, eq=False)
class Places:
    """All poses ct_T_ref = place @ turn.

    Args:
        places: (P, 4, 4). turns: (T, 4, 4).
    """

    places: Array
    turns: Array

    def __len__(self) -> int:
        return len(self.places) * len(self.turns)

    def blocks(self) -> Iterator[tuple[Array, Array]]:
        """Numbers (B,) of poses and the poses (B, 4, 4), a block at a time; early blocks cover the places evenly."""
        order = np.argsort(np.arange(len(self.places)) * 0.6180339887498949 % 1.0, kind="stable")
        size = max(1, BLOCK // len(self.turns))
        for begin in range(0, len(order), size):
            rows = order[begin : begin + size]
            numbers = (rows[:, None] * len(self.turns) + np.arange(len(self.turns))).ravel()
            yield numbers, self.poses(numbers)

    def poses(self, numbers: Array) -> Array:
        """Poses (B, 4, 4) by their numbers (B,)."""
        return np.asarray(self.places[numbers // len(self.turns)] @ self.turns[numbers % len(self.turns)])


def all_places(tissue: TissueMap, echoes: Echoes, config: GlobalStartConfig) -> Places:
    """On the skin where there is one and `skin` allows it, else in the box."""
    if config.skin != "no" and tissue.physical:
        places = skin_places(tissue, config)
        if len(places) >= LEAST_PLACES or (config.skin == "yes" and len(places)):
            return Places(places, _skin_turns(echoes, config))
    return Places(_box_places(tissue, config), _box_turns(echoes, config))


def skin_places(tissue: TissueMap, config: GlobalStartConfig) -> Array:
    """Poses (P, 4, 4) on the skin, about `place_mm` apart: y into the body, origin `press_mm` below the surface."""
    body = tissue.classes != AIR
    if min(body.shape) < 2 or body.all():
        return np.zeros((0, 4, 4))
    inwards = np.gradient(ndimage.gaussian_filter(body.astype(np.float32), SMOOTH_MM / tissue.voxel_mm, mode="nearest"))
    index = np.argwhere(body & ~ndimage.binary_erosion(body, border_value=1))
    normal = np.stack([g[tuple(index.T)] for g in inwards[::-1]], -1).astype(np.float64)
    size = np.linalg.norm(normal, axis=1)
    index, normal = index[size > 1e-3], normal[size > 1e-3] / size[size > 1e-3, None]
    m = tissue.ct_T_index
    points = index[:, ::-1] @ m[:3, :3].T + m[:3, 3]
    normal = normal @ (m[:3, :3] / np.linalg.norm(m[:3, :3], axis=0)).T
    rows = _thinned(points, config.place_mm)
    return _frames(points[rows] + config.press_mm * normal[rows], normal[rows])


def _thinned(points: Array, step_mm: float) -> Array:
    """Of the points (N, 3) in each cube of a lattice, the one nearest to their mean; cubes with few are left out."""
    if not len(points):
        return np.zeros(0, np.int64)
    _, cube = np.unique(np.floor(points / step_mm).astype(np.int64), axis=0, return_inverse=True)
    cube = cube.ravel()
    count = np.bincount(cube)
    mean = np.stack([np.bincount(cube, points[:, k]) / count for k in range(3)], 1)
    order = np.lexsort((((points - mean[cube]) ** 2).sum(1), cube))
    first = order[np.r_[0, np.flatnonzero(np.diff(cube[order])) + 1]]
    return np.asarray(first[count[cube[first]] > LEAST_SHARE * count.max()])


def _frames(points: Array, y: Array) -> Array:
    """Poses (N, 4, 4) at points with given y axes; x along the volume's z x y where these are not parallel."""
    other = np.where(np.abs(y[:, 2:]) < 0.9, [[0.0, 0.0, 1.0]], [[1.0, 0.0, 0.0]])
    x = np.cross(y, other)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    out = np.zeros((len(points), 4, 4))
    out[:, :3, 0], out[:, :3, 1], out[:, :3, 2], out[:, :3, 3] = x, y, np.cross(x, y), points
    out[:, 3, 3] = 1.0
    return out


def _skin_turns(echoes: Echoes, config: GlobalStartConfig) -> Array:
    """Turns (T, 4, 4) of the probe in its place: full circle about y, tilt about x, rock about z."""
    step = config.turn_deg
    circle = np.arange(round(360 / step)) * 360 / round(360 / step)
    tilt, rock = (step * np.arange(-(most // step), most // step + 1) for most in (config.tilt_deg, config.rock_deg))
    angles = np.stack(np.meshgrid(circle, tilt, rock, indexing="ij"), -1).reshape(-1, 3)
    return _about(Rotation.from_euler("YXZ", angles, degrees=True), np.array([*echoes.face_mm, 0.0]))


def _box_places(tissue: TissueMap, config: GlobalStartConfig) -> Array:
    """Places (P, 4, 4) of the middle of the image: a lattice over the known voxels."""
    index = np.argwhere((tissue.classes != UNKNOWN) & (tissue.classes != AIR))[:, ::-1]
    points = index @ tissue.ct_T_index[:3, :3].T + tissue.ct_T_index[:3, 3]
    rows = _thinned(points, config.box_mm)
    out = np.tile(np.eye(4), (len(rows), 1, 1))
    out[:, :3, 3] = points[rows]
    return out


def _box_turns(echoes: Echoes, config: GlobalStartConfig) -> Array:
    """Turns (T, 4, 4) about the middle of the image that cover all orientations evenly, about `box_deg` apart.

    Source: Shoemake, Graphics Gems III (1992) 124: uniform unit quaternions from three uniform numbers.
    """
    count = max(8, round(8 * np.pi**2 / np.radians(config.box_deg) ** 3))
    u, v, w = halton(count, 3).numpy().T
    a, b = np.sqrt(1 - u), np.sqrt(u)
    quaternion = np.stack([a * np.sin(2 * np.pi * v), a * np.cos(2 * np.pi * v), b * np.sin(2 * np.pi * w),
                           b * np.cos(2 * np.pi * w)], -1)  # fmt: skip
    return _about(Rotation.from_quat(quaternion), echoes.centre)


def _about(rotation: Rotation, point: Array) -> Array:
    """Poses (T, 4, 4) that turn and bring a point of `ref` to the origin."""
    out = np.zeros((len(rotation), 4, 4))
    out[:, :3, :3] = rotation.as_matrix()
    out[:, :3, 3] = -out[:, :3, :3] @ point
    out[:, 3, 3] = 1.0
    return out
