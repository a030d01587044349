# SPDX-License-Identifier: Apache-2.0
"""Gradient correlation: NCC of the images' derivatives along each axis (Penney et al., IEEE TMI 1998)."""

from __future__ import annotations

import torch
from torch import Tensor

from .checked import centred, checked
from .differences import central_differences
from .ncc import correlation


def gradient_correlation(a: Tensor, b: Tensor, mask: Tensor) -> Tensor:
    """Correlation of central differences, mean over axes and channels.

    Args:
        a, b: (B, C, [d,] h, w). mask: (B, 1, [d,] h, w), bool or weights; a derivative counts where the pixel and its
            neighbours along all axes are known.

    Returns:
        (B,) in [-1, 1]; 0 without edges. Blind to gain and offset, changes sign with either image.

    Raises:
        ShapeError, NoOverlapError: as every similarity.
    """
    a, b, weight = checked(a, b, mask)
    fixed, inner = central_differences(centred(a, weight), weight)
    moving, _ = central_differences(centred(b, weight), weight)
    real = [axis for axis, size in enumerate(a.shape[2:]) if size > 1] or [0]
    parts = [correlation(fixed[axis], moving[axis], inner) for axis in real]
    return torch.stack(parts).mean(0).mean(-1)
