# SPDX-License-Identifier: Apache-2.0
"""Which organ's motion the tissue takes part in, on a coarse lattice over the body."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from .body.types import ORGANS, VALUE, Body
from .breathing import BreathingConfig
from .motion_gates import Slopes, eased, relieved
from .motion_kernels import MIXED, find_kinds, flow_of
from .motion_raster import Raster, make_raster

FOLLOW_MM = 90.0  # viscera follow an organ up to this distance; short enough to end above the pelvis
CONTACT_MM = 8.0  # so near to an earlier one of ORGANS, the liver first, an organ goes over into its motion
SLIDE_MM = 8.0  # depth of the wall, and distance from what keeps still, in which motion ends where there is room
BEND_RISE_MM = 24.0  # the deformation begins at what keeps still and is whole at this distance
BELLY_RISE_MM = 30.0  # the skin of the belly moves at this distance from bones
BEND_MM = (120.0, 160.0, 200.0)  # wavelengths of the deformation
DEEPEST, RISEN, SHALLOWEST = 1.4, -0.15, -0.6  # levels of a deep breath, of drift at rest, of a cough: none may fold
SQUEEZE = 0.7  # largest loss of length of tissue ahead of an organ
RELIEFS = 40  # how often the motion may spread where cells are squeezed more than that
BONES = ("ribs", "costal_cartilage", "spine")
STILL_PARTS = ("outside", "skin", *BONES)
WALL = ("subcutaneous_fat", "muscle")
Move = Callable[[str, NDArray[np.float64]], NDArray[np.float64]]  # organ, centroid (3,) -> M (3, 4) at level 1


@dataclass(frozen=True, eq=False)
class Lattice:
    """Nodes along the axes of `ct`; arrays as the kernels of `motion_kernels` need them.

    Args:
        origin_mm: (3,) of node (0, 0, 0). step_mm: between nodes.
        organs: K names. centroids: (K, 3), mm.
        weights: (Z, Y, X, K + 2) float32. bend: (Z, Y, X, 3) float32. cells: (Z, Y, X) int8.
    """

    origin_mm: NDArray[np.float64]
    step_mm: float
    organs: tuple[str, ...]
    centroids: NDArray[np.float64]
    weights: NDArray[np.float32]
    bend: NDArray[np.float32]
    cells: NDArray[np.int8]

    def mixed_cells(self) -> NDArray[np.int64]:
        """Indices z, y, x (N, 3) of the cells that do not move rigidly."""
        return np.argwhere(self.cells[:-1, :-1, :-1] == MIXED)


def build_lattices(
    body: Body, config: BreathingConfig, seed: int, move: Move
) -> Generator[Lattice, NDArray[np.int64], None]:
    """Lattices of a body, that with the most local motion first; sent the indices z, y, x (N, 3) of cells that are
    squeezed too much, the next spreads the motion around them. Organs that the body lacks are left out.

    Args:
        move: gives M (3, 4) of u = M (p, 1) of an organ at level 1.

    Raises:
        ConfigError: the body has none of the organs.
    """
    values = np.bincount(body.labels.data[0].numpy().ravel(), minlength=256)
    organs = tuple(name for name, parts in ORGANS.items() if any(values[VALUE[p]] for p in parts))
    if not organs:
        raise ConfigError(f"the body has none of the organs {list(ORGANS)}: nothing in it breathes")
    raster = make_raster(body, config.lattice_mm)
    core, centroids = raster.marked([ORGANS[name] for name in organs])
    shares, follow = _shares(raster, core, len(organs))
    moves = np.stack([move(name, centre) for name, centre in zip(organs, centroids, strict=True)])
    flow = np.empty((*raster.shape, 3), np.float32)
    flow_of(shares, raster.origin_mm, raster.step_mm, moves, flow)
    near = raster.nearest()
    room = _room(raster, near, core)
    slopes = Slopes(flow, *_falls(config), raster.step_mm)
    along = eased(_wanted(raster, near, room, core) * follow, core >= 0, room == 0.0, slopes)
    belly = _belly(raster, near, config) * follow
    bend = ((np.minimum(1.0, room / BEND_RISE_MM) * follow)[..., None] * _waves(raster, seed)).astype(np.float32)
    for _ in range(RELIEFS):
        gates = np.stack([along + (1.0 - along) * belly, along], -1).astype(np.float32)
        weights = np.concatenate([shares, gates], -1)
        cells = np.full(raster.shape, MIXED, np.int8)
        find_kinds(weights, cells)
        tight = yield Lattice(raster.origin_mm, raster.step_mm, organs, centroids, weights, bend, cells)
        along = relieved(along, tight, slopes)


def _shares(raster: Raster, core: NDArray[np.int8], count: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Shares (Z, Y, X, K) of the organs by inverse squared distance (Shepard), exactly one in an organ; and how much of
    the motion is followed, which fades with the distance to the nearest organ."""
    distance = np.stack([raster.distance(core == k) for k in range(count)], -1)
    pull = 1.0 / np.maximum(distance, 1e-3) ** 2
    shares = pull / pull.sum(-1, keepdims=True)
    inside = core >= 0
    shares[inside] = np.eye(count, dtype=np.float32)[core[inside]]
    for k in reversed(range(count)):  # the liver last: it stays what it is
        own = np.where((core < 0) | (core > k), _smoothstep(distance[..., k] / CONTACT_MM), 1.0)[..., None]
        shares = own * shares + (1.0 - own) * np.eye(count)[k]
    shares = shares.astype(np.float32)
    return shares, np.asarray(1.0 - _smoothstep(distance.min(-1) / FOLLOW_MM), np.float32)


