# SPDX-License-Identifier: Apache-2.0
"""Pyramids of features of frames (2D) and of volumes (3D), and the decoder of the fused volume: the same stages."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ..errors import ConfigError
from .blocks import Bottleneck, conv, max_pool

SQUEEZE = 4  # channels of a stage to those inside its bottleneck


class Encoder(nn.Module):
    """Stages of a convolution and a residual bottleneck, with maxima over cells between them.

    Args:
        dims: 2 or 3.
        widths: channels of each stage; the last one has no pooling after it unless `pools` is as long.
        pools: cells (y, x) or (z, y, x) after each stage.
        stem: stride of the first convolution, (y, x) or (z, y, x); on a processor the finest features cost the most.
        inputs: channels that come in.
    """

    def __init__(
        self,
        dims: int,
        widths: Sequence[int],
        pools: Sequence[Sequence[int]],
        stem: Sequence[int] = (),
        inputs: int = 1,
    ) -> None:
        super().__init__()
        check_stages(dims, widths, pools)
        channels, strides = [inputs, *widths], [tuple(stem) or 1] + [1] * len(widths)
        self.stages = nn.ModuleList(
            nn.Sequential(conv(dims, a, b, stride=stride), Bottleneck(dims, b, max(2, b // SQUEEZE), b))
            for a, b, stride in zip(channels, widths, strides, strict=False)
        )
        self.pools = [tuple(pool) for pool in pools]

    def pyramid(self, x: Tensor) -> list[Tensor]:
        """Features of every stage, fine to coarse, each before the pooling that follows it."""
        levels = []
        for number, stage in enumerate(self.stages):
            x = stage(x)
            levels.append(x)
            if number < len(self.pools):
                x = max_pool(x, self.pools[number])
        return levels

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, ...) to the features of the last stage (B, widths[-1], ...), pooled where a cell is left."""
        x = self.pyramid(x)[-1]
        return max_pool(x, self.pools[-1]) if len(self.pools) == len(self.stages) else x


def check_stages(dims: int, widths: Sequence[int], pools: Sequence[Sequence[int]]) -> None:
    """Raise ConfigError unless there are stages, each but the last (or all) with a cell of `dims` sizes."""
    if dims not in (2, 3) or not widths or min(widths) < 1:
        raise ConfigError(f"an encoder works in 2 or 3 dimensions and has widths above zero, got {dims}, {widths}")
    if len(pools) not in (len(widths), len(widths) - 1):
        raise ConfigError(f"{len(widths)} stages take {len(widths) - 1} or {len(widths)} pools, got {len(pools)}")
    if any(len(pool) != dims or min(pool) < 1 for pool in pools):
        raise ConfigError(f"each pool has {dims} sizes above zero, got {pools}")
