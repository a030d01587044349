# SPDX-License-Identifier: Apache-2.0
"""Table 2 and Fig. 7: errors at the bifurcations of the vessels, and cumulative curves, by case."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .errors import mean_and_sd
from .pairs import PairRow


@dataclass(frozen=True)
class CaseLine:
    """Figures of one case.

    Args:
        landmarks: how many were seen in some frame. measured: sightings in all frames.
        tre_mm: mean and standard deviation over sightings. liver_mm: mean over all bifurcations, seen or not.
        distance_mm: mean and standard deviation of the pairs. below_5mm: share of pairs below.
    """

    case: str
    pairs: int
    landmarks: int
    measured: int
    tre_mm: tuple[float, float]
    liver_mm: float
    distance_mm: tuple[float, float]
    below_5mm: float


def case_lines(rows: Sequence[PairRow]) -> list[CaseLine]:
    """A line for each case, in the order of their first pair."""
    return [case_line(case, found) for case, found in by_case(rows).items()]


def case_line(case: str, rows: Sequence[PairRow]) -> CaseLine:
    """The line of one case with at least one pair."""
    sightings = np.array([mm for r in rows for mm in r.landmarks_mm.values()])
    liver = [r.liver_mm for r in rows if math.isfinite(r.liver_mm)]
    distance = np.array([r.final.distance_mm for r in rows])
    return CaseLine(
        case,
        len(rows),
        len({name for r in rows for name in r.landmarks_mm}),
        len(sightings),
        mean_and_sd(sightings) if len(sightings) else (math.nan, math.nan),
        float(np.mean(liver)) if liver else math.nan,
        mean_and_sd(distance),
        float((distance < 5.0).mean()),
    )


def by_case(rows: Sequence[PairRow]) -> dict[str, list[PairRow]]:
    """Rows by their case."""
    found: dict[str, list[PairRow]] = {}
    for row in rows:
        found.setdefault(row.case, []).append(row)
    return found


def cumulative(rows: Sequence[PairRow]) -> tuple[list[float], list[float]]:
    """Distances in rising order, and the share of pairs at or below each of them."""
    distance = sorted(r.final.distance_mm for r in rows)
    return distance, [(n + 1) / len(distance) for n in range(len(distance))]


def curves(rows: Mapping[str, Sequence[PairRow]]) -> dict[str, tuple[list[float], list[float]]]:
    """A cumulative curve for each name, its number of pairs in brackets."""
    return {f"{name} ({len(found)})": cumulative(found) for name, found in rows.items() if found}
