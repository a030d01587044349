# SPDX-License-Identifier: Apache-2.0
"""The probability of a TRE below 5 mm, the evidence behind it, and the gate in front."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from usreg.config import from_mapping, load_yaml
from usreg.data.share import share_dir
from usreg.data.types import start_estimate
from usreg.errors import ConfigError
from usreg.geometry import se3
from usreg.registration import confidence
from usreg.registration.confidence import Confidence, Model, Term
from usreg.registration.evidence import EvidenceConfig, look_closer, moved_sigmas
from usreg.registration.gate import GateConfig, refusal
from usreg.registration.refine import Refine, RefineConfig
from usreg.registration.spread import SpreadConfig

KIND = "ncc_same_frame"
SCORE = Term("score", 2.0, 0.5, 0.1, 0.2, 0.8)
SHIFT = Term("moved_mm", -1.0, math.log(3.0), 0.5, math.log(0.5), math.log(20.0), "log")
COEFFICIENTS = sorted((share_dir() / "config" / "confidence").glob("*.yaml"))


def logit(p: float) -> float:
    return math.log(p / (1.0 - p))


def test_known_value() -> None:
    p = Model(0.5, (SCORE, SHIFT))({"score": 0.6, "moved_mm": 6.0, "something else": 1.0})
    assert logit(p) == pytest.approx(0.5 + 2.0 * 0.1 / 0.1 - math.log(2.0) / 0.5)


@pytest.mark.parametrize(("value", "same_as"), [(5.0, 0.8), (-1.0, 0.2)])
def test_nothing_beyond_what_was_fitted_counts(value: float, same_as: float) -> None:
    model = Model(0.0, (SCORE,))
    assert model({"score": value}) == model({"score": same_as})


def test_logit_scale_and_its_ends() -> None:
    assert confidence.scaled(0.25, "logit") == pytest.approx(-math.log(3.0))
    assert all(math.isfinite(confidence.scaled(v, s)) for v in (-1.0, 0.0, 1.0, 2.0) for s in ("log", "logit"))


def test_the_model_that_knows_most_speaks() -> None:
    rich, poor = Model(2.0, (SCORE, Term("contrast", 1.0, 0, 1, -1, 1))), Model(-2.0, (SCORE,))
    both = Confidence((rich, poor))
    assert logit(both({"score": 0.5, "contrast": 0.0})) == pytest.approx(2.0)
    assert logit(both({"score": 0.5})) == pytest.approx(-2.0)
    assert logit(both({"score": 0.5, "contrast": math.nan})) == pytest.approx(-2.0)
    assert math.isnan(both({"contrast": 1.0}))


def test_a_kind_that_nobody_fitted_has_no_probability_and_its_covariance_stays() -> None:
    assert confidence.inflation("nonsense_across_frame") == 1.0 and not confidence.asked("nonsense_across_frame")
    assert math.isnan(confidence.probability({"score": 0.9}, "nonsense_across_frame"))


def test_kinds() -> None:
    assert confidence.kind_of("lc2", False, 1) == "lc2_across_frame"
    assert confidence.kind_of("ncc", True, 20) == "ncc_same_sweep"
    assert confidence.kind_of("lncc", False, 1, "echo") == "lncc_across_echo_frame"


@pytest.mark.parametrize("path", COEFFICIENTS, ids=lambda p: p.stem)
def test_shipped_coefficients_are_read_and_say_how_they_were_made(path: Path) -> None:
    found = confidence.coefficients(path.stem)
    assert found is not None and found == from_mapping(Confidence, load_yaml(path))
    assert "bench confidence -- --fit" in found.command and path.stem in found.command and found.fitted_on
    for model in found.models:
        middle = model({t.name: _unscaled(t.mean, t.scale) for t in model.terms})
        assert logit(middle) == pytest.approx(model.bias, abs=1e-3)


def _unscaled(value: float, scale: str) -> float:
    return {"linear": value, "log": math.exp(min(value, 50)), "logit": 1 / (1 + math.exp(-value))}[scale]


@pytest.mark.parametrize(
    "wrong", [{"deviation": 0.0}, {"high": 0.1}, {"weight": math.nan}, {"scale": "square"}, {"name": 3}]
)
def test_bad_coefficients(wrong: dict[str, object]) -> None:
    term = {"name": "score", "weight": 1.0, "mean": 0.5, "deviation": 0.1, "low": 0.2, "high": 0.8} | wrong
    with pytest.raises(ConfigError):
        from_mapping(Confidence, {"models": [{"bias": 0.0, "terms": [term]}]})


def test_inflation_has_a_range() -> None:
    with pytest.raises(ConfigError, match="inflation"):
        Confidence((), inflation=0.0)


def test_what_counts_for_a_kind_and_how_far_its_covariance_grows(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(confidence, "coefficients", lambda kind: Confidence((Model(0.0, (SCORE, SHIFT)),), 7.0))
    assert confidence.asked("any") == {"score", "moved_mm"} and confidence.inflation("any") == 7.0


def test_each_kind_of_evidence_counts_once() -> None:
    with pytest.raises(ConfigError, match="once"):
        Model(0.0, (SCORE, SCORE))


ALONE = GateConfig(min_score=0.05, min_probability=0.9, clear_probability=0.97, structure_too=False)
ASK = {"score": 0.1, "structure": 0.1, "overlap": 0.9, "sigma_mm": 0.5}  # whose structure would not pass


def test_the_gate_asks_for_the_probability_where_there_is_one() -> None:
    assert refusal(ALONE, **ASK, probability=0.98) == ""
    assert "search" in refusal(ALONE, **ASK, probability=0.93)
    assert refusal(ALONE, **ASK, rival=0.05, probability=0.93) == ""
    assert "probability 0.850" in refusal(ALONE, **ASK, rival=-1.0, probability=0.85)


def test_the_gate_asks_for_structure_where_there_is_none_or_both_are_wanted() -> None:
    assert "structure" in refusal(ALONE, **ASK)
    off = replace(ALONE, min_probability=0.0, clear_probability=0.0)
    assert "structure" in refusal(off, **ASK, probability=0.99)
    both = replace(ALONE, structure_too=True)
    assert "structure" in refusal(both, **ASK, probability=0.99)
    assert "ambiguous" in refusal(both, **ASK, rival=0.09, probability=0.99)
    assert "probability" in refusal(both, **(ASK | {"structure": 0.99}), probability=0.5)


def test_no_probability_opens_a_view_that_is_missing() -> None:
    assert "overlap" in refusal(GateConfig(), 0.9, 0.99, 0.2, 0.1, probability=1.0)
    assert "not observable" in refusal(GateConfig(), 0.9, 0.99, 0.9, 9.0, probability=1.0)


def test_clear_is_more_than_enough() -> None:
    with pytest.raises(ConfigError, match="clear_probability"):
        GateConfig(min_probability=0.9, clear_probability=0.5)


@pytest.fixture(scope="module")
def stage() -> Refine:
    return Refine(RefineConfig(spread=SpreadConfig(count=0)))


def evidence_at(bench, stage: Refine, shift: tuple[float, float, float], **options) -> dict[str, float]:  # type: ignore[no-untyped-def]
    tracked = bench.frame(noise=8.0)
    start = bench.start(tracked, (2.0, 0.0, 0.0), (0.0, 0.0, 0.0))
    covariance = torch.diag(torch.tensor([4.0, 4, 4, 1e-3, 1e-3, 1e-3], dtype=torch.float64))
    start = start_estimate(start.world_T_ct, bench.volume, covariance)
    scene = stage._scene(bench.problem((tracked,), start))
    true = se3.inverse(bench.world_T_ct) @ scene.world_T_ref
    at = true @ se3.translation(torch.tensor(shift, dtype=torch.float64))
    config = EvidenceConfig(restarts=3, around=16, **options)
    return look_closer(scene, at, start, config, {"restart_mm"})


def test_evidence_tells_the_right_pose_from_a_wrong_one(bench, stage) -> None:  # type: ignore[no-untyped-def]
    right, wrong = (evidence_at(bench, stage, s, all=True) for s in ((0.0, 0.0, 0.0), (9.0, -7.0, 8.0)))
    assert right["moved_mm"] == pytest.approx(2.0, abs=1e-6)
    assert right["drop"] > 0.01 > wrong["drop"]
    assert right["standout"] > 2.0 > wrong["standout"]
    for name in ("level_mm", "restart_mm"):
        assert 2.0 * right[name] < wrong[name] and right[name] < 1.5
    assert right["restart_gain"] < 0.01
    assert right["posterior_mm"] < right["prior_mm"] < 10.0
    assert 0.0 < right["moved_sigmas"] < wrong["moved_sigmas"]


def test_only_what_is_asked_for_is_looked_at(bench, stage) -> None:  # type: ignore[no-untyped-def]
    found = evidence_at(bench, stage, (0.0, 0.0, 0.0))
    assert "restart_mm" in found and "moved_mm" in found and "drop" not in found


def test_distance_from_the_start_in_units_of_its_prior() -> None:
    covariance = torch.diag(torch.tensor([4.0, 4, 4, 0.01, 0.01, 0.01], dtype=torch.float64))
    assert moved_sigmas(covariance, torch.tensor([2.0, 2, 2, 0.1, 0.1, 0.1], dtype=torch.float64)) == pytest.approx(1)
    assert math.isnan(moved_sigmas(torch.zeros(6, 6, dtype=torch.float64), torch.ones(6, dtype=torch.float64)))


@pytest.mark.parametrize("wrong", [{"around": 1}, {"restarts": -1}, {"probe_mm": 0.0}, {"iterations": 1}])
def test_evidence_has_limits(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        EvidenceConfig(**wrong)  # type: ignore[arg-type]


def test_the_refinement_states_the_probability_and_heeds_it(bench, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    tracked = bench.frame(noise=8.0)
    start = bench.start(tracked, (2.0, -1.0, 1.0), (1.0, 0.0, 0.0))
    found = {}
    for bias in (4.0, -4.0):
        model = Confidence((Model(bias, (Term("drop", 0.5, 0.0, 1.0, -1.0, 1.0),)),), 9.0)
        monkeypatch.setattr(confidence, "coefficients", lambda kind, model=model: model if kind == KIND else None)
        stage = Refine(RefineConfig(spread=SpreadConfig(count=0)))
        found[bias] = stage(bench.problem((tracked,), start), start)
    sure, unsure = found[4.0], found[-4.0]
    assert sure.accepted and sure.probability > 0.95 and "drop" in sure.evidence and "restart_mm" not in sure.evidence
    assert not unsure.accepted and "probability" in unsure.reason and unsure.probability < 0.1
    monkeypatch.setattr(confidence, "coefficients", lambda kind: None)
    nobody = Refine(RefineConfig(spread=SpreadConfig(count=0)))(bench.problem((tracked,), start), start)
    assert nobody.accepted and math.isnan(nobody.probability)
    assert torch.allclose(sure.covariance, 9.0 * nobody.covariance, rtol=1e-6)
