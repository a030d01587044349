# SPDX-License-Identifier: Apache-2.0
"""Any similarity as an objective over poses: parity with slow references, gradients, sweeps, bad input."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from usreg.data.types import Frame, Problem, TrackedFrame, Volume, start_estimate
from usreg.errors import ConfigError, GeometryError, NoOverlapError, ShapeError
from usreg.geometry import se3
from usreg.geometry.grid import VoxelGrid
from usreg.registration.autograd import score_and_gradient
from usreg.registration.covariance import point_sigma_mm, ref_covariance
from usreg.registration.image_objective import ImageObjective
from usreg.registration.levenberg import LevenbergConfig, motion_mm, move
from usreg.registration.ncc_matcher import NccMatcher
from usreg.registration.normal import View, normal_equations, views, world_T_ref
from usreg.registration.optimisers import HalvingConfig, OptimiserConfig
from usreg.registration.refine import LevelConfig, Refine, RefineConfig
from usreg.registration.scene import image_points
from usreg.registration.spread import SpreadConfig
from usreg.registration.torch_matcher import TorchConfig, TorchMatcher, climb_many
from usreg.similarity import SIMILARITIES, ncc

NAMES = sorted(SIMILARITIES)
EXACT = TorchConfig(double=True)
STOP = LevenbergConfig(tolerance_mm=0.05)
RADIUS = 30.0


def place(bench, frames):  # type: ignore[no-untyped-def]
    """ct_T_ref at the truth."""
    return se3.inverse(bench.world_T_ct) @ world_T_ref(frames)


def around(pose: torch.Tensor, count: int, size: float = 1.0, seed: int = 1) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    twist = size * torch.randn(count, 6, dtype=torch.float64, generator=g) * torch.tensor([1.0] * 3 + [0.02] * 3)
    return move(pose.expand(count, 4, 4), twist)


def off_mm(found: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    points = RADIUS * torch.eye(3, dtype=torch.float64)[:2]
    return (se3.transform_points(found, points) - se3.transform_points(truth, points)).norm(dim=-1).amax(-1)


@pytest.fixture(scope="module")
def single(bench):  # type: ignore[no-untyped-def]
    """One noisy frame at 2 mm: views and the true pose."""
    frames = (bench.frame(noise=6.0),)
    return views(frames, 2.0, 2.0), place(bench, frames)


def test_ncc_is_that_of_the_normal_equations(bench, single) -> None:  # type: ignore[no-untyped-def]
    seen, pose = single
    frames = (bench.frame(noise=6.0), bench.frame((3.0, 1.0, 20.0, 0.1, 0.2, 0.0), noise=6.0, seed=1))
    matcher, two = TorchMatcher("ncc", EXACT), views(frames, 2.0, 2.0)
    level = matcher.level(bench.volume, 2.0, 0)
    for each, at in ((seen, pose), (two, place(bench, frames))):
        poses = around(at, 4)
        fast, slow = matcher.evaluate(level, each, poses), normal_equations(level, each, poses)
        assert torch.allclose(fast.score, slow.score, atol=1e-7)
        assert torch.allclose(fast.gradient, slow.gradient, atol=1e-6)
        assert torch.allclose(fast.overlap, slow.overlap)
        assert torch.allclose(matcher.compare(level, each, poses), fast.score, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_scores_and_gradients_are_those_through_the_slicer(bench, single, name) -> None:  # type: ignore[no-untyped-def]
    seen, pose = single
    matcher = TorchMatcher(name, EXACT)
    level, poses = matcher.level(bench.volume, 2.0, 0), around(pose, 2)
    fast = matcher.evaluate(level, seen, poses)
    score, gradient = score_and_gradient(level, seen[0], poses, matcher.objective(level, seen).similarity)
    assert torch.allclose(fast.score, score, atol=1e-5)
    assert gradient.norm() > 0 and (fast.gradient - gradient).norm() < 1e-3 * gradient.norm()


@pytest.mark.parametrize("name", NAMES)
def test_every_similarity_climbs_to_the_frame(bench, single, name) -> None:  # type: ignore[no-untyped-def]
    seen, pose = single
    matcher = TorchMatcher(name, OptimiserConfig("lbfgs", evaluations=25))
    level, starts = matcher.level(bench.volume, 2.0, 0), around(pose, 2, seed=4)
    poses, normal, count = matcher.climb(level, seen, starts, RADIUS, 0.4, STOP)
    assert (normal.score > matcher.compare(level, seen, starts)).all() and (count <= 25).all()
    assert off_mm(starts, pose).min() > 1.0 > 0.7 > off_mm(poses, pose).max()


@pytest.mark.parametrize("optimiser", ["adam", "bobyqa", "cmaes"])
def test_every_optimiser_climbs_to_the_frame(bench, single, optimiser) -> None:  # type: ignore[no-untyped-def]
    seen, pose = single
    matcher = TorchMatcher("ncc", OptimiserConfig(optimiser, evaluations=200 if optimiser == "cmaes" else 60))
    level, starts = matcher.level(bench.volume, 2.0, 0), around(pose, 2, seed=4)
    poses, normal, _ = matcher.climb(level, seen, starts, RADIUS, 0.4, STOP)
    best = NccMatcher().climb(level, seen, pose[None], RADIUS, 0.4, STOP)
    assert off_mm(poses, best[0]).max() < 0.5 and (normal.overlap > 0.9).all()
    again = matcher.climb(level, seen, starts, RADIUS, 0.4, STOP)
    assert torch.equal(again[0], poses)


def test_time_is_kept_and_the_clock_is_given(bench, single) -> None:  # type: ignore[no-untyped-def]
    seen, pose = single
    ticks = iter(range(1000))
    matcher = TorchMatcher("ncc", OptimiserConfig("adam", seconds=3.5), clock=lambda: float(next(ticks)))
    level = matcher.level(bench.volume, 2.0, 0)
    _, _, count = matcher.climb(level, seen, around(pose, 1), RADIUS, 0.4, STOP)
    assert count.tolist() == [4.0]  # the start, and three looks before the clock says 4


def test_many_starts_by_halving_with_any_matcher(bench, single) -> None:  # type: ignore[no-untyped-def]
    seen, pose = single
    starts, generic, lm = (
        around(pose, 12, size=4.0, seed=2),
        TorchMatcher("ncc", OptimiserConfig("lbfgs")),
        NccMatcher(),
    )
    level = lm.level(bench.volume, 2.0, 0)
    config, ideal = HalvingConfig(evaluations=6, last=30), lm.climb(level, seen, pose[None], RADIUS, 0.4, STOP)[0]
    own = lambda p, n: generic.with_evaluations(n).climb(level, seen, p, RADIUS, 0.4, STOP)  # noqa: E731
    other = lambda p, n: lm.climb(level, seen, p, RADIUS, 0.4, replace(STOP, iterations=n))  # noqa: E731
    for climb in (own, other):
        best = climb_many(climb, starts, config, 0.4)
        assert len(best.poses) == 1 and off_mm(best.poses, ideal[0])[0] < 0.3


def test_values_alone_are_those_with_slopes(bench, single) -> None:  # type: ignore[no-untyped-def]
    seen, pose = single
    matcher = TorchMatcher("ncc")
    objective = matcher.objective(matcher.level(bench.volume, 2.0, 0), seen)
    poses = around(pose, 5, size=6.0)
    with_slopes, without = objective(poses, True), objective(poses, False)
    assert torch.equal(with_slopes.score, without.score) and torch.equal(with_slopes.overlap, without.overlap)
    assert without.gradient.abs().sum() == 0 < with_slopes.gradient.abs().sum()


def test_frames_of_different_geometries_count_by_their_samples(bench) -> None:  # type: ignore[no-untyped-def]
    frames = (bench.frame(noise=6.0), bench.frame((0.0, 0.0, 28.0, 0.0, 0.6, 0.0), noise=6.0, seed=1))
    poses = around(place(bench, frames), 3)
    coarse, fine = views(frames, 2.0, 3.0), views(frames, 2.0, 2.0)
    mixed = [coarse[0], fine[1]]  # two grids: two batches
    matcher = TorchMatcher("ncc", EXACT)
    level = matcher.level(bench.volume, 2.0, 0)
    both, slow = matcher.evaluate(level, mixed, poses), normal_equations(level, mixed, poses)
    assert torch.allclose(both.score, slow.score, atol=1e-7)
    assert torch.allclose(both.gradient, slow.gradient, atol=1e-6)


def test_covariance_is_of_the_size_of_that_by_residuals(bench, single) -> None:  # type: ignore[no-untyped-def]
    seen, pose = single
    reference, matcher = NccMatcher(), TorchMatcher("ncc")
    level = matcher.level(bench.volume, 2.0, 0)
    best = reference.climb(level, seen, pose[None], RADIUS, 0.4, STOP)[0][0]
    points = image_points(bench.frame().frame.geometry) - bench.frame().frame.plane.centre_mm
    one, other = (point_sigma_mm(ref_covariance(m.noises(level, seen, best)), points) for m in (matcher, reference))
    assert 0.3 < one / other < 3.0


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ConfigError, match="similarity 'xyz'"):
        TorchMatcher("xyz")
    with pytest.raises(ConfigError, match="window"):
        TorchConfig(window=(5.0, 1.0))


# --- bad input ---------------------------------------------------------------------------------------------------


def constant_frame(bench) -> TrackedFrame:  # type: ignore[no-untyped-def]
    good = bench.frame()
    return replace(good, frame=replace(good.frame, image=torch.full_like(good.frame.image, 90)))


def with_data(bench, change) -> Volume:  # type: ignore[no-untyped-def]
    return replace(bench.volume, data=change(bench.volume.data.to(torch.float32).clone()))


def one_voxel(data: torch.Tensor) -> torch.Tensor:
    lonely = torch.full_like(data, math.nan)
    lonely[:, 35, 35, 35] = 100.0
    return lonely


def thin(bench) -> Volume:  # type: ignore[no-untyped-def]
    grid = bench.volume.grid
    flat = VoxelGrid((grid.size[0], grid.size[1], 1), grid.spacing_mm, grid.origin_mm, grid.direction)
    return Volume(bench.volume.data[:, :1], flat)


BAD = {
    "constant frame": lambda b: (b.volume, constant_frame(b)),
    "constant volume": lambda b: (with_data(b, torch.ones_like), b.frame()),
    "volume of NaN": lambda b: (with_data(b, lambda d: d * math.nan), b.frame()),
    "infinite volume": lambda b: (with_data(b, lambda d: d * math.inf), b.frame()),
    "one valid voxel": lambda b: (with_data(b, one_voxel), b.frame()),
    "empty mask": lambda b: (replace(b.volume, mask=torch.zeros(70, 70, 70, dtype=torch.bool)), b.frame()),
    "one slice": lambda b: (thin(b), b.frame()),
    "wholly outside": lambda b: (b.volume, b.frame((900.0, 0.0, 0.0, 0.0, 0.0, 0.0))),
    "few samples": lambda b: (b.volume, b.frame((0.0, 76.0, 0.0, 0.0, 0.0, 0.0))),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("name", NAMES)
def test_bad_input_gives_a_finite_score_and_leaves_the_pose(bench, name, case) -> None:  # type: ignore[no-untyped-def]
    volume, tracked = BAD[case](bench)
    matcher = TorchMatcher(name, OptimiserConfig("lbfgs", evaluations=3))
    seen = views((tracked,), 2.0, 3.0)
    level, poses = matcher.level(volume, 2.0, 0), place(bench, (tracked,))[None]
    at, normal, _ = matcher.climb(level, seen, poses, RADIUS, 0.4, STOP)
    assert torch.isfinite(at).all() and torch.isfinite(normal.score).all()
    assert torch.isfinite(matcher.evaluate(level, seen, poses).gradient).all()
    assert motion_mm((at - poses)[:, :3, 3].repeat(1, 2), 0.0).max() < 3.0
    if "constant" not in case and case != "few samples":
        assert torch.equal(at, poses) and normal.overlap[0] < 0.01 and normal.score[0] == -1.0
    elif "constant" in case:
        assert torch.equal(at, poses)
    noises = matcher.noises(level, seen, at[0])
    assert torch.isfinite(ref_covariance(noises)).all()


@pytest.mark.parametrize("optimiser", ["adam", "bobyqa", "cmaes"])
def test_no_optimiser_leaves_a_pose_without_a_score(bench, optimiser) -> None:  # type: ignore[no-untyped-def]
    matcher = TorchMatcher("ncc", OptimiserConfig(optimiser, evaluations=12))
    for case in ("volume of NaN", "wholly outside", "constant frame"):
        volume, tracked = BAD[case](bench)
        level, poses = matcher.level(volume, 2.0, 0), place(bench, (tracked,))[None]
        at, _, _ = matcher.climb(level, views((tracked,), 2.0, 3.0), poses, RADIUS, 0.4, STOP)
        assert torch.equal(at, poses)


def test_nan_among_known_values_is_unknown(bench, single) -> None:  # type: ignore[no-untyped-def]
    seen, pose = single

    def holes(data: torch.Tensor) -> torch.Tensor:
        data[:, 30:34] = math.nan
        return data

    matcher = TorchMatcher("ncc", OptimiserConfig("lbfgs", evaluations=20))
    level = matcher.level(with_data(bench, holes), 0.4, 0)
    at, normal, _ = matcher.climb(level, seen, around(pose, 1), RADIUS, 0.4, STOP)
    assert torch.isfinite(at).all() and 0.4 < normal.overlap[0] < 1.0


def test_a_start_of_nan_and_a_mask_of_another_size_are_refused(bench, single) -> None:  # type: ignore[no-untyped-def]
    seen, pose = single
    matcher = TorchMatcher("ncc")
    level = matcher.level(bench.volume, 2.0, 0)
    with pytest.raises(GeometryError, match="NaN"):
        matcher.climb(level, seen, pose[None] * math.nan, RADIUS, 0.4, STOP)
    with pytest.raises(ShapeError, match="mask"):
        replace(bench.volume, mask=torch.ones(70, 70, 69, dtype=torch.bool))
    image = torch.rand(1, 1, 8, 8)
    for each in SIMILARITIES.values():
        with pytest.raises(ShapeError):
            each(image, image, torch.ones(1, 1, 8, 7, dtype=torch.bool))


def test_a_similarity_that_finds_nothing_scores_as_unseen(bench, single) -> None:  # type: ignore[no-untyped-def]
    seen, pose = single
    level = TorchMatcher("ncc").level(bench.volume, 2.0, 0)

    def broken(a: torch.Tensor, b: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        value = ncc(a, b, mask)
        return torch.where(torch.arange(len(value)) == 1, torch.full_like(value, np.nan), value)

    view: list[View] = seen
    looked = ImageObjective(level, view, broken)(around(pose, 3), True)
    assert looked.score[1] == -1.0 and looked.gradient[1].abs().sum() == 0
    assert looked.score[0] > 0.3 and looked.gradient[0].abs().sum() > 0
    assert isinstance(bench.frame().frame, Frame)


# --- the whole refinement ----------------------------------------------------------------------------------------

STAGES = (("ncc", "lm"), ("lncc", "lm"), ("lc2", "lm"), ("mind", "lbfgs"), ("ngf", "bobyqa"))


def stage(similarity: str, optimizer: str) -> Refine:
    levels = (LevelConfig(4.0, 4.0, 0.2), LevelConfig(2.0, 3.0, 0.1))
    spread = SpreadConfig(count=4, climb=1, finish=1)
    return Refine(RefineConfig(similarity=similarity, optimizer=optimizer, levels=levels, spread=spread))


@pytest.mark.parametrize(("similarity", "optimizer"), STAGES)
def test_the_refinement_rejects_bad_input(bench, similarity, optimizer) -> None:  # type: ignore[no-untyped-def]
    refine = stage(similarity, optimizer)
    for case in BAD if optimizer == "lm" else ("constant frame", "volume of NaN", "few samples"):
        volume, tracked = BAD[case](bench)
        start = start_estimate(bench.world_T_ct, volume)
        try:
            found = refine(Problem((tracked,), volume, start), start)
        except NoOverlapError as error:
            assert "constant" not in case and "check the start" in str(error)
        else:
            assert case in ("constant frame", "constant volume", "few samples")
            assert not found.accepted and found.reason and torch.isfinite(found.world_T_ct).all()
            assert torch.isfinite(found.covariance).all() and math.isfinite(found.score)


def test_the_refinement_takes_any_similarity_and_optimiser(bench) -> None:  # type: ignore[no-untyped-def]
    tracked = bench.frame(noise=6.0)
    start = bench.start(tracked, (3.0, -2.0, 1.0), (2.0, 2.0, -2.0))
    found = stage("mind", "lbfgs")(bench.problem((tracked,), start), start)
    assert bench.tre_mm(start, tracked) > 3.0 > 0.8 > bench.tre_mm(found, tracked)
    assert 0.5 < found.score <= 1.0 and found.covariance.trace() > 0
