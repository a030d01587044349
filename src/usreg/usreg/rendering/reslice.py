# SPDX-License-Identifier: Apache-2.0
"""The volume resliced for display: compiled, no derivatives. Its slow reference is `slicing.slice_volume`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..compiled import njit
from ..data.types import Volume
from ..errors import ShapeError
from ..geometry.plane import PlaneGrid
from .slicing import check_poses


def slice_fast(
    volume: Volume,
    ct_T_image: Tensor,
    plane: PlaneGrid,
    window: tuple[float, float] = (0.0, 255.0),
    channel: int = 0,
    where: np.ndarray | None = None,
) -> tuple[Tensor, Tensor]:
    """One plane of a volume as grey values for display, trilinear.

    Args:
        volume: voxels (C, D, H, W), any type that the volume may have.
        ct_T_image: one pose (4, 4), mm.
        plane: pixel grid of the image.
        window: values shown as 0 and 255 (for CT the window in HU).
        channel: which one.
        where: (h, w) bool, pixels that are asked for; the others are left out. None: all.

    Returns:
        Image (h, w) uint8, zero outside, and mask (h, w) bool.

    Raises:
        ShapeError: more than one pose, no such channel, or an empty window.
    """
    if ct_T_image.dim() != 2:
        raise ShapeError(f"'ct_T_image' must be one pose (4, 4), got {tuple(ct_T_image.shape)}")
    if not 0 <= channel < volume.data.shape[0] or not window[1] > window[0]:
        raise ShapeError(f"channel {channel} of {volume.data.shape[0]}, window {window}: choose others")
    pose = check_poses(ct_T_image)[0].detach().to(torch.float64).cpu()
    index_T_pixel = (volume.grid.index_T_ct @ pose @ plane.image_T_pixel).numpy()
    image = np.zeros((plane.height, plane.width), np.uint8)
    mask = np.zeros((plane.height, plane.width), np.bool_)
    known = np.ones((1, 1, 1), np.bool_) if volume.mask is None else volume.mask.numpy()
    asked = np.ones((1, 1), np.bool_) if where is None else where
    gain = 255.0 / (window[1] - window[0])
    _reslice(
        volume.data[channel].numpy(), known, volume.mask is not None, asked, where is not None, index_T_pixel,
        window[0], gain, image, mask,
    )  # fmt: skip
    return torch.from_numpy(image), torch.from_numpy(mask)


@njit()
def _reslice(
    data: Any, known: Any, masked: Any, asked: Any, chosen: Any, m: Any, low: Any, gain: Any, image: Any, mask: Any
) -> None:
    depth, height, width = data.shape
    for row in range(image.shape[0]):
        for column in range(image.shape[1]):
            if chosen and not asked[row, column]:
                continue
            u = m[0, 0] * column + m[0, 1] * row + m[0, 3]
            v = m[1, 0] * column + m[1, 1] * row + m[1, 3]
            w = m[2, 0] * column + m[2, 1] * row + m[2, 3]
            if not (u > 0.0 and v > 0.0 and w > 0.0 and u < width - 1 and v < height - 1 and w < depth - 1):
                continue
            i, j, k = int(u), int(v), int(w)
            if masked and not _all_known(known, i, j, k):
                continue
            a, b, c = u - i, v - j, w - k
            value = (1.0 - c) * _bilinear(data[k], i, j, a, b) + c * _bilinear(data[k + 1], i, j, a, b)
            if value == value and abs(value) < np.inf:
                shown = (value - low) * gain
                image[row, column] = np.uint8(min(max(shown, 0.0), 255.0) + 0.5)
                mask[row, column] = True


@njit(inline="always")
def _bilinear(layer, i, j, a, b):
    top = (1.0 - a) * layer[j, i] + a * layer[j, i + 1]
    bottom = (1.0 - a) * layer[j + 1, i] + a * layer[j + 1, i + 1]
    return (1.0 - b) * top + b * bottom


@njit(inline="always")
def _all_known(known, i, j, k):
    near = known[k, j, i] and known[k, j, i + 1] and known[k, j + 1, i] and known[k, j + 1, i + 1]
    k = k + 1
    return near and known[k, j, i] and known[k, j, i + 1] and known[k, j + 1, i] and known[k, j + 1, i + 1]
