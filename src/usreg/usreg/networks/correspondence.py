# SPDX-License-Identifier: Apache-2.0
"""Descriptors of frames and volumes that agree where both show the same place.

A volume is encoded once; each frame is compared with all of it. Two U-shaped encoders, one for planes and one for
volumes, end in unit descriptors on a grid; their inner product, scaled, is the logarithm of a likelihood.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..config import check_range
from ..errors import ConfigError, ShapeError

GROUP = 8  # channels that are normalised together
MOST_SCALE = 60.0  # of the inner product


@dataclass(frozen=True)
class CorrespondenceConfig:
    """Sizes.

    Args:
        volume_widths: channels at the volume's own grid, and at every halving of it; descriptors lie at the second.
        frame_widths: channels at the frame's first halving and on; descriptors lie at its second.
        depth: residual blocks at each size. descriptor: length of a descriptor.
    """

    volume_widths: tuple[int, ...] = (16, 32, 48, 64)
    frame_widths: tuple[int, ...] = (16, 32, 64, 96)
    depth: int = 1
    descriptor: int = 32

    def __post_init__(self) -> None:
        for name in ("volume_widths", "frame_widths"):
            widths = getattr(self, name)
            if len(widths) < 3 or any(w < GROUP or w % GROUP for w in widths):
                raise ConfigError(f"'{name}' must be three or more multiples of {GROUP}, got {widths}")
        check_range("depth", self.depth, 1, 8)
        check_range("descriptor", self.descriptor, 4, 512)


class Block(nn.Module):
    """Convolution, group normalisation, and a residual convolution; halves the grid with `stride` 2."""

    def __init__(self, dims: int, before: int, after: int, stride: int = 1) -> None:
        super().__init__()
        conv = nn.Conv2d if dims == 2 else nn.Conv3d
        self.first = conv(before, after, 3, stride, 1, bias=False)
        self.second = conv(after, after, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList(nn.GroupNorm(max(1, after // GROUP), after) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """(B, before, ...) to (B, after, ...)."""
        x = functional.leaky_relu(self.norms[0](self.first(x)), 0.1)
        return functional.leaky_relu(x + self.norms[1](self.second(x)), 0.1)


class Encoder(nn.Module):
    """A U: down to the coarsest grid, and up again to that of `widths[1]`.

    Args:
        dims: 2 or 3. widths: channels from fine to coarse; each but the first halves the grid. stem: strides of the
            first block. out: channels at the end.
    """

    def __init__(self, dims: int, widths: tuple[int, ...], depth: int, stem: int, out: int) -> None:
        super().__init__()
        self.dims = dims
        self.stem = Block(dims, 2, widths[0], stem)
        self.down = nn.ModuleList(
            nn.Sequential(Block(dims, a, b, 2), *(Block(dims, b, b) for _ in range(depth)))
            for a, b in zip(widths, widths[1:], strict=False)
        )
        self.up = nn.ModuleList(
            Block(dims, a + b, b) for a, b in zip(widths[:1:-1], widths[-2:0:-1], strict=True)
        )  # fmt: skip
        self.last = (nn.Conv2d if dims == 2 else nn.Conv3d)(widths[1], out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 2, ...) to (B, out, ...), halved once more than by the stem."""
        x, seen = self.stem(x), []
        for down in self.down:
            x = down(x)
            seen.append(x)
        mode = "bilinear" if self.dims == 2 else "trilinear"
        for up, skip in zip(self.up, reversed(seen[:-1]), strict=True):
            x = functional.interpolate(x, size=skip.shape[2:], mode=mode, align_corners=False)
            x = up(torch.cat([x, skip], 1))
        found: Tensor = self.last(x)
        return found


class Correspondence(nn.Module):
    """Descriptors of volumes and frames, with the confidence of each of a frame's."""

    def __init__(self, config: CorrespondenceConfig | None = None) -> None:
        super().__init__()
        self.config = c = config or CorrespondenceConfig()
        self.volume = Encoder(3, c.volume_widths, c.depth, 1, c.descriptor)
        self.frame = Encoder(2, c.frame_widths, c.depth, 2, c.descriptor + 1)
        self.log_scale = nn.Parameter(torch.tensor(2.5))

    def encode_volume(self, volume: Tensor) -> Tensor:
        """Unit descriptors (B, K, d, h, w) float32 of volumes (B, 2, D, H, W), values and mask.

        A descriptor's index is half that of the voxel that it describes.
        """
        _check(volume, 3)
        return functional.normalize(self.volume(volume).float(), dim=1)

    def encode_frame(self, frame: Tensor) -> tuple[Tensor, Tensor]:
        """Unit descriptors (B, K, h, w) and logits of the confidence (B, h, w) of frames (B, 2, H, W).

        A descriptor's index is a quarter of that of the pixel that it describes.
        """
        _check(frame, 2)
        found = self.frame(frame).float()
        return functional.normalize(found[:, :-1], dim=1), found[:, -1]

    @property
    def scale(self) -> Tensor:
        """By which inner products are multiplied to be logits."""
        return self.log_scale.exp().clamp(max=MOST_SCALE)


def _check(x: Tensor, dims: int) -> None:
    if x.dim() != dims + 2 or x.shape[1] != 2:
        raise ShapeError(f"expected (B, 2, {'D, ' if dims == 3 else ''}H, W), values and mask; got {tuple(x.shape)}")
    if min(x.shape[2:]) < 4:
        raise ShapeError(f"a grid of {tuple(x.shape[2:])} is too small for this network: at least 4 along every axis")
