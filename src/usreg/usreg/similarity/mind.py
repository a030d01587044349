# SPDX-License-Identifier: Apache-2.0
"""Modality independent neighbourhood descriptors and self-similarity context.

Heinrich et al., "MIND: Modality independent neighbourhood descriptor for multi-modal deformable registration", Medical
Image Analysis 2012; Heinrich et al., "Towards realtime multimodal fusion for image-guided interventions using
self-similarities", MICCAI 2013 (SSC).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import torch
from torch import Tensor

from ..config import check_range
from .checked import centred, checked, covered, mean, ratio, spread, total
from .differences import shifted, unit
from .windows import FLAT, window_sums

Kind = Literal["mind", "ssc"]
Offset = tuple[int, ...]
NOISE = 1e-3, 1e3  # a pixel's noise estimate is kept within these multiples of the image's mean, as in the papers


@dataclass(frozen=True)
class MindConfig:
    """Args: radius of the compared patches; dilation: distance of the neighbours; both in pixels."""

    radius: int = 1
    dilation: int = 2

    def __post_init__(self) -> None:
        check_range("radius", self.radius, 0, 1000)
        check_range("dilation", self.dilation, 1, 1000)


def mind(a: Tensor, b: Tensor, mask: Tensor, radius: int = 1, dilation: int = 2) -> Tensor:
    """One minus the mean squared difference of MIND: each patch compared with its neighbours along the axes.

    Args:
        a, b: (B, C, [d,] h, w). mask: (B, 1, [d,] h, w), bool or weights.
        radius, dilation: see `MindConfig`.

    Returns:
        (B,) in [0, 1]; 0 without contrast. Blind to gain, offset and sign of either image.

    Raises:
        ShapeError, NoOverlapError: as every similarity. ConfigError: settings out of range.
    """
    return _similarity(a, b, mask, "mind", MindConfig(radius, dilation))


def ssc(a: Tensor, b: Tensor, mask: Tensor, radius: int = 1, dilation: int = 2) -> Tensor:
    """As `mind`, by self-similarity context: neighbours compared with one another, the noisy centre left out."""
    return _similarity(a, b, mask, "ssc", MindConfig(radius, dilation))


def descriptors(
    x: Tensor, mask: Tensor, kind: Kind = "mind", config: MindConfig | None = None
) -> tuple[Tensor, Tensor]:
    """Descriptor of every pixel.

    Args:
        x: (B, C, [d,] h, w), mask (B, 1, [d,] h, w).

    Returns:
        (B, C * K, [d,] h, w) in [0, 1] with K = 4 (planes), 6 (MIND, volumes) or 12 (SSC, volumes); where all of them
        are known, (B, 1, [d,] h, w): not where a neighbour's whole patch lies outside.
    """
    x, _, weight = checked(x, x, mask)
    found, known, _ = _descriptors(centred(x, weight), weight, kind, config or MindConfig())
    return found.flatten(1, 2), known


def pairs(kind: Kind, shape: Sequence[int]) -> list[tuple[Offset, Offset]]:
    """Unit offsets of the two patches of each comparison; none along an axis of one pixel, unless there is no other."""
    axes = [axis for axis, size in enumerate(shape) if size > 1] or list(range(len(shape)))
    neighbours = [unit(len(shape), axis, step) for axis in axes for step in (-1, 1)]
    if kind == "mind":
        return [((0,) * len(shape), neighbour) for neighbour in neighbours]
    return [(s, t) for s, t in combinations(neighbours, 2) if any(p + q for p, q in zip(s, t, strict=True))]


def _similarity(a: Tensor, b: Tensor, mask: Tensor, kind: Kind, config: MindConfig) -> Tensor:
    a, b, weight = checked(a, b, mask)
    (first, known, sharp_a), (second, _, sharp_b) = (
        _descriptors(centred(x, weight), weight, kind, config) for x in (a, b)
    )
    inner = covered(weight, known.to(weight.dtype))
    distance = mean(((first - second) ** 2).mean(2), inner)
    sharp = sharp_a & sharp_b & (total(inner) > 0)
    return torch.where(sharp, 1.0 - distance, torch.zeros_like(distance)).mean(-1)


def _descriptors(x: Tensor, weight: Tensor, kind: Kind, config: MindConfig) -> tuple[Tensor, Tensor, Tensor]:
    """Descriptors (B, C, K, ...), where known (B, 1, ...), and whether there is contrast (B, C)."""
    distances, known = _patch_distances(x, weight, kind, config)
    noise = distances.mean(2)
    inner = known.to(x.dtype) * weight
    level = mean(noise, inner)
    sharp = level.detach() > FLAT * mean(x * x, weight).detach() + 1e-30
    safe = spread(torch.where(sharp, level, torch.ones_like(level)), noise)
    noise = torch.minimum(torch.maximum(noise, NOISE[0] * safe), NOISE[1] * safe)
    nearest = distances.amin(2, keepdim=True)
    return torch.exp(-(distances - nearest) / noise.unsqueeze(2)), known, sharp


def _patch_distances(x: Tensor, weight: Tensor, kind: Kind, config: MindConfig) -> tuple[Tensor, Tensor]:
    """Mean squared difference over what both patches know, (B, C, K, ...), and where all K are known."""
    seen, found, known = (weight > 0).to(x.dtype), [], weight > 0
    for offsets in pairs(kind, x.shape[2:]):
        s, t = (tuple(config.dilation * k for k in offset) for offset in offsets)
        both = shifted(seen, s) * shifted(seen, t)
        square = both * (shifted(x, s) - shifted(x, t)) ** 2
        count = window_sums(both.double(), config.radius).to(x.dtype)
        some = count > 0.5
        found.append(ratio(window_sums(square.double(), config.radius).to(x.dtype), count, some))
        known = known & some
    return torch.stack(found, 2), known
