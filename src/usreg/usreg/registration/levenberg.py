# SPDX-License-Identifier: Apache-2.0
"""Levenberg-Marquardt on SE(3) for a batch of starts at once; a step is taken only if the true score rises."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..config import check_range
from ..errors import ConfigError
from ..geometry import rotation, se3
from .normal import Normal

Measure = Callable[[Tensor], Normal]


@dataclass(frozen=True)
class LevenbergConfig:
    """When to stop, and how to damp.

    Args:
        iterations: budget per level; counted in evaluations, so that a replay does the same work.
        tolerance_mm: a step that moves the image's points by less ends the search.
        damping: first factor on the diagonal; divided by `ease` after a good step, times `brake` after a bad one.
    """

    iterations: int = 30
    tolerance_mm: float = 0.01
    damping: float = 1e-2
    ease: float = 10.0
    brake: float = 10.0
    damping_limit: float = 1e6

    def __post_init__(self) -> None:
        check_range("iterations", self.iterations, 1, 10_000)
        check_range("tolerance_mm", self.tolerance_mm, 0.0, 100.0)
        if not (0 < self.damping < self.damping_limit and self.ease > 1 and self.brake > 1):
            raise ConfigError(f"damping needs 0 < damping < damping_limit, ease and brake above 1; got {self}")


def move(ct_T_ref: Tensor, twist: Tensor) -> Tensor:
    """Poses (B, 4, 4) moved by (v, w) (B, 6) in their own axes about their own origin."""
    return ct_T_ref @ se3.from_parts(rotation.exp(twist[:, 3:]), twist[:, :3])


def motion_mm(twist: Tensor, radius_mm: float) -> Tensor:
    """Length (B,), mm, by which points at `radius_mm` move at most."""
    return twist[:, :3].norm(dim=1) + radius_mm * twist[:, 3:].norm(dim=1)


def damped_step(normal: Normal, damping: Tensor) -> Tensor:
    """Solve (H + damping diag H) step = gradient, (B, 6); zero where nothing can be seen."""
    diagonal = normal.matrix.diagonal(dim1=-2, dim2=-1)
    floor = 1e-9 * diagonal.amax(-1, keepdim=True) + 1e-30
    extra = torch.diag_embed(damping[:, None] * diagonal + floor)
    step, info = torch.linalg.solve_ex(normal.matrix + extra, normal.gradient)
    return torch.where((info == 0)[:, None] & torch.isfinite(step), step, torch.zeros_like(step))


def maximise(
    measure: Measure, start: Tensor, radius_mm: float, min_overlap: float, config: LevenbergConfig
) -> tuple[Tensor, Normal, int]:
    """Climb from every start.

    Args:
        measure: poses (B, 4, 4) to their normal equations.
        start: (B, 4, 4).
        radius_mm: of the image about its centre, for convergence.
        min_overlap: a step that leaves less overlap than this (or than the start had, if less) is not taken.

    Returns:
        Poses (B, 4, 4), their normal equations, and the number of evaluations.
    """
    pose, current = start.clone(), measure(start)
    floor = torch.clamp(current.overlap, max=min_overlap)
    damping = torch.full_like(current.score, config.damping)
    active = torch.arange(len(start))
    for count in range(1, config.iterations):
        step = damped_step(current[active], damping[active])
        trial = move(pose[active], step)
        result = measure(trial)
        better = (result.score > current.score[active]) & (result.overlap >= floor[active])
        pose[active] = torch.where(better[:, None, None], trial, pose[active])
        for kept, new in zip(_fields(current), _fields(result.where(better, current[active])), strict=True):
            kept[active] = new
        damping[active] = torch.where(better, damping[active] / config.ease, damping[active] * config.brake)
        small = motion_mm(step, radius_mm) < config.tolerance_mm
        active = active[~small & (damping[active] < config.damping_limit)]
        if len(active) == 0:
            return pose, current, count + 1
    return pose, current, config.iterations


def _fields(normal: Normal) -> tuple[Tensor, ...]:
    return normal.score, normal.gradient, normal.matrix, normal.overlap
