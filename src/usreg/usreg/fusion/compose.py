# SPDX-License-Identifier: Apache-2.0
"""Frame and slice into one colour picture. OpenCV's vector code does it in about a millisecond for a full frame."""

from __future__ import annotations

import functools
from typing import Any

import cv2
import numpy as np

from ..compiled import njit

LEAN = (1.6, 1.0, 0.4)  # red, green, blue: the slice leans to orange, the frame to blue
TINT = (1.0, 0.69, 0.25)  # amber: the slice's fields stand out from the frame's grey ones


def enlarge(small: np.ndarray, known: np.ndarray, step: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Bilinear between samples at every `step`-th pixel.

    Args:
        small, known: (h2, w2) uint8 and bool: samples at rows and columns 0, step, 2 step, ... to the last pixel.

    Returns:
        Image (height, width) uint8 and where all of the weight lies on known samples, bool.
    """
    image, mask = np.empty((height, width), np.uint8), np.empty((height, width), np.bool_)
    kernel = _double if step == 2 else _enlarge
    kernel(small, known, step, image, mask)
    return image, mask


@njit()
def _enlarge(small: Any, known: Any, step: Any, image: Any, mask: Any) -> None:
    """Rows first, then columns; weights are whole numbers until the end."""
    share = 1.0 / (step * step)
    line, sure = np.empty(small.shape[1], np.int32), np.empty(small.shape[1], np.bool_)
    for row in range(image.shape[0]):
        top, part = row // step, row % step
        below = top if part == 0 else top + 1
        for k in range(small.shape[1]):
            line[k] = small[top, k] * (step - part) + small[below, k] * part
            sure[k] = known[top, k] and known[below, k]
        for column in range(image.shape[1]):
            left, part = column // step, column % step
            right = left if part == 0 else left + 1
            shown = sure[left] and sure[right]
            value = (line[left] * (step - part) + line[right] * part) * share + 0.5
            image[row, column], mask[row, column] = np.uint8(value) if shown else np.uint8(0), shown


@njit()
def _double(small: Any, known: Any, step: Any, image: Any, mask: Any) -> None:
    """`_enlarge` for a step of 2, without a branch in its loops: a tenth of the time."""
    line, sure = np.empty(small.shape[1], np.uint16), np.empty(small.shape[1], np.uint8)
    pairs = image.shape[1] // 2
    for row in range(image.shape[0]):
        top, below = row >> 1, (row + 1) >> 1
        for k in range(small.shape[1]):
            line[k] = np.uint16(small[top, k]) + np.uint16(small[below, k])
            sure[k] = np.uint8(known[top, k]) & np.uint8(known[below, k])
        for k in range(pairs):
            both = sure[k] & sure[k + 1]
            image[row, 2 * k] = np.uint8((line[k] + 1) >> 1) * sure[k]
            image[row, 2 * k + 1] = np.uint8((line[k] + line[k + 1] + 2) >> 2) * both
            mask[row, 2 * k], mask[row, 2 * k + 1] = sure[k], both
        if image.shape[1] % 2:
            image[row, -1], mask[row, -1] = np.uint8((line[pairs] + 1) >> 1) * sure[pairs], sure[pairs]


def blend(frame: np.ndarray, image: np.ndarray, shown: np.ndarray, opacity: float) -> np.ndarray:
    """Frame and slice mixed in complementary colours: grey where they agree, orange and blue fringes where they do not.

    Args:
        frame, image: (h, w) uint8. shown: (h, w) bool, where the slice may cover the frame.
        opacity: of the slice; a channel's share of the slice is opacity times LEAN, at most 1.

    Returns:
        (h, w, 3) uint8; the grey frame where the slice is not shown.
    """
    shares = [min(1.0, opacity * lean) for lean in LEAN]
    mixed = cv2.merge([cv2.addWeighted(frame, 1.0 - share, image, share, 0.0) for share in shares])
    return cv2.copyTo(mixed, shown.view(np.uint8), cv2.cvtColor(frame, cv2.COLOR_GRAY2RGB))


def checkerboard(frame: np.ndarray, image: np.ndarray, shown: np.ndarray, tile: float) -> np.ndarray:
    """Fields of the grey frame and of the amber slice in turn; `tile` is their edge in pixels. Else as `blend`."""
    fields = cv2.bitwise_and(shown.view(np.uint8), _fields(*frame.shape, round(tile, 3)))
    amber = cv2.merge([cv2.convertScaleAbs(image, alpha=t) for t in TINT])
    return cv2.copyTo(amber, fields, cv2.cvtColor(frame, cv2.COLOR_GRAY2RGB))


@functools.lru_cache(maxsize=8)
def _fields(height: int, width: int, tile: float) -> np.ndarray:
    """1 in every other field, (h, w) uint8; the first field is the frame's."""
    rows, columns = ((np.arange(n) // tile).astype(np.int64) for n in (height, width))
    return ((rows[:, None] + columns) % 2).astype(np.uint8)
