# SPDX-License-Identifier: Apache-2.0
"""Masked, weighted normalised cross-correlation and its least-squares form."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import NoOverlapError, ShapeError
from .agreement import Linearised


def ncc(a: Tensor, b: Tensor, mask: Tensor) -> Tensor:
    """Pearson's correlation over the mask, mean over channels.

    Args:
        a, b: images (B, C, h, w). What lies outside the mask may hold anything, NaN too.
        mask: (B, 1, h, w), bool, or weights that are not negative.

    Returns:
        (B,) in [-1, 1]; 0 for an image without contrast. Differentiable in both images.

    Raises:
        ShapeError: shapes that do not fit. NoOverlapError: an image with an empty mask.
    """
    weight = _weight(a, b, mask)
    fixed, moving = (_centred(x, weight) for x in (a, b))
    power = _dot(fixed, fixed, weight), _dot(moving, moving, weight)
    flat = (power[0] <= _tiny(a, weight)) | (power[1] <= _tiny(b, weight))
    safe = torch.where(flat, torch.ones_like(power[0]), power[0] * power[1])
    value = _dot(fixed, moving, weight) / safe.sqrt()
    return torch.where(flat, torch.zeros_like(value), value).mean(-1)


class NccResidual:
    """The `LeastSquares` form of NCC: residual m^ - f^ of the centred, normalised images, |m^ - f^|^2 = 2 (1 - NCC).

    d m^ / d moving = (I - 1 w' / sum w - m^ (w m^)') / |m|: mean and length are projected out, so that Gauss-Newton
    sees neither gain nor offset, and J'r is exactly minus the gradient of NCC.
    """

    def __call__(self, fixed: Tensor, moving: Tensor, mask: Tensor) -> Linearised:
        """Linearise at images (B, 1, h, w) under the mask (B, 1, h, w).

        Raises:
            ShapeError: more than one channel, or shapes that do not fit. NoOverlapError: an empty mask.
        """
        weight = _weight(fixed, moving, mask)
        if fixed.shape[1] != 1:
            raise ShapeError(f"the least-squares form takes one channel, got {fixed.shape[1]}")
        w = weight.flatten(1)
        f, _ = _normalised(fixed, weight)
        m, m_length = _normalised(moving, weight)
        share = w / w.sum(-1, keepdim=True)

        def push(d_moving: Tensor) -> Tensor:
            centred = d_moving - (share[..., None] * d_moving).sum(-2, keepdim=True)
            along = (w[..., None] * m[..., None] * centred).sum(-2, keepdim=True)
            return (centred - m[..., None] * along) / m_length[..., None]

        return Linearised(m - f, push, w)


def _weight(a: Tensor, b: Tensor, mask: Tensor) -> Tensor:
    if a.dim() != 4 or a.shape != b.shape or mask.shape != (a.shape[0], 1, *a.shape[2:]):
        raise ShapeError(
            f"images must be (B, C, h, w) of one shape with a mask (B, 1, h, w); "
            f"got {tuple(a.shape)}, {tuple(b.shape)}, {tuple(mask.shape)}"
        )
    weight = mask.to(a.dtype if a.is_floating_point() else torch.float32)
    if bool((weight.flatten(1).sum(-1) <= 0).any()):
        raise NoOverlapError("the mask is empty: the images do not overlap; check poses, sector and volume")
    return weight


def _covered(x: Tensor, weight: Tensor) -> Tensor:
    """Zero where there is no weight: NaN there must reach neither value nor gradient."""
    return torch.where(weight > 0, x.to(weight.dtype), torch.zeros((), dtype=weight.dtype, device=weight.device))


def _centred(x: Tensor, weight: Tensor) -> Tensor:
    x = _covered(x, weight)
    return x - ((x * weight).sum((-2, -1)) / weight.sum((-2, -1)))[..., None, None]


def _dot(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    return (a * b * weight).sum((-2, -1))


def _tiny(x: Tensor, weight: Tensor) -> Tensor:
    """Power below which an image has no contrast beyond rounding."""
    x = _covered(x, weight).detach()
    return (torch.finfo(weight.dtype).eps ** 2) * 100 * (x * x * weight).sum((-2, -1)) * weight.sum((-2, -1)) + 1e-30


def _normalised(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Centred image of weighted length one (B, N), and its length before (B, 1); zeros without contrast."""
    centred = _centred(x, weight)
    power = _dot(centred, centred, weight)
    flat = power <= _tiny(x, weight)
    length = torch.where(flat, torch.ones_like(power), power).sqrt()
    value = torch.where(flat[..., None, None], torch.zeros_like(centred), centred / length[..., None, None])
    return value.flatten(1), length
