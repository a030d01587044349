# SPDX-License-Identifier: Apache-2.0
"""LC2: how much of an ultrasound image's local variance a linear combination of CT intensity and gradient explains.

Wein et al., "Global registration of ultrasound to MRI using the LC2 metric", MICCAI 2013; several window radii as in
Ronchetti et al., "DISA: Differentiable similarity approximation", MICCAI 2023.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..config import check_range
from ..errors import ConfigError
from .checked import centred, checked, mean, power, ratio, spread, total
from .windows import FLAT, window_counts, window_sums, window_variance

LEAST = 4  # known pixels of a window: one more than it has unknowns


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
    a, b, weight = checked(a, b, mask, (1, 2))
    w, u, m = weight.double(), a.double(), b.double()
    ridges, m = _channels(m, w, config.ridge)
    scores = [_explained(u, m, w, ridges, radius) for radius in config.radii]
    return torch.stack(scores).mean(0).to(a.dtype)


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
    fits = (w > 0) & (size >= LEAST) & ~flat
    explained = ratio(qq * up * up - 2.0 * pq * up * uq + pp * uq * uq, pp * qq - pq * pq, fits)
    whole = total(torch.where(fits, w * sst, torch.zeros_like(sst)))
    return ratio(total(w * explained), whole, whole > 0).squeeze(1)
