# SPDX-License-Identifier: Apache-2.0
"""Optimisers on analytic objectives: they arrive, keep budgets and overlap, repeat, and never end worse."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from usreg.errors import ConfigError, GeometryError, ShapeError
from usreg.geometry import se3
from usreg.registration.levenberg import move
from usreg.registration.optimisers import (
    OPTIMISERS,
    Budget,
    Found,
    HalvingConfig,
    Looked,
    OptimiserConfig,
    Terms,
    build_optimiser,
    successive_halving,
)
from usreg.registration.optimisers.agreement import Chart

NAMES = sorted(OPTIMISERS)
ENOUGH = Budget(600)
TARGET = se3.exp(torch.tensor([3.0, -2.0, 1.0, 0.1, -0.05, 0.2], dtype=torch.float64))
POINTS = 30.0 * torch.tensor([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 0.5]], dtype=torch.float64)
TERMS = Terms(radius_mm=30.0, min_overlap=0.5, tolerance_mm=0.01, step_mm=2.0, reach_mm=12.0)


class Hill:
    """exp(-(rms distance of points)^2 / 2 width^2); overlap falls with x beyond `edge_mm`."""

    def __init__(self, target: torch.Tensor = TARGET, width_mm: float = 8.0, edge_mm: float = math.inf) -> None:
        self.goal, self.width, self.edge, self.calls = se3.transform_points(target, POINTS), width_mm, edge_mm, 0

    def score(self, poses: torch.Tensor) -> torch.Tensor:
        away = se3.transform_points(poses, POINTS) - self.goal
        return torch.exp(-0.5 * (away**2).sum(-1).mean(-1) / self.width**2)

    def __call__(self, poses: torch.Tensor, slopes: bool) -> Looked:
        self.calls += 1
        twist = torch.zeros(len(poses), 6, dtype=torch.float64, requires_grad=True)
        score = self.score(move(poses, twist))
        gradient = torch.autograd.grad(score.sum(), twist)[0] if slopes else torch.zeros_like(twist.detach())
        overlap = 1.0 - 0.2 * (poses[:, 0, 3] - self.edge).clamp_min(0.0)
        return Looked(score.detach(), overlap, gradient)


class Flat(Hill):
    def score(self, poses: torch.Tensor) -> torch.Tensor:
        return 0.0 * poses[:, 0, 3]


def starts(count: int = 3, size: float = 1.0, seed: int = 0) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    twist = size * torch.randn(count, 6, dtype=torch.float64, generator=g) * torch.tensor([2.0] * 3 + [0.05] * 3)
    return move(se3.identity().expand(count, 4, 4), twist)


def away_mm(poses: torch.Tensor) -> torch.Tensor:
    return (se3.transform_points(poses, POINTS) - se3.transform_points(TARGET, POINTS)).norm(dim=-1).amax(-1)


def run(name: str, hill: Hill, poses: torch.Tensor, terms: Terms = TERMS, budget: Budget = ENOUGH) -> Found:
    return build_optimiser(OptimiserConfig(name))(hill, poses, terms, budget)


@pytest.mark.parametrize("name", NAMES)
def test_arrives_from_several_starts(name: str) -> None:
    found = run(name, Hill(), starts())
    assert away_mm(starts()).min() > 2.0 > 0.1 > away_mm(found.poses).max()
    assert torch.allclose(found.score, Hill().score(found.poses)) and (found.evaluations < 600).all()


@pytest.mark.parametrize("name", NAMES)
def test_repeats_to_the_bit_and_leaves_what_is_given(name: str) -> None:
    given = starts(2)
    before, state = given.clone(), np.random.get_state()[1].copy()  # type: ignore[index]
    a, b = (run(name, Hill(), given, budget=Budget(25)) for _ in range(2))
    alone = run(name, Hill(), given[:1], budget=Budget(25))
    assert torch.equal(a.poses, b.poses) and torch.equal(given, before)
    assert torch.equal(a.poses[:1], alone.poses)
    assert np.array_equal(np.random.get_state()[1], state)  # type: ignore[index]


@pytest.mark.parametrize("name", NAMES)
def test_the_budget_of_evaluations_is_kept(name: str) -> None:
    for budget in (1, 5, 23):
        found = run(name, Hill(), starts(), budget=Budget(budget))
        assert (found.evaluations <= budget).all() and (found.evaluations > budget // 2 - 9).all()
        assert (found.score >= Hill().score(starts())).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_budget_of_time_is_kept(name: str) -> None:
    hill = Hill()
    # every look takes a second by this clock
    found = run(name, hill, starts(), budget=Budget(600, seconds=5.0, clock=lambda: float(hill.calls)))
    assert hill.calls == 5
    assert (found.score >= Hill().score(starts())).all() and torch.isfinite(found.poses).all()


@pytest.mark.parametrize("name", NAMES)
def test_steps_that_lose_the_overlap_are_not_taken(name: str) -> None:
    hill = Hill(edge_mm=-1.0)  # half of the overlap is lost at x = 1.5, the target lies at 3
    found = run(name, hill, se3.identity()[None])
    assert found.overlap[0] >= 0.5 and 0.5 < found.poses[0, 0, 3] <= 1.5 + 1e-9
    little = run(name, hill, se3.translation(torch.tensor([[2.5, 0.0, 0.0]], dtype=torch.float64)))
    assert little.overlap[0] >= 0.3 - 1e-9, "a start with less keeps at least what it has"


@pytest.mark.parametrize("name", NAMES)
def test_a_flat_objective_leaves_the_start(name: str) -> None:
    found = run(name, Flat(), starts(), budget=Budget(60))
    assert torch.equal(found.poses, starts()) and (found.score == 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_bounds_are_kept(name: str) -> None:
    found = run(name, Hill(width_mm=20.0), se3.identity()[None], replace(TERMS, step_mm=0.5, reach_mm=1.5))
    assert found.poses[0, :3, 3].abs().max() <= 1.5 + 1e-9 and found.poses[0, 0, 3] > 1.4


@pytest.mark.parametrize("name", NAMES)
def test_starts_that_are_no_poses_are_refused(name: str) -> None:
    with pytest.raises(GeometryError, match="NaN"):
        run(name, Hill(), starts() * math.nan)
    with pytest.raises(ShapeError, match="starts must be"):
        run(name, Hill(), se3.identity())


def test_coordinates_pull_gradients_back() -> None:
    poses, hill, radius = starts(4, seed=3), Hill(), 25.0
    chart, rows = Chart(poses, radius), torch.arange(4)
    u = 6.0 * torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    pulled = chart.pull(u, hill(chart.poses(u, rows), True).gradient)
    for k in range(6):
        h = torch.zeros(6, dtype=torch.float64)
        h[k] = 1e-5
        slope = (hill.score(chart.poses(u + h, rows)) - hill.score(chart.poses(u - h, rows))) / 2e-5
        assert torch.allclose(pulled[:, k], slope, atol=1e-8)


@pytest.mark.parametrize("name", NAMES)
def test_halving_finds_the_best_of_many_starts_at_less_than_the_cost_of_all(name: str) -> None:
    many = starts(16, size=2.5, seed=1)
    spent = []

    def climb(poses: torch.Tensor, evaluations: int) -> Found:
        found = run(name, Hill(width_mm=5.0), poses, budget=Budget(evaluations))
        spent.append(float(found.evaluations.sum()))
        return found

    config = HalvingConfig(evaluations=9, finish=2, last=300)
    best = successive_halving(climb, many, config)
    assert len(best.poses) == 2 and best.score[0] >= best.score[1]
    assert away_mm(best.poses[:1]).max() < 0.2
    assert spent[0] <= 144 and len(spent) == 4 and sum(spent[:3]) < 16 * 60


def test_halving_prefers_starts_that_see_enough() -> None:
    hill = Hill(edge_mm=-1.0)
    many = se3.translation(torch.tensor([[3.0, 0, 0], [0.5, 0, 0], [0.4, 0, 0], [0.3, 0, 0]], dtype=torch.float64))
    best = successive_halving(lambda p, n: run("lbfgs", hill, p, budget=Budget(n)), many, HalvingConfig(), 0.5)
    assert best.overlap[0] >= 0.5


def test_configurations_are_checked() -> None:
    for wrong in (
        lambda: OptimiserConfig("newton"),
        lambda: OptimiserConfig(seconds=-1.0),
        lambda: Budget(0),
        lambda: Terms(radius_mm=0.0),
        lambda: HalvingConfig(keep=1.0),
    ):
        with pytest.raises(ConfigError):
            wrong()
    assert OptimiserConfig("adam", evaluations=7).budget(lambda: 0.0).evaluations == 7
    assert OptimiserConfig().budget(lambda: 0.0).seconds == math.inf
    assert OptimiserConfig().terms(4.0, 30.0, 0.4, 0.1).step_mm == 2.0
