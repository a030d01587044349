# SPDX-License-Identifier: Apache-2.0
"""DeepRS2V's regressor (its section 2.2 and figure 3): two encoders, dot-product fusion, a 3D decoder, a head."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

from ..config import check_range
from ..errors import ConfigError
from .blocks import initialise, precise
from .delta import Delta
from .encoders import Encoder, check_stages
from .fusion import dot_fusion
from .heads import PoseHead, check_finite
from .inputs import check_inputs

Cell = tuple[int, int, int]  # z, y, x
Cells = tuple[Cell, ...]


@dataclass(frozen=True)
class DotFusionConfig:
    """Sizes. As published: `published()`; the default trains on two processor cores at 2 mm.

    Args:
        widths: channels of the encoders' stages, in 2D and in 3D.
        pools: cells (z, y, x) between the stages of the 3D encoder; the 2D encoder takes (y, x) of them.
        stem: stride of the encoders' first convolution; decoder_stem: of the decoder's.
        fused: (d, h, w) to which features are averaged before the fusion, so that any input fits.
        decoder: channels of the decoder's stages; decoder_pools: cells after each.
        pooled: (d, h, w) to which the decoder's features are averaged for the head.
        hidden: widths of the head. limit_mm: of its translations. seed: of the first weights.
    """

    widths: tuple[int, ...] = (8, 16, 32, 64, 32)
    pools: Cells = ((1, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 2))
    stem: Cell = (2, 2, 2)
    fused: Cell = (6, 2, 3)
    decoder: tuple[int, ...] = (8, 16, 32, 64)
    decoder_pools: Cells = ((1, 2, 2), (1, 4, 4), (1, 3, 3))
    decoder_stem: Cell = (1, 2, 2)
    pooled: Cell = (2, 2, 2)
    hidden: tuple[int, ...] = (128, 64)
    limit_mm: float = 60.0
    seed: int = 0

    def __post_init__(self) -> None:
        check_stages(3, self.widths, self.pools)
        check_stages(3, self.decoder, self.decoder_pools)
        if min(*self.fused, *self.pooled, *self.hidden, *self.stem, *self.decoder_stem) < 1:
            raise ConfigError(f"stems, fused, pooled and hidden sizes must be above zero: {self}")
        check_range("limit_mm", self.limit_mm, 0.1, 1000.0)
        check_range("seed", self.seed, 0, 2**31 - 1)


def published() -> DotFusionConfig:
    """Sizes of the paper, as far as paper and public code say: they are for 200 x 160 x 120 voxels of 1 mm, and take
    the 400 x 320 x 240 of 0.5 mm as well."""
    return DotFusionConfig(
        widths=(16, 32, 64, 128, 64),
        pools=((2, 4, 4), (2, 4, 4), (2, 2, 2), (2, 2, 2)),
        stem=(1, 1, 1),
        decoder_stem=(1, 1, 1),
        fused=(7, 2, 3),
        decoder=(16, 32, 64, 128),
        decoder_pools=((1, 4, 4), (1, 4, 4), (1, 3, 3)),
        hidden=(256, 64),
    )


class DotFusionRegressor(nn.Module):
    """A correction from the volume about the start image and the frame."""

    def __init__(self, config: DotFusionConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or DotFusionConfig()
        self.volume_encoder = Encoder(3, config.widths, config.pools, config.stem)
        self.frame_encoder = Encoder(2, config.widths, [pool[1:] for pool in config.pools], config.stem[1:])
        self.decoder = Encoder(3, config.decoder, config.decoder_pools, config.decoder_stem)
        d, h, w = config.pooled
        self.head = PoseHead(config.decoder[-1] * d * h * w, config.hidden, config.limit_mm)
        initialise(self, config.seed)

    def forward(self, volume: Tensor, frame: Tensor) -> Delta:
        """Translation (B, 3) mm and rotation (B, 3, 3) of `delta.corrected`, single precision.

        Args:
            volume: (B, 1, D, H, W) in 0..1, initially transformed. frame: (B, 1, h, w) in 0..1. Any sizes.

        Raises:
            ShapeError: inputs of other shapes. GeometryError (in evaluation): a correction that is not finite.
        """
        check_inputs(volume, frame)
        with precise(volume):
            delta = self._delta(volume, frame)
        return delta if self.training else check_finite(delta)

    def _delta(self, volume: Tensor, frame: Tensor) -> Delta:
        f3 = functional.adaptive_avg_pool3d(self.volume_encoder(volume), self.config.fused)
        f2 = functional.adaptive_avg_pool2d(self.frame_encoder(frame), self.config.fused[1:])
        decoded = self.decoder(dot_fusion(f3, f2))
        return self.head(functional.adaptive_avg_pool3d(decoded, self.config.pooled).flatten(1))
