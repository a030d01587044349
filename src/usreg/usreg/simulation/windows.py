# SPDX-License-Identifier: Apache-2.0
"""Places on the skin from which the liver is seen: below the ribs, between them, below the xiphoid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import NoOverlapError
from .body.types import ORGANS, VALUE, Body
from .skin import Skin

PLACE = ("angle_rad", "z_mm", "turn_rad", "tilt_rad", "rock_rad")  # columns of a place
OPAQUE = ("ribs", "costal_cartilage", "spine", "lung_right", "lung_left", "bowel_gas", "outside")
FACE_RADIUS_MM, HALF_ANGLE_RAD, DEPTH_MM, SAMPLE_MM = 60.0, 28.0 * np.pi / 180, 110.0, 4.0
SKIN_MM = 8.0  # samples this near the face may lie outside: the face dips into the skin, its edges do not
LEAST_SHARE = 0.05  # of the image that must be liver for a place to be a window


@dataclass(frozen=True)
class Window:
    """The best place of its kind.

    Args:
        name: "subcostal", "intercostal" or "epigastric".
        place: angle and z on the skin; turn of the marked side from the patient's right towards the head, about the
            normal; tilt of the beam towards where the turned probe's y points; rock about y.
        liver_share: of a 56 degree, 110 mm image that is liver not behind bone, lung or gas.
    """

    name: str
    place: tuple[float, float, float, float, float]
    liver_share: float


def poses_at(skin: Skin, places: NDArray[np.float64], depth_mm: Any = 0.0) -> NDArray[np.float64]:
    """Poses bed_T_probe (N, 4, 4) at places (N, 5), pressed in by depth_mm along the skin's normal."""
    angle, z, turn, tilt, rock = np.asarray(places, float).T
    point, inwards = skin.point(angle, z), -skin.normal(angle, z)
    right = np.cross(inwards, np.array([0.0, 0.0, -1.0]))  # the patient's right, along the skin
    right /= np.linalg.norm(right, axis=-1, keepdims=True)
    up = np.cross(inwards, right)
    x = np.cos(turn)[:, None] * right + np.sin(turn)[:, None] * up
    y = np.cross(inwards, x)
    cos_t, sin_t = np.cos(tilt)[:, None], np.sin(tilt)[:, None]
    y, beam = cos_t * y - sin_t * inwards, cos_t * inwards + sin_t * y
    cos_r, sin_r = np.cos(rock)[:, None], np.sin(rock)[:, None]
    x, beam = cos_r * x - sin_r * beam, cos_r * beam + sin_r * x
    pose = np.zeros((len(angle), 4, 4))
    pose[:, :3, 0], pose[:, :3, 1], pose[:, :3, 2] = x, y, beam
    pose[:, :3, 3] = point + np.asarray(depth_mm, float)[..., None] * inwards
    pose[:, 3, 3] = 1.0
    return pose


