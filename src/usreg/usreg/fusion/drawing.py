# SPDX-License-Identifier: Apache-2.0
"""What is drawn on every picture: sector, marker dot, depth ruler, words."""

from __future__ import annotations

import functools
import math
import textwrap
from collections.abc import Sequence

import cv2
import numpy as np

from ..data.types import ImageGeometry
from ..geometry.plane import PlaneGrid
from ..geometry.sector import SectorGeometry, full_rectangle
from .labels import Contour
from .palette import GREY, ORANGE, VERMILION, WHITE, Colour

FONT = cv2.FONT_HERSHEY_SIMPLEX
NOTICE = "RESEARCH USE ONLY"
SHIFT = 4  # cv2 draws with 1/16 pixel


def sector_of(geometry: ImageGeometry) -> SectorGeometry:
    """The sector; for other geometries the image's rectangle."""
    return geometry if isinstance(geometry, SectorGeometry) else full_rectangle(geometry.plane)


def to_pixels(plane: PlaneGrid, xy_mm: np.ndarray) -> np.ndarray:
    """Points (N, 2), mm, as (column, row)."""
    return xy_mm @ np.linalg.inv(np.array(plane.pixel_to_mm)).T


@functools.lru_cache(maxsize=16)
def outline_pixels(sector: SectorGeometry) -> np.ndarray:
    """Outline of the sector (N, 2) in (column, row). Shared: do not write into it."""
    return to_pixels(sector.plane, sector.outline_mm(1.0).numpy())


@functools.lru_cache(maxsize=16)
def marker_pixel(sector: SectorGeometry) -> tuple[float, float]:
    """Where the marker dot stands: beside the transducer's end on the marked side (largest x), inside the picture."""
    x0, y0, x1, _ = sector.clip_mm
    if sector.kind == "linear":
        end = np.array([x1, y0])
    else:
        direction = np.array([math.sin(sector.angle_rad[1]), math.cos(sector.angle_rad[1])])
        end = (np.array(sector.apex_mm) + sector.radius_mm[0] * direction).clip([x0, y0], [x1, math.inf])
    pixel = to_pixels(sector.plane, (end + [0.04 * (x1 - x0), 0.0])[None])[0]
    radius = dot_radius(sector.plane)
    limit = np.array([sector.plane.width, sector.plane.height]) - 2.0 * radius
    column, row = np.clip(pixel, 2.0 * radius, np.maximum(limit, 2.0 * radius))
    return float(column), float(row)


def skin_mm(sector: SectorGeometry) -> tuple[float, float]:
    """Middle of the transducer's face, (x, y) mm in the image frame."""
    near = 0.0 if sector.kind == "linear" else sector.apex_mm[1] + sector.radius_mm[0]
    return sector.apex_mm[0], max(sector.clip_mm[1], near)


def dot_radius(plane: PlaneGrid) -> float:
    """Pixels."""
    return max(2.0, plane.height / 70)


def draw_sector(picture: np.ndarray, sector: SectorGeometry) -> None:
    """Thin outline."""
    _polyline(picture, outline_pixels(sector), GREY, 1)


def draw_marker(picture: np.ndarray, sector: SectorGeometry) -> None:
    """Filled dot on the marked side."""
    column, row = marker_pixel(sector)
    centre, radius = (_fixed(column), _fixed(row)), _fixed(dot_radius(sector.plane))
    cv2.circle(picture, centre, radius, ORANGE, cv2.FILLED, cv2.LINE_AA, SHIFT)
    cv2.circle(picture, centre, radius, WHITE, 1, cv2.LINE_AA, SHIFT)


