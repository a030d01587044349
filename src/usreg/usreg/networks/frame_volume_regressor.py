# SPDX-License-Identifier: Apache-2.0
"""FVR-Net (Guo et al. 2021): two balanced branches, a 3D ResNeXt over both, three translations and three angles."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..config import check_range
from ..errors import ConfigError
from .blocks import Bottleneck, conv, initialise, precise
from .delta import Delta
from .heads import EulerHead, check_finite
from .inputs import check_inputs


@dataclass(frozen=True)
class FrameVolumeConfig:
    """Sizes. As published: `published()`; the default trains on two processor cores at 2 mm.

    Args:
        depth: channels into which the frame is spread; they become its depth. Like the volume's depth for balance.
        frame_kernel: of that convolution, odd.
        widths, kernels, strides: of the two convolutions of each branch; strides (z, y, x).
        layers: blocks of each stage of the ResNeXt. planes: channels inside; twice as many come out.
        first_stride: of the first stage (z, y, x); the others halve.
        cardinality: groups inside the blocks.
        hidden: widths of the head. limit_mm, limit_deg: of its outputs. seed: of the first weights.
    """

    depth: int = 48
    frame_kernel: int = 5
    widths: tuple[int, int] = (8, 16)
    kernels: tuple[int, int] = (5, 3)
    strides: tuple[tuple[int, int, int], tuple[int, int, int]] = ((2, 2, 2), (2, 2, 2))
    layers: tuple[int, ...] = (1, 2, 3, 1)
    planes: tuple[int, ...] = (32, 64, 96, 128)
    first_stride: tuple[int, int, int] = (1, 1, 1)
    cardinality: int = 8
    hidden: tuple[int, ...] = (128,)
    limit_mm: float = 60.0
    limit_deg: float = 45.0
    seed: int = 0

    def __post_init__(self) -> None:
        check_range("depth", self.depth, 1, 1024)
        if any(k < 1 or k % 2 == 0 for k in (self.frame_kernel, *self.kernels)):
            raise ConfigError(f"kernels must be odd and above zero: {self.frame_kernel}, {self.kernels}")
        if len(self.layers) != len(self.planes) or not self.layers or min(*self.layers, 1) < 1:
            raise ConfigError(f"each stage has blocks and planes of its own, got {self.layers} and {self.planes}")
        if self.cardinality < 1 or any(p % self.cardinality for p in self.planes):
            raise ConfigError(f"planes {self.planes} must be multiples of the cardinality {self.cardinality}")
        check_range("limit_mm", self.limit_mm, 0.1, 1000.0)
        check_range("limit_deg", self.limit_deg, 0.1, 90.0)
        check_range("seed", self.seed, 0, 2**31 - 1)


def published() -> FrameVolumeConfig:
    """Sizes of the paper and its public code, for 128 x 128 x 32 voxels."""
    return FrameVolumeConfig(
        depth=32, widths=(32, 64), kernels=(9, 7), strides=((2, 2, 2), (2, 1, 1)), layers=(3, 8, 36, 3),
        planes=(128, 256, 512, 1024), cardinality=32, hidden=(512,),
    )  # fmt: skip


class FrameVolumeRegressor(nn.Module):
    """A correction from the volume about the start image and the frame."""

    def __init__(self, config: FrameVolumeConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or FrameVolumeConfig()
        self.spread = conv(2, 1, config.depth, config.frame_kernel)
        self.volume_branch, self.frame_branch = _branch(config), _branch(config)
        self.trunk = _trunk(config)
        self.head = EulerHead(2 * config.planes[-1], config.hidden, config.limit_mm, config.limit_deg)
        initialise(self, config.seed)

    def forward(self, volume: Tensor, frame: Tensor) -> Delta:
        """Translation (B, 3) mm and rotation (B, 3, 3) of `delta.corrected`, single precision.

        Args:
            volume: (B, 1, D, H, W) in 0..1, initially transformed. frame: (B, 1, H, W) in 0..1, the same pixels.

        Raises:
            ShapeError: inputs of other shapes. GeometryError (in evaluation): a correction that is not finite.
        """
        check_inputs(volume, frame)
        with precise(volume):
            delta = self._delta(volume, frame)
        return delta if self.training else check_finite(delta)

    def _delta(self, volume: Tensor, frame: Tensor) -> Delta:
        spread = self.spread(frame)[:, None]  # channels become depth
        if spread.shape[-2:] != volume.shape[-2:]:
            spread = nn.functional.interpolate(spread, (spread.shape[2], *volume.shape[-2:]), mode="trilinear")
        both = torch.cat([self.volume_branch(volume), self.frame_branch(spread)], 2)
        return self.head(self.trunk(both).mean((2, 3, 4)))


def _branch(config: FrameVolumeConfig) -> nn.Sequential:
    (a, b), (k, m), (s, t) = config.widths, config.kernels, config.strides
    return nn.Sequential(conv(3, 1, a, k, s), conv(3, a, b, m, t))


def _trunk(config: FrameVolumeConfig) -> nn.Sequential:
    blocks: list[nn.Module] = []
    inputs = config.widths[1]
    for stage, (count, planes) in enumerate(zip(config.layers, config.planes, strict=True)):
        for number in range(count):
            stride = (1, 1, 1) if number else ((2, 2, 2) if stage else config.first_stride)
            blocks.append(Bottleneck(3, inputs, planes, 2 * planes, stride, config.cardinality))
            inputs = 2 * planes
    return nn.Sequential(*blocks)
