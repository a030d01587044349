# SPDX-License-Identifier: Apache-2.0
"""What the options of a session mean to another system."""

from __future__ import annotations

from usreg.data.session_options import options_for

TUNED = {"prior": 0.01, "gate": {"min_score": 0.1}, "window": {"frames": 3}}


def test_the_networks_are_judged_as_the_engine_was_tuned() -> None:
    engine = {"prior": 0.01, "gate": {"min_score": 0.1}}
    assert options_for("intensity", "intensity", TUNED) == TUNED
    assert options_for("deep_s2v", "intensity", TUNED) == {"refine": engine}
    assert options_for("intensity", "deep_s2v", {"mode": "paper", "refine": engine}) == engine
    assert options_for("deep_s2v", "deep_s2v", {"mode": "paper"}) == {"mode": "paper"}


def test_to_another_system_they_mean_nothing() -> None:
    assert options_for("itk", "intensity", TUNED) == {} == options_for("intensity", "itk", {"bins": 3})
    assert options_for("deep_s2v", "intensity", {}) == {} == options_for("intensity", "deep_s2v", {"mode": "fvr"})
