# SPDX-License-Identifier: Apache-2.0
"""What every similarity must hold: invariance, gradient, unknown pixels, bad input; in planes and in volumes."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor

from usreg.errors import ConfigError, NoOverlapError, ShapeError
from usreg.similarity import MOVING_CHANNELS, SIMILARITIES, Similarity, lc2, lncc, mind, mutual_information
from usreg.similarity import normalised_gradient_fields as ngf

SMALL = {"lncc": partial(lncc, window=5), "lc2": partial(lc2, radii=(1, 2)), "mi": partial(mutual_information, bins=9)}
SIGNED = {"ncc", "lncc", "gc"}
SHAPES = {"plane": (9, 10), "volume": (5, 6, 7)}
NAMES = list(SIMILARITIES)


def measure(name: str) -> Similarity:
    return SMALL.get(name, SIMILARITIES[name])


def images(
    name: str, generator: torch.Generator, shape: tuple[int, ...] = (9, 10), dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor]:
    """Two images that have half in common, with a mask that leaves some pixels out."""
    a = torch.rand(2, 1, *shape, generator=generator, dtype=dtype)
    b = torch.rand(2, MOVING_CHANNELS.get(name, 1), *shape, generator=generator, dtype=dtype)
    return a, b + a, torch.rand(2, 1, *shape, generator=generator) > 0.1


@pytest.mark.parametrize("name", NAMES)
def test_an_image_is_most_like_itself(generator: torch.Generator, name: str) -> None:
    a, b, mask = images(name, generator)
    itself = a.expand_as(b) if name != "lc2" else torch.cat([a, b[:, :1]], 1)
    noise = torch.rand(b.shape, generator=generator, dtype=b.dtype)
    same, half, none = (measure(name)(a, x, mask) for x in (itself, b, noise))
    assert bool((same > half).all()) and bool((half > none).all())
    if name in ("ncc", "lncc", "gc", "mind", "ssc"):
        assert torch.allclose(same, torch.ones_like(same), atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_gain_and_offset_do_not_matter(generator: torch.Generator, name: str) -> None:
    a, b, mask = images(name, generator)
    value = measure(name)(a, b, mask)
    assert torch.allclose(measure(name)(250.0 * a - 70.0, 0.01 * b + 1.0, mask), value, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_inversion_changes_the_sign_or_nothing(generator: torch.Generator, name: str) -> None:
    a, b, mask = images(name, generator)
    value = measure(name)(a, b, mask)
    assert torch.allclose(measure(name)(a, -b, mask), -value if name in SIGNED else value, atol=1e-9)
    assert torch.allclose(measure(name)(-a, -b, mask), value, atol=1e-9)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("name", NAMES)
def test_gradients_agree_with_finite_differences(generator: torch.Generator, name: str, shape: tuple[int, ...]) -> None:
    a, b, mask = images(name, generator, shape)
    weight = mask * torch.rand(mask.shape, generator=generator, dtype=torch.float64)
    for by in (mask, weight):
        function = partial(lambda x, y, m: measure(name)(x, y, m), m=by)
        assert torch.autograd.gradcheck(function, (a.requires_grad_(), b.requires_grad_()), fast_mode=True)


@pytest.mark.parametrize("name", NAMES)
def test_each_image_of_a_batch_stands_alone(generator: torch.Generator, name: str) -> None:
    a, b, mask = images(name, generator)
    alone = torch.cat([measure(name)(a[k : k + 1], b[k : k + 1], mask[k : k + 1]) for k in range(2)])
    assert torch.allclose(measure(name)(a, b, mask), alone, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_a_volume_of_one_slice_is_its_plane(generator: torch.Generator, name: str) -> None:
    a, b, mask = images(name, generator)
    plane = measure(name)(a, b, mask)
    volume = measure(name)(a[:, :, None], b[:, :, None], mask[:, :, None])
    assert torch.allclose(volume, plane, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("junk", [torch.nan, torch.inf])
def test_what_is_not_known_reaches_neither_value_nor_gradient(
    generator: torch.Generator, name: str, junk: float
) -> None:
    a, b, mask = images(name, generator)
    value = measure(name)(a, b, mask)
    dirty_a, dirty_b = torch.where(mask, a, junk), torch.where(mask, b, junk)
    for by in (mask, torch.ones_like(mask)):  # outside the mask, and inside it
        x, y = dirty_a.clone().requires_grad_(), dirty_b.clone().requires_grad_()
        found = measure(name)(x, y, by)
        assert torch.allclose(found, value, atol=1e-12)
        for gradient in torch.autograd.grad(found.sum(), (x, y)):
            assert bool(torch.isfinite(gradient).all()) and not bool(gradient[~mask.expand_as(gradient)].any())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("which", ["a", "b", "both"])
@pytest.mark.parametrize("name", NAMES)
def test_an_image_without_contrast_scores_zero_with_finite_gradients(
    generator: torch.Generator, name: str, which: str, dtype: torch.dtype
) -> None:
    a, b, mask = images(name, generator, dtype=dtype)
    if which != "b":
        a = torch.full_like(a, 0.1)
    if which != "a":
        b = torch.full_like(b, 0.3)
    value = measure(name)(a.requires_grad_(), b.requires_grad_(), mask)
    assert value.dtype == dtype and value.tolist() == [0.0, 0.0]
    for gradient in torch.autograd.grad(value.sum(), (a, b)):
        assert bool(torch.isfinite(gradient).all())


@pytest.mark.parametrize("name", NAMES)
def test_one_known_pixel_scores_zero_with_finite_gradients(generator: torch.Generator, name: str) -> None:
    a, b, mask = images(name, generator)
    mask[1] = False
    mask[1, 0, 4, 5] = True
    value = measure(name)(a.requires_grad_(), b.requires_grad_(), mask)
    assert bool(value[0] > 0.0) and bool(value[1] == 0.0)
    for gradient in torch.autograd.grad(value.sum(), (a, b)):
        assert bool(torch.isfinite(gradient).all())


@pytest.mark.parametrize("name", NAMES)
def test_bad_input_is_refused(generator: torch.Generator, name: str) -> None:
    a, b, mask = images(name, generator)
    empty = mask.clone()
    empty[1] = False
    for what in (lambda: measure(name)(a, b, empty), lambda: measure(name)(a, b * torch.nan, mask)):
        with pytest.raises(NoOverlapError, match="empty"):
            what()
    for x, y, m in (
        (a, b[:, :, :5], mask),
        (a, b, mask[:, :, :5]),
        (a[0], b[0], mask[0]),
        (a, b, mask.expand(2, 2, 9, 10)),
    ):
        with pytest.raises(ShapeError, match="B, C, h, w"):
            measure(name)(x, y, m)
    with pytest.raises(ShapeError, match="channel"):
        measure(name)(a, torch.cat([b, b], 1), mask)


@pytest.mark.parametrize("name", NAMES)
def test_grey_values_of_one_byte_are_taken(generator: torch.Generator, name: str) -> None:
    a, b, mask = images(name, generator, dtype=torch.float32)
    a, b = (100 * a).to(torch.uint8), (100 * b).to(torch.uint8)
    value = measure(name)(a, b, mask)
    assert value.dtype == torch.float32 and torch.allclose(value, measure(name)(a.float(), b.float(), mask))


@pytest.mark.parametrize(
    "call",
    [partial(lncc, window=4), partial(lncc, window=1), partial(lc2, radii=()), partial(lc2, radii=(0,)),
     partial(lc2, ridge=0.0), partial(mind, dilation=0), partial(mutual_information, bins=4), partial(ngf, edge=0.0)],
)  # fmt: skip
def test_settings_out_of_range_are_refused(generator: torch.Generator, call: Similarity) -> None:
    with pytest.raises(ConfigError):
        call(*images("lc2" if "lc2" in str(call) else "ncc", generator))


def test_the_agreement_holds() -> None:
    assert all(isinstance(similarity, Similarity) for similarity in SIMILARITIES.values())
