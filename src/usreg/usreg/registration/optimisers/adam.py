# SPDX-License-Identifier: Apache-2.0
"""Adam (Kingma and Ba 2015) over poses, with steps in mm of image motion that shorten when the score stands still."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ...config import check_range
from .agreement import Budget, Found, Objective, Terms, Walk, length_mm


@dataclass(frozen=True)
class AdamConfig:
    """Decay of the means of gradient and of its square, and how steps shorten.

    Args:
        patience: looks without a better score after which the climb goes on from the best, with steps times `shorten`.
    """

    beta1: float = 0.8
    beta2: float = 0.95
    patience: int = 4
    shorten: float = 0.5

    def __post_init__(self) -> None:
        check_range("beta1", self.beta1, 0.0, 0.999)
        check_range("beta2", self.beta2, 0.0, 0.9999)
        check_range("patience", self.patience, 1, 1000)
        check_range("shorten", self.shorten, 0.01, 0.99)


@dataclass(eq=False)
class _State:
    """Rows for all starts: place, gradient, means, best place with its gradient, step length, looks in vain."""

    u: Tensor
    gradient: Tensor
    mean: Tensor
    square: Tensor
    best: Tensor
    best_gradient: Tensor
    age: Tensor
    step_mm: Tensor
    vain: Tensor


class Adam:
    """The optimiser "adam"."""

    def __init__(self, config: AdamConfig | None = None) -> None:
        self.config = config or AdamConfig()

    def __call__(self, objective: Objective, starts: Tensor, terms: Terms, budget: Budget) -> Found:
        """Climb from poses (B, 4, 4), see `Optimiser`."""
        walk = Walk(objective, starts, terms, budget, slopes=True)
        g, rows = walk.first.gradient, torch.arange(len(starts))
        zero, none = torch.zeros_like(g), torch.zeros(len(starts), dtype=torch.float64)
        step = torch.full_like(none, terms.step_mm)
        state = _State(
            zero.clone(), g.clone(), zero.clone(), zero.clone(), zero.clone(), g.clone(), none, step, none + 0
        )
        rows = rows[g.norm(dim=1) > 0]
        while len(rows) and float(walk.left()[rows].max()) >= 1 and not walk.over():
            moved = self._advance(walk, state, rows)
            going = (state.step_mm[rows] * math.sqrt(6.0) >= terms.tolerance_mm) & (moved >= terms.tolerance_mm)
            rows = rows[going]
        return walk.found()

    def _advance(self, walk: Walk, s: _State, rows: Tensor) -> Tensor:
        """One look for each of `rows`; returns the length of the steps, mm."""
        c, g = self.config, s.gradient[rows]
        s.age[rows] += 1
        s.mean[rows] = c.beta1 * s.mean[rows] + (1 - c.beta1) * g
        s.square[rows] = c.beta2 * s.square[rows] + (1 - c.beta2) * g * g
        mean = s.mean[rows] / (1 - c.beta1 ** s.age[rows])[:, None]
        square = s.square[rows] / (1 - c.beta2 ** s.age[rows])[:, None]
        step = s.step_mm[rows, None] * mean / (square.sqrt() + 1e-12 * g.norm(dim=1, keepdim=True) + 1e-30)
        reach = walk.terms.reach_mm
        trial, before = (s.u[rows] + step).clamp(-reach, reach), walk.score[rows].clone()
        looked = walk.look(trial, rows)
        better = looked.allowed & (looked.score > before)
        s.u[rows], s.gradient[rows] = trial, looked.gradient
        s.best[rows[better]], s.best_gradient[rows[better]] = trial[better], looked.gradient[better]
        s.vain[rows] = torch.where(better, torch.zeros_like(before), s.vain[rows] + 1)
        self._go_back(s, rows[~looked.allowed | (s.vain[rows] >= c.patience)])
        return length_mm(step)

    def _go_back(self, s: _State, rows: Tensor) -> None:
        """Begin again at the best place with shorter steps."""
        s.u[rows], s.gradient[rows] = s.best[rows], s.best_gradient[rows]
        for each in (s.mean, s.square, s.age, s.vain):
            each[rows] = 0.0
        s.step_mm[rows] *= self.config.shorten
