# SPDX-License-Identifier: Apache-2.0
"""NCC: value, invariance, gradient, least-squares form, bad input."""

import numpy as np
import pytest
import torch

from usreg.errors import NoOverlapError, ShapeError
from usreg.similarity import LeastSquares, NccResidual, Similarity, ncc


def images(generator: torch.Generator, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, ...]:
    a = torch.rand(3, 1, 11, 13, generator=generator, dtype=dtype)
    b = 0.6 * a + 0.4 * torch.rand(3, 1, 11, 13, generator=generator, dtype=dtype)
    return a, b, torch.rand(3, 1, 11, 13, generator=generator) > 0.3


def test_value_is_pearsons_correlation_over_the_mask(generator: torch.Generator) -> None:
    a, b, mask = images(generator)
    for k, value in enumerate(ncc(a, b, mask)):
        m = mask[k, 0].numpy()
        assert value == pytest.approx(np.corrcoef(a[k, 0].numpy()[m], b[k, 0].numpy()[m])[0, 1], abs=1e-12)


def test_weights_count_like_repeated_pixels(generator: torch.Generator) -> None:
    a, b, _ = images(generator)
    weight = torch.randint(1, 4, (3, 1, 11, 13), generator=generator)
    repeated = [torch.stack([x[0].flatten().repeat_interleave(weight[0].flatten())]) for x in (a, b)]
    expected = np.corrcoef(repeated[0][0].numpy(), repeated[1][0].numpy())[0, 1]
    assert float(ncc(a, b, weight)[0]) == pytest.approx(expected, abs=1e-12)


def test_gain_and_offset_do_not_matter_and_inversion_changes_the_sign(generator: torch.Generator) -> None:
    a, b, mask = images(generator)
    value = ncc(a, b, mask)
    assert torch.allclose(ncc(3.0 * a - 7.0, 0.01 * b + 100.0, mask), value, atol=1e-9)
    assert torch.allclose(ncc(a, -b, mask), -value, atol=1e-12)
    assert torch.allclose(ncc(a, a, mask), torch.ones(3, dtype=torch.float64), atol=1e-12)


def test_what_lies_outside_the_mask_may_be_nan(generator: torch.Generator) -> None:
    a, b, mask = images(generator)
    dirty = torch.where(mask, b, torch.full_like(b, torch.nan)).requires_grad_()
    value = ncc(a, dirty, mask)
    assert torch.allclose(value, ncc(a, b, mask))
    (gradient,) = torch.autograd.grad(value.sum(), dirty)
    assert bool(torch.isfinite(gradient).all()) and not bool(gradient[~mask].any())


def test_gradient_agrees_with_finite_differences(generator: torch.Generator) -> None:
    a, b, mask = images(generator)
    assert torch.autograd.gradcheck(
        lambda x, y: ncc(x, y, mask), (a.requires_grad_(), b.requires_grad_()), fast_mode=True
    )


def test_an_image_without_contrast_scores_zero_with_a_finite_gradient(generator: torch.Generator) -> None:
    a, _, mask = images(generator, torch.float32)
    flat = torch.full_like(a, 0.1).requires_grad_()
    value = ncc(a, flat, mask)
    (gradient,) = torch.autograd.grad(value.sum(), flat)
    assert value.tolist() == [0.0, 0.0, 0.0] and bool(torch.isfinite(gradient).all())


def test_the_residual_is_twice_one_minus_ncc_and_its_gradient_is_that_of_ncc(generator: torch.Generator) -> None:
    a, b, mask = images(generator)
    weight = mask * torch.rand(mask.shape, generator=generator, dtype=torch.float64)
    direction = torch.rand(3, 143, 4, generator=generator, dtype=torch.float64)
    step = torch.zeros(3, 4, dtype=torch.float64, requires_grad=True)
    moved = b + (direction @ step[..., None]).reshape(b.shape)
    (gradient,) = torch.autograd.grad(ncc(a, moved, weight).sum(), step)
    form = NccResidual()(a, b, weight)
    matrix, right = form.normal_equations(direction)
    assert torch.allclose((form.weight * form.residual**2).sum(-1), 2 * (1 - ncc(a, b, weight)), atol=1e-12)
    assert torch.allclose(-right, gradient, atol=1e-12)
    assert bool((torch.linalg.eigvalsh(matrix) > 0).all())


def test_push_is_the_derivative_of_the_residual(generator: torch.Generator) -> None:
    a, b, mask = images(generator)
    direction = torch.rand(3, 143, 1, generator=generator, dtype=torch.float64)
    h = 1e-6
    high, low = (NccResidual()(a, b + s * h * direction[..., 0].reshape(b.shape), mask).residual for s in (1, -1))
    inside = mask.flatten(1)
    pushed = NccResidual()(a, b, mask).push(direction)[..., 0]
    assert torch.allclose(pushed[inside], ((high - low) / (2 * h))[inside], atol=1e-8)


def test_gain_and_offset_are_not_seen_by_gauss_newton(generator: torch.Generator) -> None:
    a, b, mask = images(generator)
    form = NccResidual()(a, b, mask)
    directions = torch.stack([torch.ones(3, 143, dtype=torch.float64), b.flatten(1)], -1)
    inside = mask.flatten(1)
    assert form.push(directions)[inside].abs().max() < 1e-12


def test_bad_input_is_refused(generator: torch.Generator) -> None:
    a, b, mask = images(generator)
    with pytest.raises(NoOverlapError, match="empty"):
        ncc(a, b, torch.zeros_like(mask))
    with pytest.raises(ShapeError, match="B, C, h, w"):
        ncc(a, b[:, :, :5], mask)
    with pytest.raises(ShapeError, match="one channel"):
        NccResidual()(a.expand(3, 2, 11, 13), b.expand(3, 2, 11, 13), mask)


def test_the_agreements_hold() -> None:
    assert isinstance(ncc, Similarity) and isinstance(NccResidual(), LeastSquares)
