# SPDX-License-Identifier: Apache-2.0
"""The compiled kernel and climb against their torch twins, their derivatives, and their independence of threads."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from usreg import workers
from usreg.data.types import Volume
from usreg.geometry import se3
from usreg.registration import kernel, levenberg, twin
from usreg.registration.maximise import climb_compiled, climb_torch, evaluate
from usreg.registration.ncc_matcher import NccMatcher
from usreg.registration.normal import normal_equations, plane_matrices
from usreg.registration.pyramid import volume_level
from usreg.registration.scene import Scene, build_scene
from usreg.similarity import ncc

SIGMAS, STEPS = (4.0, 1.0), [4.0, 1.5]


def scene_of(bench, frames=1, hole=False) -> Scene:  # type: ignore[no-untyped-def]
    volume = bench.volume
    if hole:
        known = torch.ones(70, 70, 70, dtype=torch.bool)
        known[30:38, 20:50, 30:40] = False
        volume = Volume(volume.data, volume.grid, mask=known)
    twists = [(0.0,) * 6, (2.0, -1.0, 3.0, 0.05, 0.1, -0.1), (-3.0, 2.0, 5.0, 0.0, -0.2, 0.1)][:frames]
    tracked = tuple(bench.frame(t, noise=10.0, seed=k) for k, t in enumerate(twists))
    return build_scene(tracked, NccMatcher(), [volume_level(volume, s) for s in SIGMAS], STEPS)


def poses_of(bench, scene: Scene, count: int = 3, seed: int = 0) -> torch.Tensor:  # type: ignore[no-untyped-def]
    truth = se3.inverse(bench.world_T_ct) @ scene.world_T_ref
    scale = torch.tensor([2.0, 2.0, 2.0, 0.05, 0.05, 0.05], dtype=torch.float64)
    twist = torch.randn(count, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale
    return levenberg.move(truth.expand(count, 4, 4), twist)


@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize("hole", [False, True])
def test_normal_equations_agree_with_the_torch_twin(bench, hole, frames) -> None:  # type: ignore[no-untyped-def]
    scene = scene_of(bench, frames, hole)
    poses = poses_of(bench, scene)
    for level in (0, 1):
        fast, slow = scene.measure(level, poses), normal_equations(scene.volumes[level], scene.views[level], poses)
        assert torch.equal(fast.overlap, slow.overlap), f"level {level}: other samples were used"
        assert torch.allclose(fast.score, slow.score, rtol=1e-6, atol=1e-7)
        scale = slow.matrix.diagonal(dim1=1, dim2=2).sqrt()
        assert ((fast.gradient - slow.gradient) / scale).abs().max() < 1e-6
        assert ((fast.matrix - slow.matrix) / (scale[:, :, None] * scale[:, None, :])).abs().max() < 1e-6


@pytest.mark.parametrize("frames", [1, 3])
def test_the_gradient_is_the_derivative_of_the_score(bench, frames) -> None:  # type: ignore[no-untyped-def]
    scene = scene_of(bench, frames=frames)
    pose = poses_of(bench, scene, count=1)
    normal = scene.measure(0, pose)
    for axis, step in enumerate((3e-3, 3e-3, 3e-3, 1e-4, 1e-4, 1e-4)):
        twist = torch.zeros(2, 6, dtype=torch.float64)
        twist[0, axis], twist[1, axis] = step, -step
        ends = scene.measure(0, levenberg.move(pose.expand(2, 4, 4), twist))
        assert torch.equal(ends.overlap, normal.overlap.expand(2)), "the mask moved: choose another pose"
        numeric = (ends.score[0] - ends.score[1]) / (2 * step)
        assert float(normal.gradient[0, axis]) == pytest.approx(float(numeric), rel=2e-2, abs=2e-4)


def test_the_compiled_climb_goes_where_the_reference_goes(bench) -> None:  # type: ignore[no-untyped-def]
    scene = scene_of(bench, frames=2)
    starts = poses_of(bench, scene, count=3, seed=5)
    config = levenberg.LevenbergConfig(iterations=40, tolerance_mm=1e-4)
    for level in (0, 1):
        args = (scene.volumes[level], scene.views[level], starts, scene.radius_mm, 0.4, config)
        (fast, fast_normal, _), (slow, slow_normal, _) = climb_compiled(*args), climb_torch(*args)
        assert torch.allclose(fast_normal.score, slow_normal.score, atol=1e-6)
        assert max(float(scene.apart_mm(a, b[None])) for a, b in zip(fast, slow, strict=True)) < 0.01
        starts = fast


def test_the_score_never_falls_and_overlap_is_kept(bench) -> None:  # type: ignore[no-untyped-def]
    scene = scene_of(bench)
    starts = poses_of(bench, scene, count=8, seed=2)
    before = scene.measure(1, starts)
    config = levenberg.LevenbergConfig(iterations=6)
    _, after, count = climb_compiled(scene.volumes[1], scene.views[1], starts, scene.radius_mm, 0.4, config)
    assert bool((after.score >= before.score).all()) and bool((after.overlap >= 0.4).all())
    assert bool((count <= 6).all())


def test_results_do_not_depend_on_the_number_of_threads(bench, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    scene = scene_of(bench)
    starts, results = poses_of(bench, scene, count=7), []
    config = levenberg.LevenbergConfig(iterations=8)
    for threads in (1, 2, 3):
        monkeypatch.setattr(workers, "thread_count", lambda n=threads: n)
        workers._pool.cache_clear()
        normal = scene.measure(1, starts)
        climbed = climb_compiled(scene.volumes[1], scene.views[1], starts, scene.radius_mm, 0.4, config)
        results.append((normal.score, normal.matrix, climbed[0], climbed[1].score))
    workers._pool.cache_clear()
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_a_frame_without_samples_and_a_volume_of_one_voxel_give_no_score(bench) -> None:  # type: ignore[no-untyped-def]
    scene = scene_of(bench)
    view, poses = scene.views[0][0], poses_of(bench, scene)
    nothing = replace(view.level, x_mm=torch.zeros(0), y_mm=torch.zeros(0), value=torch.zeros(0))
    speck = replace(scene.volumes[0], data=torch.ones(1, 1, 1))
    for volume, level in ((scene.volumes[0], nothing), (speck, view.level)):
        normal = evaluate(volume, [replace(view, level=level)], poses)
        assert normal.score.tolist() == [-1.0] * 3 and normal.overlap.tolist() == [0.0] * 3
    value, _ = twin.sample_plane(torch.ones(1, 1, 1), torch.eye(3)[None], torch.zeros(1), torch.zeros(1))
    assert bool(torch.isnan(value).all())


def test_an_error_in_a_worker_reaches_the_caller() -> None:
    def work(first: int, last: int) -> None:
        if first > 0:
            raise ValueError("from a worker")

    workers_before = workers.thread_count()
    if workers_before < 2:
        pytest.skip("one processor: there is no second worker")
    with pytest.raises(ValueError, match="from a worker"):
        workers.run_ranges(work, 100, 1)


def test_ncc_on_the_common_mask_is_the_similaritys(bench) -> None:  # type: ignore[no-untyped-def]
    scene = scene_of(bench, hole=True)
    volume, view = scene.volumes[1], scene.views[1][0]
    planes, axes = plane_matrices(volume.index_T_ct, poses_of(bench, scene))
    samples = tuple(t.numpy() for t in (view.level.x_mm, view.level.y_mm, view.level.value))
    scores, count = kernel.common_ncc(volume.data.numpy(), planes.numpy(), axes.numpy(), *samples)
    values, _ = twin.sample_plane(volume.data, planes, view.level.x_mm, view.level.y_mm)
    mask = torch.isfinite(values).all(0).expand_as(values)[:, None, None]
    fixed = view.level.value.expand_as(values)[:, None, None]
    assert count == int(mask[0].sum()) > 100
    expected = ncc(fixed.double(), values[:, None, None].double(), mask)
    assert torch.allclose(torch.from_numpy(scores), expected, atol=1e-5)
