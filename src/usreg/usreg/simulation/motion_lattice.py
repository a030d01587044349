# SPDX-License-Identifier: Apache-2.0
"""Which organ's motion the tissue takes part in, on a coarse lattice over the body."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..compiled import njit
from ..errors import ConfigError
from .body.types import ORGANS, VALUE, Body
from .breathing import BreathingConfig
from .motion_kernels import MIXED, STILL

STEP_MM = 4.0
FOLLOW_MM = 90.0  # viscera follow an organ up to this distance; short enough to end above the pelvis
SLIDE_MM = 8.0  # least depth of the wall in which the motion towards the feet ends
DEEPEST, RISEN, SHALLOWEST = 1.4, -0.15, -0.6  # levels of a deep breath, of drift at rest, of a cough: none may fold
# Loss of length of tissue ahead of an organ, and depth of the wall that slides as a share of si_mm; local to gentle.
EASE = ((0.5, 0.6), (0.42, 0.6), (0.35, 0.7), (0.3, 0.85), (0.25, 1.0), (0.2, 1.2))
TURN_LEVER_MM = 40.0
BEND_MM = (120.0, 160.0, 200.0)  # wavelengths of the deformation
WALL = ("outside", "skin", "subcutaneous_fat", "muscle", "ribs", "costal_cartilage", "spine")


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

    def mixed_cells(self) -> NDArray[np.float64]:
        """Middles (N, 3) of the cells that do not move rigidly, mm."""
        return np.asarray(
            self.origin_mm + self.step_mm * (np.argwhere(self.cells[:-1, :-1, :-1] == MIXED)[:, ::-1] + 0.5)
        )


def build_lattices(body: Body, config: BreathingConfig, seed: int) -> Iterator[Lattice]:
    """Lattices of a body in which tissue is squeezed less and less, the first being the most local; organs that the
    body lacks are left out.

    Raises:
        ConfigError: it has none of them.
    """
    labels = body.labels.data[0].numpy()
    values = np.bincount(labels.ravel(), minlength=256)
    organs = tuple(name for name, parts in ORGANS.items() if any(values[VALUE[p]] for p in parts))
    if not organs:
        raise ConfigError(f"the body has none of the organs {list(ORGANS)}: nothing in it breathes")
    low, high = _extent(body, labels)
    origin = low - 2 * STEP_MM
    shape = tuple(int(n) for n in np.ceil((high + 2 * STEP_MM - origin) / STEP_MM)[::-1] + 1)
    core, centroids = _cores(body, labels, organs, origin, shape)
    shares, follow = _shares(core, len(organs))
    near, waves = _node_labels(body, labels, origin, shape), _waves(origin, shape, seed)
    for squeeze, slide in EASE:
        gates = [follow * gate for gate in _gates(near, core, config, slide)]
        across, along = _eased(gates, config, squeeze)
        weights = np.concatenate([shares, across[..., None], along[..., None]], -1).astype(np.float32)
        bend = (along[..., None] * waves).astype(np.float32)
        yield Lattice(origin, STEP_MM, organs, centroids, weights, bend, _cells(weights))


def _extent(body: Body, labels: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lowest and highest corner (3,) of a box around everything labelled, mm."""
    matrix = body.labels.grid.ct_T_index.numpy()
    coarse = 3
    index = np.argwhere(labels[::coarse, ::coarse, ::coarse] != VALUE["outside"])[:, ::-1] * coarse
    points = index @ matrix[:3, :3].T + matrix[:3, 3]
    reach = coarse * np.abs(matrix[:3, :3]).sum(1)
    return points.min(0) - reach, points.max(0) + reach


