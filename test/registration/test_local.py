# SPDX-License-Identifier: Apache-2.0
"""LNCC and LC2 by local regression: the compiled kernel against the slow reference, its gradient, prior, and whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from usreg.geometry import rotation, se3
from usreg.registration.levenberg import LevenbergConfig, move
from usreg.registration.local import LocalConfig, LocalMatcher, _firsts
from usreg.registration.local_kernel import sample_channels
from usreg.registration.matching import Prior
from usreg.registration.normal import plane_matrices
from usreg.registration.scene import Scene, build_scene
from usreg.similarity.local import PatchRule, local_regression

CONFIG = LocalConfig(patch_mm=(14.0,), power=0.5, ridge=0.002, all_counts=False)
LEVENBERG = LevenbergConfig(tolerance_mm=0.01)


def make_scene(bench, matcher: LocalMatcher, twist=(0.0,) * 6) -> tuple[Scene, torch.Tensor]:  # type: ignore[no-untyped-def]
    tracked = bench.frame(twist, noise=8.0)
    scene = build_scene((tracked,), matcher, [matcher.level(bench.volume, 1.5, 0)], [1.8])
    return scene, se3.inverse(bench.world_T_ct) @ scene.world_T_ref


def off(truth: torch.Tensor, *twist: float) -> torch.Tensor:
    return move(truth[None], torch.tensor([twist], dtype=torch.float64))


def resampled(scene: Scene, pose: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Fixed (1, 1, h, w), moving (1, C, h, w) with NaN where unknown, and where the sector is."""
    level, view = scene.volumes[0], scene.views[0][0]
    planes, axes = plane_matrices(level.index_T_ct, (pose @ view.ref_T_centre)[None])
    count, channels = len(view.level.value), level.data.shape[3]
    value, known = np.empty((count, channels), np.float32), np.zeros(count, bool)
    samples = view.level.x_mm.numpy(), view.level.y_mm.numpy(), 0, count, False
    sample_channels(level.data.numpy(), planes[0].numpy(), axes[0].numpy(), *samples, value,
                    np.empty((1, channels, 6), np.float32), known)  # fmt: skip
    fixed = torch.full((view.level.shape[0] * view.level.shape[1],), torch.nan, dtype=torch.float64)
    moving = torch.full((channels, len(fixed)), torch.nan, dtype=torch.float64)
    fixed[view.level.cell] = view.level.value.double()
    moving[:, view.level.cell[torch.from_numpy(known)]] = torch.from_numpy(value[known]).double().T
    shape = view.level.shape
    return fixed.reshape(1, 1, *shape), moving.reshape(1, channels, *shape), torch.isfinite(fixed).reshape(1, 1, *shape)


def rectangles(scene: Scene, config: LocalConfig) -> torch.Tensor:
    """The patches of `cut_patches`, as rows and columns."""
    view = scene.views[0][0].level
    columns, rows = (max(config.patch_samples, round(config.patch_mm[0] / mm)) for mm in view.spacing_mm)
    inside = torch.zeros(view.shape[0] * view.shape[1])
    inside[view.cell] = 1
    inside = inside.reshape(view.shape)
    found = []
    for top in _firsts(view.shape[0], rows, config.stride):
        for left in _firsts(view.shape[1], columns, config.stride):
            box = (top, min(top + rows, view.shape[0]), left, min(left + columns, view.shape[1]))
            if 2 * inside[box[0] : box[1], box[2] : box[3]].sum() >= (box[1] - box[0]) * (box[3] - box[2]):
                found.append(box)
    return torch.tensor(found)


@pytest.mark.parametrize("form", ["lncc", "lc2"])
@pytest.mark.parametrize("twist", [(0.0,) * 6, (3.0, -2.0, 4.0, 0.05, 0.03, -0.06), (25.0, 0.0, 0.0, 0.0, 0.0, 0.0)])
def test_the_kernel_agrees_with_the_slow_reference(bench, form: str, twist: tuple[float, ...]) -> None:  # type: ignore[no-untyped-def]
    config = LocalConfig(**{**vars(CONFIG), "both_signs": form == "lc2"})
    matcher = LocalMatcher(form, config)
    scene, truth = make_scene(bench, matcher)
    pose = off(truth, *twist)
    score = float(matcher.evaluate(scene.volumes[0], scene.views[0], pose).score)
    fixed, moving, mask = resampled(scene, pose[0])
    ridge = tuple(config.ridge * v + 1e-9 for v in scene.volumes[0].variance)
    rule = PatchRule(ridge, False, not config.both_signs, config.power, config.floor, 8, config.least_share)
    slow = float(local_regression(fixed, moving, mask, rectangles(scene, config), rule))
    assert score == pytest.approx(slow, abs=1e-5)
    assert score > 0.02 if twist == (0.0,) * 6 else True


