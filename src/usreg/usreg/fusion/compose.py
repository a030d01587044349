# SPDX-License-Identifier: Apache-2.0
"""Frame and slice into one colour picture. OpenCV's vector code does it in about a millisecond for a full frame."""

from __future__ import annotations

import functools

import cv2
import numpy as np

TINT = (1.0, 0.69, 0.25)  # amber: the slice stands out from a grey frame for every eye


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
    """The tinted slice over the grey frame, with an opacity.

    Args:
        frame, image: (h, w) uint8. shown: (h, w) bool, where the slice may cover the frame.

    Returns:
        (h, w, 3) uint8: (1 - opacity) frame + opacity tint image where shown, else the frame.
    """
    mixed = cv2.merge([cv2.addWeighted(frame, 1.0 - opacity, image, opacity * t, 0.0) for t in TINT])
    return cv2.copyTo(mixed, shown.view(np.uint8), cv2.cvtColor(frame, cv2.COLOR_GRAY2RGB))


def checkerboard(frame: np.ndarray, image: np.ndarray, shown: np.ndarray, tile: float) -> np.ndarray:
    """Fields of the frame and of the tinted slice in turn; `tile` is their edge in pixels. Else as `blend`."""
    fields = _fields(*frame.shape, round(tile, 3))
    return blend(frame, image, cv2.bitwise_and(shown.view(np.uint8), fields).view(np.bool_), 1.0)


@functools.lru_cache(maxsize=8)
def _fields(height: int, width: int, tile: float) -> np.ndarray:
    """1 in every other field, (h, w) uint8; the first field is the frame's."""
    rows, columns = ((np.arange(n) // tile).astype(np.int64) for n in (height, width))
    return ((rows[:, None] + columns) % 2).astype(np.uint8)
