# SPDX-License-Identifier: Apache-2.0
"""Tiles on a dark ground with titles: how every picture of the page is put together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ...errors import WriteError

Picture = NDArray[np.uint8]  # (h, w, 3) RGB
NOTICE = "simulated, not a patient · research use only"
REAL_NOTICE = "research use only · real frames: another person, other planes"
GROUND, INK, SOFT = "#0b0f13", "#e8edf2", "#9fb0bf"
DPI, TITLE_PX, FOOT_PX, GAP_PX = 100, 26, 24, 6
JPEG_QUALITY = 84


@dataclass(frozen=True, eq=False)
class Tile:
    """A picture (h, w, 3) uint8 RGB with a title above it, and letters at its left, right, top and bottom edge."""

    image: Picture
    title: str = ""
    edges: tuple[str, str, str, str] = ("", "", "", "")


def rgb(grey: NDArray[np.uint8]) -> Picture:
    """A grey image (h, w) in three channels."""
    return np.ascontiguousarray(np.repeat(grey[..., None], 3, axis=2))


def montage(rows: Sequence[Sequence[Tile]], notice: str = NOTICE) -> Picture:
    """Rows of tiles, each pixel of a tile one pixel of the picture; columns as wide as their widest tile."""
    columns = max(len(row) for row in rows)
    widths = [max(r[c].image.shape[1] for r in rows if c < len(r)) for c in range(columns)]
    heights = [max(t.image.shape[0] for t in row) for row in rows]
    width = sum(widths) + GAP_PX * (columns + 1)
    height = sum(heights) + (TITLE_PX + GAP_PX) * len(rows) + FOOT_PX
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor=GROUND)
    top = 0
    for row, tall in zip(rows, heights, strict=True):
        left = GAP_PX
        for tile, wide in zip(row, widths, strict=False):
            _place(figure, tile, left + (wide - tile.image.shape[1]) // 2, top + TITLE_PX, width, height)
            left += wide + GAP_PX
        top += tall + TITLE_PX + GAP_PX
    figure.text(1 - GAP_PX / width, 0.3 * FOOT_PX / height, notice, color=SOFT, fontsize=8, ha="right", va="bottom")
    return drawn(figure)


def _place(figure: Figure, tile: Tile, left: int, top: int, width: int, height: int) -> None:
    h, w = tile.image.shape[:2]
    box = (left / width, 1 - (top + h) / height, w / width, h / height)
    axes = figure.add_axes(box)
    axes.imshow(tile.image, interpolation="nearest", aspect="auto")
    axes.set_axis_off()
    places = ((0.02, 0.5), (0.98, 0.5), (0.5, 0.97), (0.5, 0.03))
    sides = (("left", "center"), ("right", "center"), ("center", "top"), ("center", "bottom"))
    for text, (x, y), (ha, va) in zip(tile.edges, places, sides, strict=True):
        axes.text(x, y, text, transform=axes.transAxes, color=INK, fontsize=8, ha=ha, va=va)
    figure.text(left / width, 1 - (top - 0.3 * TITLE_PX) / height, tile.title, color=INK, fontsize=9, va="bottom")


def drawn(figure: Figure) -> Picture:
    """What a figure shows, pixel by pixel."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3])


def jpeg(picture: Picture, quality: int = JPEG_QUALITY) -> bytes:
    """A picture as a JPEG file.

    Raises:
        WriteError: it cannot be coded.
    """
    done, data = cv2.imencode(".jpg", np.ascontiguousarray(picture[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise WriteError(f"a picture of {picture.shape} cannot be coded as JPEG")
    return bytes(data.tobytes())
