# SPDX-License-Identifier: Apache-2.0
"""Masked, weighted normalised cross-correlation and its least-squares form."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import ShapeError
from .agreement import Linearised
from .checked import centred, checked, power, ratio, spread, tiny, total


def ncc(a: Tensor, b: Tensor, mask: Tensor) -> Tensor:
    """Pearson's correlation over the mask, mean over channels.

    Args:
        a, b: images (B, C, [d,] h, w). What lies outside the mask may hold anything, NaN too.
        mask: (B, 1, [d,] h, w), bool, or weights that are not negative.

    Returns:
        (B,) in [-1, 1]; 0 for an image without contrast. Differentiable in both images.

    Raises:
        ShapeError: shapes that do not fit. NoOverlapError: an image with an empty mask.
    """
    return correlation(*checked(a, b, mask)).mean(-1)


def correlation(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    """Pearson's correlation of each channel, (B, C), of checked images; 0 without contrast or without weight."""
    fixed, moving = centred(a, weight), centred(b, weight)
    powers = power(fixed, weight), power(moving, weight)
    sharp = (powers[0] > tiny(a, weight)) & (powers[1] > tiny(b, weight))
    safe = torch.where(sharp, powers[0] * powers[1], torch.ones_like(powers[0]))
    return ratio(total(fixed * moving * weight), safe.sqrt(), sharp)


class NccResidual:
    """The `LeastSquares` form of NCC: residual m^ - f^ of the centred, normalised images, |m^ - f^|^2 = 2 (1 - NCC).

    d m^ / d moving = (I - 1 w' / sum w - m^ (w m^)') / |m|: mean and length are projected out, so that Gauss-Newton
    sees neither gain nor offset, and J'r is exactly minus the gradient of NCC.
    """

    def __call__(self, fixed: Tensor, moving: Tensor, mask: Tensor) -> Linearised:
        """Linearise at images (B, 1, [d,] h, w) under the mask (B, 1, [d,] h, w).

        Raises:
            ShapeError: more than one channel, or shapes that do not fit. NoOverlapError: an empty mask.
        """
        if fixed.dim() > 1 and fixed.shape[1] != 1:
            raise ShapeError(f"the least-squares form takes one channel, got {fixed.shape[1]}")
        fixed, moving, weight = checked(fixed, moving, mask)
        w = weight.flatten(1)
        f, _ = _normalised(fixed, weight)
        m, m_length = _normalised(moving, weight)
        share = w / w.sum(-1, keepdim=True)

        def push(d_moving: Tensor) -> Tensor:
            less_mean = d_moving - (share[..., None] * d_moving).sum(-2, keepdim=True)
            along = (w[..., None] * m[..., None] * less_mean).sum(-2, keepdim=True)
            return (less_mean - m[..., None] * along) / m_length[..., None]

        return Linearised(m - f, push, w)


def _normalised(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Centred image of weighted length one (B, N), and its length before (B, 1); zeros without contrast."""
    less_mean = centred(x, weight)
    square = power(less_mean, weight)
    sharp = square > tiny(x, weight)
    length = torch.where(sharp, square, torch.ones_like(square)).sqrt()
    value = torch.where(spread(sharp, x), less_mean / spread(length, x), torch.zeros_like(less_mean))
    return value.flatten(1), length
