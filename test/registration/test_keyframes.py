# SPDX-License-Identifier: Apache-2.0
"""Keyframes: greedy choice against every choice, laws of information, redundant frames, bad input."""

import itertools
import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from usreg.data.types import TrackedFrame
from usreg.errors import ConfigError, GeometryError, ShapeError
from usreg.geometry import se3
from usreg.registration.keyframes import (
    KeyframeConfig,
    gain,
    greedy,
    image_information,
    pose_covariances,
    pose_information,
    select_keyframes,
    with_tracking,
)
from usreg.registration.maximise import evaluate
from usreg.registration.normal import views
from usreg.registration.pyramid import volume_level

EYE = torch.eye(6, dtype=torch.float64)


def axis(*numbers: int, size: float = 100.0) -> torch.Tensor:
    """Information about single parameters."""
    return torch.diag(torch.tensor([size if k in numbers else 0.0 for k in range(6)], dtype=torch.float64))


def draw(seed: int, count: int, rank: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    j = torch.randn(count, rank, 6, generator=generator, dtype=torch.float64)
    return 10.0 * torch.rand(count, 1, 1, generator=generator, dtype=torch.float64) * j.transpose(-1, -2) @ j


def test_frames_that_complete_each_other_are_preferred() -> None:
    information = torch.stack([axis(0, 1, 5), axis(0, 1, 5, size=120.0), axis(2, 3, 4, size=50.0), axis(0, size=400.0)])
    assert greedy(information, EYE, 2) == [1, 2]
    assert greedy(information, EYE, 4)[:2] == [1, 2] and len(greedy(information, EYE, 4)) == 4


def test_gain_has_its_known_value() -> None:
    assert gain(torch.stack([axis(0, size=3.0), axis(1, size=7.0)]), EYE) == pytest.approx(math.log(4.0 * 8.0))


@pytest.mark.parametrize("rank", [1, 3, 6])
def test_greedy_reaches_its_bound_of_the_best_choice(rank: int) -> None:
    for seed in range(6):
        information = draw(seed, 8, rank)
        chosen = greedy(information, EYE, 3)
        best = max(gain(information[list(rows)], EYE) for rows in itertools.combinations(range(8), 3))
        assert (1.0 - 1.0 / math.e) * best - 1e-9 <= gain(information[chosen], EYE) <= best + 1e-9


def test_no_frame_says_more_than_its_pose_is_known() -> None:
    information = torch.stack([1e9 * EYE, axis(0, 1)])
    known = with_tracking(information, 0.25 * EYE.expand(2, 6, 6))
    assert torch.allclose(known[0], 4.0 * EYE, rtol=1e-6)
    assert torch.allclose(known[1].diagonal()[:2], torch.full((2,), 1.0 / (0.01 + 0.25), dtype=torch.float64))
    assert torch.equal(with_tracking(information, torch.zeros(2, 6, 6, dtype=torch.float64)), information)


def sweep(
    bench: Any, count: int, step: tuple[float, ...] = (0.0, 0.0, 2.0, 0.0, 0.03, 0.0)
) -> tuple[TrackedFrame, ...]:
    return tuple(bench.frame(tuple(k * s for s in step), seed=k) for k in range(count))


def test_redundant_frames_are_dropped(bench: Any) -> None:
    different = sweep(bench, 4)
    doubled = tuple(f for f in different for _ in range(3))
    assert select_keyframes(doubled, KeyframeConfig(count=8)) == [0, 3, 6, 9]
    assert len(select_keyframes(doubled, KeyframeConfig(count=8, apart_mm=0.0, min_gain=0.0))) == 8


def test_a_frame_without_structure_is_not_taken(bench: Any) -> None:
    frames = list(sweep(bench, 3))
    empty = replace(frames[1].frame, image=torch.full_like(frames[1].frame.image, 77))
    frames[1] = replace(frames[1], frame=empty)
    assert select_keyframes(tuple(frames), KeyframeConfig()) == [0, 2]


def test_a_frame_whose_pose_is_badly_known_comes_last(bench: Any) -> None:
    frames = tuple(replace(f, covariance=(1e4 if k == 0 else 1e-4) * EYE) for k, f in enumerate(sweep(bench, 4)))
    assert 0 not in select_keyframes(frames, KeyframeConfig(count=3))
    assert select_keyframes(frames, KeyframeConfig(count=3)) == select_keyframes(frames, KeyframeConfig(count=3))


def test_the_covariance_of_a_pose_moves_to_the_reference_frame(bench: Any) -> None:
    """By drawing errors of a pose and looking at how they move the image, seen from the reference frame."""
    from usreg.registration.normal import world_T_ref

    frames = sweep(bench, 2)
    sigmas = torch.tensor([1e-4, 2e-4, 3e-4, 1e-6, 2e-6, 3e-6], dtype=torch.float64)
    frames = tuple(replace(f, covariance=torch.diag(sigmas**2)) for f in frames)
    draws = torch.randn(4000, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * sigmas
    moved = se3.left_at_pivot(frames[1].world_T_image, draws, frames[1].world_T_image[:3, 3])
    reference = world_T_ref(frames)
    seen = se3.log(se3.inverse(reference) @ moved @ se3.inverse(frames[1].world_T_image) @ reference)
    expected = pose_covariances(frames)[1]
    scale = expected.diagonal().sqrt()
    assert ((torch.cov(seen.T) - expected) / scale[:, None] / scale).abs().max() < 0.08


def test_information_of_images_is_near_that_of_the_pose(bench: Any) -> None:
    """Judged by the image alone, the in-plane parameters weigh as they do in the volume, within a factor of three."""
    frames, config = sweep(bench, 2), KeyframeConfig(sigma_mm=2.0, step_mm=2.0)
    level = volume_level(bench.volume, config.sigma_mm)
    from usreg.registration.normal import world_T_ref

    ct_T_ref = se3.inverse(bench.world_T_ct) @ world_T_ref(frames)
    placed = views(frames, config.sigma_mm, config.step_mm)
    truly = pose_information(lambda v, p: evaluate(level, v, p), placed, ct_T_ref, config.sigma_mm)
    guessed = image_information(frames, config)
    # both hold the share of the variance that is left unexplained: compare what does not depend on it
    ratio = (guessed.diagonal(dim1=-2, dim2=-1) / truly.diagonal(dim1=-2, dim2=-1)).log()
    assert (ratio - ratio.mean(1, keepdim=True)).abs().max() < math.log(3.0)
    assert (torch.linalg.eigvalsh(guessed) > 0).all()


def test_what_cannot_be_chosen_from_is_an_error(bench: Any) -> None:
    with pytest.raises(ShapeError, match="no frame"):
        select_keyframes((), KeyframeConfig())
    with pytest.raises(ShapeError):
        greedy(torch.zeros(0, 6, 6, dtype=torch.float64), EYE, 1)
    with pytest.raises(ShapeError):
        greedy(torch.zeros(3, 5, 6, dtype=torch.float64), EYE, 1)
    with pytest.raises(GeometryError, match="finite"):
        greedy(torch.full((2, 6, 6), torch.nan, dtype=torch.float64), EYE, 1)
    with pytest.raises(GeometryError, match="definite"):
        greedy(draw(0, 2, 6), -EYE, 1)
    with pytest.raises(ConfigError):
        greedy(draw(0, 2, 6), EYE, 0)
    with pytest.raises(ConfigError):
        KeyframeConfig(count=0)
