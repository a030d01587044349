# SPDX-License-Identifier: Apache-2.0
"""LNCC by gradient descent after a network: it finds a frame, is never worse than its start, and knows when to stop."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from usreg.data.types import Frame, TrackedFrame, Volume
from usreg.errors import ConfigError, NoOverlapError, ShapeError
from usreg.geometry import se3
from usreg.registration.correction import Correction, CorrectionConfig, descend
from usreg.registration.optimisers.agreement import Looked

COARSE = CorrectionConfig(spacing_mm=1.8, window=25)


def test_it_finds_a_frame(bench) -> None:  # type: ignore[no-untyped-def]
    tracked = bench.frame(noise=5.0)
    start = bench.start(tracked, (1.5, -1.0, 1.0), (1.0, -1.0, 1.5))
    stage = Correction(COARSE)
    stage.prepare(bench.volume)
    found = stage(bench.problem((tracked,), start), start)
    assert bench.tre_mm(start, tracked) > 1.5 and bench.tre_mm(found, tracked) < 0.4
    assert found.score > 0.8 and found.covariance.trace() > 0.0


def test_two_frames_are_corrected_as_one(bench) -> None:  # type: ignore[no-untyped-def]
    frames = (bench.frame(noise=5.0), bench.frame((4.0, 0.0, 6.0, 0.2, 0.0, 0.1), noise=5.0, seed=1))
    start = bench.start(frames[0], (1.0, -1.0, 1.0), (1.0, -1.0, 1.0))
    found = Correction(COARSE)(bench.problem(frames, start), start)
    assert all(bench.tre_mm(found, f) < 0.4 for f in frames)


@pytest.mark.parametrize("grey", [0, 128])
def test_an_image_without_contrast_stays_and_is_refused(bench, grey: int) -> None:  # type: ignore[no-untyped-def]
    tracked = bench.frame()
    flat = Frame(torch.full_like(tracked.frame.image, grey), tracked.frame.geometry, 0.0)
    start = bench.start(tracked, (1.0, 0.0, 0.0), (0.0, 0.0, 0.0))
    found = Correction(COARSE)(bench.problem((TrackedFrame(flat, tracked.world_T_image),), start), start)
    assert not found.accepted and torch.allclose(found.world_T_ct, start.world_T_ct, atol=1e-9)


def test_a_start_outside_of_the_volume_is_an_error(bench) -> None:  # type: ignore[no-untyped-def]
    tracked = bench.frame()
    start = bench.start(tracked, (0.0, 0.0, 90.0), (0.0, 0.0, 0.0))
    with pytest.raises(NoOverlapError, match="inside the volume where the correction begins"):
        Correction(COARSE)(bench.problem((tracked,), start), start)


def test_a_volume_is_no_frame(bench) -> None:  # type: ignore[no-untyped-def]
    start = bench.start(bench.frame(), (0.0,) * 3, (0.0,) * 3)
    for fixed in ((), bench.volume):
        with pytest.raises(ShapeError, match="tracked frames"):
            Correction()(replace(bench.problem((), start), fixed=fixed), start)


class Bowl:
    """1 - |t - goal|^2 / scale^2 of the translation; it counts how often it is looked at."""

    def __init__(self, goal_mm: float, scale_mm: float = 20.0) -> None:
        self.goal, self.scale, self.looks = torch.tensor([goal_mm, 0, 0], dtype=torch.float64), scale_mm, 0

    def __call__(self, poses: Tensor, slopes: bool) -> Looked:
        self.looks += 1
        away = poses[:, :3, 3] - self.goal
        gradient = torch.cat([-2 * (poses[:, :3, :3].mT @ away[..., None])[..., 0], torch.zeros_like(away)], 1)
        score = 1 - (away**2).sum(1) / self.scale**2
        return Looked(score, torch.ones_like(score), gradient / self.scale**2)


def test_it_ends_where_the_score_stands_still_and_after_its_steps() -> None:
    near, far = Bowl(0.0), Bowl(15.0)
    assert torch.equal(descend(near, se3.identity(), CorrectionConfig()), se3.identity())
    assert near.looks == 1 + CorrectionConfig().least
    found = descend(far, se3.identity(), CorrectionConfig())
    assert (found[:3, 3] - far.goal).norm() < 0.5 and 12 < far.looks < 101
    short = Bowl(15.0)
    descend(short, se3.identity(), CorrectionConfig(steps=7))
    assert short.looks == 8


def test_it_never_ends_worse_than_it_began() -> None:
    wild = CorrectionConfig(rate_low=10.0, rate_high=10.0)
    assert torch.equal(descend(Bowl(1.0), se3.identity(), wild), se3.identity())


def test_it_goes_no_farther_than_the_volume() -> None:
    class Edge(Bowl):
        def __call__(self, poses: Tensor, slopes: bool) -> Looked:
            looked = super().__call__(poses, slopes)
            return replace(looked, overlap=(poses[:, 0, 3] < 5.0).double())

    assert float(descend(Edge(15.0), se3.identity(), CorrectionConfig())[0, 3]) < 5.0


def test_the_rate_is_a_triangle() -> None:
    config = CorrectionConfig(rate_low=1.0, rate_high=3.0, rise=4)
    assert [config.rate(k) for k in range(10)] == [1.0, 1.5, 2.0, 2.5, 3.0, 2.5, 2.0, 1.5, 1.0, 1.5]


def test_bad_settings_are_refused() -> None:
    for wrong in ({"window": 50}, {"rate_low": 1.0}, {"least": 4}, {"momentum": 1.0}, {"steps": 0}, {"unit_mm": 0.0}):
        with pytest.raises(ConfigError):
            CorrectionConfig(**wrong)


def test_the_smoothed_volume_is_kept_for_its_volume(bench) -> None:  # type: ignore[no-untyped-def]
    stage = Correction(COARSE)
    first = stage._smooth(bench.volume)
    other = Volume(bench.volume.data, bench.volume.grid, "US")
    assert stage._smooth(bench.volume) is first and stage._smooth(other) is not first
