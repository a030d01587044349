# SPDX-License-Identifier: Apache-2.0
"""A regression network as a stage: what it is fed with, what its answer means, and what is wrong with bad input."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from usreg.data.types import Frame, Problem, TrackedFrame, Volume
from usreg.errors import ConfigError, GeometryError, NoOverlapError, ShapeError
from usreg.geometry import se3
from usreg.geometry.grid import VoxelGrid
from usreg.geometry.plane import PlaneGrid
from usreg.geometry.sector import full_rectangle
from usreg.networks.delta import Delta, correction
from usreg.registration.learned.crop import Crop
from usreg.registration.learned.regress import Regress, RegressConfig
from usreg.registration.refine import LevelConfig, RefineConfig

QUICK = RefineConfig(levels=(LevelConfig(2.0, 3.0), LevelConfig(1.0, 2.0)), structure_level=0)
CONFIG = RegressConfig(Crop(2.5, (24, 20, 12)), judge=QUICK)
NOTHING = torch.zeros(1, 3), torch.eye(3)[None]


class Oracle:
    """A network that knows the answer; it keeps what it is shown."""

    def __init__(self, delta: Delta = NOTHING) -> None:
        self.delta, self.seen = delta, list[tuple[Tensor, Tensor]]()

    def __call__(self, volume: Tensor, frame: Tensor) -> Delta:
        self.seen.append((volume, frame))
        return self.delta


def test_a_correction_leads_from_the_start_to_the_truth(bench) -> None:  # type: ignore[no-untyped-def]
    tracked = bench.frame((2.0, -3.0, 4.0, 0.1, 0.0, -0.2))
    start = bench.start(tracked, (6.0, -4.0, 3.0), (4.0, -5.0, 8.0))
    begin, true = (se3.inverse(w) @ tracked.world_T_image for w in (start.world_T_ct, bench.world_T_ct))
    network = Oracle(correction(begin[None], true[None], tracked.frame.plane.centre_mm))
    found = Regress(network, CONFIG)(bench.problem((tracked,), start), start)
    assert bench.tre_mm(start, tracked) > 5.0 and bench.tre_mm(found, tracked) < 1e-3
    assert found.score > 0.9 and found.overlap == 1.0
    volume, image = network.seen[0]
    assert volume.shape == (1, 1, 12, 20, 24) and image.shape == (1, 1, 20, 24)
    assert 0.2 < float(volume.mean()) < 0.8 and 0.2 < float(image[image > 0].mean()) < 0.8


def test_at_the_truth_it_is_shown_the_same_twice(bench) -> None:  # type: ignore[no-untyped-def]
    """The middle of the box is the frame, up to half a plane, noise of the resampling and the sector's corners."""
    tracked = bench.frame()
    start, network = bench.start(tracked, (0.0,) * 3, (0.0,) * 3), Oracle()
    stage = Regress(network, replace(CONFIG, crop=Crop(2.5, (24, 20, 1))))
    stage(bench.problem((tracked,), start), start)
    (volume, image) = network.seen[0]
    inside = (image[0, 0] > 0) & (volume[0, 0, 0] > 0)
    both = torch.stack([volume[0, 0, 0][inside], image[0, 0][inside]])
    assert float(torch.corrcoef(both)[0, 1]) > 0.8


def other(bench, data: Tensor, **more: object) -> Volume:  # type: ignore[no-untyped-def]
    return replace(bench.volume, data=data, **more)


def test_a_volume_smaller_than_the_crop_is_padded(bench) -> None:  # type: ignore[no-untyped-def]
    tracked = bench.frame()
    corner = se3.translation(bench.volume.grid.centre_ct - 4.0)[:3, 3].tolist()
    small = Volume(bench.volume.data[:, :8, :8, :8], VoxelGrid((8, 8, 8), (1.1,) * 3, tuple(corner)), "US")
    start = bench.start(tracked, (0.0,) * 3, (0.0,) * 3)
    stage = Regress(Oracle(), replace(CONFIG, min_share=0.0))
    found = stage(Problem((tracked,), small, start), start)
    assert not found.accepted and "overlap" in found.reason
    with pytest.raises(NoOverlapError, match="of the sector lies inside the volume"):
        Regress(Oracle(), CONFIG)(Problem((tracked,), small, start), start)


@pytest.mark.parametrize("off_mm", [60.0, 1000.0])
def test_a_frame_outside_of_the_volume_is_not_looked_at(bench, off_mm: float) -> None:  # type: ignore[no-untyped-def]
    tracked, network = bench.frame(), Oracle()
    start = bench.start(tracked, (0.0, 0.0, off_mm), (0.0,) * 3)
    with pytest.raises(NoOverlapError, match="start"):
        Regress(network, CONFIG)(bench.problem((tracked,), start), start)
    assert not network.seen


