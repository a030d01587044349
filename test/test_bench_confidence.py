# SPDX-License-Identifier: Apache-2.0
"""How the coefficients of the confidence are fitted: signs, stages, folds by body, and the file that comes out."""

import importlib
import math
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import yaml

from usreg.config import from_mapping
from usreg.data.share import share_dir
from usreg.registration.confidence import Confidence


@pytest.fixture
def fit(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(share_dir() / "benchmarks"))
    return importlib.import_module("confidence_fit")


def rows(bodies: int = 6, starts: int = 80) -> list[dict[str, Any]]:
    """Scores that tell at once what is clear, and after a search most of the rest; overlap says nothing."""
    rng = np.random.default_rng(7)
    found = []
    for body in range(bodies):
        for start in range(starts):
            ease = rng.normal()
            for stage, more in (("first", 0.0), ("searched", 1.0)):
                good = rng.uniform() < 1 / (1 + math.exp(-4 * (ease + 0.3 + more)))
                evidence = {"score": 0.5 + 0.1 * ease, "overlap": 1.0, "sigma_mm": math.exp(0.3 * rng.normal())}
                evidence |= {"contrast": math.exp(ease)} if stage == "searched" else {}
                tre = 1.0 if good else 9.0
                found.append(
                    {"body": body, "start": start, "stage": stage, "tre_mm": tre, "nees": 24.0, "evidence": evidence}
                )
    return found


def test_what_counts_points_the_right_way_and_the_rest_is_left_out(fit: ModuleType) -> None:
    searched, first = fit.fit_confidence(rows(), "how", "what").models
    assert {t.name for t in searched.terms} >= {"score", "contrast"}
    assert "contrast" not in {t.name for t in first.terms} and "overlap" not in {t.name for t in first.terms}
    assert all(t.weight >= 0 for t in first.terms if t.name == "score")
    assert all(t.weight <= 0 for t in (*first.terms, *searched.terms) if t.name == "sigma_mm")


def test_each_body_is_judged_by_a_fit_on_others(fit: ModuleType) -> None:
    given = rows()
    kept, stated = fit.folded(given)
    assert len(kept) == len(stated) == 6 * 80  # one estimate is given out for each start
    assert {(r["body"], r["start"]) for r in kept} == {(r["body"], r["start"]) for r in given}
    found = fit.judged(kept, stated)
    assert found.auroc > 0.9 and found.calibration_error < 0.06 and found.brier < found.brier_base
    clear = [p for r, p in zip(kept, stated, strict=True) if r["stage"] == "first"]
    assert clear and min(clear) >= fit.CLEAR


def test_the_covariance_is_fitted_across_modalities_alone(fit: ModuleType) -> None:
    assert fit.fit_confidence(rows(2), "", "").inflation == pytest.approx(24.0 / 5.348, rel=1e-3)
    assert fit.fit_confidence(rows(2), "", "", across=False).inflation == 1.0


def test_the_file_says_what_was_fitted(fit: ModuleType) -> None:
    made = fit.fit_confidence(rows(2), "the command", "the bodies")
    text = fit.dump_yaml(made, "any_kind")
    assert from_mapping(Confidence, yaml.safe_load(text)) == made and text.startswith("#") and "any_kind" in text
