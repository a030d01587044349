# SPDX-License-Identifier: Apache-2.0
"""The phase from the newest estimates: the whole cycle is searched, so that no wrong lock can last."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .memory import LEVER_MM, Memory
from .path import BreathPath

Array = NDArray[np.float64]
SCALE = np.array([1.0, 1.0, 1.0, LEVER_MM, LEVER_MM, LEVER_MM])
PHASES, RATES = 60, (0.75, 0.87, 1.0, 1.15, 1.33)
CLEAR = 6.0  # by how much a phase must fit better (squared, in sigma) than any that lies elsewhere
ELSEWHERE = 0.17  # cycles
BASE_MM, DEPTH = 2.0, 0.4  # prior standard deviations of the resting place and the depth


@dataclass(frozen=True)
class Lock:
    """A phase, its rate and the depth of the breath at the newest estimate, and the phase's standard deviation."""

    phase: float
    rate_hz: float
    depth: float
    sigma: float


def find_phase(memory: Memory, path: BreathPath, window_s: float, sigma_mm: float) -> Lock | None:
    """The phase that the newest `window_s` of estimates agree with; None where several do, or none.

    Args:
        sigma_mm: standard deviation of a coordinate of an estimate.
    """
    if len(memory.stamps) == 0:
        return None
    stamps, places = memory.since(memory.stamps[-1] - window_s)
    if len(stamps) < 5 or stamps[-1] - stamps[0] < 0.6 * window_s:
        return None
    phases = np.arange(PHASES) / PHASES
    rates = path.rate_hz * np.array(RATES)
    rows = phases[:, None, None] + rates[:, None] * (stamps - stamps[-1])  # (phase, rate, sample)
    cost, depth = _costs(path.at(rows) * SCALE, (places - path.base) * SCALE, sigma_mm)
    return _best(cost, depth, phases, rates, 6 * len(stamps) - 7)


def _costs(ways: Array, values: Array, sigma: float) -> tuple[Array, Array]:
    """Least squared error in sigma (phase, rate) over base and depth with their priors, and the depth there."""
    n = ways.shape[2]
    blend = BASE_MM**2 / (sigma**2 + n * BASE_MM**2)  # the base is solved for first: Schur complement
    way_sum, value_sum = ways.sum(2), values.sum(0)
    ww = (ways**2).sum((2, 3)) - blend * (way_sum**2).sum(-1)
    wv = np.einsum("prnk,nk->pr", ways, values) - blend * (way_sum * value_sum).sum(-1)
    vv = (values**2).sum() - blend * (value_sum**2).sum()
    stiff = (sigma / DEPTH) ** 2
    depth = (wv + stiff) / (ww + stiff)
    return (vv - 2 * depth * wv + depth**2 * ww + stiff * (depth - 1) ** 2) / sigma**2, depth


def _best(cost: Array, depth: Array, phases: Array, rates: Array, freedom: int) -> Lock | None:
    flat = int(cost.argmin())
    row, column = divmod(flat, len(rates))
    least = float(cost[row, column])
    if least > 2.5 * freedom or not 0.3 < depth[row, column] < 2.2:
        return None
    per_phase = cost.min(1)
    apart = np.abs((phases - phases[row] + 0.5) % 1.0 - 0.5)
    if float(per_phase[apart > ELSEWHERE].min()) - least < CLEAR:
        return None
    weight = np.exp(-0.5 * (per_phase - least)) * (apart <= ELSEWHERE)
    signed = (phases - phases[row] + 0.5) % 1.0 - 0.5
    mean = float((weight * signed).sum() / weight.sum())
    sigma = float(np.sqrt((weight * (signed - mean) ** 2).sum() / weight.sum()))
    return Lock(float(phases[row] + mean) % 1.0, float(rates[column]), float(depth[row, column]), max(sigma, 0.02))
