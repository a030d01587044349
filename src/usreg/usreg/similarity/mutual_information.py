# SPDX-License-Identifier: Apache-2.0
"""Mutual information of masked images by Parzen windows.

Cubic B-splines on both images (Thevenaz & Unser, IEEE TIP 2000; Mattes et al., IEEE TMI 2003): smooth derivatives, and
marginals that are exactly those of the joint histogram. Normalised as Studholme et al., Pattern Recognition 1999.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ..config import check_range
from . import histogram_kernel
from .by_image import Outs, compiled
from .checked import centred, check_shapes, checked, power, ratio, tiny, total
from .running import Array, Run


@dataclass(frozen=True)
class MutualInformationConfig:
    """Args: bins of each image's histogram, of which one at each end takes up the spline."""

    bins: int = 32

    def __post_init__(self) -> None:
        check_range("bins", self.bins, 5, 4096)


def mutual_information(a: Tensor, b: Tensor, mask: Tensor, bins: int = 32, normalised: bool = False) -> Tensor:
    """Mutual information in nats, mean over channels.

    Args:
        a, b: (B, C, [d,] h, w). mask: (B, 1, [d,] h, w), bool or weights. Grey values are binned between the least
            and the greatest known one.
        normalised: divide by the joint entropy: Studholme's (H(a) + H(b)) / H(a, b), less one, in [0, 1].

    Returns:
        (B,), 0 or more; 0 without contrast. Blind to gain, offset and sign of either image.

    Raises:
        ShapeError, NoOverlapError: as every similarity. ConfigError: bins out of range.
    """
    config = MutualInformationConfig(bins)
    if a.device.type == "cpu":
        check_shapes(a, b, mask)
        return compiled(partial(_one, config.bins, normalised), a, b, mask)
    fixed, moving, weight = checked(a, b, mask)
    return information_torch(fixed, moving, weight, config.bins, normalised)


def information_torch(a: Tensor, b: Tensor, weight: Tensor, bins: int, normalised: bool) -> Tensor:
    """Mutual information (B,) of checked images, on any device: the reference of the compiled one."""
    fixed, moving = (_parzen(x, weight, bins) for x in (a, b))
    share = (weight / total(weight)[..., None].reshape(-1, 1, *[1] * (a.dim() - 2))).flatten(2)
    joint = fixed.transpose(-1, -2) @ (moving * share[..., None])
    alone_a, alone_b, together = _entropy(joint.sum(-1)), _entropy(joint.sum(-2)), _entropy(joint.flatten(2))
    information = alone_a + alone_b - together
    sharp = _sharp(a, weight) & _sharp(b, weight)
    value = ratio(information, together if normalised else torch.ones_like(together), sharp)
    return value.mean(-1)


def _one(bins: int, normalised: bool, a: Array, b: Array, mask: Array, out: Outs, run: Run) -> float:
    rule = bins, normalised, float(np.finfo(a.dtype).eps)
    by_a, by_b = (None if g is None else g.reshape(-1) for g in out)
    return histogram_kernel.value_and_gradients(a.reshape(-1), b.reshape(-1), mask.reshape(-1), rule, by_a, by_b, run)


def normalised_mutual_information(a: Tensor, b: Tensor, mask: Tensor, bins: int = 32) -> Tensor:
    """`mutual_information`, normalised."""
    return mutual_information(a, b, mask, bins, normalised=True)


def cubic_spline(x: Tensor) -> Tensor:
    """The cubic B-spline of unit sum over integers, zero beyond 2."""
    x = x.abs()
    near = (4.0 + x * x * (3.0 * x - 6.0)) / 6.0
    far = (2.0 - x).clamp_min(0.0) ** 3 / 6.0
    return torch.where(x < 1.0, near, far)


def _parzen(x: Tensor, weight: Tensor, bins: int) -> Tensor:
    """Share of every pixel in every bin, (B, C, N, bins)."""
    flat, known = x.flatten(2), weight.flatten(2) > 0
    low = torch.where(known, flat, torch.full_like(flat, torch.inf)).amin(-1, keepdim=True)
    high = torch.where(known, flat, torch.full_like(flat, -torch.inf)).amax(-1, keepdim=True)
    place = 1.0 + (bins - 3.0) * ratio(flat - low, (high - low).expand_as(flat), (high > low).expand_as(flat))
    place = torch.where(known, place, torch.ones_like(place))
    return cubic_spline(place[..., None] - torch.arange(bins, dtype=x.dtype, device=x.device))


def _entropy(p: Tensor) -> Tensor:
    """In nats, over the last axis; an empty bin adds nothing, to the gradient neither."""
    some = p > 0
    safe = torch.where(some, p, torch.ones_like(p))
    return -(safe * safe.log() * some).sum(-1)


def _sharp(x: Tensor, weight: Tensor) -> Tensor:
    return power(centred(x, weight), weight).detach() > tiny(x, weight)