@pytest.mark.parametrize(("form", "signs"), [("lncc", False), ("lc2", True), ("lc2", False)])
@pytest.mark.parametrize("whole", [False, True])
def test_the_gradient_agrees_with_finite_differences(bench, form: str, signs: bool, whole: bool) -> None:  # type: ignore[no-untyped-def]
    matcher = LocalMatcher(
        form, LocalConfig(**{**vars(CONFIG), "both_signs": signs, "all_counts": whole, "power": 0.0})
    )
    scene, truth = make_scene(bench, matcher)
    pose, step = off(truth, 0.7, -0.5, 0.6, 0.02, -0.01, 0.02)[0], 1e-3
    normal = matcher.evaluate(scene.volumes[0], scene.views[0], pose[None])
    for axis in range(6):
        h = step if axis < 3 else step / 20.0
        both = torch.cat([off(pose, *(s * h * (k == axis) for k in range(6))) for s in (1.0, -1.0)])
        up, down = matcher.evaluate(scene.volumes[0], scene.views[0], both).score.tolist()
        expected = (up - down) / (2 * h)
        scale = float(normal.gradient[0].abs().max()) if axis < 3 else float(normal.gradient[0, 3:].abs().max())
        assert float(normal.gradient[0, axis]) == pytest.approx(expected, abs=0.03 * scale)


def test_values_alone_are_those_of_the_full_evaluation(bench) -> None:  # type: ignore[no-untyped-def]
    matcher = LocalMatcher("lc2", CONFIG)
    scene, truth = make_scene(bench, matcher)
    poses = torch.cat([off(truth, 2.0 * k, -k, 0.5 * k, 0.01 * k, 0.0, 0.0) for k in range(5)])
    full = matcher.evaluate(scene.volumes[0], scene.views[0], poses)
    alone = matcher.evaluate(scene.volumes[0], scene.views[0], poses, full=False)
    assert torch.equal(full.score, alone.score) and torch.equal(full.overlap, alone.overlap)


@pytest.mark.parametrize("form", ["lncc", "lc2"])
def test_it_climbs_back_to_the_truth(bench, form: str) -> None:  # type: ignore[no-untyped-def]
    matcher = LocalMatcher(form, CONFIG)
    scene, truth = make_scene(bench, matcher)
    starts = off(truth, 1.0, -1.2, 0.8, 0.02, 0.02, -0.02)
    poses, _, _ = matcher.climb(scene.volumes[0], scene.views[0], starts, scene.radius_mm, 0.4, LEVENBERG)
    assert float(scene.apart_mm(truth, poses)) < 0.6 < float(scene.apart_mm(truth, starts))


def test_a_strong_prior_holds_and_a_weak_one_lets_go(bench) -> None:  # type: ignore[no-untyped-def]
    matcher = LocalMatcher("lncc", CONFIG)
    scene, truth = make_scene(bench, matcher)
    start = off(truth, 1.0, -1.2, 0.8, 0.02, 0.02, -0.02)
    ends = []
    for weight in (1e6, 1e-9):
        prior = Prior(start[0], weight * torch.diag(torch.tensor([1.0] * 3 + [1e3] * 3, dtype=torch.float64)))
        climbed = matcher.climb(scene.volumes[0], scene.views[0], start, scene.radius_mm, 0.4, LEVENBERG, prior)
        ends.append(float(scene.apart_mm(truth, climbed[0])))
    assert ends[0] == pytest.approx(float(scene.apart_mm(truth, start)), abs=0.05) and ends[1] < 0.6


def test_the_cost_of_a_prior_is_half_the_squared_distance() -> None:
    pose = se3.from_parts(rotation.exp(torch.tensor([0.1, 0.2, -0.1], dtype=torch.float64)), torch.ones(3).double())
    prior = Prior(pose, torch.diag(torch.tensor([4.0, 1.0, 1.0, 100.0, 1.0, 1.0], dtype=torch.float64)))
    moved = pose @ se3.from_parts(
        rotation.exp(torch.tensor([0.1, 0.0, 0.0], dtype=torch.float64)), torch.tensor([0.0, 3.0, 0.0]).double()
    )
    assert prior.cost(torch.stack([pose, moved])).tolist() == pytest.approx([0.0, 0.5 * (9.0 + 1.0)])


def test_a_pose_does_not_gain_by_looking_away(bench) -> None:  # type: ignore[no-untyped-def]
    seen = LocalMatcher("lncc", CONFIG)
    whole = LocalMatcher("lncc", LocalConfig(**{**vars(CONFIG), "all_counts": True}))
    scene, truth = make_scene(bench, seen)
    away = off(truth, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    away[:, :3, 3] += truth[:3, 0] * 30.0
    full = whole.evaluate(scene.volumes[0], scene.views[0], away)
    assert float(full.overlap) < 0.9
    part = seen.evaluate(scene.volumes[0], scene.views[0], away)
    assert float(full.score) < float(part.score) or float(part.score) <= 0.0
    here = [m.evaluate(scene.volumes[0], scene.views[0], truth[None]) for m in (seen, whole)]
    if float(here[0].overlap) == 1.0:
        assert float(here[0].score) == pytest.approx(float(here[1].score), abs=1e-9)


def test_one_thread_or_three_give_the_same_bits(bench, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    from usreg import workers

    matcher = LocalMatcher("lc2", CONFIG)
    scene, truth = make_scene(bench, matcher)
    starts = torch.cat([off(truth, 1.0 * k, -1.0, 0.5, 0.01 * k, 0.0, 0.02) for k in range(5)])
    found = []
    for threads in ("1", "3"):
        monkeypatch.setenv("USREG_THREADS", threads)
        workers.thread_count.cache_clear()
        found.append(matcher.climb(scene.volumes[0], scene.views[0], starts, scene.radius_mm, 0.4, LEVENBERG)[0])
    workers.thread_count.cache_clear()
    assert torch.equal(found[0], found[1])
