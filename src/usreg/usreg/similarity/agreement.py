# SPDX-License-Identifier: Apache-2.0
"""What every similarity agrees to. Images (B, C, [d,] h, w), masks (B, 1, [d,] h, w)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class Similarity(Protocol):
    """How alike two batches of images are; a loss is one minus it.

    The mask is bool or weights that are not negative. What lies outside it may hold anything, NaN too; pixels inside it
    that are not finite in an image are unknown and count as outside. An image without contrast scores 0, with a
    gradient that is finite. ShapeError: shapes that do not fit; NoOverlapError: an image whose mask is empty.
    """

    def __call__(self, a: Tensor, b: Tensor, mask: Tensor) -> Tensor:
        """Similarities (B,), higher is more alike."""
        ...


@dataclass(frozen=True, eq=False)
class Linearised:
    """A similarity as a least-squares problem at one point: what Gauss-Newton needs.

    Args:
        residual: (B, R).
        push: maps derivatives of moving (B, N, P), N = channels times pixels, to derivatives of the residual (B, R, P):
            the matrix d residual / d moving, which for a normalised measure is dense but simple, applied without being
            built.
        weight: (B, R), of each squared residual.
    """

    residual: Tensor
    push: Callable[[Tensor], Tensor]
    weight: Tensor

    def normal_equations(self, d_moving: Tensor) -> tuple[Tensor, Tensor]:
        """J'WJ (B, P, P) and J'Wr (B, P) for derivatives of moving by the parameters, (B, N, P)."""
        j = self.push(d_moving)
        weighted = j * self.weight[..., None]
        return weighted.transpose(-1, -2) @ j, (weighted * self.residual[..., None]).sum(-2)


@runtime_checkable
class LeastSquares(Protocol):
    """A similarity with a least-squares form; statistics and mask are frozen within an iteration."""

    def __call__(self, fixed: Tensor, moving: Tensor, mask: Tensor) -> Linearised:
        """Linearise at the images (B, C, h, w) under the mask (B, 1, h, w)."""
        ...
