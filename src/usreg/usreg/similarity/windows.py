# SPDX-License-Identifier: Apache-2.0
"""Sums over square windows at a cost that does not depend on the window, in double precision.

On a CPU compiled running sums, one axis after the other; elsewhere differences of running totals, which are also the
reference of the compiled ones. Single precision would not do: on a patch of mean 200 and sd 1 the variance is what is
left when two numbers of 4e4 times the count are subtracted.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..compiled import njit
from ..workers import run_ranges
from .checked import centred, mean, spread, total

LEAST_ELEMENTS = 32768  # per thread: below, starting a thread costs more than it saves
FLAT = 1e-12  # variance below this share of the squared level is rounding
LOST = 1e-14  # share of the image's power that window sums in double precision may be wrong by


def window_sums(x: Tensor, radius: int, compiled: bool | None = None) -> Tensor:
    """Sum of x over windows of 2 radius + 1 pixels along every image axis; zeros beyond the border.

    Args:
        x: (B, C, [d,] h, w) float64.
        compiled: None = on a CPU.

    Returns:
        The same shape. Differentiable: the sum is its own adjoint.
    """
    compiled = x.device.type == "cpu" if compiled is None else compiled
    return _WindowSums.apply(x, radius, compiled)


def window_counts(w: Tensor, radius: int) -> tuple[Tensor, Tensor]:
    """Sum of weights (B, 1, ...) in every window, and how many pixels are known.

    Where none is known the sum is 1: what running sums leave there is rounding, never to be divided by.
    """
    count, size = window_sums(torch.cat([w, (w > 0).to(w.dtype)], 1), radius).split(1, 1)
    return torch.where(size > 0.5, count, torch.ones_like(count)), size


def window_variance(x: Tensor, w: Tensor, count: Tensor, radius: int) -> tuple[Tensor, Tensor, Tensor]:
    """Image less its mean, its sum of squares about each window's mean, and where that is only rounding.

    Args: x, w: float64 image (B, C, ...) and weights (B, 1, ...); count: see `window_counts`.
    """
    less = centred(x, w)
    square, first = window_sums(w * less * less, radius), window_sums(w * less, radius)
    variance = square - first * first / count
    level = spread(mean(x, w), x).detach()
    power = (square + level * (2.0 * first + level * count)).detach()
    lost = LOST * spread(total(w * less * less), x).detach() + 1e-300
    return less, variance, variance <= FLAT * power + lost


class _WindowSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, radius: int, compiled: bool) -> Tensor:
        ctx.rule = radius, compiled
        return _sums(x, radius, compiled)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return _sums(gradient, *ctx.rule), None, None


def _sums(x: Tensor, radius: int, compiled: bool) -> Tensor:
    for axis in range(2, x.dim()):
        x = _along_compiled(x, axis, radius) if compiled else _along_torch(x, axis, radius)
    return x


def _along_torch(x: Tensor, axis: int, radius: int) -> Tensor:
    size = x.shape[axis]
    running = torch.cat([torch.zeros_like(x.narrow(axis, 0, 1)), x.cumsum(axis)], axis)
    at = torch.arange(size, device=x.device)
    high, low = (at + radius + 1).clamp_max(size), (at - radius).clamp_min(0)
    return running.index_select(axis, high) - running.index_select(axis, low)


def _along_compiled(x: Tensor, axis: int, radius: int) -> Tensor:
    shape = x.shape
    flat = x.detach().contiguous().numpy().reshape(-1, shape[axis], int(np.prod(shape[axis + 1 :])))
    out = np.empty_like(flat)

    def work(first: int, last: int) -> None:
        running_sums(flat, radius, first, last, out)

    run_ranges(work, len(flat), max(1, LEAST_ELEMENTS // max(1, flat[0].size)))
    return torch.from_numpy(out).reshape(shape)


@njit(fastmath={"contract"})
def running_sums(x: npt.NDArray[np.float64], radius: int, first: int, last: int, out: npt.NDArray[np.float64]) -> None:
    """Running sums along the middle axis of x (outer, n, inner), for outer in [first, last)."""
    n, inner = x.shape[1], x.shape[2]
    total = np.empty(inner)
    for o in range(first, last):
        total[:] = 0.0
        for i in range(min(radius, n)):
            for j in range(inner):
                total[j] += x[o, i, j]
        for i in range(n):
            if i + radius < n:
                for j in range(inner):
                    total[j] += x[o, i + radius, j]
            if i > radius:
                for j in range(inner):
                    total[j] -= x[o, i - radius - 1, j]
            for j in range(inner):
                out[o, i, j] = total[j]
