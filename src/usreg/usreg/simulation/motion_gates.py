# SPDX-License-Identifier: Apache-2.0
"""How much of the organs' motion the nodes of a lattice take over: as steep as it likes across the motion, since organs
slide along the wall, but falling slowly along it, so that nothing folds.

For a translation T and a gate g, u = g T has det(1 + grad u) = 1 + T . grad g: only the slope along T counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..compiled import njit

RELIEF = 0.3  # of the difference within a cell that is squeezed too much is taken away at once


@dataclass(frozen=True, eq=False)
class Slopes:
    """How fast a gate may fall.

    Args:
        flow: (Z, Y, X, 3) float32, mm: the organs' motion at level 1.
        ahead, behind: largest fall per whole way of the flow, in its direction and against it. step_mm: of the nodes.
    """

    flow: NDArray[np.float32]
    ahead: float
    behind: float
    step_mm: float

    def raised(self, gate: NDArray[np.float64]) -> NDArray[np.float64]:
        """The least gate above one that falls no faster."""
        return self._pushed(gate, self.ahead, self.behind)

    def lowered(self, gate: NDArray[np.float64]) -> NDArray[np.float64]:
        """The largest gate below one that falls no faster."""
        return 1.0 - self._pushed(1.0 - gate, self.behind, self.ahead)

    def _pushed(self, gate: NDArray[np.float64], ahead: float, behind: float) -> NDArray[np.float64]:
        out = np.array(gate, np.float64)
        for way in (-1, 1):
            _push(out, self.flow, ahead, behind, self.step_mm, way)
        return out


def eased(
    wanted: NDArray[Any], moving: NDArray[np.bool_], still: NDArray[np.bool_], slopes: Slopes
) -> NDArray[np.float64]:
    """The gate near `wanted` that is one where organs are and zero at what keeps still, except where that lies so
    closely ahead of an organ that it must move; there it moves as little as may be."""
    least = slopes.raised(moving.astype(np.float64))
    most = slopes.lowered(np.where(still, least, 1.0))
    return np.maximum(least, np.minimum(slopes.raised(wanted), most))


def relieved(gate: NDArray[np.float64], cells: NDArray[np.int64], slopes: Slopes) -> NDArray[np.float64]:
    """The gate raised at the corners of cells (N, 3) of indices z, y, x towards the largest corner of each."""
    corners = [tuple((cells + corner).T) for corner in np.ndindex(2, 2, 2)]
    top = np.max([gate[c] for c in corners], 0)
    out = gate.copy()
    for c in corners:
        np.maximum.at(out, c, gate[c] + RELIEF * (top - gate[c]))
    return slopes.raised(out)


@njit()
def _push(gate: NDArray[Any], flow: NDArray[Any], ahead: float, behind: float, step: float, way: int) -> None:
    """Raise a gate where it falls too fast, layer by layer towards the feet (way -1) or the head (1)."""
    nz, ny, nx = gate.shape
    for i in range(1, nz):
        z = nz - 1 - i if way < 0 else i
        before = gate[z - way]
        for y in range(ny):
            for x in range(nx):
                speed = flow[z, y, x, 2]
                if abs(speed) < 1e-3 * step:
                    continue
                fall = (ahead if speed * way > 0 else behind) * step / abs(speed)
                if fall >= 1.0:
                    continue
                lean = -way / speed  # the line along the flow through this node meets the layer before there
                sx = min(max(x + lean * flow[z, y, x, 0], 0.0), nx - 1.000001)
                sy = min(max(y + lean * flow[z, y, x, 1], 0.0), ny - 1.000001)
                ix, iy = int(sx), int(sy)
                fx, fy = sx - ix, sy - iy
                first = before[iy, ix] + fx * (before[iy, ix + 1] - before[iy, ix])
                last = before[iy + 1, ix] + fx * (before[iy + 1, ix + 1] - before[iy + 1, ix])
                gate[z, y, x] = max(gate[z, y, x], first + fy * (last - first) - fall)
