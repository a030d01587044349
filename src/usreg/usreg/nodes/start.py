# SPDX-License-Identifier: Apache-2.0
"""Where a registration begins: from parameters, from a message; and waiting for a thread inside a service."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from geometry_msgs.msg import PoseWithCovarianceStamped
from rclpy.task import Future
from torch import Tensor

from ..data.types import Volume, check_covariance
from ..errors import ConfigError, GeometryError, UsregError
from ..geometry import se3
from . import convert


@dataclass(frozen=True, eq=False)
class Start:
    """A pose of the volume to begin with.

    Args:
        world_T_ct: (4, 4), mm. covariance: (6, 6) of (v, w), mm and rad, world axes.
        at_centre: whether the covariance is about the volume's centre (else about the origin of its frame).
        stamp_s: time at which it holds; 0 = at the next frame.
    """

    world_T_ct: Tensor
    covariance: Tensor
    at_centre: bool = True
    stamp_s: float = 0.0

    def about(self, volume: Volume) -> tuple[Tensor, Tensor, Tensor]:
        """Pose, covariance about the volume's centre, and that centre in the world."""
        pivot = se3.transform_points(self.world_T_ct, volume.grid.centre_ct[None])[0]
        if self.at_centre:
            return self.world_T_ct, self.covariance, pivot
        return self.world_T_ct, se3.move_pivot(self.covariance, pivot - self.world_T_ct[:3, 3]), pivot


@dataclass(frozen=True)
class StartConfig:
    """A start that is known beforehand.

    Args:
        world_T_ct: 16 numbers of the 4x4 matrix, row by row, mm; empty: wait for `registration/initialize`.
        covariance: 36 numbers of the 6x6 matrix of (v, w), mm and rad, world axes, about the volume's centre.
    """

    world_T_ct: tuple[float, ...] = ()
    covariance: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if (len(self.world_T_ct), len(self.covariance)) not in ((0, 0), (16, 36)):
            raise ConfigError(
                f"initial.world_T_ct and initial.covariance have {len(self.world_T_ct)} and {len(self.covariance)} "
                "numbers; 16 and 36 are expected, or none of both"
            )

    def start(self) -> Start | None:
        """The start, or None."""
        if not self.world_T_ct:
            return None
        pose = torch.tensor(self.world_T_ct, dtype=torch.float64).reshape(4, 4)
        covariance = torch.tensor(self.covariance, dtype=torch.float64).reshape(6, 6)
        check_covariance(covariance, "initial.covariance")
        return Start(se3.check_rigid(pose, "initial.world_T_ct"), covariance)


def from_msg(message: PoseWithCovarianceStamped, world: str) -> Start:
    """A start from a service's message.

    Raises:
        GeometryError: another frame than the world, not finite, or a covariance that is not positive definite.
    """
    stamp_s, frame, pose, covariance = convert.decode_stamped_pose(message)
    if frame.lstrip("/") not in ("", world):
        raise GeometryError(f"the pose is given in '{frame}'; give it in '{world}' (pose of the volume's frame)")
    scale = covariance.diagonal().clamp_min(1e-300).sqrt()
    if bool((covariance.diagonal() <= 0).any()) or int(
        torch.linalg.cholesky_ex(covariance / scale[:, None] / scale).info
    ):
        raise GeometryError("the covariance must be positive definite: the search range follows from it")
    return Start(pose, covariance, at_centre=False, stamp_s=stamp_s)


async def in_thread(executor: Any, work: Callable[[], None]) -> UsregError | None:
    """Run work beside the executor; the error that it raised, or None."""
    future: Future = Future(executor=executor)

    def run() -> None:
        try:
            work()
        except UsregError as error:
            future.set_result(error)
        except Exception as error:
            future.set_exception(error)
        else:
            future.set_result(None)

    threading.Thread(target=run, name="loading", daemon=True).start()
    return await future
