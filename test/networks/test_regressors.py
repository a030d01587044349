# SPDX-License-Identifier: Apache-2.0
"""The two regressors: any size, one pair, gradients, published sizes, refusals."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from usreg.config import from_mapping, to_mapping
from usreg.errors import ConfigError, GeometryError, ShapeError
from usreg.geometry import rotation
from usreg.networks import dot_fusion_regressor, frame_volume_regressor
from usreg.networks.dot_fusion_regressor import DotFusionConfig, DotFusionRegressor
from usreg.networks.frame_volume_regressor import FrameVolumeConfig, FrameVolumeRegressor

TINY_DOT = DotFusionConfig(
    widths=(4, 8, 4), pools=((1, 2, 2), (2, 2, 2)), fused=(3, 2, 2), decoder=(4, 8),
    decoder_pools=((1, 2, 2), (1, 2, 2)), hidden=(8,),
)  # fmt: skip
TINY_FVR = FrameVolumeConfig(depth=6, widths=(4, 4), layers=(1, 1), planes=(4, 8), cardinality=2, hidden=(8,))
Regressor = DotFusionRegressor | FrameVolumeRegressor


def tiny() -> list[Regressor]:
    return [DotFusionRegressor(TINY_DOT), FrameVolumeRegressor(TINY_FVR)]


def pair(batch: int = 2, size: tuple[int, int, int] = (12, 20, 24), seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(batch, 1, *size, generator=generator), torch.rand(batch, 1, *size[1:], generator=generator)


def parameters_of(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("network", tiny(), ids=lambda n: type(n).__name__)
@pytest.mark.parametrize("size", [(12, 20, 24), (1, 1, 1), (3, 40, 5), (31, 17, 64)])
@pytest.mark.parametrize("batch", [1, 3])
def test_any_size_gives_a_rigid_correction(network: Regressor, size: tuple[int, int, int], batch: int) -> None:
    moved, turned = network(*pair(batch, size))
    assert moved.shape == (batch, 3) and turned.shape == (batch, 3, 3)
    assert moved.dtype == turned.dtype == torch.float32
    eye = torch.eye(3).expand_as(turned)
    torch.testing.assert_close(turned @ turned.transpose(-1, -2), eye, atol=1e-5, rtol=0)


@pytest.mark.parametrize("network", [DotFusionRegressor(), FrameVolumeRegressor()], ids=lambda n: type(n).__name__)
def test_small_regressors_begin_near_no_correction(network: Regressor) -> None:
    """At the size that they are made for, also where one input is empty."""
    volume, frame = pair(1, (48, 80, 96))
    for v, f in ((volume, frame), (torch.zeros_like(volume), frame), (volume, torch.zeros_like(frame))):
        with torch.inference_mode():
            moved, turned = network.eval()(v, f)
        assert moved.norm() < 3.0 and rotation.geodesic_angle(turned, torch.eye(3)) < math.radians(5)


@pytest.mark.parametrize("network", tiny(), ids=lambda n: type(n).__name__)
def test_pairs_of_a_batch_do_not_mix(network: Regressor) -> None:
    volume, frame = pair(3)
    together, alone = network(volume, frame), network(volume[1:2], frame[1:2])
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a[1:2], b, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("network", tiny(), ids=lambda n: type(n).__name__)
def test_both_inputs_reach_the_correction(network: Regressor) -> None:
    volume, frame = pair()
    volume.requires_grad_(), frame.requires_grad_()
    moved, turned = network(volume, frame)
    (moved.square().sum() + turned[:, 0, 1].sum()).backward()
    assert volume.grad is not None and volume.grad.flatten(1).norm(dim=1).min() > 0
    assert frame.grad is not None and frame.grad.flatten(1).norm(dim=1).min() > 0
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in network.parameters())


@pytest.mark.parametrize("network", tiny(), ids=lambda n: type(n).__name__)
def test_gradient_along_the_weights(network: Regressor) -> None:
    """Finite differences of the translation along the gradient by all weights, in double precision."""
    network = network.double()
    volume, frame = (part.double() for part in pair(1))
    frozen = [p.detach().clone() for p in network.parameters()]
    # the heads give single precision: the last layer's output is what is differentiated
    seen: list[Tensor] = []
    hook = network.head.layers.register_forward_hook(lambda module, inputs, output: seen.append(output))

    def value(step: float, along: list[Tensor]) -> Tensor:
        with torch.no_grad():
            for p, start, d in zip(network.parameters(), frozen, along, strict=True):
                p.copy_(start + step * d)
        network(volume, frame)
        return seen.pop().sum()

    gradient = torch.autograd.grad(value(0.0, frozen), list(network.parameters()))
    length = math.sqrt(sum(float(g.square().sum()) for g in gradient))
    along, step = [g / length for g in gradient], 1e-6
    slope = float((value(step, along) - value(-step, along)).detach() / (2 * step))
    value(0.0, along), hook.remove()
    assert slope == pytest.approx(length, rel=1e-3)


@pytest.mark.parametrize("network", tiny(), ids=lambda n: type(n).__name__)
def test_nan_is_refused_in_evaluation(network: Regressor) -> None:
    volume, frame = pair(1)
    frame[0, 0, 3, 3] = math.nan
    with pytest.raises(GeometryError, match="not finite"):
        network.eval()(volume, frame)


@pytest.mark.parametrize("network", tiny(), ids=lambda n: type(n).__name__)
def test_inputs_of_other_shapes_are_refused(network: Regressor) -> None:
    volume, frame = pair(2)
    for v, f in (
        (volume[0], frame), (volume, frame[0]), (volume[:1], frame), (volume.repeat(1, 2, 1, 1, 1), frame),
        (volume[:0], frame[:0]), (volume[..., :0], frame), ((255 * volume).byte(), frame),
    ):  # fmt: skip
        with pytest.raises(ShapeError, match="a network takes"):
            network(v, f)


@pytest.mark.parametrize("network", tiny(), ids=lambda n: type(n).__name__)
def test_mixed_precision_stays_off_on_a_cpu(network: Regressor) -> None:
    volume, frame = pair(2)
    plain = network(volume, frame)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = network(volume, frame)
    assert all(torch.equal(a, b) for a, b in zip(plain, mixed, strict=True))


@pytest.mark.parametrize("network", tiny(), ids=lambda n: type(n).__name__)
def test_two_built_alike_are_alike(network: Regressor) -> None:
    again = type(network)(network.config)  # type: ignore[arg-type]
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), again.parameters(), strict=True))


def test_frame_and_volume_of_other_planes() -> None:
    volume, _ = pair(1, (8, 20, 24))
    _, frame = pair(1, (8, 30, 17))
    for network in tiny():
        assert network(volume, frame)[0].shape == (1, 3)


def test_small_sizes() -> None:
    assert parameters_of(DotFusionRegressor()) < 500_000
    assert parameters_of(FrameVolumeRegressor()) < 700_000


@pytest.mark.parametrize(
    ("build", "size", "least", "most"),
    [
        (lambda: DotFusionRegressor(dot_fusion_regressor.published()), (120, 160, 200), 1.0e6, 4.0e6),
        (lambda: DotFusionRegressor(dot_fusion_regressor.published()), (240, 320, 400), 1.0e6, 4.0e6),
        (lambda: FrameVolumeRegressor(frame_volume_regressor.published()), (32, 128, 128), 4.0e7, 1.2e8),
    ],
)
def test_published_sizes(build, size: tuple[int, int, int], least: float, most: float) -> None:
    """Made and run without memory: shapes alone."""
    with torch.device("meta"):
        network = build()
        moved, turned = network(torch.empty(2, 1, *size), torch.empty(2, 1, *size[1:]))
    assert moved.shape == (2, 3) and turned.shape == (2, 3, 3)
    assert least < parameters_of(network) < most


def test_published_features_need_no_averaging() -> None:
    """At 1 mm the pools of the published sizes end at the fused size, and the head takes 1024 features."""
    config = dot_fusion_regressor.published()
    with torch.device("meta"):
        network = DotFusionRegressor(config)
        assert network.volume_encoder(torch.empty(1, 1, 120, 160, 200)).shape[2:] == config.fused
        assert network.frame_encoder(torch.empty(1, 1, 160, 200)).shape[2:] == config.fused[1:]
    assert network.head.layers[0].in_features == 1024


@pytest.mark.parametrize(
    "wrong",
    [
        {"widths": (4, 8)}, {"pools": ((1, 2, 2),)}, {"fused": (0, 2, 2)}, {"stem": (1, 0, 1)}, {"limit_mm": math.nan},
        {"seed": -1},
    ],
)  # fmt: skip
def test_dot_fusion_refuses_wrong_sizes(wrong: dict) -> None:
    with pytest.raises(ConfigError):
        DotFusionConfig(**wrong)


@pytest.mark.parametrize(
    "wrong",
    [{"depth": 0}, {"kernels": (4, 3)}, {"layers": (1, 2)}, {"cardinality": 5}, {"limit_deg": 180.0}, {"seed": -1}],
)
def test_frame_volume_refuses_wrong_sizes(wrong: dict) -> None:
    with pytest.raises(ConfigError):
        FrameVolumeConfig(**wrong)


@pytest.mark.parametrize(
    "config", [TINY_DOT, TINY_FVR, dot_fusion_regressor.published(), frame_volume_regressor.published()]
)
def test_configurations_go_through_a_mapping(config: DotFusionConfig | FrameVolumeConfig) -> None:
    assert from_mapping(type(config), to_mapping(config)) == config


def test_only_who_needs_the_blocks_pays_for_monai() -> None:
    code = (
        "import sys, usreg.networks.delta, usreg.networks.fusion, usreg.losses.pose; sys.exit('monai' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
