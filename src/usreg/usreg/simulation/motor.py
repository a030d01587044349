# SPDX-License-Identifier: Apache-2.0
"""The motor of a scanner that tilts or translates the probe, as the probe sees it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import KinematicsError
from ..geometry import se3
from ..kinematics import Arm


@dataclass(frozen=True, eq=False)
class Motor:
    """A joint between hand and probe.

    Args:
        kind: "tilt" (positions in rad) or "slide" (in mm).
        axis: (3,) unit vector, point: (3,) mm on it; both in the probe's frame at position zero.
        limit: positions that can be reached. velocity: largest speed, rad/s or mm/s.
    """

    kind: Literal["tilt", "slide"]
    axis: NDArray[np.float64]
    point: NDArray[np.float64]
    limit: tuple[float, float] = (-math.inf, math.inf)
    velocity: float = math.inf

    def moved(self, position: Any) -> NDArray[np.float64]:
        """Poses (N, 4, 4) of the probe at positions (N,), in its own frame at position zero."""
        q = torch.from_numpy(np.atleast_1d(np.asarray(position, float)))
        axis, point = torch.from_numpy(self.axis), torch.from_numpy(self.point)
        zero = torch.zeros(len(q), 3, dtype=torch.float64)
        if self.kind == "slide":
            return np.asarray(se3.translation(q[:, None] * axis).numpy())
        turned = se3.exp(torch.cat([zero, q[:, None] * axis], -1))
        return np.asarray((se3.translation(point) @ turned @ se3.translation(-point)).numpy())

    def from_span(self, span: float) -> float:
        """Largest position of a sweep given in degrees (tilt) or mm (slide).

        Raises:
            KinematicsError: the motor cannot reach it.
        """
        reach = math.radians(span) if self.kind == "tilt" else span
        if not (self.limit[0] <= -reach and reach <= self.limit[1]):
            unit = "deg" if self.kind == "tilt" else "mm"
            raise KinematicsError(
                f"the motor cannot sweep +-{span} {unit}, its limits are {self.limit}: lower motor_span"
            )
        return reach


def motor_of(arm: Arm) -> Motor:
    """The last joint of an arm as the motor of its scanner."""
    chain = arm.chain
    links = chain.links(torch.zeros(chain.count, dtype=torch.float64))
    base_T_joint = links[-3] @ chain.origins[-1]
    probe_T_joint = se3.inverse(links[-1] @ arm.flange_T_probe) @ base_T_joint
    axis = (probe_T_joint[:3, :3] @ chain.axes[-1]).numpy()
    limits = chain.limits
    kind: Literal["tilt", "slide"] = "slide" if chain.kinds[-1] == "prismatic" else "tilt"
    return Motor(kind, axis, probe_T_joint[:3, 3].numpy(), (limits.lower[-1], limits.upper[-1]), limits.velocity[-1])
