# SPDX-License-Identifier: Apache-2.0
"""Local regressions over patches: known values, invariance, gradient, least-squares form, bad input."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from usreg.errors import ConfigError, NoOverlapError, ShapeError
from usreg.similarity import LeastSquares, LocalResidual, PatchRule, local_regression

PATCHES = torch.tensor([[0, 7, 0, 6], [5, 12, 4, 14], [3, 9, 2, 9]])  # of unequal size, overlapping


def images(generator: torch.Generator, channels: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    fixed = torch.rand(2, 1, 12, 14, generator=generator, dtype=torch.float64)
    moving = torch.rand(2, channels, 12, 14, generator=generator, dtype=torch.float64)
    moving[:, :1] += 0.7 * fixed
    return fixed, moving, torch.rand(2, 1, 12, 14, generator=generator) > 0.2


@pytest.mark.parametrize("channels", [1, 2])
def test_value_is_what_numpys_least_squares_leaves(generator: torch.Generator, channels: int) -> None:
    fixed, moving, mask = images(generator, channels)
    for b, score in enumerate(local_regression(fixed, moving, mask, PATCHES)):
        left, whole = 0.0, 0.0
        for r0, r1, c0, c1 in PATCHES.tolist():
            known = mask[b, 0, r0:r1, c0:c1].numpy()
            u = fixed[b, 0, r0:r1, c0:c1].numpy()[known]
            a = [m[r0:r1, c0:c1].numpy()[known] for m in moving[b]]
            design = np.stack([*a, np.ones(len(u))], 1)
            left += ((u - design @ np.linalg.lstsq(design, u, rcond=None)[0]) ** 2).sum()
            whole += ((u - u.mean()) ** 2).sum()
        assert float(score) == pytest.approx(1.0 - left / whole, abs=1e-12)


def test_a_linear_combination_in_every_patch_scores_one_whatever_its_coefficients(generator: torch.Generator) -> None:
    _, moving, mask = images(generator)
    patches = torch.tensor([[0, 6, 0, 14], [6, 12, 0, 14]])
    gain = torch.ones(12, 14, dtype=torch.float64)
    gain[6:] = -3.0
    fixed = gain * (2.0 * moving[:, :1] - 0.5 * moving[:, 1:]) + 7.0 * gain
    assert torch.allclose(local_regression(fixed, moving, mask, patches), torch.ones(2, dtype=torch.float64))
    inverted = local_regression(fixed, moving[:, :1], mask, patches)
    signed = local_regression(fixed, moving[:, :1], mask, patches, PatchRule(signed=True))
    assert bool((signed < inverted).all()) and bool((signed > 0).all())  # only the upper patch is positive


@pytest.mark.parametrize("rule", [PatchRule(), PatchRule((0.03, 0.01), power=0.5, floor=0.01)])
def test_gradients_agree_with_finite_differences(generator: torch.Generator, rule: PatchRule) -> None:
    fixed, moving, mask = images(generator)
    moving.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda m: local_regression(fixed, m, mask, PATCHES, rule), (moving,), fast_mode=True
    )


@pytest.mark.parametrize("rule", [PatchRule(), PatchRule((0.03, 0.01), power=0.5, floor=0.01)])
def test_the_residual_is_twice_one_minus_the_score_and_leads_uphill(
    generator: torch.Generator, rule: PatchRule
) -> None:
    fixed, moving, mask = images(generator)
    direction = torch.rand(2, moving[0].numel(), 3, generator=generator, dtype=torch.float64)
    step = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    moved = moving + (direction @ step[..., None]).reshape(moving.shape)
    score = local_regression(fixed, moved, mask, PATCHES, rule)
    (gradient,) = torch.autograd.grad(score.sum(), step)
    form = LocalResidual(PATCHES, rule)(fixed, moving, mask)
    matrix, right = form.normal_equations(direction)
    assert torch.allclose((form.weight * form.residual**2).sum(-1), 2 * (1 - score), atol=1e-12)
    assert torch.allclose(-right, gradient, atol=1e-12)
    assert bool((torch.linalg.eigvalsh(matrix) > 0).all())


def test_local_gain_and_offset_are_not_seen_by_gauss_newton(generator: torch.Generator) -> None:
    fixed, moving, mask = images(generator)
    form = LocalResidual(PATCHES)(fixed, moving, mask)
    mixed = torch.stack([moving[:, 1], moving[:, 0]], 1)
    directions = torch.stack([torch.ones_like(moving), moving, mixed], -1).flatten(1, 3)
    assert form.push(directions).abs().max() < 1e-10


def test_a_ridge_takes_from_patches_without_contrast(generator: torch.Generator) -> None:
    fixed, moving, mask = images(generator, 1)
    free = local_regression(fixed, moving, mask, PATCHES)
    assert torch.allclose(local_regression(fixed, 1e-3 * moving, mask, PATCHES), free)
    assert bool((local_regression(fixed, 1e-3 * moving, mask, PATCHES, 0.1) < 0.01 * free).all())


def test_patches_that_know_too_little_are_left_out(generator: torch.Generator) -> None:
    fixed, moving, mask = images(generator)
    alone = local_regression(fixed, moving, mask, PATCHES[1:2])
    mask[:, :, :5] = False
    mask[:, :, :, :4] = False
    last = torch.tensor([[0, 7, 0, 6], [5, 12, 4, 14]])
    assert torch.allclose(local_regression(fixed, moving, mask, last), alone)
    dark = torch.where(torch.arange(12)[:, None] < 5, torch.nan, fixed)  # a share of what the fixed image has
    rule = PatchRule(least_share=0.6)
    kept = local_regression(dark, moving, torch.ones_like(mask), PATCHES[1:2], rule)
    assert bool((kept > 0).all())
    mask[:, :, 8:] = False
    assert local_regression(dark, moving, mask, PATCHES[1:2], rule).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("which", ["fixed", "moving"])
def test_without_contrast_the_score_is_zero_and_gradients_are_finite(generator: torch.Generator, which: str) -> None:
    fixed, moving, mask = images(generator)
    (fixed if which == "fixed" else moving).fill_(0.1)
    moving.requires_grad_()
    score = local_regression(fixed, moving, mask, PATCHES)
    (gradient,) = torch.autograd.grad(score.sum(), moving)
    assert score.abs().max() < 1e-12 and bool(torch.isfinite(gradient).all())
    form = LocalResidual(PATCHES)(fixed, moving.detach(), mask)
    assert bool(torch.isfinite(torch.cat([form.residual, form.weight])).all())


def test_bad_input_is_refused(generator: torch.Generator) -> None:
    fixed, moving, mask = images(generator)
    with pytest.raises(NoOverlapError, match="empty"):
        local_regression(fixed, moving, torch.zeros_like(mask), PATCHES)
    with pytest.raises(ShapeError, match="inside an image"):
        local_regression(fixed, moving, mask, torch.tensor([[0, 13, 0, 6]]))
    with pytest.raises(ShapeError, match="1 and 2 channels"):
        local_regression(moving, moving, mask, PATCHES)
    with pytest.raises(ShapeError, match="ridge"):
        local_regression(fixed, moving, mask, PATCHES, PatchRule((1.0, 2.0, 3.0)))
    with pytest.raises(ConfigError, match="least_share"):
        PatchRule(least_share=1.5)


def test_the_agreement_holds() -> None:
    assert isinstance(LocalResidual(PATCHES), LeastSquares)
