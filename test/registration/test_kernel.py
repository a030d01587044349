# SPDX-License-Identifier: Apache-2.0
"""The compiled kernel and climb against their torch twins, their derivatives, and their independence of threads."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from usreg.data.types import Volume
from usreg.geometry import se3
from usreg.registration import kernel, levenberg, twin, workers
from usreg.registration.maximise import climb_compiled, climb_torch
from usreg.registration.normal import compiled_moments, normal_equations, plane_matrices
from usreg.registration.pyramid import volume_level
from usreg.registration.scene import Scene, build_scene

SIGMAS, STEPS = (4.0, 1.0), [4.0, 1.5]


def scene_of(bench, frames=1, hole=False) -> Scene:  # type: ignore[no-untyped-def]
    volume = bench.volume
    if hole:
        known = torch.ones(70, 70, 70, dtype=torch.bool)
        known[30:38, 20:50, 30:40] = False
        volume = Volume(volume.data, volume.grid, mask=known)
    twists = [(0.0,) * 6, (2.0, -1.0, 3.0, 0.05, 0.1, -0.1), (-3.0, 2.0, 5.0, 0.0, -0.2, 0.1)][:frames]
    tracked = tuple(bench.frame(t, noise=10.0, seed=k) for k, t in enumerate(twists))
    return build_scene(tracked, [volume_level(volume, s) for s in SIGMAS], STEPS)


def poses_of(bench, scene: Scene, count: int = 3, seed: int = 0) -> torch.Tensor:  # type: ignore[no-untyped-def]
    truth = se3.inverse(bench.world_T_ct) @ scene.world_T_ref
    scale = torch.tensor([2.0, 2.0, 2.0, 0.05, 0.05, 0.05], dtype=torch.float64)
    twist = torch.randn(count, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale
    return levenberg.move(truth.expand(count, 4, 4), twist)


@pytest.mark.parametrize("hole", [False, True])
def test_moments_agree_with_the_torch_twin(bench, hole) -> None:  # type: ignore[no-untyped-def]
    scene = scene_of(bench, hole=hole)
    for level, (volume, views) in enumerate(zip(scene.volumes, scene.views, strict=True)):
        planes, axes = plane_matrices(volume.index_T_ct, poses_of(bench, scene))
        args = (volume.data, planes, axes, views[0].level.x_mm, views[0].level.y_mm, views[0].level.value)
        fast, slow = compiled_moments(*args), twin.moments(*args)
        assert torch.equal(fast[:, 0, 0], slow[:, 0, 0]), f"level {level}: other samples were used"
        scale = slow.diagonal(dim1=1, dim2=2).sqrt()
        assert ((fast - slow).abs() / (scale[:, :, None] * scale[:, None, :])).max() < 1e-6


def test_normal_equations_agree_with_the_torch_twin_for_several_frames(bench) -> None:  # type: ignore[no-untyped-def]
    scene = scene_of(bench, frames=3)
    poses = poses_of(bench, scene)
    fast = normal_equations(scene.volumes[1], scene.views[1], poses)
    slow = normal_equations(scene.volumes[1], scene.views[1], poses, twin.moments)
    assert torch.allclose(fast.score, slow.score, rtol=1e-6, atol=1e-7)
    assert torch.allclose(fast.gradient, slow.gradient, rtol=1e-5, atol=1e-7)
    assert torch.allclose(fast.matrix, slow.matrix, rtol=1e-5, atol=1e-7)
    assert torch.equal(fast.overlap, slow.overlap)


@pytest.mark.parametrize("frames", [1, 3])
def test_the_gradient_is_the_derivative_of_the_score(bench, frames) -> None:  # type: ignore[no-untyped-def]
    scene = scene_of(bench, frames=frames)
    pose = poses_of(bench, scene, count=1)
    normal = normal_equations(scene.volumes[0], scene.views[0], pose)
    for axis, step in enumerate((3e-3, 3e-3, 3e-3, 1e-4, 1e-4, 1e-4)):
        twist = torch.zeros(2, 6, dtype=torch.float64)
        twist[0, axis], twist[1, axis] = step, -step
        ends = normal_equations(scene.volumes[0], scene.views[0], levenberg.move(pose.expand(2, 4, 4), twist))
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


def test_a_frame_without_samples_and_a_volume_of_one_voxel_give_no_score() -> None:
    empty = np.zeros(0, np.float32)
    plane, axes = np.eye(3)[None], np.eye(3, dtype=np.float32)[None]
    assert not kernel.moments(np.ones((5, 5, 5), np.float32), plane, axes, empty, empty, empty).any()
    one = np.zeros(1, np.float32)
    assert not kernel.moments(np.ones((1, 1, 1), np.float32), plane, axes, one, one, one).any()
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
