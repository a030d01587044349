# SPDX-License-Identifier: Apache-2.0
"""Local normalised cross-correlation: Pearson's correlation over windows, of which only a part may be known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..config import check_range
from ..errors import ConfigError, NoOverlapError
from . import lncc_kernel
from .checked import EMPTY, check_shapes, checked, ratio, total
from .running import Run, each
from .windows import window_counts, window_sums, window_variance


@dataclass(frozen=True)
class LnccConfig:
    """Args: window: pixels along every axis, odd. squared: correlation squared, for images that differ in sign."""

    window: int = 51
    squared: bool = False

    def __post_init__(self) -> None:
        check_range("window", self.window, 3, 100_001)
        if self.window % 2 == 0:
            raise ConfigError(f"'window' is {self.window}; it must be odd, to have a centre")


def lncc(a: Tensor, b: Tensor, mask: Tensor, window: int = 51, squared: bool = False) -> Tensor:
    """Correlation within the window about each known pixel, averaged by what the window knows.

    Args:
        a, b: (B, C, [d,] h, w). mask: (B, 1, [d,] h, w), bool or weights.
        window: pixels along every axis, odd; the cost does not depend on it.
        squared: average the squared correlation.

    Returns:
        (B,) in [-1, 1] ([0, 1] squared); windows without contrast count as 0.

    Raises:
        ShapeError, NoOverlapError: as every similarity. ConfigError: a window that is even or below 3.
    """
    config = LnccConfig(window, squared)
    if a.device.type == "cpu" and a.dim() == 4:
        check_shapes(a, b, mask)
        return _Compiled.apply(a, b, mask, config)
    fixed, moving, weight = checked(a, b, mask)
    return lncc_torch(fixed, moving, weight, config).to(fixed.dtype)


def lncc_torch(a: Tensor, b: Tensor, weight: Tensor, config: LnccConfig) -> Tensor:
    """LNCC (B,) float64 of checked images, plane or not, on any device: the reference of the compiled one."""
    radius = config.window // 2
    w = weight.double()
    count, _ = window_counts(w, radius)
    (fixed, var_a, flat_a), (moving, var_b, flat_b) = (window_variance(x.double(), w, count, radius) for x in (a, b))
    cross = window_sums(w * fixed * moving, radius)
    covariance = cross - window_sums(w * fixed, radius) * window_sums(w * moving, radius) / count
    sharp = ~(flat_a | flat_b)
    safe = torch.where(sharp, var_a * var_b, torch.ones_like(var_a))
    local = ratio(covariance, safe.sqrt(), sharp)
    local = local * local if config.squared else local
    by = w * count
    return (total(local * by) / total(by)).mean(-1)


class _Compiled(torch.autograd.Function):
    """Value and, where asked for, both gradients in one go: they share all window sums."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, mask: Tensor, config: LnccConfig) -> Tensor:
        if a.shape[1] > 1:  # what one channel does not know no channel knows
            known = torch.isfinite(a).all(1, keepdim=True) & torch.isfinite(b).all(1, keepdim=True)
            mask = torch.where(known, mask, torch.zeros_like(mask))
        dtype = torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float32)
        fixed, moving = (x.to(dtype).contiguous() for x in (a, b))
        weight = mask.to(dtype).contiguous().numpy()
        values = torch.empty(a.shape[:2], dtype=torch.float64)
        gradients = [torch.empty_like(fixed) if wanted else None for wanted in ctx.needs_input_grad[:2]]
        rule = config.window // 2, config.squared

        def one(job: int, run: Run) -> None:
            k, c = divmod(job, a.shape[1])
            by_a, by_b = (None if g is None else g[k, c].numpy() for g in gradients)
            images = fixed[k, c].numpy(), moving[k, c].numpy(), weight[k, 0]
            values[k, c] = lncc_kernel.value_and_gradients(*images, rule, by_a, by_b, run)

        each(one, values.numel())
        if bool(values.isnan().any()):
            raise NoOverlapError(EMPTY)
        scale = 1.0 / a.shape[1]
        ctx.gradients = [g if g is None else (g * scale if scale < 1 else g) for g in gradients]
        return values.mean(-1).to(dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        scale = gradient[:, None, None, None]
        return *(g if g is None else g * scale for g in ctx.gradients), None, None
