# SPDX-License-Identifier: Apache-2.0
"""LC2: how much of an ultrasound image's local variance a linear combination of CT intensity and gradient explains.

Wein et al., "Global registration of ultrasound to MRI using the LC2 metric", MICCAI 2013; several window radii as in
Ronchetti et al., "DISA: Differentiable similarity approximation", MICCAI 2023.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..config import check_range
from ..errors import ConfigError, NoOverlapError
from . import lc2_kernel
from .checked import EMPTY, centred, check_shapes, checked, mean, power, ratio, spread, total
from .running import Run, each
from .windows import FLAT, window_counts, window_sums, window_variance


@dataclass(frozen=True)
class Lc2Config:
    """Args: radii of the windows, in pixels. ridge: share of a channel's variance over the image, added per pixel."""

    radii: tuple[int, ...] = (3, 5, 7)
    ridge: float = 1e-3

    def __post_init__(self) -> None:
        if not self.radii:
            raise ConfigError("'radii' is empty; give at least one, in pixels")
        for radius in self.radii:
            check_range("radii", radius, 1, 50_000)
        check_range("ridge", self.ridge, 1e-9, 1.0)


def lc2(a: Tensor, b: Tensor, mask: Tensor, radii: Sequence[int] = (3, 5, 7), ridge: float = 1e-3) -> Tensor:
    """Share of the local variance of `a` that [intensity, gradient magnitude, 1] explain, by least squares per window.

    Windows stand about every known pixel and weigh by their variance and what they know: 1 - sum SSR / sum SST. The
    ridge keeps windows in which a channel has hardly any contrast from explaining with its noise.

    Args:
        a: ultrasound (B, 1, [d,] h, w).
        b: (B, 2, [d,] h, w): intensity and gradient magnitude of the volume, both resliced (`gradient_magnitude`).
        mask: (B, 1, [d,] h, w), bool or weights.
        radii: in pixels; the mean over them is returned.

    Returns:
        (B,) in [0, 1]; 0 where nothing has contrast. Blind to gain, offset and sign of every image.

    Raises:
        ShapeError, NoOverlapError: as every similarity. ConfigError: radii or ridge out of range.
    """
    config = Lc2Config(tuple(radii), ridge)
    if a.device.type == "cpu" and a.dim() == 4 and not a.requires_grad:
        check_shapes(a, b, mask, (1, 2))
        return _Compiled.apply(a, b, mask, config)
    fixed, moving, weight = checked(a, b, mask, (1, 2))
    return lc2_torch(fixed, moving, weight, config).to(fixed.dtype)


def lc2_torch(a: Tensor, b: Tensor, weight: Tensor, config: Lc2Config) -> Tensor:
    """LC2 (B,) float64 of checked images, plane or not, on any device: the reference of the compiled one."""
    w, u, m = weight.double(), a.double(), b.double()
    ridges, m = _channels(m, w, config.ridge)
    scores = [_explained(u, m, w, ridges, radius) for radius in config.radii]
    return torch.stack(scores).mean(0)


def _channels(m: Tensor, w: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
    """Ridges (B, 2) per pixel, and the channels less their means; one without contrast is zero and explains nothing."""
    less = centred(m, w)
    variance = mean(less * less, w)
    sharp = variance.detach() > FLAT * power(m, w).detach() / total(w) + 1e-300
    ridges = torch.where(sharp, ridge * variance, torch.ones_like(variance))
    return ridges, torch.where(spread(sharp, m), less, torch.zeros_like(less))


def _explained(u: Tensor, m: Tensor, w: Tensor, ridges: Tensor, radius: int) -> Tensor:
    """Explained share (B,) at one radius: sum of c' (M + ridge)^-1 c over sum of SST."""
    p, q = m[:, :1], m[:, 1:]
    n, size = window_counts(w, radius)
    u, sst, flat = window_variance(u, w, n, radius)
    sums = window_sums(w * torch.cat([u, p, q, p * p, q * q, p * q, u * p, u * q], 1), radius)
    su, sp, sq, pp, qq, pq, up, uq = sums.split(1, 1)
    ridge_p, ridge_q = (spread(r, u) for r in ridges.split(1, 1))
    pp, qq, pq = pp - sp * sp / n + n * ridge_p, qq - sq * sq / n + n * ridge_q, pq - sp * sq / n
    up, uq = up - su * sp / n, uq - su * sq / n
    fits = (w > 0) & (size > lc2_kernel.LEAST - 0.5) & ~flat
    explained = ratio(qq * up * up - 2.0 * pq * up * uq + pp * uq * uq, pp * qq - pq * pq, fits)
    whole = total(torch.where(fits, w * sst, torch.zeros_like(sst)))
    return ratio(total(w * explained), whole, whole > 0).squeeze(1)


class _Compiled(torch.autograd.Function):
    """Value and, where asked for, the derivative by the moving channels in one go."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, mask: Tensor, config: Lc2Config) -> Tensor:
        dtype = torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float32)
        fixed, moving = (x.detach().to(dtype).contiguous().numpy() for x in (a, b))
        weight = mask.to(dtype).contiguous().numpy()
        values = torch.empty(len(a), dtype=torch.float64)
        gradient = torch.zeros(b.shape, dtype=dtype) if ctx.needs_input_grad[1] else None

        def one(k: int, run: Run) -> None:
            into = None if gradient is None else gradient[k].numpy()
            rule = config.radii, config.ridge
            values[k] = lc2_kernel.value_and_gradient(fixed[k, 0], moving[k], weight[k, 0], rule, into, run)

        each(one, len(a))
        if bool(values.isnan().any()):
            raise NoOverlapError(EMPTY)
        ctx.gradient = gradient
        return values.to(dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return None, None if ctx.gradient is None else ctx.gradient * gradient[:, None, None, None], None, None
