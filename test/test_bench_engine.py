# SPDX-License-Identifier: Apache-2.0
"""Figures of the engine's benchmark: what counts as success, as worse, as a capture range, as near."""

from __future__ import annotations

import importlib
import math
from pathlib import Path
from types import ModuleType

import pytest
import torch

from usreg.data.types import Estimate, Frame, Problem, TrackedFrame, Volume
from usreg.errors import ConfigError, NoOverlapError
from usreg.evaluation import PoseError
from usreg.geometry import se3
from usreg.geometry.grid import VoxelGrid
from usreg.geometry.plane import PlaneGrid
from usreg.geometry.sector import full_rectangle
from usreg.study import Target


@pytest.fixture
def load(top: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(top / "benchmarks"))

    def module(name: str) -> ModuleType:
        return importlib.import_module(name)

    return module


def error(tre: float) -> PoseError:
    return PoseError(tre, 0.8 * tre, 0.5 * tre, 0.3 * tre)


def test_figures_count_every_start_and_sort_them_by_how_far_off_they_began(load) -> None:
    attempts = load("engine_attempts")
    found = [attempts.Attempt("a", error(before), error(after), accepted, 0.1, 0.5)
             for before, after, accepted in ((4, 1, True), (4, 6, False), (9, 2, True), (40, 50, True))]  # fmt: skip
    f = attempts.figures(found)
    assert f["count"] == 4 and f["success"] == 0.5 and f["worse"] == 0.5 and f["accepted"] == 0.75
    assert f["initial"]["tre_mm"] == pytest.approx(14.25) and f["final"]["translation_mm"] == pytest.approx(0.8 * 14.75)
    assert f["worst_tre_mm"] == 50 and f["accepted_mean"]["tre_mm"] == pytest.approx(53 / 3) and f["no_result"] == 0
    assert [(b["from_mm"], b["count"], b["success"]) for b in f["bins"]] == [(2.5, 2, 0.5), (7.5, 1, 1.0), (30, 1, 0.0)]
    assert f["bins"][-1]["to_mm"] is None
    assert attempts.figures(found, 1.5)["success"] == 0.25
    empty = attempts.figures([])
    assert empty["count"] == 0 and math.isnan(empty["success"])


def test_a_start_without_a_result_ends_where_it_began(load) -> None:
    attempts = load("engine_attempts")
    geometry = full_rectangle(PlaneGrid(6, 6, ((1.0, 0.0), (0.0, 1.0))))
    frame = TrackedFrame(Frame(torch.zeros(6, 6, dtype=torch.uint8), geometry, 0.0), se3.identity())
    volume = Volume(torch.zeros(1, 4, 4, 4), VoxelGrid((4, 4, 4), (1.0, 1.0, 1.0)))

    def refuses(problem: Problem) -> Estimate:
        raise NoOverlapError("nothing there")

    twist = torch.tensor([3.0, 4.0, 0.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    one = attempts.attempt("x", Target((frame,), se3.identity()), volume, refuses, twist)
    assert one.initial.tre_mm == pytest.approx(5.0) and one.final == one.initial
    assert not one.worse and not one.accepted and one.reason == "nothing there"
    assert attempts.figures([one])["no_result"] == 1.0


def test_draws_in_all_directions_stay_within_their_limits(load) -> None:
    attempts = load("engine_attempts")
    twists = attempts.uniform_directions(15.0, 10.0, 2000, seed=4)
    assert torch.allclose(twists.var(0), attempts.direction_variance(15.0, 10.0), rtol=0.1)
    length, angle = twists[:, :3].norm(dim=-1), twists[:, 3:].norm(dim=-1)
    assert length.max() <= 15 and angle.max() <= math.radians(10) + 1e-12
    assert length.mean() == pytest.approx(7.5, rel=0.05) and angle.mean() == pytest.approx(math.radians(5), rel=0.05)


def test_a_capture_range_ends_at_the_first_size_that_fails(load) -> None:
    capture = load("engine_capture")
    sizes = [2.0, 4.0, 8.0, 16.0]
    assert capture.range_of(sizes, [1.0, 0.9, 0.89, 1.0]) == 4.0
    assert capture.range_of(sizes, [0.8, 1.0, 1.0, 1.0]) == 0.0
    assert capture.range_of(sizes, [1.0] * 4) == 16.0
    assert capture.range_of(sizes, [1.0, math.nan, 1.0, 1.0]) == 2.0


def test_a_hypothesis_is_near_when_place_and_orientation_are(load) -> None:
    search = load("engine_global").Search
    assert search("a", ((20.0, 3.0), (3.0, 20.0), (15.0, 15.0)), 1.0).rank == 3
    assert search("a", ((16.0, 1.0),), 1.0).rank == 0 and search("a", (), 1.0).rank == 0


def test_checks_pass_on_their_side_and_never_without_a_figure(load) -> None:
    check = load("engine_tables").Check
    assert check("a", 1.0, 1.0).passed and not check("a", 1.1, 1.0).passed
    assert check("a", 1.1, 1.0, at_least=True).passed and not check("a", 0.9, 1.0, at_least=True).passed
    assert not check("a", math.nan, 1.0).passed and not check("a", math.nan, 1.0, at_least=True).passed


def test_seeds_are_a_slice(load) -> None:
    seeds_of = load("engine_cases").seeds_of
    assert seeds_of("3:6") == range(3, 6)
    for text in ("3", "6:3", "a:b", "-1:4", "3:"):
        with pytest.raises(ConfigError, match="A:B"):
            seeds_of(text)
