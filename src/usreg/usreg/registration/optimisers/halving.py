# SPDX-License-Identifier: Apache-2.0
"""Many starts with a small budget each; the best go on with more (successive halving, Jamieson and Talwalkar 2016)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ...config import check_range
from .agreement import Found, check_starts

ClimbFor = Callable[[Tensor, int], Found]  # poses (B, 4, 4) and evaluations for each of them


@dataclass(frozen=True)
class HalvingConfig:
    """How many evaluations each start gets in the first round, and who goes on.

    Args:
        evaluations: for each start in the first round; times `growth` in every later one.
        keep: share of the starts that goes on. finish: how many go into the last round at most.
        last: evaluations for each in the last round.
    """

    evaluations: int = 4
    growth: float = 2.0
    keep: float = 0.5
    finish: int = 1
    last: int = 60

    def __post_init__(self) -> None:
        check_range("evaluations", self.evaluations, 1, 100_000)
        check_range("growth", self.growth, 1.0, 100.0)
        check_range("keep", self.keep, 0.01, 0.9)
        check_range("finish", self.finish, 1, 100_000)
        check_range("last", self.last, 1, 1_000_000)


def successive_halving(climb: ClimbFor, starts: Tensor, config: HalvingConfig, min_overlap: float = 0.0) -> Found:
    """The best of many climbs, best first; works with any optimiser and with Levenberg-Marquardt.

    Args:
        climb: from poses with a budget, never to a worse place.
        starts: (B, 4, 4). min_overlap: a pose with less goes on only where there are not enough others.

    Returns:
        Poses (K, 4, 4), K at most `finish`; `evaluations` (K,) are those spent on that start alone.
    """
    check_starts(starts)
    poses, spent = starts, torch.zeros(len(starts), dtype=torch.float64)
    budget = float(config.evaluations)
    while len(poses) > config.finish:
        found = climb(poses, round(budget))
        kept = max(config.finish, int(len(poses) * config.keep))
        order = ranked(found, min_overlap)[:kept]
        poses, spent, budget = found.poses[order], (spent + found.evaluations)[order], budget * config.growth
    found = climb(poses, config.last)
    order = ranked(found, min_overlap)
    return Found(found.poses[order], found.score[order], found.overlap[order], (spent + found.evaluations)[order])


def ranked(found: Found, min_overlap: float) -> Tensor:
    """Rows by score, best first, those with too little overlap behind all others; ties in the order given."""
    score = torch.where(found.overlap >= min_overlap, found.score, found.score - 1e6)
    return torch.argsort(score, descending=True, stable=True)
