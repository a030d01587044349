# SPDX-License-Identifier: Apache-2.0
"""Small subjects: a blurred random volume and frames that are slices of it."""

import math
from collections.abc import Callable

import pytest
import torch
from torch.nn.functional import avg_pool3d

from usreg.data.types import Frame, TrackedFrame, Volume
from usreg.geometry import rotation, se3
from usreg.geometry.grid import VoxelGrid
from usreg.geometry.plane import PlaneGrid
from usreg.geometry.sector import SectorGeometry
from usreg.rendering import slice_volume
from usreg.simulation.subjects import Subject

GEOMETRY = SectorGeometry(
    "convex", PlaneGrid(50, 60, ((1.0, 0.0), (0.0, 1.0))), (29.5, -20.0), (22.0, 66.0), (-0.5, 0.5),
    (0.0, 0.0, 59.0, 49.0), 44.0,
)  # fmt: skip


@pytest.fixture
def geometry() -> SectorGeometry:
    return GEOMETRY


@pytest.fixture
def subject() -> Callable[..., Subject]:
    return make


def make(seed: int, frames: int = 4, away_mm: float = 0.0) -> Subject:
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(1, 1, 44, 46, 52, generator=generator)
    smooth = avg_pool3d(noise, 5, 1)[0]
    data = ((smooth - smooth.min()) / (smooth.max() - smooth.min()) * 255).to(torch.uint8)
    turn = tuple(rotation.from_axis_angle_deg((0.0, 1.0, 0.0), 20.0).reshape(-1).tolist())
    grid = VoxelGrid((48, 42, 40), (1.5, 1.5, 1.5), (-30.0, 10.0, -5.0), turn)
    labels = torch.zeros(data.shape[1:], dtype=torch.int16)
    labels[:4] = 5
    volume = Volume(data, grid, "US", mask=torch.ones(data.shape[1:], dtype=torch.bool), labels=labels)
    world_T_cts, tracked = [], []
    for number in range(frames):
        world_T_ct = se3.exp(torch.tensor([5.0, -3.0, 2.0 + number, 0.1, -0.2, 0.05], dtype=torch.float64))
        centre = grid.centre_ct + torch.tensor([away_mm, 0.0, 0.0], dtype=torch.float64)
        small = 0.2 * (2 * torch.rand(3, generator=generator, dtype=torch.float64) - 1)
        ct_T_image = (
            se3.from_parts(rotation.exp(small), centre) @ se3.translation(-GEOMETRY.plane.centre_mm)
        )  # fmt: skip
        image = slice_volume(volume, ct_T_image, GEOMETRY.plane)[0][0, 0] * GEOMETRY.mask()
        pose = se3.check_rigid(world_T_ct @ ct_T_image, "world_T_image")
        tracked.append(TrackedFrame(Frame(image.round().to(torch.uint8), GEOMETRY, number * 0.1, number), pose))
        world_T_cts.append(world_T_ct)
    liver = GEOMETRY.mask().clone()
    liver[:10] = False
    return Subject(
        seed, volume, tuple(tracked), torch.stack(world_T_cts), liver.expand(frames, -1, -1).clone(),
        {"branch": torch.tensor([1.0, 2.0, math.pi], dtype=torch.float64)},
    )  # fmt: skip
