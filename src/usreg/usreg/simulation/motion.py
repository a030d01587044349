# SPDX-License-Identifier: Apache-2.0
"""Where every point of a body is at a time: organs move rigidly, the tissue between them follows smoothly.

`ct` is the body at rest, `bed` the same frame fixed in the room: p_bed = p_ct + u(p_ct, t).
"""

from __future__ import annotations

import math
from collections.abc import Generator
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import ConfigError, GeometryError, ShapeError
from ..geometry import rotation, se3
from .body.types import ORGANS, Body
from .breathing import Breathing, BreathingConfig
from .motion_kernels import MIXED, displace_many, move_nodes, squeezes, undo
from .motion_lattice import DEEPEST, RISEN, SHALLOWEST, Lattice, build_lattices, cells_at

# Organ -> its way down, its way to the front and its turn, relative to the liver's; the axis it turns about. TG-76 has
# 0.7 to 1 for kidneys and pancreas; those that touch the liver are tied to it more closely here, since between them
# lies less than a cell of the lattice, which cannot be squeezed.
ORGAN_SHARES = {
    "liver": (1.0, 1.0, 1.0, (0.9, 0.3, 0.3)),
    "kidney_right": (0.96, 0.8, 0.9, (0.9, 0.2, 0.4)),
    "kidney_left": (0.9, 0.6, 0.7, (0.9, -0.2, -0.4)),
    "spleen": (0.93, 0.7, 0.8, (0.8, -0.3, -0.5)),
    "pancreas": (0.97, 0.9, 0.9, (0.9, 0.2, 0.2)),
}
SHARE_SPREAD = 0.015  # of an organ's share from patient to patient
LEAST_DETERMINANT = 0.2  # of 1 + grad u, at the levels that a session may come to
# Levels now and `lag_s` ago that come together: deep breaths, drift at rest, coughs.
BREATHS = ((DEEPEST, DEEPEST), (0.95 * DEEPEST, 0.75 * DEEPEST), (0.75 * DEEPEST, 0.95 * DEEPEST), (RISEN, RISEN))
COUGHS = ((SHALLOWEST, SHALLOWEST), (SHALLOWEST, 0.3), (0.4, 1.1))
State = tuple[NDArray[Any], float, NDArray[Any], NDArray[Any], NDArray[Any]]  # what the kernels take after the points
RESIDUAL_MM = 0.01  # |reference + u(reference) - point| that the inverse reaches


class Motion(Protocol):
    """How a body moves; all points in mm along the axes of `ct`."""

    def displacement(self, points: NDArray[Any], t_s: float) -> NDArray[Any]:
        """u (N, 3) of reference points (N, 3) of `ct`."""

    def reference(self, points: NDArray[Any], t_s: float) -> NDArray[Any]:
        """Reference points (N, 3) of `ct` that are at points (N, 3) of `bed`."""

    def bed_T_organ(self, organ: str, t_s: float) -> Tensor:
        """Rigid motion (4, 4) float64 of an organ of ORGANS."""


class Still:
    """A body that does not move: a phantom."""

    def displacement(self, points: NDArray[Any], t_s: float) -> NDArray[Any]:
        """Zeros (N, 3)."""
        return np.zeros_like(_checked(points))

    def reference(self, points: NDArray[Any], t_s: float) -> NDArray[Any]:
        """The points themselves."""
        return _checked(points).copy()

    def bed_T_organ(self, organ: str, t_s: float) -> Tensor:
        """Identity."""
        return se3.identity()


