# SPDX-License-Identifier: Apache-2.0
"""A grid of poses: it covers the start's box, its kernel agrees with whole arrays, and it meets a far truth."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from usreg.data.types import Frame, Problem, TrackedFrame, Volume, start_estimate
from usreg.errors import ConfigError, NoOverlapError
from usreg.geometry import rotation, se3
from usreg.geometry.grid import VoxelGrid
from usreg.geometry.plane import PlaneGrid
from usreg.geometry.sector import SectorGeometry
from usreg.registration.pose_grid import PoseGrid, PoseGridConfig, coarse, grid_twists, pixels_of, scores, scores_slow
from usreg.registration.refine import Refine
from usreg.rendering.reslice import slice_fast

TURN = rotation.exp(torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64))
GRID = VoxelGrid((80, 76, 70), (1.5, 1.5, 1.5), (-10.0, 5.0, 30.0), tuple(TURN.flatten().tolist()))
PLANE = PlaneGrid(80, 90, ((0.9, 0.0), (0.0, 0.9)))
FAN = SectorGeometry("convex", PLANE, (40.0, -30.0), (32.0, 100.0), (-0.5, 0.5), (0.0, 0.0, 80.1, 71.1), 68.0)


@pytest.fixture(scope="module")
def problem() -> Problem:
    """A slice of soft balls, started 28 mm and 24 degrees off."""
    generator = torch.Generator().manual_seed(2)
    w, h, d = GRID.size
    z, y, x = torch.meshgrid(*(torch.arange(float(n)) for n in (d, h, w)), indexing="ij")
    data = torch.full((d, h, w), 100.0)
    for cx, cy, cz, radius, grey in torch.rand(60, 5, generator=generator).tolist():
        distance = ((x - cx * w) ** 2 + (y - cy * h) ** 2 + (z - cz * d) ** 2).sqrt()
        data += 200 * (grey - 0.5) * torch.sigmoid(3 + 5 * radius - distance)
    volume = Volume(data.clamp(0, 255).round().to(torch.uint8)[None], GRID, "US")
    true = se3.from_parts(TURN, GRID.centre_ct) @ se3.translation(-PLANE.centre_mm)
    image, _ = slice_fast(volume, true, PLANE)
    tracked = TrackedFrame(Frame(image, FAN, 1.0), true)
    off = se3.from_parts(
        rotation.exp(torch.tensor([0.3, -0.2, 0.2], dtype=torch.float64)), torch.tensor([20.0, -12.0, 16.0]).double()
    )
    centre = se3.transform_points(true, PLANE.centre_mm[None])[0]
    start = start_estimate(se3.translation(centre) @ off @ se3.translation(-centre), volume)
    return Problem((tracked,), volume, start)


def test_the_grid_covers_the_box_of_the_start() -> None:
    sigma = torch.tensor([5.8, 5.8, 2.9, 0.05, 0.05, 0.10], dtype=torch.float64)
    twists = grid_twists(PoseGridConfig(step_mm=4.0, step_deg=5.0), sigma)
    half = math.sqrt(3.0) * sigma
    assert bool((twists.abs().amax(0) <= half + 1e-9).all())
    assert float(twists.abs().amax(-1).min()) < 1e-9
    for axis, step in enumerate([4.0] * 3 + [math.radians(5.0)] * 3):
        places = twists[:, axis].unique()
        assert float(places.diff().max()) <= 1.35 * step
        assert float(half[axis] - places.max()) <= 0.7 * step
    draw = (2 * torch.rand(200, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 1) * half
    assert float((draw[:, None, :3] - twists[None, :, :3]).norm(dim=-1).amin(1).max()) < 5.0


def test_a_wide_grid_is_made_coarser_and_an_unknown_start_takes_the_reach() -> None:
    config = PoseGridConfig(step_mm=2.0, step_deg=5.0, most=3000)
    twists = grid_twists(config, torch.zeros(6, dtype=torch.float64))
    assert 500 < len(twists) <= 3000
    assert float(twists[:, 0].max()) > 20.0


def test_the_kernel_correlates_as_whole_arrays_do(problem: Problem) -> None:
    config = PoseGridConfig()
    holes = torch.ones(problem.moving.data.shape[1:], dtype=torch.bool)
    holes[:, :20] = False
    seen = coarse(replace(problem.moving, mask=holes), config, 0)
    points, values = pixels_of(problem.fixed[0], config)
    twists = grid_twists(config, torch.zeros(6, dtype=torch.float64))[::199]
    poses = se3.right_at_centre(problem.fixed[0].world_T_image, twists[:, :3], twists[:, 3:], PLANE.centre_mm)
    found = scores(seen, points, values, poses, config.min_overlap)
    assert bool((found == -1).any()) and bool((found > 0.2).any())
    torch.testing.assert_close(found, scores_slow(seen, points, values, poses, config.min_overlap), atol=1e-5, rtol=0)


def test_a_far_truth_is_met_and_climbed_to(problem: Problem) -> None:
    grid = PoseGrid(PoseGridConfig(step_mm=9.0, step_deg=24.0))
    poses = grid.best(problem.moving, problem.fixed[0], problem.start)
    assert 5 < len(poses) <= grid.config.keep
    points = se3.transform_points(problem.fixed[0].world_T_image, PLANE.points_mm()[::20, ::20].reshape(-1, 3))
    off = (se3.transform_points(se3.inverse(poses), points) - points).norm(dim=-1).mean(-1)
    assert float(off.min()) < 12.0
    found = Refine().best_of(problem, poses)
    assert (found.world_T_ct - se3.identity()).abs().max() < 0.3 and found.accepted


def test_halving_correlates_better(problem: Problem) -> None:
    sigma = torch.diag(torch.tensor([36.0] * 3 + [1e-6] * 3, dtype=torch.float64))
    begin = start_estimate(se3.translation(torch.tensor([5.0, -6.0, 5.0]).double()), problem.moving, sigma)
    ends = []
    for halvings in (0, 1, 2):
        config = PoseGridConfig(step_mm=11.0, halvings=halvings, keep=4)
        best = PoseGrid(config).best(problem.moving, problem.fixed[0], begin)[:1]
        seen, (points, values) = coarse(problem.moving, config), pixels_of(problem.fixed[0], config)
        image = se3.inverse(best) @ problem.fixed[0].world_T_image
        ends.append(float(scores(seen, points, values, image, config.min_overlap)))
    assert ends[0] <= ends[1] <= ends[2] and ends[2] > ends[0]


def test_what_speaks_for_a_pose_decides_between_equals(problem: Problem) -> None:
    truth = se3.identity()
    other = se3.translation(torch.tensor([0.0, 0.0, 25.0], dtype=torch.float64))
    poses = torch.stack([truth, other])
    refine = Refine()
    plain = refine.best_of(problem, poses)
    swayed = refine.best_of(problem, poses, lambda p: 5.0 * (p[:, 2, 3] > 10.0).double())
    assert float(plain.world_T_ct[2, 3]) < 1.0 and float(swayed.world_T_ct[2, 3]) > 5.0


def test_an_empty_sector_is_told(problem: Problem) -> None:
    empty = replace(FAN, clip_mm=(200.0, 200.0, 300.0, 300.0))
    tracked = replace(problem.fixed[0], frame=replace(problem.fixed[0].frame, geometry=empty))
    with pytest.raises(NoOverlapError, match="no pixel"):
        PoseGrid().best(problem.moving, tracked, problem.start)


@pytest.mark.parametrize("change", [{"step_mm": 0.0}, {"keep": 0}, {"most": 0}, {"sigma_mm": -1.0}])
def test_settings_that_make_no_sense(change: dict) -> None:
    with pytest.raises(ConfigError):
        PoseGridConfig(**change)
