# SPDX-License-Identifier: Apache-2.0
"""What of the past the breathing model looks at: accepted estimates as coordinates about a reference pose."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...geometry import rotation
from ..state import Measurement

Array = NDArray[np.float64]
LEVER_MM = 60.0  # half a liver: what a turn moves its rim by


@dataclass(frozen=True, eq=False)
class Memory:
    """Stamps (n,) and coordinates (n, 6) of accepted estimates in order, not older than `span_s`. A value.

    Args:
        world_T_ct: (4, 4) reference pose. pivot: (3,) volume's centre there.
    """

    world_T_ct: Tensor
    pivot: Tensor
    stamps: Array
    places: Array

    @staticmethod
    def begin(measurement: Measurement) -> Memory:
        """Empty, about a first pose, which may be a rough start and is not remembered."""
        return Memory(measurement.world_T_ct, measurement.pivot, np.zeros(0), np.zeros((0, 6)))

    def add(self, measurement: Measurement, span_s: float) -> Memory:
        """With one more at the end, without those that are too old."""
        place = coordinates(measurement.world_T_ct, measurement.pivot, self.world_T_ct, self.pivot)
        first = int(np.searchsorted(self.stamps, measurement.stamp_s - span_s))
        stamps = np.append(self.stamps[first:], measurement.stamp_s)
        return replace(self, stamps=stamps, places=np.concatenate([self.places[first:], place[None]]))

    def since(self, stamp_s: float) -> tuple[Array, Array]:
        """Stamps and coordinates from a stamp on."""
        first = int(np.searchsorted(self.stamps, stamp_s))
        return self.stamps[first:], self.places[first:]


def coordinates(world_T_ct: Tensor, pivot: Tensor, reference: Tensor, reference_pivot: Tensor) -> Array:
    """(6,) shift of the volume's centre, mm, and rotation vector, rad, from a reference pose, world axes."""
    turn = rotation.log(world_T_ct[:3, :3] @ reference[:3, :3].T)
    return np.asarray(torch.cat([pivot - reference_pivot, turn]).numpy(), dtype=np.float64)


def in_mm(places: Array) -> Array:
    """Coordinates (..., 6) with rotations as the way of a point on the rim."""
    return np.asarray(places * np.array([1.0, 1.0, 1.0, LEVER_MM, LEVER_MM, LEVER_MM]))
