# SPDX-License-Identifier: Apache-2.0
"""The compiled climb on tensors, and its torch reference behind the same call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..geometry import se3
from ..workers import run_ranges
from .climb import climb
from .levenberg import LevenbergConfig, maximise
from .normal import Normal, View, normal_equations
from .pyramid import VolumeLevel

Array = npt.NDArray[Any]
Climbed = tuple[Tensor, Normal, Tensor]  # poses (B, 4, 4), their normal equations, evaluations (B,)
Climb = Callable[[Tensor], Climbed]


def climb_compiled(
    volume: VolumeLevel,
    frames: list[View],
    starts: Tensor,
    radius_mm: float,
    min_overlap: float,
    config: LevenbergConfig,
) -> Climbed:
    """Climb from poses ct_T_ref (B, 4, 4); starts are shared out between threads.

    Returns:
        Poses (B, 4, 4), their normal equations, and evaluations (B,).
    """
    c = config
    stop = (float(c.iterations), c.tolerance_mm, radius_mm, min_overlap)
    return _run(volume, frames, starts, np.array([*stop, c.damping, c.ease, c.brake, c.damping_limit]))


def evaluate(volume: VolumeLevel, frames: list[View], ct_T_ref: Tensor) -> Normal:
    """Score, overlap and normal equations at poses (B, 4, 4), compiled: a climb of no step."""
    return _run(volume, frames, ct_T_ref, np.array([1.0, 0.0, 1.0, 0.0, 1.0, 2.0, 2.0, 2.0]))[1]


def _run(volume: VolumeLevel, frames: list[View], starts: Tensor, settings: Array) -> Climbed:
    x, y, fixed = (torch.cat([getattr(v.level, n) for v in frames]).numpy() for n in ("x_mm", "y_mm", "value"))
    ends = np.cumsum([len(v.level.value) for v in frames])
    places = torch.stack([v.ref_T_centre for v in frames])
    adjoints = se3.adjoint(se3.inverse(places)).contiguous().numpy()
    poses, count = starts.detach().clone().contiguous(), len(starts)
    scores, gradients, matrices = np.zeros((count, 3)), np.zeros((count, 6)), np.zeros((count, 6, 6))
    grid = (volume.data.numpy(), volume.index_T_ct.contiguous().numpy())
    scene = (*grid, x, y, fixed, ends, places.numpy(), adjoints)
    run_ranges(lambda a, b: climb(scene, settings, a, b, poses.numpy(), scores, gradients, matrices), count, 1)
    score, overlap, evaluations = torch.from_numpy(scores).unbind(1)
    return poses, Normal(score, torch.from_numpy(gradients), torch.from_numpy(matrices), overlap), evaluations


def climb_torch(
    volume: VolumeLevel,
    frames: list[View],
    starts: Tensor,
    radius_mm: float,
    min_overlap: float,
    config: LevenbergConfig,
) -> Climbed:
    """The same in torch alone: the reference, and the way on other devices."""
    poses, normal, count = maximise(
        lambda p: normal_equations(volume, frames, p), starts, radius_mm, min_overlap, config
    )
    return poses, normal, torch.full((len(starts),), float(count), dtype=torch.float64)
