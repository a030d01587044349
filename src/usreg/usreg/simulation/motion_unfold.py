# SPDX-License-Identifier: Apache-2.0
"""Keeps a breathing body from folding: where organs press into the wall, the wall gives way over a longer distance."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .motion_kernels import displace_many
from .motion_lattice import Lattice, kinds_of_cells

State = tuple[Any, ...]  # what the kernels take after the points
LEAST = 0.3  # determinant that is kept
MAX_ROUNDS = 60
GROW_EVERY, GROWN = 6, 0.95
DIFFERENCE_MM = 0.5


def determinant(points: NDArray[np.float64], state: State) -> NDArray[np.float64]:
    """det(1 + grad u) (N,) at points (N, 3), by central differences."""
    out = np.empty((2, *points.shape))
    gradient = np.empty((len(points), 3, 3))
    for axis in range(3):
        h = np.zeros(3)
        h[axis] = 0.5 * DIFFERENCE_MM
        displace_many(points + h, *state, out[0])
        displace_many(points - h, *state, out[1])
        gradient[:, :, axis] = (out[0] - out[1]) / DIFFERENCE_MM
    return np.asarray(np.linalg.det(np.eye(3) + gradient))


def unfold(lattice: Lattice, states: list[State]) -> None:
    """Smooth the gates and shares around cells whose determinant is below LEAST, outside the organs' own cells, until none
    is left or MAX_ROUNDS are over. Changes the arrays of the lattice in place.
    """
    shape = tuple(n - 1 for n in lattice.cells.shape)
    centres = lattice.cell_centres()
    fixed = (lattice.weights[..., :-2].max(-1) == 1.0) & (lattice.weights[..., -2:] == 1.0).all(-1)
    watched = np.arange(len(centres))
    for turn in range(MAX_ROUNDS):
        low = np.min([determinant(centres[watched], state) for state in states], 0) < LEAST
        if not low.any():
            break
        bad = np.zeros(shape, bool)
        bad.ravel()[watched[low]] = True
        watched = np.flatnonzero(ndimage.binary_dilation(bad, iterations=4).ravel())
        _relax(lattice, np.pad(bad, ((0, 1),) * 3), fixed, turn % GROW_EVERY == GROW_EVERY - 1)
    lattice.cells[...] = kinds_of_cells(lattice.weights)


def _relax(lattice: Lattice, bad: NDArray[np.bool_], fixed: NDArray[np.bool_], grow: bool) -> None:
    """One step of smoothing of all channels near bad cells; the cells become mixed, so that their nodes are read. Where
    smoothing has not helped (`grow`), the tissue beside an organ takes over nearly all of its motion.
    """
    near = ndimage.binary_dilation(bad, np.ones((3, 3, 3)), iterations=2)
    lattice.cells[near] = -1
    box = tuple(slice(max(i.min() - 2, 0), i.max() + 3) for i in np.nonzero(near))
    part, free = lattice.weights[box], (near & ~fixed)[box]
    for channel in range(part.shape[-1]):
        soft = ndimage.uniform_filter(part[..., channel], 3, mode="nearest")
        part[..., channel][free] = soft[free]
    if grow:
        free = free & ndimage.binary_dilation(bad, np.ones((3, 3, 3)))[box]
        for channel in (-2, -1):
            most = ndimage.maximum_filter(part[..., channel], 3)
            part[..., channel][free] = GROWN * most[free]
