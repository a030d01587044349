# SPDX-License-Identifier: Apache-2.0
"""Pixel grids of image planes and the projection geometry of an X-ray source and detector."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import GeometryError, ShapeError

Matrix2 = tuple[tuple[float, float], tuple[float, float]]


def check_pixel_to_mm(pixel_to_mm: Matrix2) -> None:
    """Raise GeometryError unless upper triangular with a finite, positive diagonal."""
    (a, b), (c, d) = pixel_to_mm
    if not all(map(math.isfinite, (a, b, c, d))) or a <= 0 or d <= 0 or c != 0:
        raise GeometryError(f"pixel_to_mm must be upper triangular with positive spacing, got {pixel_to_mm}")


@dataclass(frozen=True)
class PlaneGrid:
    """Pixels of an image plane: `(x, y) mm = pixel_to_mm @ (column, row)`, z = 0; pixel (0, 0) is the origin."""

    height: int
    width: int
    pixel_to_mm: Matrix2

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise ShapeError(f"an image plane has at least one pixel, got {self.width}x{self.height}")
        check_pixel_to_mm(self.pixel_to_mm)

    @property
    def image_T_pixel(self) -> Tensor:
        """Affine (4, 4) float64 from (column, row, 0) to mm in the image frame."""
        (a, b), (_, d) = self.pixel_to_mm
        m = torch.eye(4, dtype=torch.float64)
        m[0, 0], m[0, 1], m[1, 1] = a, b, d
        return m

    @property
    def spacing_mm(self) -> tuple[float, float]:
        """Distance of neighbouring columns and of neighbouring rows, mm."""
        (a, b), (_, d) = self.pixel_to_mm
        return a, math.hypot(b, d)

    @property
    def centre_mm(self) -> Tensor:
        """Centre (3,) of the image rectangle, mm."""
        pixel = torch.tensor([(self.width - 1) / 2, (self.height - 1) / 2, 0.0, 1.0], dtype=torch.float64)
        return (self.image_T_pixel @ pixel)[:3]

    def points_mm(self) -> Tensor:
        """Pixel centres (height, width, 3), mm, float64."""
        row, column = torch.meshgrid(
            torch.arange(self.height, dtype=torch.float64), torch.arange(self.width, dtype=torch.float64), indexing="ij"
        )
        (a, b), (_, d) = self.pixel_to_mm
        return torch.stack([a * column + b * row, d * row, torch.zeros_like(row)], -1)


@dataclass(frozen=True)
class PlaneGeometry:
    """A plain image plane without a sector: every pixel counts."""

    plane: PlaneGrid
    orientation: str = "MF"

    def mask(self) -> Tensor:
        """All true, (height, width)."""
        return torch.ones(self.plane.height, self.plane.width, dtype=torch.bool)


@dataclass(frozen=True)
class ProjectionGeometry:
    """An X-ray source above the centre of a flat detector: a pixel's ray runs from the source to its centre.

    Args:
        plane: pixels of the detector.
        source_detector_mm: distance of the source from the detector plane.
        principal_mm: foot of the perpendicular from the source on the detector, (x, y) mm in the image frame.
    """

    plane: PlaneGrid
    source_detector_mm: float
    principal_mm: tuple[float, float]

    def __post_init__(self) -> None:
        if not (math.isfinite(self.source_detector_mm) and self.source_detector_mm > 0):
            raise GeometryError(f"source-detector distance must be above zero, got {self.source_detector_mm} mm")
        if not all(map(math.isfinite, self.principal_mm)):
            raise GeometryError(f"principal point must be finite, got {self.principal_mm}")

    @property
    def source_mm(self) -> Tensor:
        """Position (3,) of the source in the image frame; z of the frame points away from the source."""
        return torch.tensor([*self.principal_mm, -self.source_detector_mm], dtype=torch.float64)

    def mask(self) -> Tensor:
        """All true, (height, width)."""
        return torch.ones(self.plane.height, self.plane.width, dtype=torch.bool)
