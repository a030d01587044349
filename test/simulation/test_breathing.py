# SPDX-License-Identifier: Apache-2.0
"""Levels of breathing: waveforms, cycles, holds, coughs; at any time and in any order the same."""

from __future__ import annotations

import math

import numpy as np
import pytest

from usreg.errors import ConfigError
from usreg.simulation.breathing import Breathing, BreathingConfig, smooth

TIMES = np.arange(0.0, 120.0, 0.02)


def levels(config: BreathingConfig, seed: int = 1, times: np.ndarray = TIMES) -> np.ndarray:
    breathing = Breathing(config, seed)
    return np.array([breathing.level(float(t)) for t in times])


def test_cos4_is_lujans_curve() -> None:
    """Without bend and dwell: 1 - cos^4 seen from inspiration, sin^4(pi t / T) from expiration."""
    config = BreathingConfig(waveform="cos4", inspiration_share=0.5, dwell_share=0.0, period_s=5.0)
    expected = np.sin(np.pi * TIMES / 5.0) ** 4
    np.testing.assert_allclose(levels(config), expected, rtol=0, atol=1e-12)


def test_expiration_is_rest_and_lasts_longer_than_inspiration() -> None:
    level = levels(BreathingConfig(waveform="cos4"))
    assert level.min() == 0.0
    assert level.max() == pytest.approx(1.0, abs=1e-3)
    assert (level < 0.1).mean() > 0.35 > (level > 0.9).mean()


def test_irregular_cycles_differ_in_length_and_depth_as_configured() -> None:
    config = BreathingConfig(period_spread=0.1, depth_spread=0.15, drift_share=0.0)
    breathing = Breathing(config, 3)
    bounds = np.array([breathing.cycle_bounds_s(i) for i in range(400)])
    np.testing.assert_array_equal(bounds[1:, 0], bounds[:-1, 1])
    length = bounds[:, 1] - bounds[:, 0]
    assert length.mean() == pytest.approx(config.period_s, rel=0.01)
    assert length.std() / config.period_s == pytest.approx(0.1, abs=0.02)
    peaks = [max(breathing.level(float(t)) for t in np.linspace(a, b, 60)) for a, b in bounds]
    assert np.std(peaks) == pytest.approx(0.15, abs=0.03)


def test_any_order_of_times_and_any_object_gives_the_same_level() -> None:
    config = BreathingConfig(holds_s=((10.0, 20.0),), coughs_s=(30.0,))
    forward = levels(config, 5, TIMES[::50])
    backward = levels(config, 5, TIMES[::50][::-1])[::-1]
    np.testing.assert_array_equal(forward, backward)
    assert (levels(config, 6, TIMES[::50]) != forward).any()


def test_in_a_hold_the_liver_only_creeps() -> None:
    config = BreathingConfig(holds_s=((20.0, 35.0),), hold_drift_mm_s=0.2, drift_share=0.0)
    level = levels(config)
    held = (TIMES >= 20.0) & (TIMES <= 35.0)
    np.testing.assert_allclose(np.diff(level[held]) / 0.02 * config.si_mm, 0.2, atol=1e-9)
    assert level[held][0] == pytest.approx(0.0, abs=1e-12)
    assert level[TIMES > 40].max() > 0.8
    assert np.abs(np.diff(level)).max() / 0.02 < 2.5  # no jump into or out of the hold


def test_a_cough_is_fast_and_short() -> None:
    quiet, coughing = levels(BreathingConfig()), levels(BreathingConfig(coughs_s=(50.0,)))
    change = coughing - quiet
    assert change.max() > 0.5
    assert change.min() < -0.3
    assert np.abs(np.diff(change)).max() / 0.02 > 3 * np.abs(np.diff(quiet)).max() / 0.02
    assert np.abs(change[np.abs(TIMES - 50.0) > 2.0]).max() == 0.0


def test_levels_have_no_jumps() -> None:
    config = BreathingConfig(holds_s=((20.0, 35.0), (60.0, 70.0)), coughs_s=(90.0,))
    fine = np.arange(0.0, 100.0, 0.002)
    assert np.abs(np.diff(levels(config, 2, fine), 2)).max() < 2e-3


def test_smooth_has_flat_ends() -> None:
    assert [smooth(u) for u in (-1.0, 0.0, 0.5, 1.0, 2.0)] == [0.0, 0.0, 0.5, 1.0, 1.0]
    assert smooth(1e-3) < 1e-7


@pytest.mark.parametrize(
    "values",
    [
        {"si_mm": 60.0},
        {"period_s": 0.0},
        {"ap_share": math.nan},
        {"holds_s": ((5.0, 5.0),)},
        {"holds_s": ((5.0, math.inf),)},
    ],
)
def test_what_no_patient_does_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        BreathingConfig(**values)  # type: ignore[arg-type]
