# SPDX-License-Identifier: Apache-2.0
"""CMA-ES (Hansen 2016; package `cma`) over poses: no derivatives, a population looked at as one batch, bounds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...config import check_range
from .agreement import Budget, Found, Objective, Step, Terms, Walk

LACK = 1e6  # loss of a pose with too little overlap, plus as much again for each whole lack: ranks below all others


@dataclass(frozen=True)
class CmaesConfig:
    """Population (0: the package's own, 9 in six dimensions), and the seed of the draws."""

    population: int = 0
    seed: int = 1

    def __post_init__(self) -> None:
        check_range("population", self.population, 0, 10_000)
        check_range("seed", self.seed, 0, 2**31 - 1)


class Cmaes:
    """The optimiser "cmaes": all starts side by side, one population each, all of them in one batch."""

    def __init__(self, config: CmaesConfig | None = None) -> None:
        self.config = config or CmaesConfig()

    def __call__(self, objective: Objective, starts: Tensor, terms: Terms, budget: Budget) -> Found:
        """Climb from poses (B, 4, 4), see `Optimiser`."""
        walk = Walk(objective, starts, terms, budget, slopes=False)
        strategies = {row: self._strategy(row, terms) for row in range(len(starts))}
        while strategies and not walk.over():
            strategies = {r: s for r, s in strategies.items() if walk.left()[r] >= s.popsize and not s.stop()}
            if strategies:
                self._generation(walk, strategies)
        return walk.found()

    def _strategy(self, row: int, terms: Terms) -> Any:
        import cma  # half a second, which nobody else is to pay

        draws = np.random.default_rng([self.config.seed, row])
        options = {
            "seed": math.nan,  # the package would seed numpy's global state: it draws from a generator of its own
            "randn": lambda *shape: draws.standard_normal(shape),
            "bounds": [[-terms.reach_mm] * 6, [terms.reach_mm] * 6],
            "tolx": max(1e-6, 0.5 * terms.tolerance_mm),
            "tolfun": 0.0,
            "tolfunhist": 1e-9,
            "verbose": -9,
        }
        if self.config.population:
            options["popsize"] = self.config.population
        return cma.CMAEvolutionStrategy(np.zeros(6), terms.step_mm, options)

    def _generation(self, walk: Walk, strategies: dict[int, Any]) -> None:
        asked = {row: strategy.ask() for row, strategy in strategies.items()}
        rows = torch.tensor([row for row, points in asked.items() for _ in points])
        u = torch.from_numpy(np.stack([p for points in asked.values() for p in points]).astype(np.float64))
        losses, begin = _losses(walk.look(u, rows)), 0
        for row, points in asked.items():
            strategies[row].tell(points, losses[begin : begin + len(points)])
            begin += len(points)


def _losses(looked: Step) -> list[float]:
    punished = torch.where(looked.allowed, -looked.score, LACK * (1.0 + looked.lack))
    return [float(v) for v in punished]
