# SPDX-License-Identifier: Apache-2.0
"""Everything that is known of one frame, from wherever it comes: a running graph or a recording."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor

from ..data.types import Frame, check_pose
from ..errors import ConfigError, ShapeError
from ..smoothing import Breathing

MomentStatus = Literal[
    "ACCEPTED", "REJECTED", "LOST", "NO_OVERLAP", "ERROR", "NOT_TRACKED", "NO_VOLUME", "WAITING"
]  # of the newest estimate; the last three: there is none


@dataclass(frozen=True, eq=False)
class Link:
    """A part of the arm: its name and world_T_link, (4, 4), mm."""

    name: str
    world_T_link: Tensor


@dataclass(frozen=True, eq=False)
class Moment:
    """One frame with everything that is shown of it. What nobody knows is None or NaN, never a guess.

    Args:
        frame: the picture.
        world_T_image: measured pose; None: not tracked.
        world_T_ct: the smoothed pose at the frame's stamp, the only one that the volume may be shown at; None: lost, or
            not registered.
        world_T_ct_raw: the newest accepted estimate.
        sigma_mm, sigma_rad: standard deviations of the smoothed pose about the volume's centre, world axes.
        status, reason: of the newest estimate.
        score, overlap, probability: of the newest estimate. system: who made it.
        age_s: of the picture at `made_s`. period_s: of the frames.
        pose_age_s: stamp of the picture less that of the newest accepted estimate. compute_s: of that estimate.
        tre_mm: of the shown pose against the truth.
        breathing: of the filter's model. links: along the arm, from its base to the probe.
        target_ct: (3,), mm. paused: the source stands still on purpose.
        index: of the frame in a recording; -1: live.
        made_s: when the moment was made, by the serving process's monotonic clock: the age counts on from there.
    """

    frame: Frame
    world_T_image: Tensor | None = None
    world_T_ct: Tensor | None = None
    world_T_ct_raw: Tensor | None = None
    sigma_mm: tuple[float, float, float] | None = None
    sigma_rad: tuple[float, float, float] | None = None
    status: MomentStatus = "WAITING"
    reason: str = ""
    score: float = math.nan
    overlap: float = math.nan
    probability: float = math.nan
    system: str = ""
    age_s: float = 0.0
    period_s: float = math.nan
    pose_age_s: float = math.nan
    compute_s: float = math.nan
    tre_mm: float = math.nan
    breathing: Breathing | None = None
    links: tuple[Link, ...] = ()
    target_ct: Tensor | None = None
    paused: bool = False
    index: int = -1
    made_s: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        if self.status not in get_args(MomentStatus):
            raise ConfigError(f"status is {self.status!r}; choose one of {', '.join(get_args(MomentStatus))}")
        for name in ("world_T_image", "world_T_ct", "world_T_ct_raw"):
            pose = getattr(self, name)
            if pose is not None:
                check_pose(pose, name)
        target = self.target_ct
        if target is not None and (target.shape != (3,) or not bool(torch.isfinite(target).all())):
            raise ShapeError(f"a target is 3 finite numbers in mm, got {target.tolist()}")