def _cores(
    body: Body, labels: NDArray[np.uint8], organs: tuple[str, ...], origin: NDArray[np.float64], shape: tuple[int, ...]
) -> tuple[NDArray[np.int8], NDArray[np.float64]]:
    """Per node the organ in one of its eight cells, -1 for none (the liver wins); and the organs' centroids."""
    of_value = np.full(256, -1, np.int8)
    for k, name in enumerate(organs):
        of_value[[VALUE[part] for part in ORGANS[name]]] = k
    core = np.full(shape, -1, np.int8)
    sums = np.zeros((max(len(organs), 1), 4))
    matrix = body.labels.grid.ct_T_index.numpy()
    _mark(labels, of_value, matrix, 0.5 * np.abs(matrix[:3, :3]).sum(1), origin, 1.0 / STEP_MM, core, sums)
    centroids = sums[: len(organs), :3] / np.maximum(sums[: len(organs), 3:], 1.0)
    return core, centroids @ matrix[:3, :3].T + matrix[:3, 3]


@njit()
def _mark(
    labels: NDArray[Any], of_value: NDArray[Any], matrix: NDArray[Any], half: NDArray[Any], origin: NDArray[Any],
    per_mm: float, core: NDArray[Any], sums: NDArray[Any],
) -> None:  # fmt: skip
    for k in range(labels.shape[0]):
        for j in range(labels.shape[1]):
            for i in range(labels.shape[2]):
                organ = of_value[labels[k, j, i]]
                if organ < 0:
                    continue
                sums[organ, 0] += i
                sums[organ, 1] += j
                sums[organ, 2] += k
                sums[organ, 3] += 1.0
                low = np.empty(3, np.int64)
                high = np.empty(3, np.int64)
                for a in range(3):
                    p = matrix[a, 0] * i + matrix[a, 1] * j + matrix[a, 2] * k + matrix[a, 3] - origin[a]
                    low[a] = int(np.floor((p - half[a]) * per_mm))
                    high[a] = int(np.floor((p + half[a]) * per_mm)) + 1
                for c in range(low[2], high[2] + 1):
                    for b in range(low[1], high[1] + 1):
                        for a in range(low[0], high[0] + 1):
                            if core[c, b, a] < 0 or core[c, b, a] > organ:
                                core[c, b, a] = organ


def _node_labels(
    body: Body, labels: NDArray[np.uint8], origin: NDArray[np.float64], shape: tuple[int, ...]
) -> NDArray[np.uint8]:
    """Label value of the voxel nearest to each node; beyond the volume that of its border."""
    index_T_ct = body.labels.grid.index_T_ct.numpy()
    z, y, x = (STEP_MM * np.arange(n) + o for n, o in zip(shape, origin[::-1], strict=True))
    picked = []
    for axis, size in enumerate(labels.shape[::-1]):
        row = index_T_ct[axis]
        index = row[0] * x + row[1] * y[:, None] + row[2] * z[:, None, None] + row[3]
        picked.append(np.clip(np.rint(index), 0, size - 1).astype(np.intp))
    return labels[picked[2], picked[1], picked[0]]


