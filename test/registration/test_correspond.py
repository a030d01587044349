# SPDX-License-Identifier: Apache-2.0
"""The correspondence stage: what its network is fed with, views that are kept, and input that cannot be used."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from usreg.data.types import Estimate, Frame, Problem, TrackedFrame, Volume, start_estimate
from usreg.errors import ConfigError, GeometryError, NoOverlapError, ShapeError
from usreg.geometry import rotation, se3
from usreg.geometry.grid import VoxelGrid
from usreg.geometry.plane import PlaneGrid
from usreg.geometry.sector import SectorGeometry, full_rectangle
from usreg.networks.correspondence import Correspondence, CorrespondenceConfig
from usreg.registration.learned.correspond import Correspond, CorrespondConfig
from usreg.registration.learned.hypothesised import Hypothesised
from usreg.registration.learned.view import smoothed, view_frame, view_volume
from usreg.registration.learned.vote import VoteConfig
from usreg.registration.refine import Refine

SMALL = CorrespondenceConfig((8, 8, 8), (8, 8, 8), 1, 8)
TURN = rotation.exp(torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64))
GRID = VoxelGrid((50, 44, 40), (2.0, 2.0, 2.0), (-10.0, 5.0, 30.0), tuple(TURN.flatten().tolist()))


def blobs(grid: VoxelGrid = GRID, seed: int = 0) -> Volume:
    """Soft balls of random places and brightness, uint8."""
    generator = torch.Generator().manual_seed(seed)
    w, h, d = grid.size
    z, y, x = torch.meshgrid(*(torch.arange(float(n)) for n in (d, h, w)), indexing="ij")
    data = torch.full((d, h, w), 100.0)
    for cx, cy, cz, radius, grey in torch.rand(30, 5, generator=generator).tolist():
        distance = ((x - cx * w) ** 2 + (y - cy * h) ** 2 + (z - cz * d) ** 2).sqrt()
        data += 200 * (grey - 0.5) * torch.sigmoid(2 + 4 * radius - distance)
    return Volume(data.clamp(0, 255).round().to(torch.uint8)[None], grid, "US")


def fan() -> SectorGeometry:
    plane = PlaneGrid(80, 90, ((0.9, 0.0), (0.0, 0.9)))
    return SectorGeometry(
        "convex", plane, (40.0, -30.0), (32.0, 100.0), (-0.5, 0.5), (0.0, 0.0, 80.1, 71.1), 68.0
    )  # fmt: skip


@pytest.fixture(scope="module")
def volume() -> Volume:
    return blobs()


@pytest.fixture
def network() -> Correspondence:
    with torch.random.fork_rng():
        torch.manual_seed(1)  # first weights alone
        return Correspondence(SMALL)


@pytest.fixture(scope="module")
def problem(volume: Volume) -> Problem:
    """A slice of the volume, started 4 mm off."""
    from usreg.rendering.reslice import slice_fast

    geometry = fan()
    middle = se3.from_parts(TURN, volume.grid.centre_ct) @ se3.translation(-geometry.plane.centre_mm)
    image, _ = slice_fast(volume, middle, geometry.plane)
    tracked = TrackedFrame(Frame(image, geometry, 1.0), middle)
    start = start_estimate(se3.translation(torch.tensor([4.0, 0.0, 0.0], dtype=torch.float64)), volume)
    return Problem((tracked,), volume, start)


def test_a_view_holds_the_volume_along_other_axes() -> None:
    """A ramp in mm is the same ramp on any grid: positions are exact, also mirrored."""
    slope = torch.tensor([0.7, -0.4, 0.5], dtype=torch.float64)
    w, h, d = GRID.size
    index = torch.stack(torch.meshgrid(torch.arange(d), torch.arange(h), torch.arange(w), indexing="ij"), -1).flip(-1)
    points = se3.transform_points(GRID.ct_T_index, index.reshape(-1, 3).double())
    ramp = Volume((points @ slope).reshape(1, d, h, w).float(), GRID, "US")
    axes = rotation.exp(torch.tensor([0.1, 0.6, -0.3], dtype=torch.float64))
    for turn in (axes, axes * torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64)):
        view = view_volume(smoothed(ramp, 3.0), turn, 3.0)
        mask = view.values[0, 1] > 0
        inner = mask[1:-1, 1:-1, 1:-1] & (
            torch.nn.functional.avg_pool3d(mask[None, None].float(), 5, 1, 2)[0, 0, 1:-1, 1:-1, 1:-1] > 0.999
        )
        at = se3.transform_points(view.ct_T_index, (inner.nonzero() + 1).flip(-1).double())
        shown = view.values[0, 0, 1:-1, 1:-1, 1:-1][inner].double()
        true = at @ slope
        assert int(inner.sum()) > 2000
        fitted = np.polyfit(true.numpy(), shown.numpy(), 1)
        assert np.abs(np.polyval(fitted, true.numpy()) - shown.numpy()).max() < 0.01 * float(shown.std())
        assert fitted[0] > 0
        values = view.values[0, 0][mask]
        assert abs(float(values.mean())) < 1e-3 and abs(float(values.var()) - 1) < 1e-2


def test_what_is_unknown_does_not_darken_what_is_known() -> None:
    mask = torch.zeros(40, 44, 50, dtype=torch.bool)
    mask[:, :, 20:] = True
    data = torch.where(mask, torch.full((), 50.0), torch.zeros(()))
    data[20:] += mask[20:] * 10.0
    view = view_volume(smoothed(Volume(data[None], GRID, "US", mask), 3.0), TURN, 3.0)
    values = view.values[0, 0][view.values[0, 1] > 0]
    assert float(values.min()) > -1.2 and float(values.max()) < 1.2  # two levels, nothing darker at the rim


def test_a_frame_s_grid_lies_where_its_pixels_lie() -> None:
    geometry = fan()
    ramp = geometry.plane.points_mm()
    image = (2.0 * ramp[..., 0] + ramp[..., 1]).round().to(torch.uint8)
    view = view_frame(Frame(image, geometry, 0.0), 1.5)
    inside = torch.nn.functional.avg_pool2d(view.values[:, 1:], 7, 1, 3)[0, 0] > 0.999
    index = inside.nonzero().flip(-1).double()
    at = se3.transform_points(view.image_T_index, torch.cat([index, torch.zeros(len(index), 1)], -1).double())
    true, shown = 2.0 * at[:, 0] + at[:, 1], view.values[0, 0][inside].double()
    fitted = np.polyfit(true.numpy(), shown.numpy(), 1)
    assert np.abs(np.polyval(fitted, true.numpy()) - shown.numpy()).max() < 0.02


def test_views_are_kept_and_forgotten(volume: Volume, network: Correspondence) -> None:
    stage = Correspond(network, CorrespondConfig(most_views=2, view_deg=20.0))
    stage.prepare(volume)

    def about_z(degrees: float) -> torch.Tensor:
        return TURN @ rotation.exp(torch.tensor([0.0, 0.0, math.radians(degrees)], dtype=torch.float64))

    first = stage._view_for(about_z(0.0))
    assert stage._view_for(about_z(9.0)) is first
    second = stage._view_for(about_z(41.0))
    assert second is not first and stage._view_for(about_z(-3.0)) is first
    third = stage._view_for(about_z(120.0))  # the second was used longest ago
    assert stage._view_for(about_z(0.0)) is first and stage._view_for(about_z(120.0)) is third
    assert stage._view_for(about_z(41.0)) is not second
    torch.testing.assert_close(second.ct_R_view, about_z(40.0))


def test_a_view_follows_from_the_frame_alone(problem: Problem, network: Correspondence) -> None:
    """A second pass over a session finds views in the cache, and gives the same bits."""
    stage = Correspond(network)
    first = stage(problem, problem.start)
    for degrees in (30.0, 60.0):
        stage._view_for(rotation.exp(torch.tensor([0.0, math.radians(degrees), 0.0], dtype=torch.float64)))
    assert torch.equal(stage(problem, problem.start).world_T_ct, first.world_T_ct)


def test_where_the_room_stands_does_not_matter(problem: Problem, network: Correspondence) -> None:
    room = se3.from_parts(TURN, torch.tensor([300.0, -80.0, 12.0], dtype=torch.float64))
    tracked = problem.fixed[0]
    moved = replace(tracked, world_T_image=room @ tracked.world_T_image)
    begin = start_estimate(room @ problem.start.world_T_ct, problem.moving)
    plain = CorrespondConfig(vote=VoteConfig(triples=0), bf16=False)  # a draw of triples turns on the last bits
    here = Correspond(network, plain)(problem, problem.start)
    there = Correspond(network, plain)(Problem((moved,), problem.moving, begin), begin)
    torch.testing.assert_close(there.world_T_ct, room @ here.world_T_ct, atol=1e-2, rtol=0)
    assert not torch.equal(here.world_T_ct, problem.start.world_T_ct)


def test_the_same_frame_gives_the_same_bits(problem: Problem, network: Correspondence) -> None:
    stage = Correspond(network)
    first, second = (stage.hypotheses(problem, problem.start) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a.world_T_ct, b.world_T_ct) and torch.equal(a.covariance, b.covariance)
    assert [e.score for e in first] == sorted((e.score for e in first), reverse=True)


def test_a_network_that_knows_nothing_does_not_spoil_a_good_start(problem: Problem, network: Correspondence) -> None:
    """The start itself is refined beside the hypotheses, and the best score wins."""
    stage = Hypothesised(Correspond(network), Refine())
    stage.prepare(problem.moving)
    found = stage(problem, problem.start)
    assert (found.world_T_ct - se3.identity()).abs().max() < 0.3
    assert found.accepted and {"share", "vote", "score"} <= set(found.evidence)


def test_a_stated_start_narrows_the_search(problem: Problem, network: Correspondence) -> None:
    stage, tracked = Correspond(network), problem.fixed[0]
    covariance = torch.diag(torch.tensor([4.0] * 3 + [1e-3] * 3, dtype=torch.float64))
    sure = start_estimate(problem.start.world_T_ct, problem.moving, covariance)
    assert stage._prior_mm(problem.start, tracked) == CorrespondConfig().prior_mm
    assert stage._prior_mm(sure, tracked) == CorrespondConfig().least_prior_mm


def test_input_that_cannot_be_used(problem: Problem, network: Correspondence, volume: Volume) -> None:
    stage = Correspond(network)
    with pytest.raises(ShapeError, match="tracked frames"):
        stage(Problem(volume, volume, problem.start), problem.start)
    with pytest.raises(NoOverlapError, match="no known voxel"):
        nothing = replace(volume, mask=torch.zeros(volume.data.shape[1:], dtype=torch.bool))
        stage(replace(problem, moving=nothing), problem.start)
    with pytest.raises(ShapeError, match="channel 3"):
        Correspond(network, CorrespondConfig(channel=3)).prepare(volume)
    with pytest.raises(ShapeError, match="too large"):
        Correspond(network, CorrespondConfig(view=replace(CorrespondConfig().view, volume_mm=0.5))).prepare(volume)
    with torch.no_grad():
        network.frame.last.bias.fill_(math.nan)
    with pytest.raises(GeometryError, match="damaged"):
        stage(problem, problem.start)


def test_a_volume_of_one_voxel_is_refused(problem: Problem, network: Correspondence) -> None:
    tiny = Volume(torch.zeros(1, 1, 1, 1, dtype=torch.uint8), VoxelGrid((1, 1, 1), (1.0, 1.0, 1.0)), "US")
    with pytest.raises(NoOverlapError, match="too small"):
        Correspond(network)(replace(problem, moving=tiny), problem.start)


def test_a_frame_of_another_size_is_taken(problem: Problem, network: Correspondence, volume: Volume) -> None:
    plane = PlaneGrid(200, 333, ((0.3, 0.0), (0.0, 0.4)))
    image = torch.randint(0, 255, (200, 333), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    tracked = TrackedFrame(Frame(image, full_rectangle(plane), 0.0), problem.fixed[0].world_T_image)
    found: Estimate = Correspond(network)(replace(problem, fixed=(tracked,)), problem.start)
    assert bool(torch.isfinite(found.covariance).all())


def test_networks_refuse_other_shapes(network: Correspondence) -> None:
    with pytest.raises(ShapeError, match="values and mask"):
        network.encode_volume(torch.zeros(1, 1, 8, 8, 8))
    with pytest.raises(ShapeError, match="too small"):
        network.encode_frame(torch.zeros(1, 2, 3, 30))
    with pytest.raises(ConfigError, match="multiples of 8"):
        CorrespondenceConfig(volume_widths=(8, 12, 16))
    assert sum(p.numel() for p in Correspondence().parameters()) < 5_000_000


def test_reach_of_the_vote_is_part_of_the_configuration() -> None:
    assert CorrespondConfig(vote=VoteConfig(reach_mm=10.0)).vote.reach_mm == 10.0
