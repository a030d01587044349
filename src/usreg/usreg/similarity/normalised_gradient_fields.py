# SPDX-License-Identifier: Apache-2.0
"""Normalised gradient fields: how parallel the edges are (Haber & Modersitzki, MICCAI 2006)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..config import check_range
from .checked import centred, checked, mean, ratio, spread, tiny
from .differences import central_differences


@dataclass(frozen=True)
class NgfConfig:
    """Args: edge: length of gradient that counts as an edge, as a share of the root mean square over the mask."""

    edge: float = 1.0

    def __post_init__(self) -> None:
        check_range("edge", self.edge, 1e-6, 1e6)


def normalised_gradient_fields(a: Tensor, b: Tensor, mask: Tensor, edge: float = 1.0) -> Tensor:
    """Mean of (grad a . grad b)^2 / ((|grad a|^2 + e_a^2) (|grad b|^2 + e_b^2)), e = edge times rms of the gradient.

    Args:
        a, b: (B, C, [d,] h, w). mask: (B, 1, [d,] h, w), bool or weights; a gradient counts where the pixel and its
            neighbours along all axes are known.

    Returns:
        (B,) in [0, 1); 0 without edges. Blind to gain, offset and sign of either image.

    Raises:
        ShapeError, NoOverlapError: as every similarity. ConfigError: an edge out of range.
    """
    config = NgfConfig(edge)
    a, b, weight = checked(a, b, mask)
    fixed, inner = central_differences(centred(a, weight), weight)
    moving, _ = central_differences(centred(b, weight), weight)
    dot = torch.stack([f * m for f, m in zip(fixed, moving, strict=True)]).sum(0)
    (square_a, sharp_a), (square_b, sharp_b) = (_squares(d, x, inner, config) for d, x in ((fixed, a), (moving, b)))
    sharp = spread(sharp_a & sharp_b, a)
    local = ratio(dot * dot, square_a * square_b, sharp.expand_as(dot))
    return mean(local, inner).mean(-1)


def _squares(derivatives: list[Tensor], x: Tensor, inner: Tensor, config: NgfConfig) -> tuple[Tensor, Tensor]:
    """|grad|^2 + e^2 (B, C, ...), and whether there are edges beyond rounding (B, C)."""
    square = torch.stack([d * d for d in derivatives]).sum(0)
    level = mean(square, inner)
    sharp = level * inner.flatten(2).sum(-1) > tiny(x, inner)
    return square + spread(config.edge**2 * level, x), sharp
