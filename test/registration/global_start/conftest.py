# SPDX-License-Identifier: Apache-2.0
"""A small body of skin, fat, wall, ribs, gas, liver and vessels, and what a linear probe shows of it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import ndimage

from usreg.data.types import Frame, TrackedFrame, Volume
from usreg.geometry import rotation, se3
from usreg.geometry.grid import VoxelGrid
from usreg.geometry.plane import PlaneGrid
from usreg.geometry.sector import SectorGeometry

SPACING = 2.5
SIZE = (64, 52, 56)  # x, y, z
WORLD_T_CT = se3.from_parts(
    rotation.from_axis_angle_deg((0.4, 1.0, 0.2), 110.0), torch.tensor([250.0, -80.0, 330.0], dtype=torch.float64)
)
ECHO = {-1000: 30, -100: 45, 60: 60, 110: 90, 170: 8, 5: 4, 420: 200, -900: 200}  # grey by HU
BLOCKING = (420, -900)


def small_body() -> Volume:
    """A rounded block with structures that no rotation repeats."""
    x, y, z = np.meshgrid(*[(np.arange(n) - (n - 1) / 2) * SPACING for n in SIZE], indexing="ij")
    radius = ((np.abs(x) / 70) ** 4 + (np.abs(y) / 55) ** 4 + (np.abs(z) / 60) ** 4) ** 0.25
    hu = np.full(x.shape, -1000.0)
    for limit, value in ((1.0, -100.0), (0.88, 60.0), (0.78, 110.0)):
        hu[radius < limit] = value
    inner = radius < 0.72
    plate = (np.abs(radius - 0.83) < 0.05) & (y < 0) & (np.abs(x + 32) < 14) & (np.abs(z - 5) < 40)
    hu[plate] = 420.0
    hu[(np.hypot(x - 8 - 0.5 * z, y + 12) < 10) & inner] = 170.0
    hu[(((x - 4) / 26) ** 2 + ((y + 14) / 14) ** 2 + ((z + 26) / 13) ** 2 < 1) & inner] = 5.0
    hu[(((x - 26) / 20) ** 2 + ((y + 2) / 20) ** 2 + ((z - 20) / 14) ** 2 < 1) & inner] = -900.0
    data = torch.from_numpy(hu.transpose(2, 1, 0).astype(np.int16).copy())[None]
    direction = tuple(rotation.from_axis_angle_deg((0.1, 0.3, 1.0), 12.0).reshape(-1).tolist())
    return Volume(data, VoxelGrid(SIZE, (SPACING,) * 3, (-60.0, 20.0, 10.0), direction), "CT")


def linear() -> SectorGeometry:
    """60 mm wide and 80 mm deep."""
    plane = PlaneGrid(80, 60, ((1.0, 0.0), (0.0, 1.0)))
    return SectorGeometry("linear", plane, (29.5, 0.0), (0.0, 79.0), (0.0, 0.0), (0.0, 0.0, 59.0, 79.0), 79.0)


def shown(volume: Volume, ct_T_image: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """What the probe shows: grey by tissue, black behind bone and gas, speckle."""
    points = linear().plane.points_mm().reshape(-1, 3)
    index = se3.transform_points(volume.grid.index_T_ct @ ct_T_image, points).numpy()[:, ::-1]
    hu = ndimage.map_coordinates(volume.data[0].numpy(), index.T, order=0, mode="nearest").reshape(80, 60)
    grey = np.select([hu == value for value in ECHO], list(ECHO.values())).astype(float)
    blocked = np.isin(hu, BLOCKING)
    grey[np.cumsum(blocked, 0) > 4] = 2.0
    speckled = grey * np.sqrt(rng.chisquare(2, grey.shape) / 2)
    return torch.from_numpy(np.clip(speckled, 0, 255).astype(np.uint8))


@pytest.fixture(scope="session")
def body() -> Volume:
    return small_body()


@pytest.fixture(scope="session")
def scan(body: Volume) -> Callable[..., tuple[TrackedFrame, ...]]:
    """Frames of a probe that slides on the front of the body, with true poses in the room."""

    def make(count: int, image: bool = True) -> tuple[TrackedFrame, ...]:
        rng = np.random.default_rng(5)
        middle = se3.translation(body.grid.centre_ct)
        middle[:3, :3] = torch.tensor(body.grid.direction, dtype=torch.float64).reshape(3, 3)
        turn = rotation.from_axis_angle_deg((0.0, 1.0, 0.0), 35.0)
        frames = []
        for k in range(count):
            way = 5.0 * (k - count // 2) - 2.0
            in_body = se3.from_parts(turn, torch.tensor([-2.0, -51.0, way], dtype=torch.float64))
            ct_T_image = middle @ in_body @ se3.translation(torch.tensor([-29.5, 0.0, 0.0], dtype=torch.float64))
            pixels = shown(body, ct_T_image, rng) if image else torch.zeros(80, 60, dtype=torch.uint8)
            frames.append(TrackedFrame(Frame(pixels, linear(), 0.1 * k, k), WORLD_T_CT @ ct_T_image))
        return tuple(frames)

    return make


@pytest.fixture(scope="session")
def truth() -> torch.Tensor:
    """world_T_ct, (4, 4)."""
    return WORLD_T_CT


@pytest.fixture(scope="session")
def probe() -> SectorGeometry:
    return linear()
