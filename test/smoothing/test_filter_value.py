# SPDX-License-Identifier: Apache-2.0
"""The filter against hand calculation, against simulation, and on moving volumes."""

import math

import pytest
import torch
from scipy.stats import chi2

from usreg.geometry import se3
from usreg.smoothing import FilterConfig, NoSmoothing, PoseFilter

REST = FilterConfig(walk_mm=(0, 0, 0), walk_rad=(0, 0, 0), floor_mm=0, floor_rad=0)


def test_covariance_of_a_volume_at_rest_shrinks_as_the_scalar_kalman_filter(room):
    smoother = room.begin(PoseFilter(REST), mm=3.0, rad=0.05)
    for count in range(1, 8):
        smoother.update(0.1 * count, room.estimate(mm=0.5, rad=0.005))
        variance = smoother.predict(0.1 * count).covariance.diagonal()
        expected = torch.tensor([1 / (1 / 9 + count / 0.25)] * 3 + [1 / (1 / 0.0025 + count / 0.000025)] * 3)
        torch.testing.assert_close(variance, expected.double(), rtol=1e-6, atol=0)


def test_walk_adds_its_variance_with_time(room):
    smoother = room.begin(PoseFilter(FilterConfig(walk_mm=(2, 1, 0), walk_rad=(0.01, 0.02, 0.03))), mm=1.0, rad=0.01)
    first, later = (smoother.predict(s).covariance.diagonal() for s in (0.0, 0.25))
    expected = torch.tensor([4, 1, 0, 1e-4, 4e-4, 9e-4], dtype=torch.float64) * 0.25
    torch.testing.assert_close(later - first, expected)


def test_static_truth_is_found_from_a_wrong_start(room, generator):
    smoother = room.begin(PoseFilter(REST), room.moved([4, -3, 2, 0.05, -0.04, 0.03]), mm=5.0, rad=0.06)
    sigma = room.covariance(0.5, 0.005).diagonal().sqrt()
    for count in range(1, 200):
        noise = torch.randn(6, generator=generator, dtype=torch.float64) * sigma
        smoother.update(0.1 * count, room.estimate(room.moved(noise)))
    error = room.error(smoother.predict(19.9)).abs()
    assert (error < 4 * sigma / math.sqrt(199)).all()


@pytest.mark.parametrize("model", ["random_walk", "constant_velocity"])
def test_errors_are_as_large_as_the_covariance_says(room, generator, model):
    """NEES of 40 runs that draw start, motion and noise from the model itself, against its chi-square interval."""
    limits = {"max_sigma_mm": 50, "max_sigma_rad": 1, "gate_probability": 1 - 1e-9}
    config = FilterConfig(model=model, floor_mm=0, floor_rad=0, **limits)
    unit = lambda: torch.randn(6, generator=generator, dtype=torch.float64)  # noqa: E731
    sigma = room.covariance(0.5, 0.005).diagonal().sqrt()
    shake = torch.tensor([*config.acceleration_mm, *config.acceleration_rad], dtype=torch.float64)
    walk = torch.tensor([*config.walk_mm, *config.walk_rad], dtype=torch.float64)
    total, runs, dt = 0.0, 40, 0.1
    for _ in range(runs):
        truth = room.moved(unit() * room.covariance(2, 0.02).diagonal().sqrt())
        smoother = room.begin(PoseFilter(config), mm=2.0, rad=0.02)
        rate = unit() * torch.tensor([config.velocity_mm_s] * 3 + [config.velocity_rad_s] * 3, dtype=torch.float64)
        rate = rate * (model == "constant_velocity")
        for count in range(1, 9):
            kick = unit() * shake * (model == "constant_velocity")
            bend = unit() * shake * (model == "constant_velocity") / math.sqrt(12)
            step = rate * dt + kick * dt**1.5 / 2 + bend * dt**1.5 + unit() * walk * math.sqrt(dt)
            truth, rate = room.moved(step, truth), rate + kick * math.sqrt(dt)
            smoother.update(dt * count, room.estimate(room.moved(unit() * sigma, truth)))
        found = smoother.predict(0.8)
        error = se3.error_at_pivot(found.world_T_ct, truth, found.pivot)
        total += float(error @ torch.linalg.solve(found.covariance, error))
    low, high = chi2.ppf([0.005, 0.995], 6 * runs)
    assert low < total < high


def test_constant_velocity_follows_a_moving_volume(room):
    config = FilterConfig(model="constant_velocity", max_sigma_mm=50)
    smoother = room.begin(PoseFilter(config))
    rate = torch.tensor([8.0, -3.0, 5.0, 0.02, 0.0, -0.03], dtype=torch.float64)
    for count in range(1, 40):
        smoother.update(0.1 * count, room.estimate(room.moved(0.1 * count * rate), mm=0.2, rad=0.002))
    error = room.error(smoother.predict(4.2), room.moved(4.2 * rate))
    assert error[:3].norm() < 0.3 and error[3:].norm() < 0.003


