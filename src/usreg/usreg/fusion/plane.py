# SPDX-License-Identifier: Apache-2.0
"""The frame as a map of square cells, which a stock viewer shows as a textured plane in 3D."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from ..config import check_range
from ..data.types import TrackedFrame
from ..geometry import se3
from ..geometry.plane import PlaneGrid


@dataclass(frozen=True, eq=False)
class PlaneTexture:
    """Square cells; cell (0, 0) is first, columns along x of the image, rows along y.

    Args:
        image: (rows, columns) uint8.
        cell_mm: edge of a cell.
        world_T_corner: (4, 4), mm: the outer corner of cell (0, 0), axes of the image.
    """

    image: Tensor
    cell_mm: float
    world_T_corner: Tensor


def textured_plane(tracked: TrackedFrame, max_columns: int = 256) -> PlaneTexture:
    """The frame resampled to square cells, at most `max_columns` wide or high; shear is taken out.

    Square pixels of a frame that is small enough are passed through as they are.
    """
    check_range("max_columns", max_columns, 2, 100000)
    plane = tracked.frame.plane
    (a, b), (_, d) = plane.pixel_to_mm
    x0, x1 = min(0.0, b * (plane.height - 1)), a * (plane.width - 1) + max(0.0, b * (plane.height - 1))
    y1 = d * (plane.height - 1)
    cell = max(min(a, d), (x1 - x0) / (max_columns - 1), y1 / (max_columns - 1))
    image = tracked.frame.image.numpy()
    if not (b == 0 and a == d == cell):
        image = _resampled(image, plane, cell, x0, int((x1 - x0) / cell + 1e-9) + 1, int(y1 / cell + 1e-9) + 1)
    corner = torch.tensor([x0 - cell / 2, -cell / 2, 0.0], dtype=torch.float64)
    return PlaneTexture(torch.from_numpy(image), cell, tracked.world_T_image @ se3.translation(corner))


def _resampled(image: np.ndarray, plane: PlaneGrid, cell: float, x0: float, columns: int, rows: int) -> np.ndarray:
    (a, b), (_, d) = plane.pixel_to_mm
    averaged = (max(1, round(cell / a)), max(1, round(cell / d)))
    if averaged != (1, 1):
        image = cv2.blur(image, averaged)  # a cell stands for all pixels that it covers
    pixel_T_mm = np.linalg.inv(np.array([[a, b], [0.0, d]]))
    m = np.column_stack([pixel_T_mm * cell, pixel_T_mm @ [x0, 0.0]])
    return cv2.warpAffine(image, m, (columns, rows), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
