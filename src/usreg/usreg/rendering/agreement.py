# SPDX-License-Identifier: Apache-2.0
"""What every renderer agrees to."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from ..data.types import Volume


@runtime_checkable
class Renderer(Protocol):
    """Images of a volume at given poses, differentiable in the pose."""

    def __call__(self, volume: Volume, ct_T_image: Tensor, geometry: Any) -> tuple[Tensor, Tensor]:
        """Images (B, C, h, w) and masks (B, 1, h, w) for poses (B, 4, 4), mm, and the image's geometry."""
        ...