def _room(raster: Raster, near: NDArray[np.uint8], core: NDArray[np.int8]) -> NDArray[np.float32]:
    """Distance (mm) of every node to what keeps still; a node of an organ's cell is never still."""
    still = (raster.marked([STILL_PARTS])[0] >= 0) | (near == VALUE["outside"])
    return raster.distance(still & (core < 0))


def _wanted(
    raster: Raster, near: NDArray[np.uint8], room: NDArray[np.float32], core: NDArray[np.int8]
) -> NDArray[np.float32]:
    """How much of the motion each node would take over if nothing could fold."""
    wall = np.isin(near, [VALUE[name] for name in WALL]) & (core < 0)
    depth = np.where(wall, raster.distance(~wall), 0.0)
    return np.where(core >= 0, 1.0, np.clip(np.minimum(room, SLIDE_MM - depth) / SLIDE_MM, 0.0, 1.0)).astype(np.float32)


def _belly(raster: Raster, near: NDArray[np.uint8], config: BreathingConfig) -> NDArray[np.float32]:
    """How much of the motion across the wall nodes take over that lie far from bones."""
    if config.belly_share == 0.0:
        return np.zeros(raster.shape, np.float32)
    free = _smoothstep(raster.distance(raster.marked([BONES])[0] >= 0) / BELLY_RISE_MM)
    return np.asarray(config.belly_share * _front(near) * free, np.float32)


def _falls(config: BreathingConfig) -> tuple[float, float]:
    """How much a gate may fall per whole way of an organ, ahead of it and behind it: a cough moves organs back."""
    return SQUEEZE / DEEPEST, SQUEEZE / (-SHALLOWEST if config.coughs_s else -RISEN)


def _front(near: NDArray[np.uint8]) -> NDArray[np.float64]:
    """0 at the back of the body, 1 at its front, (1, Y, 1)."""
    rows = np.flatnonzero((near != VALUE["outside"]).any((0, 2)))
    back, front = (rows[-1], rows[0]) if len(rows) else (near.shape[1], 0)
    share = (back - np.arange(near.shape[1])) / max(back - front, 1)
    return np.asarray(_smoothstep(2.0 * share - 0.8))[None, :, None]


def _waves(raster: Raster, seed: int) -> NDArray[np.float64]:
    """A smooth field (Z, Y, X, 3) of root mean square about one, from three standing waves per axis."""
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, 11))))
    z, y, x = raster.axes()
    field = np.zeros((*raster.shape, 3))
    for axis in range(3):
        for length in BEND_MM:
            k = rng.standard_normal(3)
            k *= 2 * math.pi / length / np.linalg.norm(k)
            phase = k[0] * x + k[1] * y + k[2] * z
            field[..., axis] += np.sin(phase + rng.uniform(0, 2 * math.pi)) * math.sqrt(2.0 / (3 * len(BEND_MM)))
    return field


def _smoothstep(u: NDArray[Any]) -> NDArray[Any]:
    u = np.clip(u, 0.0, 1.0)
    return u * u * (3.0 - 2.0 * u)


def cells_at(node: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Cells with any of the marked nodes, (Z, Y, X); the last layer along each axis starts none."""
    cell = np.zeros_like(node)
    both = node[:-1] | node[1:]
    both = both[:, :-1] | both[:, 1:]
    cell[:-1, :-1, :-1] = both[:, :, :-1] | both[:, :, 1:]
    return cell
