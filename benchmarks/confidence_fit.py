# SPDX-License-Identifier: Apache-2.0
"""From estimates with known errors to the coefficients of `config/confidence`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import yaml
from scipy.stats import chi2

from usreg.config import to_mapping
from usreg.evaluation import Reliability, fit_logistic, reliability
from usreg.registration.confidence import BELOW_MM, Confidence, Model, Scale, Term, scaled
from usreg.registration.gate import GateConfig

# Evidence that may count, on which scale, and which way it must point: 1 = the more the surer, 0 = as it turns out (of
# two poses with the same score in detail, the one whose coarse score is higher may be the one that a lure has caught).
TERMS: dict[str, tuple[Scale, int]] = {
    "score": ("linear", 1),
    "structure": ("linear", 0),
    "overlap": ("linear", 1),
    "sigma_mm": ("log", -1),
    "moved_mm": ("log", -1),
    "moved_sigmas": ("log", -1),
    "prior_mm": ("log", -1),
    "contrast": ("log", 1),
    "disagreement": ("log", -1),
    "drop": ("linear", 1),
    "mean_drop": ("linear", 1),
    "standout": ("linear", 1),
    "level_mm": ("log", -1),
    "restart_mm": ("log", -1),
    "restart_gain": ("linear", -1),
    "likely": ("linear", 1),
    "share": ("linear", 1),
    "vote": ("linear", 1),
}
RIDGE = 3.0
RANGE = (0.5, 99.5)  # percentiles of what was fitted
LEAST_WEIGHT = 0.02  # of a standard deviation: what counts for less is left out
FOLDS = 5
CLEAR = GateConfig().clear_probability
LEAST_ROWS = 100
Rows = Sequence[Mapping[str, Any]]  # body, start, stage ("first" before "searched"), tre_mm, evidence


def fit_confidence(rows: Rows, command: str, what: str, across: bool = True) -> Confidence:
    """Coefficients of all stages; the stage that knows most comes first.

    The stage after a search is fitted to the starts that get there: those whose first estimate is not clear.

    Args:
        across: modalities differ, so the covariance is fitted as well; in one modality residuals tell it (`noise`).
    """
    first, searched = ([r for r in rows if r["stage"] == s] for s in ("first", "searched"))
    models = [fit_model(first)]
    if searched:
        clear = {_start(r) for r in first if models[0](r["evidence"]) >= CLEAR}
        unclear = [r for r in searched if _start(r) not in clear]
        models.insert(0, fit_model(unclear if len(unclear) >= LEAST_ROWS else searched))
    return Confidence(tuple(models), _round(inflation(rows)) if across else 1.0, command, what)


def _start(row: Mapping[str, Any]) -> tuple[int, int]:
    return row["body"], row["start"]


def inflation(rows: Rows) -> float:
    """Median squared error of good estimates in units of their covariance, over what six directions should have."""
    squared = [r["nees"] for r in rows if r["tre_mm"] < BELOW_MM and math.isfinite(r.get("nees", math.nan))]
    return max(1.0, float(np.median(squared) / chi2.median(6))) if squared else 1.0


def fit_model(rows: Rows) -> Model:
    """One regression on all evidence that every row has, without what turns out not to count."""
    names = [n for n in TERMS if all(math.isfinite(r["evidence"].get(n, math.nan)) for r in rows)]
    true = np.array([r["tre_mm"] < BELOW_MM for r in rows], float)
    while True:
        model = _fitted(rows, names, true)
        kept = [t.name for t in model.terms if abs(t.weight) >= LEAST_WEIGHT]
        if len(kept) == len(names):
            return model
        names = kept


def _fitted(rows: Rows, names: Sequence[str], true: np.ndarray) -> Model:
    columns, shape = [], []
    for name in names:
        values = np.array([scaled(r["evidence"][name], TERMS[name][0]) for r in rows])
        low, high = np.percentile(values, RANGE)
        values = values.clip(low, high)
        mean, deviation = float(values.mean()), max(float(values.std()), 1e-9)
        columns.append((values - mean) / deviation)
        shape.append((mean, deviation, float(low), float(high)))
    features = np.stack(columns, 1) if columns else np.zeros((len(rows), 0))
    bias, weights = fit_logistic(features, true, [TERMS[n][1] for n in names], RIDGE)
    terms = [
        Term(name, *(_round(v) for v in (weight, *numbers)), TERMS[name][0])
        for name, weight, numbers in zip(names, weights.tolist(), shape, strict=True)
    ]
    return Model(_round(bias), tuple(terms))


def _round(value: float) -> float:
    return float(f"{value:.6g}")


def folded(rows: Rows) -> tuple[list[Mapping[str, Any]], list[float]]:
    """What would have been given out at each start, with the probability that a fit on other bodies states."""
    bodies = sorted({r["body"] for r in rows})
    fold = {body: n % FOLDS for n, body in enumerate(bodies)}
    kept: list[Mapping[str, Any]] = []
    stated: list[float] = []
    for part in range(min(FOLDS, len(bodies))):
        model = fit_confidence([r for r in rows if fold[r["body"]] != part], "", "")
        shown: dict[tuple[int, int], Mapping[str, Any]] = {}
        for row in (r for r in rows if fold[r["body"]] == part):
            before = shown.get(_start(row))
            if before is None or model(before["evidence"]) < CLEAR:
                shown[_start(row)] = row
        kept += shown.values()
        stated += [model(r["evidence"]) for r in shown.values()]
    return kept, stated


def judged(rows: Rows, stated: Sequence[float]) -> Reliability:
    """Reliability of probabilities of rows; rows for which nothing was stated count as 0."""
    sure = [p if math.isfinite(p) else 0.0 for p in stated]
    return reliability(sure, [r["tre_mm"] < BELOW_MM for r in rows])


def dump_yaml(confidence: Confidence, kind: str) -> str:
    """The file as it ships."""
    head = f"# Coefficients of `registration/confidence.py` for {kind}; made, not written: see `command`.\n"
    return head + yaml.safe_dump(to_mapping(confidence), sort_keys=False, width=120)
