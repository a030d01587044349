# SPDX-License-Identifier: Apache-2.0
"""Limited-memory BFGS (Nocedal 1980) over poses, batched: every start has its own memory and its own line search."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...config import check_range
from .agreement import Budget, Found, Objective, Step, Terms, Walk, length_mm


@dataclass(frozen=True)
class LbfgsConfig:
    """Memory, and the line search.

    Args:
        memory: pairs of step and change of gradient; six unknowns need no more than six.
        rise: share of the rise that the gradient promises that a step must bring (Armijo).
        shorten: factor on a step that does not.
        longest: longest step, in first steps.
    """

    memory: int = 6
    rise: float = 1e-4
    shorten: float = 0.4
    longest: float = 3.0

    def __post_init__(self) -> None:
        check_range("memory", self.memory, 1, 100)
        check_range("rise", self.rise, 0.0, 0.5)
        check_range("shorten", self.shorten, 0.01, 0.99)
        check_range("longest", self.longest, 1.0, 1000.0)


class _Memory:
    """Pairs (s, y) of every start, newest last; rho = 0 marks what is empty."""

    def __init__(self, starts: int, size: int) -> None:
        self.s, self.y = (torch.zeros(starts, size, 6, dtype=torch.float64) for _ in range(2))
        self.rho = torch.zeros(starts, size, dtype=torch.float64)

    def add(self, rows: Tensor, s: Tensor, y: Tensor) -> None:
        """Take pairs of positive curvature."""
        sy = (s * y).sum(1)
        good = sy > 1e-8 * s.norm(dim=1) * y.norm(dim=1)
        rows, s, y, sy = rows[good], s[good], y[good], sy[good]
        for kept, new in ((self.s, s), (self.y, y), (self.rho, 1.0 / sy)):
            kept[rows] = torch.cat([kept[rows, 1:], new[:, None]], 1)

    def forget(self, rows: Tensor) -> None:
        self.rho[rows] = 0.0

    def directions(self, rows: Tensor, gradient: Tensor, first_mm: float) -> Tensor:
        """Two-loop recursion: the inverse of the approximate Hessian times the gradient; first_mm long without one."""
        s, y, rho = self.s[rows], self.y[rows], self.rho[rows]
        q, alphas = gradient, []
        for k in range(s.shape[1] - 1, -1, -1):
            alpha = rho[:, k] * (s[:, k] * q).sum(1)
            q = q - alpha[:, None] * y[:, k]
            alphas.append(alpha)
        known = rho[:, -1] > 0
        curved = 1.0 / (rho[:, -1] * (y[:, -1] ** 2).sum(1)).clamp_min(1e-300)
        scale = torch.where(known, curved, first_mm / gradient.norm(dim=1).clamp_min(1e-300))
        r = scale[:, None] * q
        for k, alpha in enumerate(reversed(alphas)):
            beta = rho[:, k] * (y[:, k] * r).sum(1)
            r = r + (alpha - beta)[:, None] * s[:, k]
        return r


class Lbfgs:
    """The optimiser "lbfgs"."""

    def __init__(self, config: LbfgsConfig | None = None) -> None:
        self.config = config or LbfgsConfig()

    def __call__(self, objective: Objective, starts: Tensor, terms: Terms, budget: Budget) -> Found:
        """Climb from poses (B, 4, 4), see `Optimiser`."""
        walk = Walk(objective, starts, terms, budget, slopes=True)
        memory = _Memory(len(starts), self.config.memory)
        u, f, g = (
            torch.zeros(len(starts), 6, dtype=torch.float64),
            walk.first.score.clone(),
            walk.first.gradient.clone(),
        )
        share = torch.ones_like(f)
        rows = torch.nonzero(g.norm(dim=1) > 0)[:, 0]
        while len(rows) and float(walk.left()[rows].max()) >= 1 and not walk.over():
            step = self._steps(memory, rows, g[rows], share[rows], terms.step_mm)
            step = (u[rows] + step).clamp(-terms.reach_mm, terms.reach_mm) - u[rows]
            looked = walk.look(u[rows] + step, rows)
            taken = self._rises(looked, step, f[rows], g[rows])
            new = rows[taken]
            memory.add(new, step[taken], g[new] - looked.gradient[taken])
            u[new], f[new], g[new] = u[new] + step[taken], looked.score[taken], looked.gradient[taken]
            share[rows] = torch.where(taken, torch.ones_like(share[rows]), share[rows] * self.config.shorten)
            rows = self._going(memory, rows, step, taken, share, terms.tolerance_mm)
        return walk.found()

    def _steps(self, memory: _Memory, rows: Tensor, g: Tensor, share: Tensor, first_mm: float) -> Tensor:
        step = memory.directions(rows, g, first_mm)
        uphill = (step * g).sum(1) > 0
        memory.forget(rows[~uphill])
        step = torch.where(uphill[:, None], step, first_mm * g / g.norm(dim=1, keepdim=True).clamp_min(1e-300))
        longest = self.config.longest * first_mm
        return share[:, None] * step * (longest / step.norm(dim=1).clamp_min(1e-300)).clamp(max=1.0)[:, None]

    def _rises(self, looked: Step, step: Tensor, score: Tensor, gradient: Tensor) -> Tensor:
        promised = (step * gradient).sum(1)
        return looked.allowed & (looked.score > score) & (looked.score - score >= self.config.rise * promised)

    def _going(
        self, memory: _Memory, rows: Tensor, step: Tensor, taken: Tensor, share: Tensor, tolerance_mm: float
    ) -> Tensor:
        """Rows that go on. A search that ends in vain begins once more along the gradient, then is done."""
        small = length_mm(step) < tolerance_mm
        again = small & ~taken & (memory.rho[rows, -1] > 0)
        memory.forget(rows[again])
        share[rows[again]] = 0.25
        return rows[~small | again]
