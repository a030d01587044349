# SPDX-License-Identifier: Apache-2.0
"""The liver's breathing alone, without a body, and estimates of it with noise and gaps: what a filter gets to see."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..config import check_range
from ..data.types import Estimate, Rigid
from ..geometry import se3
from .breathing import Breathing, BreathingConfig
from .motion import organ_pose

CENTRE_MM = np.array([-60.0, -10.0, 40.0])  # of the liver in `ct`, about


class RigidLiver:
    """Pose of the liver over time, as `BreathingMotion.bed_T_organ("liver", t)` has it.

    Args:
        config: how the patient breathes. seed: of the cycles. world_T_bed: (4, 4) where the patient lies.
    """

    def __init__(self, config: BreathingConfig, seed: int, world_T_bed: Tensor | None = None) -> None:
        self.config = config
        self.breathing = Breathing(config, seed)
        self.world_T_bed = se3.identity() if world_T_bed is None else world_T_bed

    def world_T_ct(self, t_s: float) -> Tensor:
        """(4, 4) float64 at a time."""
        now, later = self.breathing.level(t_s), self.breathing.level(t_s - self.config.lag_s)
        return self.world_T_bed @ organ_pose(self.config, "liver", CENTRE_MM, 1.0, now, later)

    def centre(self, world_T_ct: Tensor) -> Tensor:
        """(3,) its centre in world."""
        return se3.transform_points(world_T_ct, torch.from_numpy(CENTRE_MM)[None])[0]


@dataclass(frozen=True)
class EstimateConfig:
    """How a registration sees it.

    Args:
        rate_hz: frames a second. jitter: of their stamps, relative. sigma_mm, sigma_rad: noise on each axis.
        drop_share: of frames without an estimate.
    """

    rate_hz: float = 12.0
    jitter: float = 0.1
    sigma_mm: float = 1.0
    sigma_rad: float = 0.01
    drop_share: float = 0.15

    def __post_init__(self) -> None:
        check_range("rate_hz", self.rate_hz, 0.1, 1000.0)
        check_range("jitter", self.jitter, 0.0, 0.4)
        check_range("sigma_mm", self.sigma_mm, 0.0, 100.0)
        check_range("sigma_rad", self.sigma_rad, 0.0, 1.0)
        check_range("drop_share", self.drop_share, 0.0, 0.95)


def estimates(
    liver: RigidLiver, seconds: float, config: EstimateConfig, rng: np.random.Generator
) -> Iterator[tuple[float, Estimate]]:
    """Stamps from 0 on and estimates of the liver's pose whose covariance is that of their noise."""
    sigma = np.array([config.sigma_mm] * 3 + [config.sigma_rad] * 3)
    covariance = torch.diag(torch.from_numpy(sigma).clamp_min(1e-6) ** 2)
    for k in range(int(seconds * config.rate_hz)):
        stamp_s = (k + config.jitter * rng.uniform(-1, 1)) / config.rate_hz
        noise, kept = torch.from_numpy(sigma * rng.standard_normal(6)), rng.uniform() >= config.drop_share
        truth = liver.world_T_ct(stamp_s)
        pose = se3.left_at_pivot(truth, noise, liver.centre(truth))
        if kept:
            yield stamp_s, Estimate(Rigid(pose), covariance, liver.centre(pose), 0.9, 1.0, True)
