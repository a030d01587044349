# SPDX-License-Identifier: Apache-2.0
"""A small volume whose grey value is known everywhere, and frames in it."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from usreg.data.types import Frame, TrackedFrame, Volume
from usreg.geometry import se3
from usreg.geometry.grid import VoxelGrid
from usreg.geometry.plane import PlaneGrid
from usreg.geometry.sector import SectorGeometry, full_rectangle


class Scene:
    """Grey = 2 x + y + 0.5 z in the volume's mm; label 1 a ball of 12 mm about (30, 20, 20), label 5 a slab."""

    grid = VoxelGrid((61, 41, 41), (1.0, 1.0, 1.0))
    ball = torch.tensor([30.0, 20.0, 20.0], dtype=torch.float64)

    def volume(self, dtype: torch.dtype = torch.uint8, labels: bool = True) -> Volume:
        z, y, x = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in (41, 41, 61)), indexing="ij")
        grey = 2 * x + y + 0.5 * z
        near = (torch.stack([x, y, z], -1) - self.ball).norm(dim=-1) < 12
        values = near.to(torch.int16) + 5 * (y > 35).to(torch.int16)
        names = {1: "ball", 5: "slab"}
        data = grey.to(dtype)[None]
        return Volume(data, self.grid, labels=values if labels else None, label_names=names if labels else {})

    @staticmethod
    def at_z(z: float) -> Tensor:
        return se3.translation(torch.tensor([0.0, 0.0, z], dtype=torch.float64))

    @staticmethod
    def tracked(geometry, world_T_image: Tensor | None = None, value: int = 40) -> TrackedFrame:
        image = torch.full((geometry.plane.height, geometry.plane.width), value, dtype=torch.uint8)
        return TrackedFrame(Frame(image, geometry, 1.0), se3.identity() if world_T_image is None else world_T_image)

    @staticmethod
    def rectangle(height: int = 41, width: int = 61, mm: float = 1.0):
        return full_rectangle(PlaneGrid(height, width, ((mm, 0.0), (0.0, mm))))

    @staticmethod
    def fan(scale: int = 1) -> SectorGeometry:
        plane = PlaneGrid(192 * scale, 256 * scale, ((0.67 / scale, 0.0), (0.0, 0.67 / scale)))
        clip = (0.0, 0.0, 170.8, 127.9)
        return SectorGeometry("convex", plane, (85.4, -43.0), (50.0, 170.0), (-0.52, 0.52), clip, 120.0)

    def linear(self) -> SectorGeometry:
        return replace(self.rectangle(100, 120, 0.5), clip_mm=(10.0, 5.0, 40.0, 45.0), depth_mm=40.0)


@pytest.fixture
def scene() -> Scene:
    return Scene()