def test_random_walk_does_not_extrapolate(room):
    smoother = room.begin(PoseFilter())
    smoother.update(0.1, room.estimate(room.moved([1, 0, 0, 0, 0, 0])))
    assert torch.equal(smoother.predict(0.1).world_T_ct, smoother.predict(0.35).world_T_ct)
    assert smoother.predict(0.35).age_s == pytest.approx(0.25)


def test_lagged_output_is_closer_than_the_live_one(room, generator):
    smoother = room.begin(PoseFilter(FilterConfig(walk_mm=(1, 1, 1), floor_mm=0)))
    live, lagged, sigma = [], [], room.covariance(0.8, 0.005).diagonal().sqrt()
    for count in range(1, 80):
        noise = torch.randn(6, generator=generator, dtype=torch.float64) * sigma
        smoother.update(0.1 * count, room.estimate(room.moved(noise), mm=0.8))
        if count > 20 and count % 2:
            live.append(room.error(smoother.predict(0.1 * count))[:3].norm())
            found = smoother.lagged(0.1 * count - 1.0)
            lagged.append(room.error(found)[:3].norm())
            assert found.age_s == pytest.approx(-1.0)
    assert torch.stack(lagged).mean() < 0.8 * torch.stack(live).mean()


@pytest.mark.parametrize("model", ["random_walk", "constant_velocity"])
def test_lagged_output_equals_least_squares_over_all_estimates(room, model):
    """Pure translation is a linear problem: the smoother must give the same as one big weighted least squares."""
    config = FilterConfig(model=model, walk_mm=(1, 1, 1), floor_mm=0, floor_rad=0, max_sigma_mm=50, lag_s=10)
    smoother = room.begin(PoseFilter(config), mm=2.0, rad=1e-4)
    values, dt = [0.0, 0.9, 0.4, 1.5, 1.1], 0.1
    for count, x in enumerate(values[1:], 1):
        smoother.update(dt * count, room.estimate(room.moved([x, 0, 0, 0, 0, 0]), mm=0.5, rad=1e-4))
    n, moving = len(values), model == "constant_velocity"
    size = 2 if moving else 1
    f = torch.tensor([[1, dt], [0, 1]])[:size, :size].double()
    s = config.acceleration_mm[0] ** 2
    q = torch.tensor([[dt + s * dt**3 / 3, s * dt**2 / 2], [s * dt**2 / 2, s * dt]])[:size, :size].double()
    if not moving:
        q = torch.tensor([[dt]], dtype=torch.float64)
    information = torch.zeros(n * size, n * size, dtype=torch.float64)
    right = torch.zeros(n * size, dtype=torch.float64)
    information[0, 0] += 1 / 4
    if moving:
        information[1, 1] += 1 / config.velocity_mm_s**2
    for k in range(1, n):
        link = torch.zeros(size, n * size, dtype=torch.float64)
        link[:, (k - 1) * size : k * size], link[:, k * size : (k + 1) * size] = -f, torch.eye(size)
        information += link.T @ torch.linalg.inv(q) @ link
        information[k * size, k * size] += 1 / 0.25
        right[k * size] += values[k] / 0.25
    solution = torch.linalg.solve(information, right)[::size]
    variance = torch.linalg.inv(information).diagonal()[::size]
    for k in range(n):
        found = smoother.lagged(dt * k)
        assert -room.error(found)[0].item() == pytest.approx(solution[k].item(), abs=1e-6)
        assert found.covariance[0, 0].item() == pytest.approx(variance[k].item(), rel=1e-6)


def test_floor_keeps_the_covariance_from_collapsing(room):
    config = FilterConfig(floor_mm=0.5, walk_mm=(0, 0, 0), walk_rad=(0, 0, 0))
    smoother = room.begin(PoseFilter(config))
    smoother.update(0.1, room.estimate(mm=1e-4, rad=1e-6))
    assert smoother.predict(0.1).covariance[0, 0] > 0.24


def test_no_smoothing_holds_the_newest_estimate_for_a_while(room):
    smoother = room.begin(NoSmoothing())
    far = room.moved([30, 0, 0, 0.2, 0, 0])
    assert smoother.update(0.1, room.estimate(far)).accepted
    found = smoother.predict(0.3)
    assert torch.equal(found.world_T_ct, far) and found.age_s == pytest.approx(0.2)
    torch.testing.assert_close(smoother.predict(0.1).covariance, room.covariance(0.5, 0.005))
    torch.testing.assert_close(smoother.lagged(0.1).world_T_ct, far)
