# SPDX-License-Identifier: Apache-2.0
"""What every measure does first: check the shapes, turn the mask into weights, cover what is unknown, centre."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import NoOverlapError, ShapeError

EMPTY = "the mask is empty: the images do not overlap; check poses, sector and volume"


def checked(a: Tensor, b: Tensor, mask: Tensor, channels: tuple[int, int] | None = None) -> tuple[Tensor, ...]:
    """Images and weights to compute with.

    Args:
        a, b: images (B, C, h, w) or (B, C, d, h, w), of one shape.
        mask: (B, 1, h, w) or (B, 1, d, h, w), bool, or weights that are not negative.
        channels: how many channels `a` and `b` must have; None = any, the same.

    Returns:
        a, b with zeros where nothing is known (NaN there must reach neither value nor gradient), and weights of the
        shape of the mask: zero where the mask is, or where an image is not finite. All in one floating type.

    Raises:
        ShapeError: shapes that do not fit. NoOverlapError: an image that has no weight at all.
    """
    check_shapes(a, b, mask, channels)
    dtype = torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float32)
    known = torch.isfinite(a).all(1, keepdim=True) & torch.isfinite(b).all(1, keepdim=True) & (mask > 0)
    weight = torch.where(known, mask.to(dtype), torch.zeros((), dtype=dtype, device=mask.device))
    if not bool(weight.flatten(1).any(-1).all()):
        raise NoOverlapError(EMPTY)
    return covered(a.to(dtype), weight), covered(b.to(dtype), weight), weight


def check_shapes(a: Tensor, b: Tensor, mask: Tensor, channels: tuple[int, int] | None = None) -> None:
    """Raise ShapeError unless images and mask fit together; arguments as `checked`."""
    fits = a.dim() in (4, 5) and a.dim() == b.dim() and a.shape[0] == b.shape[0] and a.shape[2:] == b.shape[2:]
    fits = fits and mask.shape == (a.shape[0], 1, *a.shape[2:])
    wanted = (a.shape[1], a.shape[1]) if channels is None and a.dim() > 1 else channels
    if not fits or (a.shape[1], b.shape[1]) != wanted:
        count = "C channels" if channels is None else f"{channels[0]} and {channels[1]} channels"
        raise ShapeError(
            f"images must be (B, C, h, w) or (B, C, d, h, w) of one shape, {count}, with a mask of one channel; "
            f"got {tuple(a.shape)}, {tuple(b.shape)}, {tuple(mask.shape)}"
        )


def covered(x: Tensor, weight: Tensor) -> Tensor:
    """Zero where there is no weight."""
    return torch.where(weight > 0, x, torch.zeros((), dtype=x.dtype, device=x.device))


def total(x: Tensor) -> Tensor:
    """Sum over pixels: (B, C, ...) to (B, C)."""
    return x.flatten(2).sum(-1)


def spread(x: Tensor, like: Tensor) -> Tensor:
    """(B, C) to (B, C, 1, ...) with as many axes as `like`."""
    return x.reshape(*x.shape, *[1] * (like.dim() - 2))


def mean(x: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean (B, C); 0 where there is no weight."""
    whole = total(weight)
    return total(x * weight) / torch.where(whole > 0, whole, torch.ones_like(whole))


def centred(x: Tensor, weight: Tensor) -> Tensor:
    """Less its weighted mean, zero where there is no weight."""
    return covered(x - spread(mean(x, weight), x), weight)


def power(x: Tensor, weight: Tensor) -> Tensor:
    """Weighted sum of squares (B, C)."""
    return total(x * x * weight)


def tiny(x: Tensor, weight: Tensor) -> Tensor:
    """Power (B, C) below which an image has no contrast beyond rounding."""
    x = x.detach()
    return (torch.finfo(x.dtype).eps ** 2) * 100 * power(x, weight) * total(weight) + 1e-30


def ratio(top: Tensor, bottom: Tensor, valid: Tensor) -> Tensor:
    """top / bottom where valid, else 0; finite gradients either way."""
    safe = torch.where(valid, bottom, torch.ones_like(bottom))
    return torch.where(valid, top / safe, torch.zeros_like(top))
