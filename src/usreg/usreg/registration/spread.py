# SPDX-License-Identifier: Apache-2.0
"""Deterministic starts around a start."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..config import check_range

PRIMES = (2, 3, 5, 7, 11, 13)


@dataclass(frozen=True)
class SpreadConfig:
    """Where re-tries begin.

    Args:
        count: starts whose coarse score is looked at; 0 = no re-tries.
        climb: how many of the best of them climb the coarse level.
        finish: how many of the best of those go through all levels.
        reach_mm, reach_deg: half width of the box of starts, in axes of the (first) image about its centre.
    """

    count: int = 256
    climb: int = 24
    finish: int = 3
    reach_mm: tuple[float, float, float] = (20.0, 20.0, 10.0)
    reach_deg: tuple[float, float, float] = (10.0, 10.0, 20.0)

    def __post_init__(self) -> None:
        check_range("count", self.count, 0, 100_000)
        check_range("climb", self.climb, 1, 10_000)
        check_range("finish", self.finish, 1, self.climb)
        for value in (*self.reach_mm, *self.reach_deg):
            check_range("reach", value, 0.0, 1000.0)

    @property
    def box(self) -> Tensor:
        """Half widths (6,), mm and rad."""
        return torch.tensor([*self.reach_mm, *(math.radians(a) for a in self.reach_deg)], dtype=torch.float64)


@functools.lru_cache(maxsize=8)
def halton(count: int, dimensions: int = 6) -> Tensor:
    """The first points (count, dimensions) of Halton's sequence in (0, 1). Shared: do not write into it."""
    index = torch.arange(1, count + 1)
    columns = []
    for base in PRIMES[:dimensions]:
        rest, value, factor = index.clone(), torch.zeros(count, dtype=torch.float64), 1.0
        while bool((rest > 0).any()):
            factor /= base
            value += factor * (rest % base)
            rest //= base
        columns.append(value)
    return torch.stack(columns, 1)


def spread_twists(config: SpreadConfig, start_covariance: Tensor) -> Tensor:
    """Twists (count, 6) in image axes: within the box, or within three sigma of the start where that is smaller.

    Args:
        start_covariance: (6, 6) of the start in the same axes; zeros when unknown.
    """
    sigma = start_covariance.diagonal().clamp_min(0.0).sqrt()
    known = bool((sigma > 0).any())
    box = torch.minimum(config.box, torch.maximum(3.0 * sigma, 0.25 * config.box)) if known else config.box
    return (2.0 * halton(config.count) - 1.0) * box