class BreathingMotion:
    """A body that breathes.

    Inside the liver u is exactly its rigid motion (unless deformation is on), and so it is inside other organs farther
    than CONTACT_MM and a few cells of the lattice from others; nearer, they go over into the motion of the earlier in
    ORGANS. Viscera follow the nearest organs and fade with the distance. Bones and skin keep still (but for
    `belly_share`); between them and the organs tissue slides. A bone that lies so closely to an organ that cells of the
    lattice hold both, or so closely ahead of one that the tissue between would fold, is taken along.

    Args:
        body: at rest; any grid. config: how it breathes. seed: of the cycles and of the shares of the organs.

    Raises:
        ConfigError: the body has none of the organs.
    """

    def __init__(self, body: Body, config: BreathingConfig | None = None, seed: int = 0) -> None:
        self.config = config or BreathingConfig()
        self.breathing = Breathing(self.config, seed)
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, 7))))
        self._spread = {name: 1.0 + SHARE_SPREAD * float(rng.uniform(-1, 1)) for name in ORGANS}
        self._spread["liver"] = 1.0
        self._last: tuple[float, State] | None = None
        self.lattice = self._unfolded(build_lattices(body, self.config, seed, self._relative))

    def _unfolded(self, drafts: Generator[Lattice, NDArray[np.int64], None]) -> Lattice:
        """The most local motion that folds nowhere."""
        levels = [*BREATHS, *(COUGHS if self.config.coughs_s else ())]
        lattice = next(drafts)
        cells = lattice.mixed_cells()
        while True:
            least = np.min([squeeze(cells, self._state_at(lattice, *pair)) for pair in levels], 0)
            if least.min(initial=1.0) >= LEAST_DETERMINANT:
                return lattice
            before = lattice.weights[..., -1]
            try:
                tight = cells[least < LEAST_DETERMINANT]
                lattice = drafts.send(tight)
            except StopIteration:
                break
            changed = cells_at(lattice.weights[..., -1] != before)
            changed[tuple(tight.T)] = True
            cells = np.argwhere((lattice.cells == MIXED) & changed)
        raise ConfigError(
            f"organs that move by {self.config.si_mm} mm fold the tissue of this body: choose a smaller si_mm"
        )

    def displacement(self, points: NDArray[Any], t_s: float) -> NDArray[Any]:
        """u (N, 3) of reference points (N, 3), in the points' type."""
        points = _checked(points)
        out = np.empty_like(points)
        displace_many(points, *self._state(t_s), out)
        return out

    def reference(self, points: NDArray[Any], t_s: float) -> NDArray[Any]:
        """Reference points of `points` (N, 3) of `bed`: Newton iterations to a residual of RESIDUAL_MM.

        Raises:
            GeometryError: the motion folds there, so that no single reference exists.
        """
        points = _checked(points)
        out = np.empty_like(points)
        worst = undo(points, *self._state(t_s), RESIDUAL_MM, out)
        if worst > 0.05:
            raise GeometryError(f"the motion at {t_s:.3f} s cannot be undone within 0.05 mm (left: {worst:.3f} mm): "
                                "choose a smaller si_mm")  # fmt: skip
        return out

    def bed_T_organ(self, organ: str, t_s: float) -> Tensor:
        """Rigid motion (4, 4) float64 of an organ.

        Raises:
            ConfigError: the body has no such organ.
        """
        if organ not in self.lattice.organs:
            raise ConfigError(f"the body has no organ '{organ}' that breathes; it has {list(self.lattice.organs)}")
        now, later = self.breathing.level(t_s), self.breathing.level(t_s - self.config.lag_s)
        return self._at_levels(organ, self.lattice.centroids[self.lattice.organs.index(organ)], now, later)

    def _at_levels(self, organ: str, centroid: NDArray[np.float64], now: float, later: float) -> Tensor:
        return organ_pose(self.config, organ, centroid, self._spread[organ], now, later)

    def _relative(self, organ: str, centroid: NDArray[np.float64]) -> NDArray[np.float64]:
        """M (3, 4) of u = M (p, 1) of an organ at level 1."""
        moved = self._at_levels(organ, centroid, 1.0, 1.0).numpy()[:3]
        moved[:, :3] -= np.eye(3)
        return np.asarray(moved)

    def jacobian_determinant(self, t_s: float) -> NDArray[np.float64]:
        """Least det(1 + grad u) (N,) in each cell that is not rigid; below zero the body would fold."""
        return squeeze(self.lattice.mixed_cells(), self._state(t_s))

    def _state(self, t_s: float) -> State:
        """What the kernels need at a time; that of the last time is kept, since a frame asks more than once."""
        if not math.isfinite(t_s):
            raise GeometryError(f"the time of a motion is {t_s}: it must be finite")
        last = self._last
        if last is None or last[0] != t_s:
            levels = self.breathing.level(t_s), self.breathing.level(t_s - self.config.lag_s)
            last = self._last = (t_s, self._state_at(self.lattice, *levels))
        return last[1]

    def _state_at(self, lattice: Lattice, now: float, later: float) -> State:
        centres = zip(lattice.organs, lattice.centroids, strict=True)
        moves = np.stack([self._at_levels(name, centre, now, later).numpy()[:3] for name, centre in centres])
        moves[:, :, :3] -= np.eye(3)
        bend = 0.5 * (now + later) * self.config.deformation_mm
        nodes = np.empty_like(lattice.bend)
        move_nodes(lattice.weights, lattice.bend, bend, lattice.origin_mm, lattice.step_mm, moves, nodes)
        cells = lattice.cells if bend == 0.0 else np.full_like(lattice.cells, MIXED)
        return lattice.origin_mm, 1.0 / lattice.step_mm, nodes, cells, moves


def organ_pose(
    config: BreathingConfig, organ: str, centroid: NDArray[np.float64], spread: float, now: float, later: float
) -> Tensor:
    """Rigid motion (4, 4) float64 of an organ at levels of breathing.

    Args:
        centroid: (3,) it turns about, mm. spread: its share of the motion relative to ORGAN_SHARES.
        now, later: level now, and `lag_s` ago.
    """
    down, front, turn, axis = ORGAN_SHARES[organ]
    centre, way = torch.from_numpy(centroid), spread * config.si_mm
    shift = torch.tensor([-config.lr_share * way * later, -config.ap_share * way * front * later, -way * down * now],
                         dtype=torch.float64)  # fmt: skip
    unit = torch.tensor(axis, dtype=torch.float64)
    angle = math.radians(config.rotation_deg) * turn * spread * (0.5 * now + 0.5 * later)
    moved = se3.from_parts(rotation.exp(angle * unit / unit.norm()), shift)
    return se3.translation(centre) @ moved @ se3.translation(-centre)


def squeeze(cells: NDArray[np.int64], state: State) -> NDArray[np.float64]:
    """Least det(1 + grad u) (N,) in cells of indices z, y, x (N, 3)."""
    out = np.empty(len(cells))
    squeezes(cells, *state, out)
    return out


def _checked(points: NDArray[Any]) -> NDArray[Any]:
    if points.ndim != 2 or points.shape[1] != 3 or points.dtype not in (np.float32, np.float64):
        raise ShapeError(f"points are (N, 3) float32 or float64, got {points.shape} {points.dtype}")
    return np.ascontiguousarray(points)
