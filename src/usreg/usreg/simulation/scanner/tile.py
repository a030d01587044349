# SPDX-License-Identifier: Apache-2.0
"""Point scatterers fixed to tissue: a cube of random positions that repeats every 64 mm, sorted into cells."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CELL_MM, CELLS = 4.0, 16  # the tile's period is 64 mm


@dataclass(frozen=True, eq=False)
class Tile:
    """Scatterers of one period.

    Args:
        position: (CELLS, CELLS, CELLS, n, 3) float32, mm from the cell's middle, -2 to 2; axes in the order x, y, z.
        strength: (CELLS, CELLS, CELLS, n) float32, standard normal: variation of the strength within a tissue.
        sign: (...) float32, -1 or 1. rank: (...) float32, 0 to 1: a tissue with a share s has those with rank < s.
        origin_mm: (3,) corner of cell (0, 0, 0) in the frame of the body at rest.
    """

    position: NDArray[np.float32]
    strength: NDArray[np.float32]
    sign: NDArray[np.float32]
    rank: NDArray[np.float32]
    origin_mm: NDArray[np.float64]


def draw_tile(density_mm3: float, rng: np.random.Generator) -> Tile:
    """Equally many scatterers in every cell, uniform within it."""
    count = max(1, round(density_mm3 * CELL_MM**3))
    shape = (CELLS, CELLS, CELLS, count)
    return Tile(
        ((rng.random((*shape, 3), dtype=np.float32) - np.float32(0.5)) * np.float32(CELL_MM)),
        rng.standard_normal(shape, dtype=np.float32),
        np.where(rng.random(shape, dtype=np.float32) < 0.5, np.float32(-1), np.float32(1)),
        rng.random(shape, dtype=np.float32),
        rng.uniform(0, CELL_MM * CELLS, 3),
    )
