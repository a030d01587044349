# SPDX-License-Identifier: Apache-2.0
"""The breathing model on simulated livers: what it foretells, what it learns, and what it must not break."""

import math
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from scipy.stats import chi2

from usreg.config import from_mapping
from usreg.errors import ConfigError, LostError
from usreg.geometry import se3
from usreg.simulation.breathing import BreathingConfig
from usreg.simulation.liver import EstimateConfig, RigidLiver, estimates
from usreg.smoothing import FilterConfig, PoseFilter
from usreg.smoothing.motion.bank import BREATH, BankState

LIMITS = {"max_sigma_mm": 50.0, "max_sigma_rad": 1.0}
AHEAD_S = 0.15
WORLD_T_BED = se3.exp(torch.tensor([300.0, -120.0, 80.0, 0.4, -0.2, 0.9], dtype=torch.float64))
BREATHING = FilterConfig(model="breathing", history=400, **LIMITS)
WALK = FilterConfig(model="random_walk", **LIMITS)
NOISE = EstimateConfig(rate_hz=10.0, sigma_mm=0.7, sigma_rad=0.007)
HOLD = (16.0, 22.0)


class Run:
    """A filter over a liver; errors of its predictions in time."""

    def __init__(self, config: FilterConfig, breathing: BreathingConfig, seconds: float, seed: int = 3) -> None:
        self.liver = RigidLiver(breathing, seed, WORLD_T_BED)
        self.seen = list(estimates(self.liver, seconds, NOISE, np.random.default_rng(seed)))
        self.filter = PoseFilter(config)
        self.errors, self.nees, self.refused = [], [], 0
        stamp, first = self.seen[0]
        self.filter.initialize(stamp, first.world_T_ct, 9 * first.covariance, first.pivot)
        for stamp, estimate in self.seen[1:]:
            self.refused += not self.filter.update(stamp, estimate).accepted
            self._compare(stamp)

    def _compare(self, stamp: float) -> None:
        ahead = self.filter.predict(stamp + AHEAD_S)
        truth = self.liver.world_T_ct(ahead.stamp_s)
        off = (self.liver.centre(ahead.world_T_ct) - self.liver.centre(truth)).norm()
        twist = se3.error_at_pivot(ahead.world_T_ct, truth, ahead.pivot)
        self.errors.append((stamp, float(off)))
        self.nees.append(float(twist @ torch.linalg.solve(ahead.covariance, twist)) / 6)

    @property
    def state(self) -> BankState:
        return self.filter._history[-1].state

    def mean_mm(self, start_s: float, stop_s: float = math.inf) -> float:
        return float(np.mean([e for s, e in self.errors if start_s <= s < stop_s]))


@cache
def run(model: str, pattern: str) -> Run:
    patterns = {
        "irregular": (BreathingConfig(), 26.0),
        "hold": (BreathingConfig(holds_s=(HOLD,)), 30.0),
        "still": (BreathingConfig(si_mm=0.0, rotation_deg=0.0), 12.0),
    }
    return Run(BREATHING if model == "breathing" else WALK, *patterns[pattern])


def test_it_foretells_at_least_twice_as_well_as_random_walk():
    ours, walk = run("breathing", "irregular"), run("random_walk", "irregular")
    assert ours.mean_mm(10.0) < 0.5 * walk.mean_mm(10.0)
    assert ours.refused == 0


def test_its_covariance_fits_its_errors():
    assert 0.2 < np.mean(run("breathing", "irregular").nees[80:]) < 1.5
    assert 0.2 < np.mean(run("breathing", "hold").nees[80:]) < 1.5


def test_before_the_first_breath_is_over_nothing_is_learnt_and_afterwards_it_is():
    entries = run("breathing", "irregular").filter._history
    states = [e.state for e in Run(BREATHING, BreathingConfig(), 8.0).filter._history]
    known = [s.stamp_s for s in states if s.breaths.path is not None]
    assert 4.0 < known[0] < 6.5  # the second rise comes about a period after the first
    assert all(len(s.members) == BREATH for s in states if s.stamp_s < known[0])
    assert entries[-1].state.breaths.path.cycles >= 4 and len(entries[-1].state.members) == BREATH + 1


