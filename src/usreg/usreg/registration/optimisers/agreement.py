# SPDX-License-Identifier: Apache-2.0
"""What optimisers agree to: an objective over poses, coordinates in mm of motion, budgets, and the best so far."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from ...config import check_range
from ...errors import GeometryError, ShapeError
from ...geometry import rotation
from ..levenberg import move


@dataclass(frozen=True, eq=False)
class Looked:
    """An objective at B poses.

    Args:
        score: (B,) finite, higher is better. overlap: (B,) share of the samples inside known voxels.
        gradient: (B, 6) of the score by the pose's own twist (v, w), mm and rad; zeros where not asked for.
    """

    score: Tensor
    overlap: Tensor
    gradient: Tensor


class Objective(Protocol):
    """What is to be maximised."""

    def __call__(self, poses: Tensor, slopes: bool) -> Looked:
        """Look at poses (B, 4, 4), with gradients if `slopes`."""
        ...


@dataclass(frozen=True)
class Terms:
    """Of one climb.

    Args:
        radius_mm: of the images about their common centre: turns by w move points by radius_mm |w|.
        min_overlap: a pose with less overlap than this (or than its start had, if less) is not taken.
        tolerance_mm: steps that move the images by less end the climb.
        step_mm: length of the first step. reach_mm: half width of the box about the start that is not left.
    """

    radius_mm: float
    min_overlap: float = 0.4
    tolerance_mm: float = 0.01
    step_mm: float = 1.0
    reach_mm: float = 10.0

    def __post_init__(self) -> None:
        check_range("radius_mm", self.radius_mm, 1e-6, 1e6)
        check_range("min_overlap", self.min_overlap, 0.0, 1.0)
        check_range("tolerance_mm", self.tolerance_mm, 0.0, 100.0)
        check_range("step_mm", self.step_mm, 1e-6, 100.0)
        check_range("reach_mm", self.reach_mm, self.step_mm, 1000.0)


@dataclass(frozen=True)
class Budget:
    """Evaluations for each start (replay: the same work every time), and wall time for all of them (live).

    Args:
        seconds: checked before every evaluation, the one at the start excepted; infinite for none.
        clock: monotonic, s.
    """

    evaluations: int
    seconds: float = math.inf
    clock: Callable[[], float] = field(default=time.monotonic, compare=False)

    def __post_init__(self) -> None:
        check_range("evaluations", self.evaluations, 1, 10_000_000)
        check_range("seconds", self.seconds, 0.0, math.inf)


@dataclass(frozen=True, eq=False)
class Found:
    """The best poses (B, 4, 4), their scores and overlaps (B,), and evaluations (B,)."""

    poses: Tensor
    score: Tensor
    overlap: Tensor
    evaluations: Tensor


class Optimiser(Protocol):
    """A way to climb from every start."""

    def __call__(self, objective: Objective, starts: Tensor, terms: Terms, budget: Budget) -> Found:
        """Climb from poses (B, 4, 4). The result is never worse than the start by the objective's own score."""
        ...


class Chart:
    """Coordinates (B, 6) about starts: mm of translation, and mm by which turns move the image's points."""

    def __init__(self, starts: Tensor, radius_mm: float) -> None:
        self.starts, self.radius_mm = starts, radius_mm

    def poses(self, u: Tensor, rows: Tensor) -> Tensor:
        """start @ [Exp(w), v] with u = (v, radius w), for starts `rows`."""
        return move(self.starts[rows], torch.cat([u[:, :3], u[:, 3:] / self.radius_mm], 1))

    def pull(self, u: Tensor, gradient: Tensor) -> Tensor:
        """Gradient by u (B, 6) of one by the moved pose's own twist.

        A twist (dv, dw) there changes v by R(w) dv and w by Jr(w)^-1 dw with the right Jacobian Jr (Chirikjian 2012).
        """
        w = u[:, 3:] / self.radius_mm
        _, c, d = rotation.angle_terms(w)
        k = rotation.hat(w)
        right = torch.eye(3, dtype=u.dtype) - c * k + d * (k @ k)
        v = (rotation.exp(w) @ gradient[:, :3, None])[..., 0]
        return torch.cat([v, (right.transpose(-1, -2) @ gradient[:, 3:, None])[..., 0] / self.radius_mm], 1)


@dataclass(frozen=True, eq=False)
class Step:
    """An objective at coordinates (N, 6): score (N,), gradient by the coordinates (N, 6), lack (N,) of overlap."""

    score: Tensor
    gradient: Tensor
    lack: Tensor

    @property
    def allowed(self) -> Tensor:
        """(N,) bool: enough overlap."""
        return self.lack <= 0.0


class Walk:
    """One climb from B starts: looks at coordinates, counts, watches the budget, keeps the best allowed pose."""

    def __init__(self, objective: Objective, starts: Tensor, terms: Terms, budget: Budget, slopes: bool) -> None:
        check_starts(starts)
        self.objective, self.terms, self.budget, self.slopes = objective, terms, budget, slopes
        self.until = budget.clock() + budget.seconds
        self.chart = Chart(starts, terms.radius_mm)
        first = objective(starts, slopes)
        self.first = Step(
            first.score, self.chart.pull(starts.new_zeros(len(starts), 6), first.gradient), first.score * 0
        )
        self.floor = first.overlap.clamp(max=terms.min_overlap)
        self.pose, self.score, self.overlap = starts.clone(), first.score.clone(), first.overlap.clone()
        self.count = torch.ones(len(starts), dtype=torch.float64)

    def over(self) -> bool:
        """Whether the time is used up."""
        return self.budget.clock() >= self.until

    def left(self) -> Tensor:
        """Evaluations (B,) that are left to each start."""
        return self.budget.evaluations - self.count

    def look(self, u: Tensor, rows: Tensor) -> Step:
        """Evaluate coordinates (N, 6) of starts `rows` (N,), which may name one start several times."""
        poses = self.chart.poses(u, rows)
        looked = self.objective(poses, self.slopes)
        self.count.index_add_(0, rows, torch.ones(len(rows), dtype=torch.float64))
        lack = (self.floor[rows] - looked.overlap).clamp_min(0.0)
        self._keep(poses, looked, lack, rows)
        gradient = self.chart.pull(u, looked.gradient) if self.slopes else looked.gradient
        return Step(looked.score, gradient, lack)

    def _keep(self, poses: Tensor, looked: Looked, lack: Tensor, rows: Tensor) -> None:
        good = (lack <= 0.0) & (looked.score > self.score[rows]) & torch.isfinite(poses).flatten(1).all(1)
        for i in torch.nonzero(good)[:, 0].tolist():
            row = int(rows[i])
            if looked.score[i] > self.score[row]:
                self.pose[row], self.score[row], self.overlap[row] = poses[i], looked.score[i], looked.overlap[i]

    def found(self) -> Found:
        """The best so far."""
        return Found(self.pose, self.score, self.overlap, self.count)


def check_starts(starts: Tensor) -> None:
    """Raise unless (B, 4, 4) and finite: no climb begins at a pose that is none."""
    if starts.dim() != 3 or starts.shape[1:] != (4, 4):
        raise ShapeError(f"starts must be (B, 4, 4), got {tuple(starts.shape)}")
    if not bool(torch.isfinite(starts).all()):
        raise GeometryError("a start holds NaN or infinity: check the pose that the climb is to begin from")


def length_mm(u: Tensor) -> Tensor:
    """By how much (B,), mm, steps (B, 6) in the coordinates move the images' points at most (`levenberg.motion_mm`)."""
    return u[:, :3].norm(dim=1) + u[:, 3:].norm(dim=1)
