# SPDX-License-Identifier: Apache-2.0
"""Estimates and moving volumes for the filter's tests."""

import pytest
import torch
from torch import Tensor

from usreg.data.types import Estimate, Rigid
from usreg.geometry import se3


class Room:
    """A volume in a room: its true pose, and estimates about it."""

    centre_ct = torch.tensor([40.0, -25.0, 110.0], dtype=torch.float64)
    world_T_ct = se3.exp(torch.tensor([300.0, -120.0, 80.0, 0.4, -0.2, 0.9], dtype=torch.float64))

    def pivot(self, pose: Tensor) -> Tensor:
        return se3.transform_points(pose, self.centre_ct[None])[0]

    def moved(self, twist: list[float] | Tensor, pose: Tensor | None = None) -> Tensor:
        pose = self.world_T_ct if pose is None else pose
        return se3.left_at_pivot(pose, torch.as_tensor(twist, dtype=torch.float64), self.pivot(pose))

    @staticmethod
    def covariance(mm: float, rad: float) -> Tensor:
        return torch.diag(torch.tensor([mm**2] * 3 + [rad**2] * 3, dtype=torch.float64))

    def estimate(
        self, pose: Tensor | None = None, mm: float = 0.5, rad: float = 0.005, accepted: bool = True
    ) -> Estimate:
        pose = self.world_T_ct if pose is None else pose
        reason = "" if accepted else "score 0.1 below 0.6"
        return Estimate(Rigid(pose), self.covariance(mm, rad), self.pivot(pose), 0.9, 1.0, accepted, reason)

    def begin(self, smoother, pose: Tensor | None = None, mm: float = 3.0, rad: float = 0.05, stamp_s: float = 0.0):
        pose = self.world_T_ct if pose is None else pose
        smoother.initialize(stamp_s, pose, self.covariance(mm, rad), self.pivot(pose))
        return smoother

    def error(self, prediction, truth: Tensor | None = None) -> Tensor:
        truth = self.world_T_ct if truth is None else truth
        return se3.error_at_pivot(prediction.world_T_ct, truth, self.pivot(truth))


@pytest.fixture
def room() -> Room:
    return Room()
