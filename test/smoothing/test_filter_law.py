# SPDX-License-Identifier: Apache-2.0
"""Order does not matter, jumps need witnesses, limits hold."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from usreg.config import from_mapping
from usreg.data.types import Affine, Estimate, Rigid
from usreg.errors import ConfigError, GeometryError, LostError, ShapeError, TimeError
from usreg.geometry import se3
from usreg.smoothing import FilterConfig, NoSmoothing, PoseFilter
from usreg.smoothing.state import difference

SMOOTHERS = [
    PoseFilter,
    lambda: PoseFilter(FilterConfig(model="constant_velocity")),
    lambda: PoseFilter(FilterConfig(model="breathing")),
    NoSmoothing,
]


def twists(room, count: int, generator, outlier: int = -1):
    sigma = room.covariance(0.5, 0.005).diagonal().sqrt()
    found = torch.randn(count, 6, generator=generator, dtype=torch.float64) * sigma
    if outlier >= 0:
        found[outlier, 0] = 30.0
    return found


@pytest.mark.parametrize("make", SMOOTHERS)
@pytest.mark.parametrize("order", [(0, 2, 1, 3, 4, 5), (5, 4, 3, 2, 1, 0), (3, 0, 5, 1, 4, 2)])
def test_late_estimates_give_the_same_bits_as_estimates_in_order(room, generator, make, order):
    noise = twists(room, 6, generator, outlier=2)
    in_order, shuffled = room.begin(make()), room.begin(make())
    for k in range(6):
        in_order.update(0.1 * (k + 1), room.estimate(room.moved(noise[k])))
    for k in order:
        shuffled.update(0.1 * (k + 1), room.estimate(room.moved(noise[k])))
    a, b = in_order.predict(0.7), shuffled.predict(0.7)
    assert torch.equal(a.world_T_ct, b.world_T_ct) and torch.equal(a.covariance, b.covariance)
    assert torch.equal(in_order.lagged(0.25).world_T_ct, shuffled.lagged(0.25).world_T_ct)


def test_a_late_estimate_counts_at_its_own_stamp(room):
    smoother = room.begin(PoseFilter(FilterConfig(model="constant_velocity", max_sigma_mm=50)))
    rate = torch.tensor([10.0, 0, 0, 0, 0, 0], dtype=torch.float64)
    for k in (1, 2, 3, 5, 6, 8, 9, 7, 4):
        assert smoother.update(0.1 * k, room.estimate(room.moved(0.1 * k * rate), mm=0.1, rad=0.001)).accepted
    assert room.error(smoother.predict(0.9), room.moved(0.9 * rate))[:3].norm() < 0.2


def test_the_gate_refuses_an_outlier_of_30_mm(room):
    smoother = room.begin(PoseFilter())
    for k in range(1, 5):
        smoother.update(0.1 * k, room.estimate())
    before = smoother.predict(0.5)
    result = smoother.update(0.5, room.estimate(room.moved([30, 0, 0, 0, 0, 0])))
    assert not result.accepted and "gated out" in result.reason and result.nis > 100
    assert torch.equal(smoother.predict(0.5).world_T_ct, before.world_T_ct)
    assert smoother.predict(0.5).age_s == pytest.approx(0.1)


def test_a_jump_re_initialises_after_five_estimates_that_agree(room):
    smoother = room.begin(PoseFilter(FilterConfig(max_prediction_s=1.0)))
    smoother.update(0.1, room.estimate())
    there = room.moved([30, 0, 0, 0, 0, 0.1])
    results = [smoother.update(0.1 * k, room.estimate(there)) for k in range(2, 7)]
    assert [r.accepted for r in results] == [False] * 4 + [True]
    assert "re-initialised" in results[-1].reason
    torch.testing.assert_close(smoother.predict(0.65).world_T_ct, there)


def test_outliers_that_disagree_or_lie_apart_never_re_initialise(room):
    smoother = room.begin(PoseFilter(FilterConfig(jump_count=3)))
    for k in range(1, 12):
        side = 30.0 if k % 2 else -30.0
        assert not smoother.update(0.1 * k, room.estimate(room.moved([side, 0, 0, 0, 0, 0]))).accepted
    for k in range(12):
        assert not smoother.update(2.0 + 0.6 * k, room.estimate(room.moved([60, 0, 0, 0, 0, 0]))).accepted


def test_an_estimate_inside_the_gate_ends_a_run_of_outliers(room):
    smoother = room.begin(PoseFilter(FilterConfig(jump_count=3)))
    there = room.estimate(room.moved([30, 0, 0, 0, 0, 0]))
    for k in range(1, 20):
        result = smoother.update(0.1 * k, room.estimate() if k % 3 == 0 else there)
        assert result.accepted == (k % 3 == 0)


def test_jump_count_zero_never_re_initialises(room):
    smoother = room.begin(PoseFilter(FilterConfig(jump_count=0)))
    there = room.estimate(room.moved([0, 60, 0, 0, 0, 0]))
    assert not any(smoother.update(0.1 * k, there).accepted for k in range(1, 30))


def test_lost_after_the_limit_and_found_again_by_an_estimate(room):
    smoother = room.begin(PoseFilter())
    smoother.update(0.1, room.estimate())
    assert smoother.predict(0.4).age_s == pytest.approx(0.3) and smoother.status == "TRACKING"
    with pytest.raises(LostError, match="0.310 s old, the limit is 0.3 s"):
        smoother.predict(0.41)
    assert smoother.status == "LOST"
    start = smoother.search_start(2.1)
    assert start.covariance[0, 0] > 2**2 * 2.0 - 1 and start.age_s == pytest.approx(2.0)
    assert smoother.update(2.1, room.estimate()).accepted and smoother.status == "TRACKING"


def test_after_a_loss_one_estimate_is_not_enough_where_more_are_asked_for(room):
    smoother = room.begin(PoseFilter(FilterConfig(regain_count=3)))
    smoother.update(0.1, room.estimate())
    wrong = room.estimate(room.moved([0, 15, 0, 0, 0, 0]))
    results = [smoother.update(*pair) for pair in ((2.0, wrong), (2.1, room.estimate()), (2.2, room.estimate()))]
    assert [r.accepted for r in results] == [False] * 3 and "must agree" in results[-1].reason
    with pytest.raises(LostError):
        smoother.predict(2.2)
    assert "found again" in smoother.update(2.3, room.estimate()).reason
    torch.testing.assert_close(smoother.predict(2.35).world_T_ct, room.world_T_ct)


def test_lost_when_the_covariance_is_beyond_the_limit(room):
    smoother = room.begin(PoseFilter(), mm=6.0)
    with pytest.raises(LostError, match="uncertain by 6.0"):
        smoother.predict(0.0)
    assert smoother.status == "LOST"
    smoother.update(0.1, room.estimate())
    assert smoother.predict(0.1) and smoother.status == "TRACKING"
    with pytest.raises(LostError, match="rad"):
        room.begin(PoseFilter(), mm=1.0, rad=0.2).predict(0.0)


def test_a_search_start_far_ahead_does_not_run_away_with_the_velocity(room):
    smoother = room.begin(PoseFilter(FilterConfig(model="constant_velocity", max_sigma_mm=50)))
    rate = torch.tensor([10.0, 0, 0, 0, 0, 0], dtype=torch.float64)
    for k in range(1, 20):
        smoother.update(0.1 * k, room.estimate(room.moved(0.1 * k * rate), mm=0.1, rad=0.001))
    gone = -room.error(smoother.search_start(10.0), room.moved(1.9 * rate))[0]
    assert 2.0 < gone < 4.0  # 0.3 s at 10 mm/s, not 8.1 s


def test_before_initialize_it_says_what_to_do(room):
    for make in SMOOTHERS:
        smoother = make()
        assert smoother.status == "UNINITIALISED" and math.isnan(smoother.newest_s)
        assert "initialize" in smoother.update(0.0, room.estimate()).reason
        for ask in (smoother.predict, smoother.lagged, smoother.search_start):
            with pytest.raises(LostError, match="initialize"):
                ask(0.0)


def test_reset_forgets_everything(room):
    smoother = room.begin(PoseFilter())
    smoother.update(5.0, room.estimate())
    smoother.reset()
    assert smoother.status == "UNINITIALISED"
    room.begin(smoother, stamp_s=1.0)
    assert smoother.update(1.1, room.estimate()).accepted


def test_refused_estimates_change_nothing(room):
    smoother = room.begin(PoseFilter())
    for k in range(1, 30):
        smoother.update(0.1 * k, room.estimate())
    before = smoother.predict(2.9).world_T_ct
    nan = torch.full((4, 4), math.nan, dtype=torch.float64)
    refused = {
        "score 0.1": smoother.update(3.0, room.estimate(accepted=False)),
        "limit is 1.0 s": smoother.update(1.0, room.estimate()),
        "come before": smoother.update(0.1 * 29, room.estimate()),
        "stamp is nan": smoother.update(math.nan, room.estimate()),
        "pivot": smoother.update(3.0, replace(room.estimate(), pivot=nan[0, :3])),
        "NaN": smoother.update(3.0, replace(room.estimate(), transform=Affine(nan, nan))),
    }
    for text, result in refused.items():
        assert not result.accepted and text in result.reason
    assert torch.equal(smoother.predict(2.9).world_T_ct, before)


def test_history_is_bounded_and_older_questions_are_refused(room):
    smoother = room.begin(PoseFilter(FilterConfig(history=8, max_late_s=60, lag_s=0.2)))
    for k in range(1, 40):
        smoother.update(0.1 * k, room.estimate())
    assert "history" in smoother.update(3.05, room.estimate()).reason
    for ask in (smoother.lagged, smoother.predict):
        with pytest.raises(LostError, match="history"):
            ask(2.0)
    assert smoother.lagged(3.7).age_s == pytest.approx(-0.2)


def test_lagged_does_not_look_through_a_jump(room):
    smoother = room.begin(PoseFilter(FilterConfig(jump_count=2, lag_s=1.0, max_prediction_s=0.5)))
    for k in range(1, 4):
        smoother.update(0.1 * k, room.estimate())
    there = room.moved([40, 0, 0, 0, 0, 0])
    for k in range(4, 9):
        smoother.update(0.1 * k, room.estimate(there))
    torch.testing.assert_close(smoother.lagged(0.3).world_T_ct, room.world_T_ct)
    torch.testing.assert_close(smoother.lagged(0.6).world_T_ct, there)


@pytest.mark.parametrize("stamp", [math.nan, math.inf])
def test_initialize_and_predict_refuse_what_is_not_finite(room, stamp):
    smoother = room.begin(PoseFilter())
    with pytest.raises(TimeError):
        smoother.predict(stamp)
    with pytest.raises(TimeError):
        smoother.initialize(stamp, room.world_T_ct, room.covariance(1, 0.1), room.pivot(room.world_T_ct))
    with pytest.raises(GeometryError):
        smoother.initialize(0.0, room.world_T_ct * math.nan, room.covariance(1, 0.1), room.pivot(room.world_T_ct))
    with pytest.raises(ShapeError):
        smoother.initialize(0.0, room.world_T_ct, torch.eye(3).double(), room.pivot(room.world_T_ct))
    with pytest.raises(GeometryError):
        smoother.initialize(0.0, room.world_T_ct, room.covariance(1, 0.1), torch.full((3,), math.nan))


@pytest.mark.parametrize(
    "bad",
    [{"model": "brownian"}, {"jump_count": 1}, {"gate_probability": 1.0}, {"walk_mm": [1, 2]}, {"walk_rad": [1, 2, -3]},
     {"history": 1}, {"max_prediction_s": math.nan}, {"max_age": 1}],
)  # fmt: skip
def test_configuration_is_checked(bad):
    with pytest.raises(ConfigError):
        from_mapping(FilterConfig, bad)


@settings(max_examples=25)
@given(st.permutations(range(5)), st.lists(st.floats(-2, 2), min_size=30, max_size=30))
def test_any_order_any_values_same_state_and_a_proper_covariance(order, numbers):
    centre = torch.tensor([10.0, 20.0, 30.0], dtype=torch.float64)
    eye = torch.eye(4, dtype=torch.float64)
    scale = torch.tensor([1, 1, 1, 0.05, 0.05, 0.05], dtype=torch.float64)
    noise = torch.tensor(numbers, dtype=torch.float64).reshape(5, 6) * scale
    filters = [PoseFilter(FilterConfig(jump_count=2)) for _ in range(2)]
    for smoother, ranks in zip(filters, (range(5), order), strict=True):
        smoother.initialize(0.0, eye, torch.diag(scale**2), centre)
        for k in ranks:
            pose = se3.left_at_pivot(eye, noise[k], centre)
            estimate = Estimate(Rigid(pose), torch.diag(scale**2) * 0.04, centre + noise[k, :3], accepted=True)
            smoother.update(0.1 * (k + 1), estimate)
    a, b = (f.search_start(0.6) for f in filters)
    assert torch.equal(a.world_T_ct, b.world_T_ct) and torch.equal(a.covariance, b.covariance)
    assert torch.linalg.eigvalsh(a.covariance)[0] > 0
    se3.check_rigid(a.world_T_ct, "pose", 1e-9)


def test_difference_equals_the_error_at_the_pivot(room, generator):
    for _ in range(20):
        twist = torch.randn(6, generator=generator, dtype=torch.float64) * torch.tensor([20, 20, 20, 0.5, 0.5, 0.5])
        other, pivot = room.moved(twist), room.pivot(room.world_T_ct)
        found = difference(room.world_T_ct, other, pivot)
        torch.testing.assert_close(found, twist)
        torch.testing.assert_close(found, se3.error_at_pivot(room.world_T_ct, other, pivot))
