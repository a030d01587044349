# SPDX-License-Identifier: Apache-2.0
"""Figures of stated probabilities: known values, laws, and their place in the report."""

import math

import numpy as np
import pytest

from usreg.errors import ShapeError
from usreg.evaluation import Row, fit_logistic, reliability, rows_reliability, write_report
from usreg.evaluation.result import result_json


def test_certain_and_right() -> None:
    found = reliability([0.0] * 10 + [1.0] * 30, [0] * 10 + [1] * 30)
    assert (found.auroc, found.calibration_error, found.brier) == (1.0, 0.0, 0.0)
    assert found.failures == pytest.approx(0.25)
    assert found.brier_base == pytest.approx(0.75 * 0.25)


def test_known_values_of_two_bins() -> None:
    found = reliability([0.2, 0.2, 0.6, 0.6], [0, 1, 1, 1], bins=2)
    assert [(b.count, b.stated, b.observed) for b in found.bins] == [(2, 0.2, 0.5), (2, 0.6, 1.0)]
    assert found.calibration_error == pytest.approx(0.5 * 0.3 + 0.5 * 0.4)
    assert found.brier == pytest.approx((0.04 + 0.64 + 0.16 + 0.16) / 4)
    assert found.auroc == pytest.approx((2 * 1.0 + 0.5) / 3)  # of three pairs one is a tie


def test_auroc_counts_pairs() -> None:
    rng = np.random.default_rng(1)
    p, y = rng.uniform(size=60).round(1), rng.uniform(size=60) < 0.6
    pairs = [(a > b) + 0.5 * (a == b) for a in p[y] for b in p[~y]]
    assert reliability(p, y).auroc == pytest.approx(np.mean(pairs))


def test_true_probabilities_are_calibrated_and_others_not() -> None:
    rng = np.random.default_rng(2)
    p = rng.uniform(size=20_000)
    y = rng.uniform(size=20_000) < p
    assert reliability(p, y).calibration_error < 0.015
    assert reliability(np.sqrt(p), y).calibration_error > 0.1


def test_bins_hold_equal_counts() -> None:
    found = reliability(np.linspace(0, 1, 1003), np.arange(1003) % 2)
    assert {b.count for b in found.bins} == {100, 101} and sum(b.count for b in found.bins) == 1003


@pytest.mark.parametrize("wrong", [([], []), ([0.5, 0.5], [1]), ([1.5], [1]), ([math.nan], [1])])
def test_bad_input(wrong: tuple[list[float], list[float]]) -> None:
    with pytest.raises(ShapeError, match="probabilities"):
        reliability(*wrong)


def test_one_outcome_alone_has_no_auroc() -> None:
    assert math.isnan(reliability([0.3, 0.4], [1, 1]).auroc)


def test_logistic_regression_finds_the_weights_it_was_made_with() -> None:
    rng = np.random.default_rng(3)
    x = rng.standard_normal((40_000, 3))
    y = rng.uniform(size=len(x)) < 1 / (1 + np.exp(-(0.4 + x @ [1.5, -0.7, 0.0])))
    bias, weights = fit_logistic(x, y, [1, -1, 0])
    assert [bias, *weights] == pytest.approx([0.4, 1.5, -0.7, 0.0], abs=0.06)


def test_logistic_regression_stands_where_the_slope_is_zero() -> None:
    rng = np.random.default_rng(4)
    x, y = rng.standard_normal((200, 2)), rng.uniform(size=200) < 0.5
    bias, weights = fit_logistic(x, y, [0, 0], ridge=3.0)
    wrong = 1 / (1 + np.exp(-(bias + x @ weights))) - y
    assert np.abs(wrong.sum()) < 1e-3 and np.abs(wrong @ x + 3.0 * weights).max() < 1e-3


def test_signs_are_kept() -> None:
    x = np.random.default_rng(5).standard_normal((500, 2))
    y = x[:, 0] + 0.2 * x[:, 1] > 0
    _, weights = fit_logistic(x, y, [-1, 1])
    assert weights[0] == 0.0 and weights[1] > 0


def test_logistic_regression_needs_both_outcomes() -> None:
    with pytest.raises(ShapeError, match="both"):
        fit_logistic(np.zeros((5, 1)), np.ones(5), [0])


def rows(count: int, probability: float) -> list[Row]:
    return [
        Row(n, 0.1 * n, 8.0, 2.0 if n % 4 else 9.0, accepted=True, score=0.5, probability=probability)
        for n in range(count)
    ]


def test_rows_without_truth_or_probability_do_not_count() -> None:
    found = rows_reliability([*rows(20, 0.75), Row(99, 0.0, probability=0.5), *rows(5, math.nan)])
    assert found is not None and found.count == 20 and found.failures == 0.25
    assert rows_reliability(rows(9, 0.5)) is None


def test_the_report_shows_the_curve(tmp_path) -> None:  # type: ignore[no-untyped-def]
    shown = write_report(tmp_path / "a", result_json(rows(40, 0.75))).read_text(encoding="utf-8")
    assert "Stated probability" in shown and "AUROC" in shown
    without = write_report(tmp_path / "b", result_json(rows(40, math.nan))).read_text(encoding="utf-8")
    assert "Stated probability" not in without