def _shares(core: NDArray[np.int8], count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Shares (Z, Y, X, K) of the organs by inverse squared distance (Shepard), exactly one in an organ; and how much of
    the motion is followed, which fades with the distance to the nearest organ."""
    distance = np.stack([_distance(core == k) for k in range(count)], -1)
    with np.errstate(divide="ignore", invalid="ignore"):
        pull = 1.0 / distance**2
        shares = pull / pull.sum(-1, keepdims=True)
    inside = core >= 0
    shares[inside] = np.eye(count)[core[inside]]
    return shares, 1.0 - _smoothstep(distance.min(-1) / FOLLOW_MM)


def _gates(
    near: NDArray[np.uint8], core: NDArray[np.int8], config: BreathingConfig, slide_share: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How much of the motion across the wall and of that along it each node takes over."""
    wall = np.isin(near, [VALUE[name] for name in WALL]) & (core < 0)
    depth = _distance(~wall)
    outside = (near == VALUE["outside"]) & (core < 0)
    left = _distance(outside) if outside.any() else np.full(core.shape, 40.0)
    outwards = depth / np.maximum(depth + left, 1e-9)
    outwards[~wall] = 0.0
    front = _front(near)
    across = 1.0 - outwards * (1.0 - config.belly_share * front)
    slide = max(SLIDE_MM, slide_share * config.si_mm)
    along = np.clip(1.0 - depth / slide, 0.0, 1.0) * np.minimum(1.0, left / STEP_MM)
    along[~wall] = 1.0
    return across, along


def _eased(gates: list[NDArray[np.float64]], config: BreathingConfig, squeeze: float) -> list[NDArray[np.float64]]:
    """Gates across and along the wall under which what lies ahead of an organ gives way early enough: along its way
    they fall so slowly that tissue loses no more than `squeeze` of its length. A cough moves organs back beyond rest.
    """
    across, along = (gate.copy() for gate in gates)
    turn = math.radians(config.rotation_deg) * TURN_LEVER_MM
    down, front = config.si_mm + turn, config.si_mm * config.ap_share + turn
    back = -SHALLOWEST if config.coughs_s else -RISEN
    for gate, axis, way in ((along, 0, down), (across, 1, front)):
        _push_ahead(gate, axis, squeeze / max(DEEPEST * way, 1e-3))
        _push_ahead(gate[::-1] if axis == 0 else gate[:, ::-1], axis, squeeze / max(back * way, 1e-3))
    return [across, along]


def _push_ahead(gate: NDArray[np.float64], axis: int, fall_per_mm: float) -> None:
    """Raise a gate where it falls faster than that towards lower indices."""
    rows = np.moveaxis(gate, axis, 0)
    for i in range(len(rows) - 2, -1, -1):
        np.maximum(rows[i], rows[i + 1] - fall_per_mm * STEP_MM, out=rows[i])


def _front(near: NDArray[np.uint8]) -> NDArray[np.float64]:
    """0 at the back of the body, 1 at its front, (1, Y, 1)."""
    rows = np.flatnonzero((near != VALUE["outside"]).any((0, 2)))
    back, front = (rows[-1], rows[0]) if len(rows) else (near.shape[1], 0)
    share = (back - np.arange(near.shape[1])) / max(back - front, 1)
    return np.asarray(_smoothstep(2.0 * share - 0.8))[None, :, None]


def _waves(origin: NDArray[np.float64], shape: tuple[int, ...], seed: int) -> NDArray[np.float64]:
    """A smooth field (Z, Y, X, 3) of root mean square about one, from three standing waves per axis."""
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, 11))))
    z, y, x = (STEP_MM * np.arange(n) + o for n, o in zip(shape, origin[::-1], strict=True))
    field = np.zeros((*shape, 3))
    for axis in range(3):
        for length in BEND_MM:
            k = rng.standard_normal(3)
            k *= 2 * math.pi / length / np.linalg.norm(k)
            phase = k[0] * x + k[1] * y[:, None] + k[2] * z[:, None, None]
            field[..., axis] += np.sin(phase + rng.uniform(0, 2 * math.pi)) * math.sqrt(2.0 / (3 * len(BEND_MM)))
    return field


def _cells(weights: NDArray[np.float32]) -> NDArray[np.int8]:
    """Kind of each cell, from its eight nodes; the last layer along each axis starts no cell and stays mixed."""
    count = weights.shape[-1] - 2
    kind = np.full(weights.shape[:3], MIXED, np.int8)
    gates = weights[..., count:]
    for k in range(count):
        kind[_all_corners((weights[..., k] == 1.0) & (gates == 1.0).all(-1))] = k
    kind[_all_corners((gates == 0.0).all(-1) | (weights[..., :count] == 0.0).all(-1))] = STILL
    return kind


def _all_corners(node: NDArray[np.bool_]) -> NDArray[np.bool_]:
    cell = np.zeros_like(node)
    both = node[:-1] & node[1:]
    both = both[:, :-1] & both[:, 1:]
    cell[:-1, :-1, :-1] = both[:, :, :-1] & both[:, :, 1:]
    return cell


def _distance(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Distance (mm) of every node to the nearest node of the mask."""
    return np.asarray(ndimage.distance_transform_edt(~mask) * STEP_MM)


def _smoothstep(u: NDArray[np.float64]) -> NDArray[np.float64]:
    u = np.clip(u, 0.0, 1.0)
    return u * u * (3.0 - 2.0 * u)