def test_a_correction_out_of_the_volume_is_refused(bench) -> None:  # type: ignore[no-untyped-def]
    tracked = bench.frame()
    start = bench.start(tracked, (0.0,) * 3, (0.0,) * 3)
    away = torch.tensor([[0.0, 0.0, 200.0]]), torch.eye(3)[None]
    found = Regress(Oracle(away), CONFIG)(bench.problem((tracked,), start), start)
    assert not found.accepted and "overlap 0.00" in found.reason


@pytest.mark.parametrize(
    "delta",
    [
        (torch.tensor([[0.0, math.nan, 0.0]]), torch.eye(3)[None]),
        (torch.zeros(1, 3), torch.full((1, 3, 3), math.inf)),
        (torch.zeros(1, 3), torch.zeros(1, 3, 3)),
    ],
    ids=["nan", "infinite", "no rotation"],
)
def test_an_answer_that_is_no_pose_is_an_error(bench, delta: Delta) -> None:  # type: ignore[no-untyped-def]
    tracked = bench.frame()
    start = bench.start(tracked, (0.0,) * 3, (0.0,) * 3)
    with pytest.raises(GeometryError, match="the network's pose"):
        Regress(Oracle(delta), CONFIG)(bench.problem((tracked,), start), start)


@pytest.mark.parametrize(("height", "width", "mm"), [(3, 5, 4.0), (400, 37, 0.13), (31, 300, 0.4)])
def test_images_of_any_size_are_taken(bench, height: int, width: int, mm: float) -> None:  # type: ignore[no-untyped-def]
    geometry = full_rectangle(PlaneGrid(height, width, ((mm, 0.0), (0.0, mm))))
    image = torch.arange(height * width).remainder(200).to(torch.uint8).reshape(height, width)
    middle = bench.world_T_ct @ se3.translation(bench.volume.grid.centre_ct - geometry.plane.centre_mm)
    tracked, network = TrackedFrame(Frame(image, geometry, 0.0), middle), Oracle()
    start = bench.start(tracked, (0.0,) * 3, (0.0,) * 3)
    found = Regress(network, CONFIG)(bench.problem((tracked,), start), start)
    assert network.seen[0][1].shape == (1, 1, 20, 24) and not found.accepted


BAD: dict[str, Callable[[Volume], Volume]] = {
    "nothing known": lambda v: replace(v, mask=torch.zeros(v.data.shape[1:], dtype=torch.bool)),
    "nan alone": lambda v: replace(v, data=torch.full(v.data.shape, math.nan)),
}


@pytest.mark.parametrize("what", BAD)
def test_a_volume_of_which_nothing_is_known(bench, what: str) -> None:  # type: ignore[no-untyped-def]
    tracked = bench.frame()
    start = bench.start(tracked, (0.0,) * 3, (0.0,) * 3)
    with pytest.raises(NoOverlapError):
        Regress(Oracle(), CONFIG)(Problem((tracked,), BAD[what](bench.volume), start), start)


def test_voxels_that_are_nan_are_unknown(bench) -> None:  # type: ignore[no-untyped-def]
    data = bench.volume.data.to(torch.float32).clone()
    data[:, :, :, ::7] = math.nan
    tracked, network = bench.frame(), Oracle()
    start = bench.start(tracked, (0.0,) * 3, (0.0,) * 3)
    Regress(network, CONFIG)(Problem((tracked,), other(bench, data), start), start)
    assert bool(torch.isfinite(network.seen[0][0]).all())


def test_one_frame_and_one_channel(bench) -> None:  # type: ignore[no-untyped-def]
    tracked = bench.frame()
    start = bench.start(tracked, (0.0,) * 3, (0.0,) * 3)
    for fixed in ((), (tracked, tracked), bench.volume):
        with pytest.raises(ShapeError, match="exactly one"):
            Regress(Oracle(), CONFIG)(Problem(fixed, bench.volume, start), start)
    two = other(bench, torch.cat([torch.zeros_like(bench.volume.data), bench.volume.data]))
    second = Regress(Oracle(), replace(CONFIG, judge=replace(QUICK, channel=1)))
    assert second(Problem((tracked,), two, start), start).score > 0.9
    with pytest.raises(ShapeError, match="channel 2"):
        Regress(Oracle(), replace(CONFIG, judge=replace(QUICK, channel=2))).prepare(two)


def test_preparing_runs_the_network_once_and_keeps_the_volume(bench) -> None:  # type: ignore[no-untyped-def]
    network = Oracle()
    stage = Regress(network, CONFIG)
    stage.prepare(bench.volume)
    assert len(network.seen) == 1 and stage._volume(bench.volume) is stage._volume(bench.volume)
    with pytest.raises(ConfigError):
        RegressConfig(min_share=1.5)
