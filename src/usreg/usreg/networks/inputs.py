# SPDX-License-Identifier: Apache-2.0
"""What a network is fed, checked at its edge."""

from __future__ import annotations

from torch import Tensor

from ..errors import ShapeError


def check_inputs(volume: Tensor, frame: Tensor) -> None:
    """Raise ShapeError unless (B, 1, D, H, W) and (B, 1, h, w), floating point, none empty."""
    fits = volume.dim() == 5 and frame.dim() == 4 and volume.shape[:2] == frame.shape[:2] and volume.shape[1] == 1
    if not (fits and volume.numel() and frame.numel() and volume.is_floating_point() and frame.is_floating_point()):
        raise ShapeError(
            "a network takes a volume (B, 1, D, H, W) and a frame (B, 1, h, w), floating point in 0..1, "
            f"got {tuple(volume.shape)} {volume.dtype} and {tuple(frame.shape)} {frame.dtype}"
        )
