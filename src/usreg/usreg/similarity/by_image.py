# SPDX-License-Identifier: Apache-2.0
"""Compiled measures as torch functions: value and, where asked for, both gradients of each image in one go."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..errors import NoOverlapError
from .checked import EMPTY
from .running import Array, Run, each

Outs = tuple[Array | None, Array | None]
One = Callable[[Array, Array, Array, Outs, Run], float]


def compiled(one: One, a: Tensor, b: Tensor, mask: Tensor) -> Tensor:
    """Values (B,), mean over channels, differentiable once in both images.

    Args:
        one: (a, b, mask, places for the derivatives by a and b or None, how to share the work) -> value, for one
            channel of one image; NaN where no pixel has weight.
        a, b: (B, C, ...) on a CPU, mask (B, 1, ...), of shapes that fit.

    Raises:
        NoOverlapError: an image without weight.
    """
    return _ByImage.apply(a, b, mask, one)


class _ByImage(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, mask: Tensor, one: One) -> Tensor:
        channels = a.shape[1]
        if channels > 1:  # what one channel does not know no channel knows
            known = torch.isfinite(a).all(1, keepdim=True) & torch.isfinite(b).all(1, keepdim=True)
            mask = torch.where(known, mask, torch.zeros_like(mask))
        dtype = torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float32)
        fixed, moving, weight = (x.detach().to(dtype).contiguous().numpy() for x in (a, b, mask))
        values = torch.empty(len(a), channels, dtype=torch.float64)
        wanted = ctx.needs_input_grad
        by_a, by_b = (torch.zeros(a.shape, dtype=dtype) if want else None for want in wanted[:2])

        def image(job: int, run: Run) -> None:
            k, c = divmod(job, channels)
            out_a, out_b = (None if g is None else g[k, c].numpy() for g in (by_a, by_b))
            values[k, c] = one(fixed[k, c], moving[k, c], weight[k, 0], (out_a, out_b), run)

        each(image, values.numel())
        if bool(values.isnan().any()):
            raise NoOverlapError(EMPTY)
        ctx.gradients = [g if g is None or channels == 1 else g / channels for g in (by_a, by_b)]
        return values.mean(-1).to(dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        by_a, by_b = (None if g is None else g * gradient.reshape(-1, *[1] * (g.dim() - 1)) for g in ctx.gradients)
        return by_a, by_b, None, None
