# SPDX-License-Identifier: Apache-2.0
"""What differs between two looks of an ultrasound machine at one place: gain, contrast, shadow, speckle, focus."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

from ..config import check_range
from ..data.types import ImageGeometry
from ..geometry.sector import SectorGeometry


@dataclass(frozen=True)
class AugmentConfig:
    """Half widths of the draws; zeros change nothing.

    Args:
        gain, gamma, ramp: of the logarithm of the brightness, of the exponent, and of the brightness from the top to
            the bottom of the image.
        offset: of the brightness that is added inside the sector, of 1.
        shadows: at most so many a frame. shadow_width: of one, as a share of the sector's width.
        shadow_depth: share of the brightness that a shadow may take.
        speckle: standard deviation of the multiplicative noise, at most. blur: share of a 3x3 blur, at most.
    """

    gain: float = 0.25
    gamma: float = 0.25
    ramp: float = 0.4
    offset: float = 0.03
    shadows: int = 2
    shadow_width: float = 0.15
    shadow_depth: float = 0.8
    speckle: float = 0.25
    blur: float = 1.0

    def __post_init__(self) -> None:
        for name in ("gain", "gamma", "ramp", "speckle", "shadow_width"):
            check_range(name, getattr(self, name), 0.0, 2.0)
        for name in ("offset", "shadow_depth", "blur"):
            check_range(name, getattr(self, name), 0.0, 1.0)
        check_range("shadows", self.shadows, 0, 10)


def augment(images: Tensor, geometry: ImageGeometry, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Images (B, h, w) in 0..1 of one geometry, changed; still in 0..1, zero outside the sector."""
    inside = geometry.mask()
    lateral, depth = beam_coordinates(geometry)
    gain, gamma, ramp, offset = (
        width * (2 * _draw(len(images), generator) - 1)
        for width in (config.gain, config.gamma, config.ramp, config.offset)
    )
    out = images.clamp_min(1e-4) ** torch.exp(gamma)
    out = out * torch.exp(gain + ramp * (depth - 0.5)) * _shadows(lateral, depth, len(images), config, generator)
    out = out * _speckle(images.shape, config, generator) + offset
    out = out + config.blur * _draw(len(images), generator) * (_blurred(out) - out)
    return torch.where(inside, out.clamp(0.0, 1.0), torch.zeros(()))


def beam_coordinates(geometry: ImageGeometry) -> tuple[Tensor, Tensor]:
    """Where pixels lie among the beams: lateral (h, w), -1..1 from first to last beam, and depth (h, w), 0..1."""
    points = geometry.plane.points_mm()[..., :2].to(torch.float32)
    x, y = points.unbind(-1)
    if isinstance(geometry, SectorGeometry) and geometry.kind != "linear":
        x, y = x - geometry.apex_mm[0], y - geometry.apex_mm[1]
        (r0, r1), (a0, a1) = geometry.radius_mm, geometry.angle_rad
        return (2 * torch.atan2(x, y) - (a0 + a1)) / (a1 - a0), ((torch.hypot(x, y) - r0) / (r1 - r0)).clamp(0, 1)
    x0, x1, y0, y1 = (float(v) for v in (x.min(), x.max(), y.min(), y.max()))
    return (2 * x - (x0 + x1)) / max(x1 - x0, 1e-6), (y - y0) / max(y1 - y0, 1e-6)


def _draw(count: int, generator: torch.Generator) -> Tensor:
    """(B, 1, 1), uniform in 0..1."""
    return torch.rand(count, 1, 1, generator=generator)


def _shadows(
    lateral: Tensor, depth: Tensor, count: int, config: AugmentConfig, generator: torch.Generator
) -> Tensor:  # fmt: skip
    """Factors (B, h, w): behind a place on the way, the brightness of some beams falls."""
    factor = torch.ones(count, *lateral.shape)
    for _ in range(config.shadows):
        there, where, width, begin, strength = (_draw(count, generator) for _ in range(5))
        profile = torch.exp(-0.5 * ((lateral - 2 * where + 1) / (config.shadow_width * (0.2 + width))) ** 2)
        behind = torch.sigmoid((depth - 0.8 * begin) / 0.03)
        factor = factor * (1 - config.shadow_depth * strength * (there < 0.5) * profile * behind)
    return factor


def _speckle(shape: torch.Size, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    strength = config.speckle * _draw(shape[0], generator)
    return (1 + strength * torch.randn(shape, generator=generator)).clamp_min(0.0)


def _blurred(images: Tensor) -> Tensor:
    kernel = torch.tensor([0.25, 0.5, 0.25])
    padded = pad(images[:, None], (1, 1, 1, 1), mode="replicate")
    return conv2d(padded, (kernel[:, None] * kernel)[None, None])[:, 0]
