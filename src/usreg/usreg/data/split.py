# SPDX-License-Identifier: Apache-2.0
"""A scaled and sheared image-to-probe matrix -> a rigid pose and `pixel_to_mm`."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..config import check_range
from ..errors import CalibrationError
from ..geometry import se3
from ..geometry.plane import Matrix2


@dataclass(frozen=True)
class SplitLimits:
    """What a calibration may look like.

    Args:
        max_shear_deg: beyond it the calibration is refused; `warn_shear_deg`: beyond it a warning is given.
        min_spacing_mm, max_spacing_mm: of a pixel.
    """

    max_shear_deg: float = 5.0
    warn_shear_deg: float = 0.1
    min_spacing_mm: float = 1e-3
    max_spacing_mm: float = 20.0

    def __post_init__(self) -> None:
        check_range("max_shear_deg", self.max_shear_deg, 0.0, 45.0)
        check_range("warn_shear_deg", self.warn_shear_deg, 0.0, self.max_shear_deg)
        check_range("min_spacing_mm", self.min_spacing_mm, 1e-9, self.max_spacing_mm)


@dataclass(frozen=True, eq=False)
class Split:
    """Rigid probe_T_image (4, 4), `pixel_to_mm`, and the angle by which the rows lean."""

    probe_T_image: Tensor
    pixel_to_mm: Matrix2
    shear_deg: float


def split_image_to_probe(matrix: Tensor, limits: SplitLimits | None = None, name: str = "ImageToProbe") -> Split:
    """Split a matrix from pixels (column, row) to mm of the probe: a QR decomposition of its first two columns.

    The first column gives the x axis and its spacing; the second, the shear along x and the spacing along y; z = x
    cross y. The file's third column does not count: an image has no thickness.

    Args:
        matrix: (4, 4), pixels to mm.
        limits: bounds of shear and spacing.

    Raises:
        CalibrationError: not finite, flat, of a spacing outside the limits, or sheared beyond the limit.
    """
    limits = limits or SplitLimits()
    matrix = matrix.to(torch.float64)
    last = matrix.new_tensor([0.0, 0.0, 0.0, 1.0])
    if (
        matrix.shape != (4, 4)
        or not bool(torch.isfinite(matrix).all())
        or not torch.allclose(matrix[3], last, atol=1e-6)
    ):
        raise CalibrationError(
            f"{name} must be a finite 4x4 matrix with last row 0 0 0 1: calibrate again or mend the file"
        )
    x, y = matrix[:3, 0], matrix[:3, 1]
    spacing = float(x.norm())
    ex = x / max(spacing, 1e-300)
    along = float(ex @ y)
    across = y - along * ex
    height = float(across.norm())
    _check_spacing(name, (spacing, math.hypot(along, height)), limits)
    shear_deg = math.degrees(math.atan2(along, height))
    if abs(shear_deg) > limits.max_shear_deg:
        raise CalibrationError(
            f"{name} is sheared: its image axes stand at {90 - shear_deg:.2f} degrees instead of 90 (spacing "
            f"{spacing:.5g} and {height:.5g} mm, "
            f"shear {shear_deg:.2f} degrees, limit {limits.max_shear_deg:g}): calibrate again"
        )
    ey = across / height
    rotation = torch.stack([ex, ey, torch.linalg.cross(ex, ey)], -1)
    pose = se3.from_parts(rotation, matrix[:3, 3])
    return Split(se3.check_rigid(pose, name), ((spacing, along), (0.0, height)), shear_deg)


def _check_spacing(name: str, spacing: tuple[float, float], limits: SplitLimits) -> None:
    if not all(limits.min_spacing_mm <= s <= limits.max_spacing_mm for s in spacing):
        raise CalibrationError(
            f"{name} says pixels of {spacing[0]:.5g} x {spacing[1]:.5g} mm; expected {limits.min_spacing_mm:g} to "
            f"{limits.max_spacing_mm:g} mm. "
            "It must map pixels, not metres and not mm of the image, to mm of the probe"
        )


def shear_warning(shear_deg: float, limits: SplitLimits) -> list[str]:
    """One sentence where the shear is worth a warning, else nothing."""
    if abs(shear_deg) <= limits.warn_shear_deg:
        return []
    limit = f"limit {limits.max_shear_deg:g}"
    return [f"the image axes are sheared by {shear_deg:.2f} degrees; the shear is kept and used ({limit})"]


def join(probe_T_image: Tensor, pixel_to_mm: Matrix2) -> Tensor:
    """Inverse of the split: (4, 4) from pixels to mm of the probe; as in PLUS z is scaled by the mean spacing."""
    (a, b), (_, d) = pixel_to_mm
    scale = torch.eye(4, dtype=torch.float64)
    scale[0, 0], scale[0, 1], scale[1, 1], scale[2, 2] = a, b, d, (a + math.hypot(b, d)) / 2
    return probe_T_image @ scale
