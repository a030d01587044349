# SPDX-License-Identifier: Apache-2.0
"""Fusion, heads, corrections and stages: values, laws, gradients, errors."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from usreg.errors import ConfigError, GeometryError, ShapeError
from usreg.geometry import rotation, se3
from usreg.networks.blocks import Bottleneck, conv, groups_of, initialise, max_pool
from usreg.networks.delta import corrected, correction
from usreg.networks.encoders import Encoder
from usreg.networks.fusion import dot_fusion
from usreg.networks.heads import EulerHead, PoseHead, check_finite


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_fusion_is_the_product_of_all_pairs_at_each_depth() -> None:
    volume, frame = draw(2, 3, 4, 2, 5), draw(2, 3, 2, 5, seed=1)
    fused = dot_fusion(volume, frame)
    assert fused.shape == (2, 1, 4, 30, 30)
    for b, k in ((0, 0), (1, 3)):
        expected = torch.outer(volume[b, :, k].flatten(), frame[b].flatten())
        torch.testing.assert_close(fused[b, 0, k], expected)


def test_fusion_weighs_both_alike() -> None:
    """Linear in each: twice the frame's features is twice the volume's."""
    volume, frame = draw(1, 2, 3, 2, 2), draw(1, 2, 2, 2, seed=1)
    torch.testing.assert_close(dot_fusion(2 * volume, frame), dot_fusion(volume, 2 * frame))


def test_gradient_of_the_fusion() -> None:
    volume, frame = draw(1, 2, 2, 1, 2).requires_grad_(), draw(1, 2, 1, 2, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(dot_fusion, (volume, frame))


@pytest.mark.parametrize("frame", [(2, 3, 2, 4), (1, 3, 2, 5), (2, 4, 2, 5), (2, 3, 2, 5, 1)])
def test_fusion_refuses_features_that_differ(frame: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="features must be"):
        dot_fusion(draw(2, 3, 4, 2, 5), draw(*frame))


@pytest.mark.parametrize("head", [PoseHead(7, (5,), limit_mm=20.0), EulerHead(7, (), limit_mm=20.0, limit_deg=30.0)])
def test_heads_give_bounded_rigid_corrections(head: PoseHead | EulerHead) -> None:
    initialise(head, 1)
    near, turn = head(draw(4, 7, dtype=torch.float32))
    assert near.norm(dim=-1).max() < 1.0 and rotation.geodesic_angle(turn, torch.eye(3)).max() < 0.05
    with torch.no_grad():
        head.layers[-1].weight.mul_(1e6)
    far, turn = head(1e3 * draw(64, 7, dtype=torch.float32))
    assert far.abs().max() <= 20.0
    torch.testing.assert_close(turn @ turn.transpose(-1, -2), torch.eye(3).expand(64, 3, 3), atol=1e-5, rtol=0)
    assert torch.linalg.det(turn).min() > 0.99


def test_two_columns_can_never_be_parallel() -> None:
    """The worst ends of the 6D output still give a rotation with a derivative."""
    head = PoseHead(9, ())
    with torch.no_grad():
        head.layers[-1].weight.copy_(torch.eye(9) * 1e4)
        head.layers[-1].bias.zero_()
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 6)
    _, turn = head(torch.cat([torch.zeros(64, 3), signs], 1))
    torch.testing.assert_close(turn @ turn.transpose(-1, -2), torch.eye(3).expand(64, 3, 3), atol=1e-4, rtol=0)


def test_angles_turn_about_fixed_axes_z_then_y_then_x() -> None:
    head = EulerHead(6, (), limit_deg=90.0)
    with torch.no_grad():
        head.layers[-1].weight.copy_(torch.eye(6))
        head.layers[-1].bias.zero_()
    moved, turn = head(torch.tensor([[0.1, -0.2, 0.3, 0.5, -1.0, 1.5]]))
    torch.testing.assert_close(moved, torch.tensor([[1.0, -2.0, 3.0]]), atol=1e-2, rtol=0)
    limit = math.pi / 2
    x, y, z = (limit * math.tanh(0.2 * v / limit) for v in (0.5, -1.0, 1.5))
    expected = torch.eye(3, dtype=torch.float64)
    for axis, angle in (((0.0, 0.0, 1.0), z), ((0.0, 1.0, 0.0), y), ((1.0, 0.0, 0.0), x)):
        expected = rotation.from_axis_angle_deg(axis, math.degrees(angle)) @ expected
    torch.testing.assert_close(turn[0].double(), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("limit", [0.0, -1.0, math.nan, math.inf])
def test_heads_refuse_a_limit_that_is_none(limit: float) -> None:
    with pytest.raises(ConfigError, match="limit_mm"):
        PoseHead(3, (), limit_mm=limit)


def test_a_correction_that_is_not_finite_is_refused() -> None:
    with pytest.raises(GeometryError, match="not finite"):
        check_finite((torch.tensor([[0.0, math.nan, 0.0]]), torch.eye(3)[None]))


def test_correction_and_corrected_are_inverse() -> None:
    start, true = se3.exp(draw(3, 6)), se3.exp(draw(3, 6, seed=1))
    centre = torch.tensor([30.0, 40.0, 0.0], dtype=torch.float64)
    torch.testing.assert_close(corrected(start, correction(start, true, centre), centre), true)


def test_a_correction_undoes_a_perturbation_about_the_centre() -> None:
    true, centre = se3.exp(draw(1, 6)), torch.tensor([30.0, 40.0, 0.0], dtype=torch.float64)
    shift, turn = torch.tensor([1.0, 2.0, 3.0]).double(), torch.tensor([0.1, 0.2, -0.1]).double()
    start = se3.right_at_centre(true, shift, turn, centre)
    moved, turned = correction(start, true, centre)
    torch.testing.assert_close(turned[0], rotation.exp(-turn))
    torch.testing.assert_close(moved[0], -rotation.exp(-turn) @ shift)


def test_a_pure_rotation_keeps_the_centre() -> None:
    start, centre = se3.exp(draw(1, 6)), torch.tensor([30.0, 40.0, 0.0], dtype=torch.float64)
    turned = corrected(start, (torch.zeros(1, 3), rotation.exp(torch.tensor([[0.0, 0.3, 0.1]]))), centre)
    assert turned.dtype == torch.float64
    torch.testing.assert_close(se3.transform_points(turned, centre[None]), se3.transform_points(start, centre[None]))


@pytest.mark.parametrize(
    ("shape", "expected"), [((1, 1, 1), (1, 1, 1)), ((2, 9, 3), (1, 2, 1)), ((8, 8, 8), (4, 2, 2))]
)
def test_pooling_survives_any_size(shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    assert max_pool(draw(1, 2, *shape), (2, 4, 4)).shape[2:] == expected


def test_pooling_takes_maxima() -> None:
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert max_pool(x, (2, 2)).flatten().tolist() == [5.0, 7.0, 13.0, 15.0]


def test_groups_divide_the_channels() -> None:
    assert [groups_of(c) for c in (1, 2, 3, 4, 6, 8, 16, 24, 64, 20)] == [1, 1, 1, 2, 3, 4, 8, 8, 8, 4]


def test_pyramid_levels() -> None:
    encoder = Encoder(3, (4, 8), ((2, 2, 2),), stem=(1, 2, 2))
    fine, coarse = encoder.pyramid(draw(1, 1, 8, 12, 16, dtype=torch.float32))
    assert fine.shape == (1, 4, 8, 6, 8) and coarse.shape == (1, 8, 4, 3, 4)
    torch.testing.assert_close(encoder(draw(1, 1, 8, 12, 16, dtype=torch.float32)), coarse)


@pytest.mark.parametrize(
    ("dims", "widths", "pools"),
    [(4, (4,), ()), (3, (), ()), (3, (4, 0), ((1, 1, 1),)), (3, (4, 4), ()), (2, (4, 4), ((2, 2, 2),))],
)
def test_encoder_refuses_stages_that_do_not_fit(dims: int, widths: tuple[int, ...], pools: tuple) -> None:
    with pytest.raises(ConfigError):
        Encoder(dims, widths, pools)


def test_first_weights_are_a_function_of_the_seed() -> None:
    blocks = [Bottleneck(2, 4, 2, 8), Bottleneck(2, 4, 2, 8), Bottleneck(2, 4, 2, 8)]
    for block, seed in zip(blocks, (3, 3, 4), strict=True):
        initialise(block, seed)
    first, same, other = ([p for p in block.parameters() if p.dim() > 1] for block in blocks)
    assert all(torch.equal(a, b) for a, b in zip(first, same, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_gradient_through_a_bottleneck() -> None:
    block = Bottleneck(3, 2, 2, 4, stride=(1, 2, 2)).double()
    initialise(block, 0)
    assert torch.autograd.gradcheck(block, draw(1, 2, 3, 4, 4).requires_grad_(), atol=1e-4)


def test_normalisation_does_not_mix_the_batch() -> None:
    layer = conv(3, 1, 8)
    both = draw(2, 1, 4, 6, 6, dtype=torch.float32)
    torch.testing.assert_close(layer(both)[:1], layer(both[:1]))
