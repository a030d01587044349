# SPDX-License-Identifier: Apache-2.0
"""Where breaths begin: crossings of the middle level along the first principal twist, with hysteresis."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .config import BreathingModelConfig
from .memory import in_mm

Array = NDArray[np.float64]
BLUR_S = 0.15  # of the level, so that noise does not cross
MAX_GAP_S = 0.7  # without estimates inside a cycle


@dataclass(frozen=True)
class Cycle:
    """A breath from one rise through the middle level to the next.

    Args:
        rise_s, fall_s, end_s: it rises, falls, and rises again. depth_mm: of its deepest point above the resting level.
    """

    rise_s: float
    fall_s: float
    end_s: float
    depth_mm: float

    @property
    def period_s(self) -> float:
        """Its length."""
        return self.end_s - self.rise_s

    @property
    def fall(self) -> float:
        """Share of it above the middle level."""
        return (self.fall_s - self.rise_s) / self.period_s


def find_cycles(stamps: Array, places: Array, config: BreathingModelConfig) -> list[Cycle]:
    """Breaths in places (n, 6) at stamps (n,); holds, coughs and gaps are left out.

    The level is the coordinate along the first principal direction, after a blur; its longer tail is inspiration, since
    a patient rests at the end of expiration.
    """
    if len(stamps) < 8:
        return []
    level, noise = level_of(stamps, places)
    low, high = np.percentile(level, [15.0, 92.0])
    if high - low < max(config.min_depth_mm, 4.0 * noise):
        return []
    rises, falls = crossings(stamps, level, 0.5 * (low + high), 0.15 * (high - low))
    found = []
    for begin, end in zip(rises, rises[1:], strict=False):
        between = [f for f in falls if begin < f < end]
        inside = (stamps >= begin) & (stamps <= end)
        if not between or inside.sum() < 8 or np.diff(stamps[inside]).max() > MAX_GAP_S:
            continue
        depth = float(level[inside].max() - low)
        found.append(Cycle(begin, between[-1], end, depth))
    return _usual([c for c in found if config.min_period_s <= c.period_s <= config.max_period_s])


def level_of(stamps: Array, places: Array) -> tuple[Array, float]:
    """Blurred level (n,), mm, and the standard deviation of what the blur took away."""
    mm = in_mm(places)
    mm = mm - np.median(mm, 0)
    _, vectors = np.linalg.eigh(mm.T @ mm)
    level = mm @ vectors[:, -1]
    if np.mean(level**3) < 0:  # the end of expiration lasts longer: inspiration is the longer tail
        level = -level
    smooth = _blur(stamps, level)
    return smooth, float(np.std(level - smooth))


def crossings(stamps: Array, level: Array, middle: float, margin: float) -> tuple[list[float], list[float]]:
    """Times at which the level rises and falls through the middle; a swing of less than the margin does not count."""
    rises: list[float] = []
    falls: list[float] = []
    above: bool | None = None
    last = 0.0
    for k in range(len(stamps)):
        if k and (level[k - 1] < middle) != (level[k] < middle):
            u = (middle - level[k - 1]) / (level[k] - level[k - 1])
            last = float(stamps[k - 1] + u * (stamps[k] - stamps[k - 1]))
        if level[k] > middle + margin and above is not True:
            if above is False:
                rises.append(last)
            above = True
        elif level[k] < middle - margin and above is not False:
            if above is True:
                falls.append(last)
            above = False
    return rises, falls


def _blur(stamps: Array, level: Array, reach: int = 6) -> Array:
    """Local weighted means over neighbours in time."""
    n = len(stamps)
    near = np.arange(n)[:, None] + np.arange(-reach, reach + 1)
    inside = (near >= 0) & (near < n)
    near = near.clip(0, n - 1)
    weight = np.exp(-0.5 * ((stamps[near] - stamps[:, None]) / BLUR_S) ** 2) * inside
    return np.asarray((weight * level[near]).sum(1) / weight.sum(1))


def _usual(cycles: list[Cycle]) -> list[Cycle]:
    """Without those that differ much from the median one: they hold a pause, a hold or a cough."""
    if len(cycles) < 3:
        return cycles
    period, depth, fall = (float(np.median([getattr(c, n) for c in cycles])) for n in ("period_s", "depth_mm", "fall"))
    return [
        c for c in cycles
        if 0.65 < c.period_s / period < 1.5 and 0.5 < c.depth_mm / depth < 2.0 and abs(c.fall - fall) < 0.15
    ]  # fmt: skip
