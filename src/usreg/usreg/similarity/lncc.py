# SPDX-License-Identifier: Apache-2.0
"""Local normalised cross-correlation: Pearson's correlation over windows, of which only a part may be known."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ..config import check_range
from ..errors import ConfigError
from . import lncc_kernel
from .by_image import Outs, compiled
from .checked import check_shapes, checked, ratio, total
from .running import Array, Run
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
        return compiled(partial(_one, config.window // 2, config.squared), a, b, mask)
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


def _one(radius: int, squared: bool, a: Array, b: Array, mask: Array, out: Outs, run: Run) -> float:
    return lncc_kernel.value_and_gradients(a, b, mask, (radius, squared), *out, run)
