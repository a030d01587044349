# SPDX-License-Identifier: Apache-2.0
"""Voxel grids: index (i, j, k) along (x, y, z) to physical millimetres. An index means the voxel's centre."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import GeometryError, ShapeError

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


@dataclass(frozen=True)
class VoxelGrid:
    """Where the voxels of a volume lie in its physical frame (LPS mm).

    Args:
        size: voxels along x, y, z (W, H, D).
        spacing_mm: along x, y, z, above zero.
        origin_mm: centre of voxel (0, 0, 0).
        direction: 3x3 row-major; columns are the unit axes of i, j, k. Any rotation or reflection.
    """

    size: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    origin_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    direction: tuple[float, ...] = IDENTITY

    def __post_init__(self) -> None:
        if len(self.size) != 3 or min(self.size) < 1:
            raise ShapeError(f"a volume has three sizes above zero, got {self.size}")
        if len(self.spacing_mm) != 3 or not all(math.isfinite(s) and s > 0 for s in self.spacing_mm):
            raise GeometryError(f"voxel spacing must be above zero along x, y, z; the file says {self.spacing_mm} mm")
        if len(self.origin_mm) != 3 or len(self.direction) != 9:
            raise ShapeError("a voxel grid has an origin of 3 and a direction of 9 numbers")
        if not all(map(math.isfinite, (*self.origin_mm, *self.direction))):
            raise GeometryError("origin or direction of the volume is not finite")
        d = torch.tensor(self.direction, dtype=torch.float64).reshape(3, 3)
        off = (d.T @ d - torch.eye(3, dtype=torch.float64)).abs().max().item()
        if off > 1e-3:
            raise GeometryError(f"the volume's direction matrix is not orthonormal (by {off:.2g}): resample it first")

    @functools.cached_property
    def ct_T_index(self) -> Tensor:
        """Affine (4, 4) float64 from voxel index (i, j, k) to mm. Shared: do not write into it."""
        m = torch.eye(4, dtype=torch.float64)
        direction = torch.tensor(self.direction, dtype=torch.float64).reshape(3, 3)
        m[:3, :3] = direction * torch.tensor(self.spacing_mm, dtype=torch.float64)
        m[:3, 3] = torch.tensor(self.origin_mm, dtype=torch.float64)
        return m

    @functools.cached_property
    def index_T_ct(self) -> Tensor:
        """Affine (4, 4) float64 from mm to voxel index. Shared: do not write into it."""
        return torch.linalg.inv(self.ct_T_index)

    @property
    def centre_ct(self) -> Tensor:
        """Centre (3,) of the box of voxels, mm."""
        half = torch.tensor([(n - 1) / 2 for n in self.size] + [1.0], dtype=torch.float64)
        return (self.ct_T_index @ half)[:3]

    @property
    def corners_ct(self) -> Tensor:
        """Centres (8, 3) of the corner voxels, mm."""
        ends = [torch.tensor([0.0, n - 1.0], dtype=torch.float64) for n in self.size]
        index = torch.cartesian_prod(*ends)
        return index @ self.ct_T_index[:3, :3].T + self.ct_T_index[:3, 3]