@functools.lru_cache(maxsize=16)
def ruler_ticks(sector: SectorGeometry) -> tuple[tuple[int, float], ...]:
    """Ticks of the depth ruler: depth below the transducer's face in mm, every 10, and the row that it has."""
    top, last = skin_mm(sector)[1], sector.plane.height - 0.5
    depths = (10 * n for n in range(int(sector.depth_mm // 10) + 1))
    ticks = ((depth, (top + depth) / sector.pixel_to_mm[1][1]) for depth in depths)
    return tuple((depth, row) for depth, row in ticks if -0.5 <= row < last)


def draw_ruler(picture: np.ndarray, sector: SectorGeometry) -> None:
    """Depth at the left edge: a tick every 10 mm below the transducer's face, a number (cm) every 50 mm."""
    height = picture.shape[0]
    for depth, at in ruler_ticks(sector):
        row, long = round(at), depth % 50 == 0
        cv2.line(picture, (0, row), ((10 if long else 5) * height // 400 + 2, row), GREY, 1)
        if long and depth:
            write(picture, str(depth // 10), (12 * height // 400 + 4, row + 4 * height // 400), GREY, 0.8)


def draw_contours(
    picture: np.ndarray, outlines: Sequence[tuple[Contour, Colour]], inside: np.ndarray, names: bool, bold: bool = False
) -> None:
    """Outlines of labels where `inside` (h, w) bool, with a list of names."""
    thick, layer = max(2 if bold else 1, picture.shape[0] // 400), picture.copy()
    for contour, colour in outlines:
        for outline in contour.outlines:
            _polyline(layer, outline, colour, thick)
    cv2.copyTo(layer, inside.view(np.uint8), picture)
    if names:
        _draw_names(picture, [(contour.name, colour) for contour, colour in outlines])


def _draw_names(picture: np.ndarray, names: list[tuple[str, Colour]]) -> None:
    """A list at the left, as long as the upper half of the picture allows."""
    room = max(1, picture.shape[0] // (2 * _line(picture, 1)))
    if len(names) > room:
        names = [*names[: room - 1], (f"and {len(names) - room + 1} more", WHITE)]
    for number, (name, colour) in enumerate(names):
        write(picture, name, (picture.shape[1] // 20, _line(picture, number + 1)), colour)


def draw_notice(picture: np.ndarray) -> None:
    """The words that every picture bears."""
    write(picture, NOTICE, (picture.shape[1] // 100 + 2, picture.shape[0] - picture.shape[0] // 80 - 2), GREY, 0.8)


def draw_note(picture: np.ndarray, note: str) -> None:
    """A line at the lower right."""
    scale = _scale(picture) * 0.8
    (width, _), _ = cv2.getTextSize(note, FONT, scale, 1)
    at = (picture.shape[1] - width - picture.shape[1] // 100 - 2, picture.shape[0] - picture.shape[0] // 80 - 2)
    write(picture, note, at, GREY, 0.8)


def draw_status(picture: np.ndarray, status: str, reason: str) -> None:
    """A status that cannot be overlooked: a frame around the picture, the word, and the reason below it."""
    thick = max(2, picture.shape[0] // 120)
    cv2.rectangle(picture, (0, 0), (picture.shape[1] - 1, picture.shape[0] - 1), VERMILION, 2 * thick)
    write(picture, status, (picture.shape[1] // 20, _line(picture, 2)), VERMILION, 1.8, 2)
    for number, line in enumerate(wrapped(reason, max(20, int(picture.shape[1] / (_scale(picture) * 20))))):
        write(picture, line, (picture.shape[1] // 20, _line(picture, 3 + number)), WHITE)


def wrapped(text: str, width: int, lines: int = 3) -> list[str]:
    """Text in lines of at most `width` letters; what does not fit into `lines` is cut with an ellipsis."""
    return textwrap.wrap(text, width, max_lines=lines, placeholder=" ...")


def write(
    picture: np.ndarray, text: str, at: tuple[int, int], colour: Colour, size: float = 1.0, weight: int = 1
) -> None:
    """Text with a dark shadow, so that it can be read on any ground. cv2 has letters of ASCII only."""
    text = text.encode("ascii", "replace").decode("ascii")
    scale = _scale(picture) * size
    for dx, dy in ((1, 1), (-1, 0)):
        cv2.putText(picture, text, (at[0] + dx, at[1] + dy), FONT, scale, (0, 0, 0), weight, cv2.LINE_AA)
    cv2.putText(picture, text, at, FONT, scale, colour, weight, cv2.LINE_AA)


def _scale(picture: np.ndarray) -> float:
    return max(0.3, picture.shape[0] / 1100)


def _line(picture: np.ndarray, number: int) -> int:
    return int(number * _scale(picture) * 34)


def _fixed(value: float) -> int:
    return round(value * (1 << SHIFT))


def _polyline(picture: np.ndarray, points: np.ndarray, colour: Colour, thick: int) -> None:
    fixed = np.round(points * (1 << SHIFT)).astype(np.int32)[:, None]
    cv2.polylines(picture, [fixed], True, colour, thick, cv2.LINE_AA, SHIFT)
