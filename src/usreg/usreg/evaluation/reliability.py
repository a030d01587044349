# SPDX-License-Identifier: Apache-2.0
"""Whether stated probabilities come true, and whether they tell good estimates from bad ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from ..errors import ShapeError
from .summary import FAILURE_MM, Row

BINS = 10


@dataclass(frozen=True)
class Bin:
    """Estimates of about the same stated probability: how many, what was said on average, and what came true."""

    count: int
    stated: float
    observed: float


@dataclass(frozen=True)
class Reliability:
    """Figures of stated probabilities.

    Args:
        count: estimates. failures: share of them that did not come true.
        auroc: probability that an estimate which came true was given more than one which did not; 0.5 is chance.
        calibration_error: mean over the bins of |stated - observed|, weighted by their counts ("ECE").
        brier: mean squared difference between probability and outcome; `brier_base` is that of always stating the
            share that came true.
        bins: with equal counts (to one), by rising probability.
    """

    count: int
    failures: float
    auroc: float
    calibration_error: float
    brier: float
    brier_base: float
    bins: tuple[Bin, ...]


def reliability(stated: npt.ArrayLike, true: npt.ArrayLike, bins: int = BINS) -> Reliability:
    """Compare probabilities (N,) with what came true (N,).

    Equal probabilities are kept in the order given; the AUROC counts them as half (Mann & Whitney 1947).

    Raises:
        ShapeError: not two equally long lists with at least one estimate, or a probability outside [0, 1].
    """
    p, y = np.asarray(stated, np.float64), np.asarray(true, np.float64)
    if p.ndim != 1 or p.shape != y.shape or not len(p) or not bool(((p >= 0) & (p <= 1)).all()):
        raise ShapeError(f"probabilities (N,) in [0, 1] and outcomes (N,) are needed, got {p.shape} and {y.shape}")
    order = np.argsort(p, kind="stable")
    groups = [g for g in np.array_split(order, min(bins, len(p))) if len(g)]
    table = tuple(Bin(len(g), float(p[g].mean()), float(y[g].mean())) for g in groups)
    error = sum(b.count * abs(b.stated - b.observed) for b in table) / len(p)
    base = float(y.mean())
    return Reliability(
        len(p), 1.0 - base, auroc(p, y > 0.5), error, float(((p - y) ** 2).mean()), base * (1 - base), table
    )


def auroc(value: npt.NDArray[np.float64], positive: npt.NDArray[np.bool_]) -> float:
    """Area under the ROC curve of a value (N,) that should be higher where `positive`; NaN with one class alone."""
    good, bad = int(positive.sum()), int((~positive).sum())
    if not good or not bad:
        return math.nan
    ranks = rankdata(value)[positive].sum()
    return float((ranks - good * (good + 1) / 2) / (good * bad))


def rows_reliability(rows: Sequence[Row], limit_mm: float = FAILURE_MM) -> Reliability | None:
    """Of rows with truth and a stated probability; None where there are fewer than ten of them."""
    known = [r for r in rows if math.isfinite(r.probability) and math.isfinite(r.final_tre_mm)]
    if len(known) < BINS:
        return None
    return reliability([r.probability for r in known], [r.final_tre_mm < limit_mm for r in known])