def test_the_breath_is_told_while_its_phase_is_known():
    followed, short = run("breathing", "irregular"), Run(BREATHING, BreathingConfig(), 3.0)
    newest = followed.filter.newest_s
    now, later = (followed.filter.breathing(newest + dt) for dt in (0.0, 0.1))
    assert now is not None and later is not None
    assert 0.0 <= now.phase_rad < 2 * math.pi and 3.0 < now.period_s < 5.5
    turned = (later.phase_rad - now.phase_rad) % (2 * math.pi)
    assert turned == pytest.approx(2 * math.pi * 0.1 / now.period_s, rel=0.05)
    centres = torch.stack([followed.liver.centre(followed.liver.world_T_ct(t)) for t in np.arange(12.0, 24.0, 0.1)])
    assert now.depth_mm == pytest.approx(float((centres - centres[0]).norm(dim=1).max()), rel=0.5)
    assert short.filter.breathing(short.filter.newest_s) is None
    assert run("random_walk", "hold").filter.breathing(29.0) is None
    assert PoseFilter(BREATHING).breathing(0.0) is None
    assert followed.filter.breathing(newest + 1.0) is None, "nothing is told of a pose that is lost"


def test_a_breath_hold_is_followed_at_least_as_well_as_by_random_walk_and_breathing_goes_on_after_it():
    ours, walk = run("breathing", "hold"), run("random_walk", "hold")
    assert ours.mean_mm(HOLD[0] + 0.5, HOLD[1]) < walk.mean_mm(HOLD[0] + 0.5, HOLD[1])
    assert ours.mean_mm(HOLD[1] + 2.0) < 0.6 * walk.mean_mm(HOLD[1] + 2.0)
    assert ours.refused <= 1


def test_the_first_cycle_after_a_hold_is_not_learnt_from():
    learnt = run("breathing", "hold").state.learnt
    assert 0.2 < learnt.rate_hz < 0.3  # 4 s; the breath with the hold in it would be one of 10 s


def test_a_volume_at_rest_teaches_nothing():
    found = run("breathing", "still")
    assert found.state.breaths.path is None and found.mean_mm(3.0) < 0.7


def test_the_learnt_path_is_the_livers_and_knows_that_breathing_out_takes_another_way():
    found = run("breathing", "irregular")
    path, liver = found.state.learnt, found.liver
    ways = path.at(np.linspace(0, 1, 200, endpoint=False))
    base = WORLD_T_BED[:3, :3].numpy()
    in_bed = ways[:, :3] @ base  # of the liver: x right, y back, z head
    deep = in_bed[np.abs(in_bed[:, 2]).argmax()]
    assert deep[2] == pytest.approx(-liver.config.si_mm, abs=2.5)
    half = 0.5 * deep[2]
    crossed = np.flatnonzero((in_bed[:, 2] < half) != (np.roll(in_bed[:, 2], 1) < half))
    down, up = in_bed[crossed[0]], in_bed[crossed[-1]]
    front_lag = liver.config.ap_share * liver.config.si_mm  # the way to the front comes later: less of it on the way in
    assert len(crossed) == 2 and 0.2 * front_lag < abs(down[1] - up[1]) < 0.9 * front_lag
    assert np.abs(ways[np.linalg.norm(ways, axis=1).argmin()]).max() < 0.5


def test_late_estimates_give_the_same_bits_with_a_learnt_path():
    source = run("breathing", "irregular")
    stamps = [s for s, _ in source.seen]
    late = PoseFilter(BREATHING)
    first = source.seen[0][1]
    late.initialize(stamps[0], first.world_T_ct, 9 * first.covariance, first.pivot)
    order = list(range(1, 101))
    for k in range(40, 96, 5):
        order[k : k + 4] = [order[k + 2], order[k], order[k + 3], order[k + 1]]
    for k in order:
        late.update(*source.seen[k])
    in_order = next(e.state for e in source.filter._history if e.state.stamp_s == stamps[100])
    found = late._history[-1].state
    assert found.breaths.path is not None and len(found.members) == BREATH + 1
    assert torch.equal(found.world_T_ct, in_order.world_T_ct) and torch.equal(found.covariance, in_order.covariance)
    assert found.weights == in_order.weights


