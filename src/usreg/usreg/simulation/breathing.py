# SPDX-License-Identifier: Apache-2.0
"""How deep a patient has breathed in at any time: cos^4 or irregular cycles, holds and coughs.

The level is a number: 0 at the end of expiration, 1 at the end of an average inspiration. It follows from the time and
the seed alone, at any time and in any order.

Checked: a population model of the liver from breath-hold CT of ten patients (PMC2736751, abstract) has mean motions of
12.4 mm towards the feet, 8.4 mm towards the front and 1.2 mm to the side; ours has less towards the front by default.

Values as commonly cited; not checked against the papers: Lujan et al. 1999 (cos^2n, more time at expiration); Vedam et
al. 2003 and Seppenwoolde et al. 2002 (cycles differ in length and depth, hysteresis of 1-5 mm); Keall et al. 2006, AAPM
TG-76 (tables of organ motion, periods); and those named with the parameters below.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

from ..config import check_range
from ..errors import ConfigError

CYCLES_BEFORE = 1_000_000  # streams of random numbers have indices from zero; cycles before t = 0 exist too
DRIFT_PERIODS_S = (23.0, 37.0, 61.0)
COUGH_PARTS = ((-0.45, 0.16, 1.0), (0.0, 0.07, -0.6), (0.22, 0.07, 0.3), (0.42, 0.08, -0.2))  # centre s, width s, share


@dataclass(frozen=True)
class BreathingConfig:
    """How a patient breathes and how far the organs go; amounts of a cycle of level 1.

    Args:
        waveform: "cos4" equal cycles, "irregular" each with its own length and depth.
        period_s: mean length of a cycle (adults at rest 3-6 s). si_mm: way of the liver towards the feet, 5-25 mm
            (Clifford 2002; Rohlfing 2004: 12-26 mm; Shimizu 1999: 21 mm; TG-76: 5-40 mm).
        ap_share, lr_share: way towards the front and to the side, shares of si_mm (Rohlfing 2004: 1-12 mm and 1-3 mm).
        rotation_deg: largest turn of an organ about its centroid.
        lag_s: the way towards the front follows that towards the feet by this much: a loop, not a line.
        inspiration_share: part of a cycle until the deepest point. dwell_share: part of it at rest.
        period_spread, depth_spread: standard deviation of a cycle's length and depth, relative ("irregular").
        drift_share: amplitude of the slow drift of the resting position, relative to a breath ("irregular").
        holds_s: (from, to) of breath-holds at the end of expiration; hold_drift_mm_s: how fast the liver creeps then.
        ease_s: how long it takes to come to rest before a hold, and to breathe again after it.
        coughs_s: times of coughs; cough_share: depth of the breath before one, relative to an average one.
        belly_share: how much of the organs' motion towards the front the skin of the belly takes part in.
        deformation_mm: amplitude of a smooth deformation of the liver and its surroundings; 0: the liver is rigid.
        lattice_mm: between the nodes on which the motion is kept: finer keeps bones stiller near organs, and is slower.
    """

    waveform: Literal["cos4", "irregular"] = "irregular"
    period_s: float = 4.0
    si_mm: float = 14.0
    ap_share: float = 0.25
    lr_share: float = 0.06
    rotation_deg: float = 2.0
    lag_s: float = 0.25
    inspiration_share: float = 0.42
    dwell_share: float = 0.12
    period_spread: float = 0.1
    depth_spread: float = 0.15
    drift_share: float = 0.06
    holds_s: tuple[tuple[float, float], ...] = ()
    hold_drift_mm_s: float = 0.1
    ease_s: float = 1.2
    coughs_s: tuple[float, ...] = ()
    cough_share: float = 0.8
    belly_share: float = 0.0
    deformation_mm: float = 0.0
    lattice_mm: float = 3.0

    def __post_init__(self) -> None:
        ranges = {
            "period_s": (1.5, 15.0), "si_mm": (0.0, 40.0), "ap_share": (0.0, 0.5), "lr_share": (0.0, 0.3),
            "rotation_deg": (0.0, 10.0), "lag_s": (0.0, 1.0), "inspiration_share": (0.2, 0.6),
            "dwell_share": (0.0, 0.5), "period_spread": (0.0, 0.2), "depth_spread": (0.0, 0.3),
            "drift_share": (0.0, 0.3), "hold_drift_mm_s": (-1.0, 1.0), "ease_s": (0.2, 5.0), "cough_share": (0.0, 1.5),
            "belly_share": (0.0, 1.0), "deformation_mm": (0.0, 5.0),
            "lattice_mm": (1.5, 6.0),
        }  # fmt: skip
        for name, (low, high) in ranges.items():
            check_range(name, getattr(self, name), low, high)
        for start, stop in self.holds_s:
            if not (math.isfinite(start) and math.isfinite(stop) and start < stop):
                raise ConfigError(f"a breath-hold from {start} to {stop} s is none: give (from, to) with from < to")


class Breathing:
    """Level of breathing over time.

    Args:
        config: how the patient breathes.
        seed: of lengths, depths and drift; two seeds are two patients.
    """

    def __init__(self, config: BreathingConfig, seed: int) -> None:
        self.config = config
        self.seed = seed
        rng = _stream(seed, 0)
        self._phases = rng.uniform(0.0, 2 * math.pi, len(DRIFT_PERIODS_S))
        self._cycle = lru_cache(maxsize=4096)(self._draw_cycle)

    def level(self, t_s: float) -> float:
        """Level (1) at a time: 0 at rest, 1 at the end of an average inspiration; below 0 while coughing."""
        c = self.config
        free = self._free(t_s)
        wave = self._wave(t_s) * free + self._drift(t_s)
        return wave + self._creep(t_s, free) + c.cough_share * sum(_cough(t_s - at) for at in c.coughs_s)

    def cycle_bounds_s(self, index: int) -> tuple[float, float]:
        """When a cycle begins and ends, s."""
        return self._cycle(index)[0], self._cycle(index + 1)[0]

    def _wave(self, t_s: float) -> float:
        index = math.floor(t_s / self.config.period_s)
        while self._cycle(index)[0] > t_s:
            index -= 1
        while self._cycle(index + 1)[0] <= t_s:
            index += 1
        (start, depth), stop = self._cycle(index), self._cycle(index + 1)[0]
        return depth * self._shape((t_s - start) / (stop - start))

    def _shape(self, u: float) -> float:
        """sin^4: Lujan's 1 - cos^2n seen from the end of expiration, bent so that breathing in is the shorter part."""
        c = self.config
        u = (u - 0.5 * c.dwell_share) / (1.0 - c.dwell_share)
        if not 0.0 < u < 1.0:
            return 0.0
        bend = math.log(0.5) / math.log(c.inspiration_share)
        return math.sin(math.pi * u**bend) ** 4

    def _draw_cycle(self, index: int) -> tuple[float, float]:
        """Start and depth of a cycle. Starts stray from a regular grid, so that no sum over all cycles is needed."""
        c = self.config
        if c.waveform == "cos4":
            return index * c.period_s, 1.0
        stray, deep = np.clip(_stream(self.seed, CYCLES_BEFORE + index).standard_normal(2), -2.0, 2.0)
        start = (index + stray * c.period_spread / math.sqrt(2.0)) * c.period_s
        return float(start), float(max(0.3, 1.0 + deep * c.depth_spread))

    def _drift(self, t_s: float) -> float:
        if self.config.waveform == "cos4":
            return 0.0
        waves = zip(DRIFT_PERIODS_S, self._phases, strict=True)
        total = sum(math.sin(2 * math.pi * t_s / p + a) - math.sin(a) for p, a in waves)
        return self.config.drift_share * total / len(DRIFT_PERIODS_S)

    def _free(self, t_s: float) -> float:
        """1 while breathing freely, 0 in a hold, smooth in between."""
        c = self.config
        free = 1.0
        for start, stop in c.holds_s:
            free *= 1.0 - smooth((t_s - start + c.ease_s) / c.ease_s) * smooth((stop + c.ease_s - t_s) / c.ease_s)
        return free

    def _creep(self, t_s: float, free: float) -> float:
        """Slow drift in a hold, as a level; taken back with the next breath."""
        c = self.config
        if free == 1.0 or c.si_mm == 0.0:
            return 0.0
        ways = (min(t_s, stop + c.ease_s) - start for start, stop in c.holds_s if start < t_s < stop + c.ease_s)
        return (1.0 - free) * c.hold_drift_mm_s * sum(ways) / c.si_mm


def smooth(u: float) -> float:
    """0 to 1 with two derivatives that vanish at both ends; constant outside."""
    u = min(1.0, max(0.0, u))
    return u**3 * (10.0 + u * (6.0 * u - 15.0))


def _cough(dt_s: float) -> float:
    """A deep quick breath, the thrust, and two rebounds."""
    if abs(dt_s) > 2.0:
        return 0.0
    return sum(share * math.exp(-(((dt_s - centre) / width) ** 2)) for centre, width, share in COUGH_PARTS)


def _stream(seed: int, index: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((abs(seed), index))))
