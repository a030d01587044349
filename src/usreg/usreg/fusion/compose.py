# SPDX-License-Identifier: Apache-2.0
"""Frame and slice into one colour picture. OpenCV's vector code does it in about a millisecond for a full frame."""

from __future__ import annotations

import functools

import cv2
import numpy as np

LEAN = (1.6, 1.0, 0.4)  # red, green, blue: the slice leans to orange, the frame to blue
TINT = (1.0, 0.69, 0.25)  # amber: the slice's fields stand out from the frame's grey ones


def enlarge(small: np.ndarray, known: np.ndarray, step: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Bilinear between samples at every `step`-th pixel.

    Args:
        small, known: (h2, w2) uint8 and bool: samples at rows and columns 0, step, 2 step, ... to the last pixel.

    Returns:
        Image (height, width) uint8 and where all of the weight lies on known samples, bool.
    """
    m = np.array([[1.0 / step, 0.0, 0.0], [0.0, 1.0 / step, 0.0]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    image, weight = (
        cv2.warpAffine(a, m, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)
        for a in (small, known.view(np.uint8) * np.uint8(255))
    )
    mask = weight == 255
    return cv2.bitwise_and(image, image, mask=mask.view(np.uint8)), mask


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