def test_after_a_jump_the_path_is_forgotten_and_learnt_again():
    breaths = BreathingConfig(waveform="cos4", period_s=3.0)
    liver = RigidLiver(breaths, 0, WORLD_T_BED)
    moved = RigidLiver(breaths, 0, se3.exp(torch.tensor([0, 40.0, 0, 0, 0, 0.3], dtype=torch.float64)) @ WORLD_T_BED)
    smoother, known = PoseFilter(BREATHING), []
    begin = next(iter(estimates(liver, 1.0, NOISE, np.random.default_rng(0))))[1]
    smoother.initialize(-0.1, begin.world_T_ct, begin.covariance, begin.pivot)
    for part, body in enumerate((liver, moved)):
        for stamp, estimate in estimates(body, 8.0, NOISE, np.random.default_rng(part)):
            result = smoother.update(stamp + 9.0 * part, estimate)
            state = smoother._history[-1].state
            known.append((stamp + 9.0 * part, state.breaths.path is not None, result.reason))
    assert any("re-initialised" in reason for *_, reason in known)
    learnt = {stamp: there for stamp, there, _ in known}
    assert learnt[max(s for s in learnt if s < 8.5)]
    assert not learnt[max(s for s in learnt if s < 11.0)] and known[-1][1]


def test_a_search_after_the_pose_was_lost_covers_the_whole_breath():
    found = run("breathing", "irregular")
    stamp = found.filter.newest_s
    for ahead_s in (0.5, 1.5, 3.0, 4.5):
        start = found.filter.search_start(stamp + ahead_s)
        off = se3.error_at_pivot(start.world_T_ct, found.liver.world_T_ct(stamp + ahead_s), start.pivot)
        assert float(off @ torch.linalg.solve(start.covariance, off)) < chi2.ppf(0.999, 6)
        assert start.covariance[:3, :3].diagonal().sum().sqrt() < 12.0
    with pytest.raises(LostError):
        found.filter.predict(stamp + 0.5)


def test_the_breath_is_remembered_when_the_pose_is_found_again():
    source = run("breathing", "irregular")
    config = replace(BREATHING, regain_count=3)
    again = PoseFilter(config)
    first = source.seen[0][1]
    again.initialize(source.seen[0][0], first.world_T_ct, 9 * first.covariance, first.pivot)
    results = [(s, again.update(s, e)) for s, e in source.seen[1:] if s < 14.0 or s > 16.0]
    after = [r for s, r in results if s > 16.0]
    assert [r.accepted for r in after[:3]] == [False, False, True] and "found again: 3" in after[2].reason
    state = again._history[-1].state
    assert state.breaths.path is not None and len(state.members) == BREATH + 1


def test_lagged_output_is_closer_than_the_live_one():
    found = run("breathing", "irregular")
    lagged, live = [], []
    for entry in found.filter._history[-80:-20:3]:
        state = entry.state
        truth = found.liver.centre(found.liver.world_T_ct(state.stamp_s))
        live.append(float((found.liver.centre(state.world_T_ct) - truth).norm()))
        lagged.append(float((found.liver.centre(found.filter.lagged(state.stamp_s).world_T_ct) - truth).norm()))
    assert np.mean(lagged) < 0.9 * np.mean(live)


@pytest.mark.parametrize(
    "bad", [{"harmonics": 0}, {"min_period_s": 9.0, "max_period_s": 4.0}, {"jitter": -1.0}, {"breath": 1}]
)
def test_configuration_is_checked(bad):
    with pytest.raises(ConfigError):
        from_mapping(FilterConfig, {"model": "breathing", "breathing": bad})
