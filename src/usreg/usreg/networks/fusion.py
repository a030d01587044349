# SPDX-License-Identifier: Apache-2.0
"""Features of a frame and of a volume made one (DeepRS2V, equation 4)."""

from __future__ import annotations

from torch import Tensor

from ..errors import ShapeError


def dot_fusion(volume: Tensor, frame: Tensor) -> Tensor:
    """Every product of a feature of the volume with a feature of the frame, one matrix for each depth.

    The frame has far fewer features than the volume; as factors both weigh the same.

    Args:
        volume: (B, C, d, h, w). frame: (B, C, h, w).

    Returns:
        (B, 1, d, C h w, C h w): element (i, j) at a depth is feature i of the volume's slice times feature j of the
        frame.

    Raises:
        ShapeError: batches, channels or planes differ.
    """
    if volume.dim() != 5 or frame.dim() != 4 or volume[:, :, 0].shape != frame.shape:
        raise ShapeError(
            "features must be (B, C, d, h, w) of the volume and (B, C, h, w) of the frame, "
            f"got {tuple(volume.shape)} and {tuple(frame.shape)}"
        )
    slices = volume.transpose(1, 2).flatten(2)
    return (slices[..., :, None] * frame.flatten(1)[:, None, None, :])[:, None]
