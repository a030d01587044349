# SPDX-License-Identifier: Apache-2.0
"""Outlines and points for a 3D view as plain data; `nodes/` makes messages of them."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import torch
from torch import Tensor

from ..config import check_range
from ..data.types import ImageGeometry, TrackedFrame, Volume
from ..errors import ShapeError
from ..geometry import se3
from .drawing import sector_of, skin_mm
from .palette import SKY, YELLOW, Colour, label_colour

Where = Literal["world", "ct"]


@dataclass(frozen=True, eq=False)
class Line:
    """A polyline (N, 3), mm, in the frame `where`; `closed` joins its ends."""

    name: str
    points: Tensor
    colour: Colour
    where: Where = "world"
    closed: bool = False


@dataclass(frozen=True, eq=False)
class Dot:
    """A point (3,), mm, in the frame `where`."""

    name: str
    point: Tensor
    colour: Colour = YELLOW
    where: Where = "ct"


def sector_line(tracked: TrackedFrame) -> Line:
    """Outline of the frame's sector in the world."""
    outline = sector_of(tracked.frame.geometry).outline_mm(4.0)
    points = torch.cat([outline, torch.zeros(len(outline), 1, dtype=outline.dtype)], 1)
    return Line("sector", se3.transform_points(tracked.world_T_image, points), SKY, "world", True)


def organ_lines(volume: Volume, step_mm: float = 6.0, tolerance_mm: float = 1.0, min_mm2: float = 40.0) -> list[Line]:
    """Outlines of every label in slices of the volume: light enough for any viewer, made once for each volume.

    Args:
        step_mm: distance of slices along the volume's third axis. tolerance_mm: by which an outline is simplified.
        min_mm2: smaller islands are left out.

    Returns:
        Closed lines in `ct`, named by their label; empty where the volume has no labels.
    """
    for name, value in (("step_mm", step_mm), ("tolerance_mm", tolerance_mm)):
        check_range(name, value, 0.05, 1000)
    if volume.labels is None:
        return []
    labels = volume.labels.numpy()
    stride = max(1, round(step_mm / volume.grid.spacing_mm[2]))
    lines = []
    for k in range(stride // 2, labels.shape[0], stride):
        for value in np.unique(labels[k]):
            if value > 0:
                lines += _slice_lines(volume, labels[k] == value, int(value), k, tolerance_mm, min_mm2)
    return lines


def _slice_lines(
    volume: Volume, inside: np.ndarray, value: int, k: int, tolerance_mm: float, min_mm2: float
) -> list[Line]:
    dx, dy, _ = volume.grid.spacing_mm
    found, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    name = volume.label_names.get(value, f"label {value}")
    lines = []
    for contour in found:
        if len(contour) < 3 or cv2.contourArea(contour) * dx * dy < min_mm2:
            continue
        contour = cv2.approxPolyDP(contour, tolerance_mm / max(dx, dy), True)[:, 0]
        index = np.column_stack([contour, np.full(len(contour), k)]).astype(np.float64)
        points = se3.transform_points(volume.grid.ct_T_index, torch.from_numpy(index))
        lines.append(Line(name, points, label_colour(value), "ct", True))
    return lines


class SweepTrail:
    """Where the middle of the transducer has been, thinned and bounded."""

    def __init__(self, min_step_mm: float = 2.0, max_points: int = 1000) -> None:
        check_range("min_step_mm", min_step_mm, 0.01, 1000)
        check_range("max_points", max_points, 2, 100000)
        self.min_step_mm = min_step_mm
        self._points: deque[Tensor] = deque(maxlen=max_points)
        self._line: Line | None = None

    def add(self, tracked: TrackedFrame) -> None:
        """Append the frame's place if it lies `min_step_mm` from the last one."""
        self.add_pose(tracked.frame.geometry, tracked.world_T_image)

    def add_pose(self, geometry: ImageGeometry, world_T_image: Tensor) -> None:
        """The same of an image's geometry and pose."""
        x, y = skin_mm(sector_of(geometry))
        point = world_T_image[:3, 0] * x + world_T_image[:3, 1] * y + world_T_image[:3, 3]
        if not self._points or math.dist(point.tolist(), self._points[-1].tolist()) >= self.min_step_mm:
            self._points.append(point)
            self._line = None

    def line(self) -> Line:
        """The trail (N, 3) in the world."""
        if self._line is None:
            points = torch.stack(tuple(self._points)) if self._points else torch.zeros(0, 3, dtype=torch.float64)
            self._line = Line("sweep", points, YELLOW)
        return self._line

    def reset(self) -> None:
        """Forget the trail."""
        self._points.clear()
        self._line = None


def target_dot(point_ct: Tensor) -> Dot:
    """The target, given in `ct`, mm."""
    if point_ct.shape != (3,) or not bool(torch.isfinite(point_ct).all()):
        raise ShapeError(f"a target is 3 finite numbers in mm, got {point_ct.tolist()}")
    return Dot("target", point_ct.to(torch.float64))
