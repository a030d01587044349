# SPDX-License-Identifier: Apache-2.0
"""Known values: cases that can be worked out by hand, and definitions written out plainly."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from usreg.errors import GeometryError, ShapeError
from usreg.similarity import (
    LEAST_SQUARES,
    MindConfig,
    descriptors,
    gradient_correlation,
    gradient_magnitude,
    lc2,
    mutual_information,
    ncc,
    normalised_gradient_fields,
)
from usreg.similarity.mind import pairs
from usreg.similarity.mutual_information import cubic_spline


def ones(*shape: int) -> Tensor:
    return torch.ones(1, 1, *shape, dtype=torch.bool)


def ramp(*shape: int, axis: int) -> Tensor:
    size = shape[axis]
    view = [size if k == axis else 1 for k in range(len(shape))]
    return torch.arange(size, dtype=torch.float64).reshape(1, 1, *view).expand(1, 1, *shape).contiguous()


# --- LC2 -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(12, 13), (6, 7, 8)])
def test_lc2_is_the_least_squares_fit_of_every_window(generator: torch.Generator, shape: tuple[int, ...]) -> None:
    a = torch.rand(1, 1, *shape, generator=generator, dtype=torch.float64)
    b = torch.rand(1, 2, *shape, generator=generator, dtype=torch.float64) + a
    mask = torch.rand(1, 1, *shape, generator=generator) > 0.4
    ridge, radius = 0.01, 1
    level = ridge * b[:, :, mask[0, 0]].var(-1, correction=0)[0].numpy()
    left, whole = 0.0, 0.0
    for centre in np.argwhere(mask[0, 0].numpy()):
        window = tuple(slice(max(0, c - radius), c + radius + 1) for c in centre)
        known = mask[0, 0].numpy()[window]
        u, m = a[0, 0].numpy()[window][known], b[0].numpy()[(slice(None), *window)][:, known].T
        if len(u) < 4:
            continue
        u, m = u - u.mean(), m - m.mean(0)
        theta = np.linalg.solve(m.T @ m + len(u) * np.diag(level), m.T @ u)
        left += u @ u - theta @ (m.T @ u)
        whole += u @ u
    assert float(lc2(a, b, mask, (radius,), ridge)) == pytest.approx(1.0 - left / whole, abs=1e-12)


def test_lc2_of_a_local_combination_is_one_and_of_its_parts_less(generator: torch.Generator) -> None:
    b = torch.rand(1, 2, 30, 30, generator=generator, dtype=torch.float64)
    half = torch.where(torch.arange(30) < 15, 1.0, -2.0)
    a = half * (b[:, :1] + 0.8 * b[:, 1:]) + 40.0 * half
    apart = ones(30, 30)
    apart[..., 12:18] = False  # windows of radius 2 see one half only
    assert float(lc2(a, b, apart, (2,), 1e-9)) == pytest.approx(1.0, abs=1e-6)
    assert float(lc2(a, b * torch.tensor([1.0, 0.0])[:, None, None], apart, (2,))) < 0.8
    both = [float(lc2(a, b, ones(30, 30), radii)) for radii in ((1,), (4,), (1, 4))]
    assert both[2] == pytest.approx((both[0] + both[1]) / 2.0, abs=1e-12)


def test_lc2_hardly_hears_windows_whose_channels_have_no_contrast(generator: torch.Generator) -> None:
    a = torch.rand(1, 1, 20, 40, generator=generator, dtype=torch.float64)
    b = torch.rand(1, 2, 20, 40, generator=generator, dtype=torch.float64)
    b[..., 20:] *= 1e-4
    left, right = ones(20, 40), ones(20, 40)
    left[..., 18:], right[..., :22] = False, False
    quiet, free = (
        float(lc2(a, b, ones(20, 40) & torch.cat([left[..., :20], right[..., 20:]], -1), (2,), r)) for r in (1e-3, 1e-9)
    )
    alone = float(lc2(a, b, left, (2,)))
    assert quiet == pytest.approx(alone / 2, rel=0.15) and free > 1.5 * quiet


# --- gradient measures ---------------------------------------------------------------------------------------------


def test_gradient_correlation_is_that_of_numpys_gradients(generator: torch.Generator) -> None:
    a = torch.rand(1, 1, 12, 15, generator=generator, dtype=torch.float64)
    b = a + torch.rand(1, 1, 12, 15, generator=generator, dtype=torch.float64)
    pairs_of = zip(*(np.gradient(x[0, 0].numpy()) for x in (a, b)), strict=True)
    expected = np.mean([np.corrcoef(p[1:-1, 1:-1].ravel(), q[1:-1, 1:-1].ravel())[0, 1] for p, q in pairs_of])
    assert float(gradient_correlation(a, b, ones(12, 15))) == pytest.approx(expected, abs=1e-12)


def test_derivatives_beside_unknown_pixels_do_not_count(generator: torch.Generator) -> None:
    a = torch.rand(1, 1, 9, 20, generator=generator, dtype=torch.float64)
    b, mask = a + torch.rand(1, 1, 9, 20, generator=generator, dtype=torch.float64), ones(9, 20)
    mask[..., 10] = False
    halves = ones(9, 20)
    halves[..., 9:12] = False
    crossed = torch.where(mask, b, torch.full_like(b, 1e6))
    for measure in (gradient_correlation, normalised_gradient_fields):
        assert torch.allclose(measure(a, crossed, mask), measure(a, b, mask), atol=1e-12)
        assert not torch.allclose(measure(a, b, mask), measure(a, b, halves), atol=1e-6)


@pytest.mark.parametrize("angle_deg", [0.0, 30.0, 60.0, 90.0])
def test_normalised_gradients_of_two_ramps_are_the_squared_cosine(angle_deg: float) -> None:
    x, y = ramp(9, 9, axis=1), ramp(9, 9, axis=0)
    turned = math.cos(math.radians(angle_deg)) * x + math.sin(math.radians(angle_deg)) * y
    value = float(normalised_gradient_fields(x, turned, ones(9, 9), edge=0.5))
    assert value == pytest.approx(math.cos(math.radians(angle_deg)) ** 2 / 1.25**2, abs=1e-12)


def test_gradient_magnitude_of_a_slope_in_mm() -> None:
    volume = 2.0 * ramp(5, 6, 7, axis=2) + 3.0 * ramp(5, 6, 7, axis=1) - 6.0 * ramp(5, 6, 7, axis=0)
    expected = math.hypot(2.0 / 0.5, 3.0 / 1.0, 6.0 / 3.0)
    assert torch.allclose(gradient_magnitude(volume, (0.5, 1.0, 3.0)), torch.full_like(volume, expected))
    holed = volume[0].clone()
    holed[0, 2, 3, 3] = torch.nan
    found = gradient_magnitude(holed, (0.5, 1.0, 3.0))
    assert torch.isnan(found).sum() == 1  # neighbours take the other side
    assert torch.allclose(found[torch.isfinite(found)], torch.tensor(expected, dtype=torch.float64))
    holed[0, 2, 3, 5] = torch.nan
    assert (
        torch.isnan(gradient_magnitude(holed, (0.5, 1.0, 3.0))).sum() == 4
    )  # and those between two holes, or a hole and the border
    assert torch.allclose(gradient_magnitude(volume[:, :, :1], (0.5, 1.0, 3.0)), torch.tensor(5.0).double())


def test_gradient_magnitude_has_a_finite_derivative_where_it_is_zero() -> None:
    volume = torch.zeros(4, 4, 4, requires_grad=True)
    (gradient,) = torch.autograd.grad(gradient_magnitude(volume, (1.0, 1.0, 1.0)).sum(), volume)
    assert bool(torch.isfinite(gradient).all())


def test_gradient_magnitude_refuses_bad_input() -> None:
    with pytest.raises(ShapeError):
        gradient_magnitude(torch.zeros(3, 3), (1.0, 1.0, 1.0))
    with pytest.raises(GeometryError):
        gradient_magnitude(torch.zeros(3, 3, 3), (1.0, 0.0, 1.0))


# --- mutual information --------------------------------------------------------------------------------------------


def test_independent_images_share_nothing_and_two_values_share_one_bit() -> None:
    x, y = ramp(8, 16, axis=1), ramp(8, 16, axis=0)
    assert float(mutual_information(x, y, ones(8, 16))) == pytest.approx(0.0, abs=1e-12)
    assert float(mutual_information(x, y, ones(8, 16), normalised=True)) == pytest.approx(0.0, abs=1e-12)
    two = (x < 8).double()
    assert float(mutual_information(two, 5.0 - two, ones(8, 16))) == pytest.approx(math.log(2.0), abs=1e-12)
    spline = -2 * (math.log(1 / 6) / 6) - (2 / 3) * math.log(2 / 3)  # entropy of one value spread over three bins
    whole = math.log(2.0) + 2 * spline
    assert float(mutual_information(two, two, ones(8, 16), normalised=True)) == pytest.approx(math.log(2.0) / whole)


def test_mutual_information_is_that_of_the_joint_histogram(generator: torch.Generator) -> None:
    a = torch.rand(1, 1, 10, 11, generator=generator, dtype=torch.float64)
    b = a**2 + 0.2 * torch.rand(1, 1, 10, 11, generator=generator, dtype=torch.float64)
    weight = torch.rand(1, 1, 10, 11, generator=generator, dtype=torch.float64)
    bins, joint = 12, np.zeros((12, 12))
    place = [(1 + (bins - 3) * (x - x.min()) / (x.max() - x.min())).flatten().numpy() for x in (a, b)]
    for p, q, w in zip(*place, weight.flatten().numpy(), strict=True):
        at = [cubic_spline(torch.from_numpy(v - np.arange(bins))).numpy() for v in (p, q)]
        joint += w * np.outer(*at)
    joint /= joint.sum()
    alone = np.outer(joint.sum(1), joint.sum(0))
    some = joint > 0
    expected = (joint[some] * np.log(joint[some] / alone[some])).sum()
    assert float(mutual_information(a, b, weight, bins)) == pytest.approx(expected, abs=1e-12)


def test_mutual_information_sees_what_correlation_does_not(generator: torch.Generator) -> None:
    x = torch.rand(1, 1, 40, 40, generator=generator, dtype=torch.float64) - 0.5
    assert abs(float(ncc(x, x * x, ones(40, 40)))) < 0.1
    assert float(mutual_information(x, x * x, ones(40, 40))) > 1.0


# --- self-similarity -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "plane", "volume"), [("mind", 4, 6), ("ssc", 4, 12)])
def test_descriptors_have_the_published_number_of_comparisons(kind: str, plane: int, volume: int) -> None:
    assert (len(pairs(kind, (9, 9))), len(pairs(kind, (9, 9, 9)))) == (plane, volume)
    for s, t in pairs(kind, (9, 9, 9)):
        assert sum((p - q) ** 2 for p, q in zip(s, t, strict=True)) == (1 if kind == "mind" else 2)


def test_mind_is_its_definition(generator: torch.Generator) -> None:
    x = torch.rand(1, 1, 11, 12, generator=generator, dtype=torch.float64)
    found, known = descriptors(x, ones(11, 12), "mind", MindConfig(radius=1, dilation=2))
    image, (r, c) = x[0, 0].numpy(), (5, 6)
    patch = {d: image[r + d[0] - 1 : r + d[0] + 2, c + d[1] - 1 : c + d[1] + 2] for d in
             ((0, 0), (-2, 0), (2, 0), (0, -2), (0, 2))}  # fmt: skip
    distances = np.array([((patch[0, 0] - patch[d]) ** 2).mean() for d in list(patch)[1:]])
    expected = np.exp(-(distances - distances.min()) / distances.mean())
    assert np.allclose(found[0, :, r, c].numpy(), expected, atol=1e-12)
    assert bool(known[..., 1:-1, 1:-1].all())  # at the border a neighbour's whole patch lies outside
    assert float(found.amax(1).min()) == 1.0  # the most similar neighbour has 1, everywhere


def test_descriptors_do_not_see_what_is_unknown(generator: torch.Generator) -> None:
    x = torch.rand(1, 1, 14, 14, generator=generator, dtype=torch.float64)
    mask = ones(14, 14)
    mask[..., :6] = False
    first, known = descriptors(x, mask)
    second, _ = descriptors(torch.where(mask, x, torch.full_like(x, torch.nan)), mask)
    assert torch.equal(first, second) and bool(known[..., 1:-1, 7:-1].all()) and not bool(known[..., :6].any())


# --- the table of least-squares forms ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LEAST_SQUARES)
def test_least_squares_forms_point_from_a_shifted_image_back(generator: torch.Generator, name: str) -> None:
    """One Gauss-Newton step on a smooth image moved by a known shift finds most of the shift."""
    y, x = torch.meshgrid(*[torch.arange(48, dtype=torch.float64)] * 2, indexing="ij")

    def scene(shift: Tensor) -> Tensor:
        u, v = x + shift[0], y + shift[1]
        return torch.sin(0.31 * u + 0.2 * v) + torch.cos(0.4 * v - 0.13 * u) + torch.sin(0.05 * u * 2 + 1.0)

    def moving(shift: Tensor) -> Tensor:
        image = scene(shift)
        return torch.stack([image, torch.sin(2.0 * image + 1.0)]) if name == "lc2" else image[None]

    truth = torch.tensor([0.4, -0.3], dtype=torch.float64)
    fixed = 3.0 * scene(torch.zeros(2, dtype=torch.float64))[None, None] + 5.0
    steps = 1e-4 * torch.eye(2, dtype=torch.float64)
    columns = [(moving(truth + h) - moving(truth - h)).flatten() / 2e-4 for h in steps]
    jacobian = torch.stack(columns, -1)[None]
    form = LEAST_SQUARES[name](fixed, moving(truth)[None], torch.ones_like(fixed))
    matrix, right = form.normal_equations(jacobian)
    step = -torch.linalg.solve(matrix[0], right[0])
    assert float((truth + step).norm()) < 0.15 * float(truth.norm())
