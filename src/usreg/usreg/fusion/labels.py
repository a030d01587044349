# SPDX-License-Identifier: Apache-2.0
"""Outlines of labels where the image plane cuts them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numba
import numpy as np
from torch import Tensor

from ..data.types import Volume
from ..geometry.plane import PlaneGrid

MIN_PIXELS = 4
MARGIN = 6  # pixels around a label that the blur reaches


@dataclass(frozen=True, eq=False)
class Contour:
    """Closed outlines of one label, each (N, 2) float32 (column, row) of the full picture."""

    value: int
    name: str
    outlines: tuple[np.ndarray, ...]


def label_slice(volume: Volume, ct_T_image: Tensor, plane: PlaneGrid) -> np.ndarray:
    """Nearest label (h, w) int16 at the pixels of a plane; 0 outside."""
    found = np.zeros((plane.height, plane.width), np.int16)
    if volume.labels is not None:
        index_T_pixel = (volume.grid.index_T_ct @ ct_T_image @ plane.image_T_pixel).numpy()
        _nearest(volume.labels.numpy(), index_T_pixel, found)
    return found


def label_contours(
    volume: Volume,
    ct_T_image: Tensor,
    plane: PlaneGrid,
    step: int,
    shown: np.ndarray,
    wanted: Callable[[str], bool] = bool,
) -> list[Contour]:
    """Outer outlines of every label that the sector holds; they run on outside of it.

    An inner edge is the outer edge of the label within, and is drawn in that one's colour.

    Args:
        plane: coarse grid whose pixel (0, 0) is that of the picture. step: its pixels in pixels of the picture.
        shown: (h, w) bool on the coarse grid, the sector. wanted: by its name, whether a label is outlined.
    """
    if volume.labels is None:
        return []
    values = label_slice(volume, ct_T_image, plane)
    boxes = np.empty((int(max(values.max(), 0)) + 1, 5), np.int64)
    _boxes(values, shown, boxes)
    present = [v for v in range(1, len(boxes)) if boxes[v, 0] >= MIN_PIXELS]
    named = [(v, volume.label_names.get(v, f"label {v}")) for v in present]
    return [Contour(v, name, _outlines(values, v, boxes[v, 1:], step)) for v, name in named if wanted(name)]


def _outlines(values: np.ndarray, value: int, box: np.ndarray, step: int) -> tuple[np.ndarray, ...]:
    """Outlines of one label, looked for in its box: rows from, to, columns from, to."""
    top, left = (max(int(n) - MARGIN, 0) for n in (box[0], box[2]))
    inside = cv2.inRange(values[top : box[1] + MARGIN, left : box[3] + MARGIN], value, value)
    # voxels are coarser than pixels: blurring and halving rounds the stairs off
    soft = cv2.threshold(cv2.GaussianBlur(inside, (0, 0), 1.5), 127, 255, cv2.THRESH_BINARY)[1]
    found, _ = cv2.findContours(soft, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return tuple(((c[:, 0] + [left, top]) * float(step)).astype(np.float32) for c in found if len(c) > 2)


@numba.njit(cache=True, nogil=True)
def _boxes(values: Any, shown: Any, boxes: Any) -> None:
    """For each label: pixels that are shown; then first and last + 1 row and column of all its pixels."""
    height, width = values.shape
    for v in range(boxes.shape[0]):
        boxes[v, 0], boxes[v, 1], boxes[v, 2], boxes[v, 3], boxes[v, 4] = 0, height, 0, width, 0
    for row in range(height):
        for column in range(width):
            v = values[row, column]
            if v > 0:
                boxes[v, 0] += shown[row, column]
                boxes[v, 1], boxes[v, 2] = min(boxes[v, 1], row), row + 1
                boxes[v, 3], boxes[v, 4] = min(boxes[v, 3], column), max(boxes[v, 4], column + 1)


@numba.njit(cache=True, nogil=True)
def _nearest(labels: Any, m: Any, out: Any) -> None:
    depth, height, width = labels.shape
    for row in range(out.shape[0]):
        for column in range(out.shape[1]):
            u = m[0, 0] * column + m[0, 1] * row + m[0, 3] + 0.5
            v = m[1, 0] * column + m[1, 1] * row + m[1, 3] + 0.5
            w = m[2, 0] * column + m[2, 1] * row + m[2, 3] + 0.5
            if u >= 0.0 and v >= 0.0 and w >= 0.0 and u < width and v < height and w < depth:
                out[row, column] = labels[np.uint32(w), np.uint32(v), np.uint32(u)]  # unsigned: no look at the sign
