# SPDX-License-Identifier: Apache-2.0
"""A small speckled volume and frames cut from it at known poses."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from usreg.data.types import Estimate, Frame, Problem, TrackedFrame, Volume, start_estimate
from usreg.geometry import rotation, se3
from usreg.geometry.grid import VoxelGrid
from usreg.geometry.plane import PlaneGrid
from usreg.geometry.sector import SectorGeometry
from usreg.rendering import slice_volume

DIRECTION = rotation.from_axis_angle_deg((0.2, 1.0, -0.4), 25.0)
# where the volume lies in the room: far off and turned, so that frames and pivots cannot be mixed up unseen
WORLD_T_CT = se3.from_parts(
    rotation.from_axis_angle_deg((1.0, 0.3, 0.2), 70.0), torch.tensor([300.0, -150.0, 420.0], dtype=torch.float64)
)


def unit(field: np.ndarray) -> np.ndarray:
    return field / field.std()


def sector(spacing_mm: float = 0.9) -> SectorGeometry:
    """A convex sector of 75x60 pixels, 67x54 mm."""
    width, height, half = 74 * spacing_mm, 59 * spacing_mm, math.radians(30)
    plane = PlaneGrid(60, 75, ((spacing_mm, 0.02), (0.0, spacing_mm)))
    return SectorGeometry("convex", plane, (width / 2, -25), (27, 76), (-half, half), (0, 0, width, height), 49.0)


@dataclass(frozen=True)
class Bench:
    """A volume in the room and its true pose."""

    volume: Volume
    world_T_ct: torch.Tensor

    def frame(self, twist: tuple[float, ...] = (0,) * 6, noise: float = 0.0, seed: int = 0) -> TrackedFrame:
        """A frame whose centre lies at the volume's centre, moved by the twist, with blurred noise of its own."""
        geometry = sector()
        middle = se3.translation(self.volume.grid.centre_ct)
        ct_T_image = middle @ se3.exp(torch.tensor(twist, dtype=torch.float64))
        ct_T_image = ct_T_image @ se3.translation(-geometry.plane.centre_mm)
        image, _ = slice_volume(self.volume, ct_T_image, geometry.plane)
        rng = np.random.default_rng(seed)
        grey = image[0, 0].numpy() + noise * unit(gaussian_filter(rng.standard_normal(image.shape[-2:]), (0.5, 1.0)))
        pixels = torch.from_numpy(np.clip(np.round(grey), 0, 255).astype(np.uint8))
        return TrackedFrame(Frame(pixels, geometry, 0.0, seed), self.world_T_ct @ ct_T_image)

    def start(self, tracked: TrackedFrame, shift: tuple[float, ...], turn_deg: tuple[float, ...]) -> Estimate:
        """A start whose image is off by a shift (mm) and a turn (degrees) about the image's centre."""
        ct_T_image = se3.inverse(self.world_T_ct) @ tracked.world_T_image
        t = torch.tensor(shift, dtype=torch.float64)
        r = torch.deg2rad(torch.tensor(turn_deg, dtype=torch.float64))
        off = se3.right_at_centre(ct_T_image, t, r, tracked.frame.plane.centre_mm)
        return start_estimate(tracked.world_T_image @ se3.inverse(off), self.volume)

    def problem(self, frames: tuple[TrackedFrame, ...], start: Estimate) -> Problem:
        return Problem(frames, self.volume, start)

    def tre_mm(self, found: Estimate, tracked: TrackedFrame) -> float:
        points = se3.transform_points(tracked.world_T_image, sector().sample_points_mm())
        back = self.world_T_ct @ se3.inverse(found.world_T_ct)
        return float((se3.transform_points(back, points) - points).norm(dim=1).mean())


@pytest.fixture(scope="session")
def bench() -> Bench:
    """70^3 voxels of 1.1 mm: speckle over tissue, directions turned."""
    rng = np.random.default_rng(4)
    speckle, tissue = (unit(gaussian_filter(rng.standard_normal((70, 70, 70)), s)) for s in (1.2, 5.0))
    data = np.clip(np.round(128 + 28 * speckle + 22 * tissue), 0, 255).astype(np.uint8)
    grid = VoxelGrid((70, 70, 70), (1.1, 1.1, 1.1), (-30.0, 12.0, 40.0), tuple(DIRECTION.reshape(-1).tolist()))
    return Bench(Volume(torch.from_numpy(data)[None], grid, "US"), WORLD_T_CT)


@pytest.fixture
def with_volume() -> Callable[[Bench, Volume], Bench]:
    """The same room with another volume."""
    return lambda bench, volume: Bench(volume, bench.world_T_ct)