class Sight:
    """How much liver a convex probe sees in a body."""

    def __init__(self, body: Body) -> None:
        self._labels = body.labels.data[0].numpy()
        self._index_T_ct = body.labels.grid.index_T_ct.numpy()
        self._liver = np.zeros(256, bool)
        self._liver[[VALUE[name] for name in ORGANS["liver"]]] = True
        self._opaque = np.zeros(256, bool)
        self._opaque[[VALUE[name] for name in OPAQUE]] = True
        angle = np.linspace(-HALF_ANGLE_RAD, HALF_ANGLE_RAD, 15)[:, None]
        depth = np.arange(SAMPLE_MM, DEPTH_MM, SAMPLE_MM)
        r = FACE_RADIUS_MM + depth
        self._x, self._z = r * np.sin(angle), r * np.cos(angle) - FACE_RADIUS_MM
        self._shallow = depth < SKIN_MM

    def liver_share(self, poses: NDArray[np.float64]) -> NDArray[np.float64]:
        """Shares (N,) of images at poses (N, 4, 4) that are liver not behind something opaque."""
        return np.concatenate([self._share(part) for part in np.array_split(poses, len(poses) // 500 + 1)])

    def _share(self, poses: NDArray[np.float64]) -> NDArray[np.float64]:
        p = (poses[:, None, None, :3, 3] + self._x[..., None] * poses[:, None, None, :3, 0]
             + self._z[..., None] * poses[:, None, None, :3, 2])  # fmt: skip
        index = np.rint(p @ self._index_T_ct[:3, :3].T + self._index_T_ct[:3, 3]).astype(np.int64)
        far = np.array(self._labels.shape[::-1]) - 1
        known = ((index >= 0) & (index <= far)).all(-1)
        index = np.clip(index, 0, far)
        value = np.where(known, self._labels[index[..., 2], index[..., 1], index[..., 0]], 0)
        blocked = self._opaque[value] & ~(self._shallow & (value == 0))
        open_way = np.cumsum(blocked, -1) == 0
        return np.asarray((self._liver[value] & open_way).mean((-1, -2)))


def find_windows(body: Body, skin: Skin) -> tuple[Window, ...]:
    """The windows of a body, best place each; a window from which next to no liver is seen is left out.

    Raises:
        NoOverlapError: the liver is seen from nowhere, or there is none.
    """
    if not bool(body.inside(*ORGANS["liver"]).any()):
        raise NoOverlapError("the body has no liver: there is nothing to scan")
    sight = Sight(body)
    found = [_best(name, sight, skin, places) for name, places in _candidates(body, skin).items()]
    windows = tuple(w for w in found if w.liver_share >= LEAST_SHARE)
    if not windows:
        raise NoOverlapError("the liver is seen from nowhere on the skin: bone, lung or gas lies before it everywhere")
    return windows


def _best(name: str, sight: Sight, skin: Skin, places: NDArray[np.float64]) -> Window:
    low, high = skin.z_range_mm
    places = places[(places[:, 1] > low + 20) & (places[:, 1] < high - 20)]
    if not len(places):
        return Window(name, (0.0, 0.5 * (low + high), 0.0, 0.0, 0.0), 0.0)
    share = sight.liver_share(poses_at(skin, places, 4.0))
    best = int(np.argmax(share - 0.1 * np.abs(places[:, 3])))  # a strong tilt costs contact
    a, z, turn, tilt, rock = places[best].tolist()
    return Window(name, (a, z, turn, tilt, rock), float(share[best]))


def _candidates(body: Body, skin: Skin) -> dict[str, NDArray[np.float64]]:
    """Places to try per window."""
    rad = np.radians
    liver = _centres(body, ORGANS["liver"])
    low, high = np.percentile(liver[:, 2], [1, 99])
    margin = costal_margin(body, skin)
    tilts = rad([0.0, 12.0, 24.0, 36.0, 46.0])
    angles = rad(np.arange(-65.0, -24.0, 5.0))
    below = [(a, np.interp(a, margin[:, 0], margin[:, 1]) - drop) for a in angles for drop in (14.0, 22.0, 32.0, 44.0)]
    subcostal = [(a, z, t, c, 0.0) for a, z in below for t in rad([0.0, 20.0, 40.0]) for c in tilts]
    intercostal = [
        (a, z, t, c, 0.0) for a in rad(np.arange(-115.0, -64.0, 5.0)) for z in np.arange(low, high, 4.0)
        for t in rad(np.arange(-45.0, 46.0, 15.0)) for c in rad([-12.0, 0.0, 12.0])
    ]  # fmt: skip
    middle = np.interp(0.0, margin[:, 0], margin[:, 1])
    epigastric = [
        (a, middle - drop, 0.0, c, 0.0) for a in rad([-14.0, -7.0, 0.0, 7.0]) for drop in np.arange(14.0, 75.0, 6.0)
        for c in rad([0.0, 12.0, 24.0, 36.0])
    ]  # fmt: skip
    sets = {"subcostal": subcostal, "intercostal": intercostal, "epigastric": epigastric}
    return {name: np.array(rows, float) for name, rows in sets.items()}


def costal_margin(body: Body, skin: Skin) -> NDArray[np.float64]:
    """Lower border of the ribs and their cartilage at the front: (N, 2) angle rad, z mm, angles ascending.

    Where a body shows no ribs, it is taken to lie 15 mm above the lower border of the liver.
    """
    angles = np.radians(np.arange(-75.0, 16.0, 5.0))
    bone, liver = _centres(body, ("ribs", "costal_cartilage")), _centres(body, ORGANS["liver"])
    bone_low = _lowest(bone, skin, angles)
    liver_low = _lowest(liver, skin, angles)
    default = float(np.percentile(liver[:, 2], 5))
    z = np.where(np.isfinite(bone_low), bone_low, np.where(np.isfinite(liver_low), liver_low + 15.0, default))
    return np.stack([angles, z], -1)


def _lowest(points: NDArray[np.float64], skin: Skin, angles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Lowest z of points within 4 degrees of each angle; infinite where there is none."""
    at = np.arctan2(points[:, 0] - skin.axis_mm[0], skin.axis_mm[1] - points[:, 1])
    near = np.abs(at[:, None] - angles) < np.radians(4.0)
    return np.asarray(np.where(near, points[:, 2:], np.inf).min(0, initial=np.inf))


def _centres(body: Body, structures: tuple[str, ...]) -> NDArray[np.float64]:
    """Centres (N, 3) of voxels of structures, mm; at most some ten thousand of them."""
    index = np.argwhere(body.inside(*structures).numpy())[:, ::-1]
    index = index[:: max(1, len(index) // 20_000)]
    matrix = body.labels.grid.ct_T_index.numpy()
    return np.asarray(index @ matrix[:3, :3].T + matrix[:3, 3])
