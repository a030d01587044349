# SPDX-License-Identifier: Apache-2.0
"""Table 1: errors of poses by method, each axis on its own, and Dunnett's test of all methods against one of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import dunnett

from .pairs import SUCCESS_MM, PairError, PairRow, Triple

Rows = Mapping[str, Sequence[PairRow]]
SEED = 0  # of the quasi-random integration inside the test


@dataclass(frozen=True)
class ErrorLine:
    """Figures of a method over its pairs; every pair counts, accepted or not.

    Args:
        shift_mm, turn_deg: means of |Tx|, |Ty|, |Tz| and |Rx|, |Ry|, |Rz|.
        distance_mm, angle_deg: mean and standard deviation (of a sample).
        successful: pairs with a distance below 10 mm.
        p_distance, p_angle: of Dunnett's test; NaN for the control and where no significance may be claimed.
        undertrained: its weights' validation error was still falling when the training ended.
        tre_mm, worst_mm, worst_deg: mean TRE; largest distance and angle. worst_pair: case/frame of that distance.
        below_3mm, tre_below_3mm: share of pairs whose distance, whose TRE is below 3 mm.
        initial_mm, initial_deg: mean errors of the starts.
        refused: share not accepted by the gate. nothing: share without any result. accepted_mm: mean distance of the
            accepted ones. median_s: time of a call.
    """

    method: str
    count: int
    shift_mm: Triple
    distance_mm: tuple[float, float]
    turn_deg: Triple
    angle_deg: tuple[float, float]
    successful: int
    p_distance: float = math.nan
    p_angle: float = math.nan
    undertrained: bool = False
    tre_mm: float = math.nan
    worst_mm: float = math.nan
    worst_deg: float = math.nan
    below_3mm: float = math.nan
    tre_below_3mm: float = math.nan
    initial_mm: float = math.nan
    initial_deg: float = math.nan
    refused: float = math.nan
    nothing: float = math.nan
    accepted_mm: float = math.nan
    median_s: float = math.nan
    worst_pair: str = ""


def error_lines(rows: Rows, control: str, undertrained: Collection[str] = ()) -> list[ErrorLine]:
    """A line for each method that has pairs.

    Args:
        control: the method that the others are compared with; without its pairs no line has a p-value.
        undertrained: methods against which no significance is claimed: they take no part in the test.
    """
    rows = {name: found for name, found in rows.items() if found}
    tested = {name: found for name, found in rows.items() if name not in undertrained}
    p_distance = dunnett_p({n: [r.final.distance_mm for r in f] for n, f in tested.items()}, control)
    p_angle = dunnett_p({n: [r.final.angle_deg for r in f] for n, f in tested.items()}, control)
    return [
        error_line(name, found, p_distance.get(name, math.nan), p_angle.get(name, math.nan), name in undertrained)
        for name, found in rows.items()
    ]


def error_line(
    method: str, rows: Sequence[PairRow], p_distance: float = math.nan, p_angle: float = math.nan,
    undertrained: bool = False,
) -> ErrorLine:  # fmt: skip
    """The line of one method with at least one pair."""
    distance = np.array([r.final.distance_mm for r in rows])
    angle = np.array([r.final.angle_deg for r in rows])
    accepted = [r.final.distance_mm for r in rows if r.accepted]
    worst = rows[int(distance.argmax())]
    return ErrorLine(
        method,
        len(rows),
        mean_of_axes([r.final for r in rows], lambda e: e.shift_mm),
        mean_and_sd(distance),
        mean_of_axes([r.final for r in rows], lambda e: e.turn_deg),
        mean_and_sd(angle),
        int((distance < SUCCESS_MM).sum()),
        p_distance,
        p_angle,
        undertrained,
        tre_mm=_mean([r.tre_mm for r in rows]),
        worst_mm=float(distance.max()),
        worst_deg=float(angle.max()),
        below_3mm=float((distance < 3.0).mean()),
        tre_below_3mm=_mean([float(r.tre_mm < 3.0) for r in rows if math.isfinite(r.tre_mm)]),
        initial_mm=_mean([r.initial.distance_mm for r in rows]),
        initial_deg=_mean([r.initial.angle_deg for r in rows]),
        refused=_mean([float(not r.accepted) for r in rows]),
        nothing=_mean([float(not r.found) for r in rows]),
        accepted_mm=_mean(accepted),
        median_s=_median([r.seconds for r in rows]),
        worst_pair=f"{worst.case}/{worst.frame}",
    )


def start_rows(rows: Sequence[PairRow]) -> list[PairRow]:
    """The starts themselves as if they were results: the line that everything has to improve on."""
    return [
        PairRow(r.case, r.frame, r.start, r.initial, r.initial, r.initial_tre_mm, r.initial_tre_mm, accepted=True)
        for r in rows
    ]  # fmt: skip


def dunnett_p(samples: Mapping[str, Sequence[float]], control: str) -> dict[str, float]:
    """Two-sided p-values of Dunnett's comparison of means with the control's, by name.

    Empty where the control is missing, alone, or a sample has fewer than two values. The test takes the pairs as
    independent, as published; those of one subject are not quite.
    """
    usable = {name: values for name, values in samples.items() if len(values) >= 2}
    others = [name for name in usable if name != control]
    if control not in usable or not others or all(np.ptp(v) == 0 for v in usable.values()):
        return {}
    found = dunnett(*(usable[n] for n in others), control=usable[control], rng=np.random.default_rng(SEED))
    return dict(zip(others, map(float, found.pvalue), strict=True))


def mean_of_axes(errors: Sequence[PairError], part: Callable[[PairError], Triple]) -> Triple:
    """Means of the absolute values along three axes."""
    x, y, z = np.abs([part(e) for e in errors]).mean(0).tolist()
    return x, y, z


def mean_and_sd(values: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation of a sample; of one value the latter is NaN."""
    return float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else math.nan


def _mean(values: Sequence[float]) -> float:
    known = [v for v in values if math.isfinite(v)]
    return float(np.mean(known)) if known else math.nan


def _median(values: Sequence[float]) -> float:
    known = [v for v in values if math.isfinite(v)]
    return float(np.median(known)) if known else math.nan
