# SPDX-License-Identifier: Apache-2.0
"""A window of recent frames: which stay, and when they are forgotten."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from usreg.data.types import Estimate, Problem, TrackedFrame
from usreg.geometry import se3
from usreg.registration.registrar import Registrar
from usreg.registration.window import Window, WindowConfig, apart_mm


class Count:
    """A stage that notes which frames it was given."""

    def __init__(self) -> None:
        self.seen: list[list[float]] = []

    def __call__(self, problem: Problem, estimate: Estimate) -> Estimate:
        assert isinstance(problem.fixed, tuple)
        self.seen.append([f.frame.stamp_s for f in problem.fixed])
        return estimate

    def prepare(self, volume: Any) -> None:
        pass


def at(tracked: TrackedFrame, stamp_s: float, x_mm: float) -> TrackedFrame:
    shift = se3.translation(torch.tensor([x_mm, 0.0, 0.0], dtype=torch.float64))
    return replace(tracked, frame=replace(tracked.frame, stamp_s=stamp_s), world_T_image=shift @ tracked.world_T_image)


def test_frames_of_other_places_stay_and_old_ones_go(bench) -> None:  # type: ignore[no-untyped-def]
    stage, tracked = Count(), bench.frame()
    window = Window(Registrar([stage]), WindowConfig(frames=2, apart_mm=5.0, max_age_s=10.0))
    start = bench.start(tracked, (0.0,) * 3, (0.0,) * 3)
    for stamp_s, x_mm in ((0.0, 0.0), (1.0, 1.0), (2.0, 6.0), (3.0, 12.0), (4.0, 18.0), (13.5, 24.0)):
        window(bench.problem((at(tracked, stamp_s, x_mm),), start))
    assert stage.seen == [[0.0], [1.0, 0.0], [2.0, 0.0], [3.0, 2.0, 0.0], [4.0, 3.0, 2.0], [13.5, 4.0]]


def test_a_reset_a_clock_that_jumps_back_and_another_volume_empty_it(bench) -> None:  # type: ignore[no-untyped-def]
    stage, tracked = Count(), bench.frame()
    window = Window(Registrar([stage]), WindowConfig())
    start = bench.start(tracked, (0.0,) * 3, (0.0,) * 3)
    window(bench.problem((at(tracked, 5.0, 0.0),), start))
    window.reset()
    window(bench.problem((at(tracked, 6.0, 0.0),), start))
    window(bench.problem((at(tracked, 1.0, 0.0),), start))
    window(replace(bench.problem((at(tracked, 2.0, 0.0),), start), moving=replace(bench.volume)))
    assert stage.seen == [[5.0], [6.0], [1.0], [2.0]]


def test_several_frames_are_registered_as_they_are(bench) -> None:  # type: ignore[no-untyped-def]
    stage, tracked = Count(), bench.frame()
    window = Window(Registrar([stage]))
    start = bench.start(tracked, (0.0,) * 3, (0.0,) * 3)
    window(bench.problem((at(tracked, 0.0, 0.0), at(tracked, 1.0, 9.0)), start))
    window(bench.problem((at(tracked, 2.0, 0.0),), start))
    assert stage.seen == [[0.0, 1.0], [2.0]]


def test_how_far_images_lie_apart(bench) -> None:  # type: ignore[no-untyped-def]
    tracked = bench.frame()
    assert abs(apart_mm(tracked, at(tracked, 0.0, 7.0)) - 7.0) < 1e-9
