# SPDX-License-Identifier: Apache-2.0
"""What the source shows: a speckled volume at rest, and a closed path of an arm's probe inside it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import yaml
from torch import Tensor

from usreg.config import to_mapping
from usreg.data.calibration import write_calibration
from usreg.data.types import Calibration, Volume
from usreg.data.volumes import write_volume
from usreg.geometry import rotation, se3
from usreg.geometry.grid import VoxelGrid
from usreg.geometry.plane import PlaneGrid
from usreg.geometry.sector import SectorGeometry
from usreg.kinematics import load_arm
from usreg.kinematics.path import PathIkConfig, inverse_path
from usreg.rendering import slice_fast
from usreg.simulation.depth import image_in_probe

from .tissue import smooth_field, speckle_db

WIDTH, HEIGHT, PIXEL_MM = 752, 564, 0.226
FRAME_HZ, JOINT_HZ, PERIOD_S = 30, 100, 10
CENTRE_MM = (560.0, 40.0, 150.0)
DRAW_MM, DRAW_DEG = 5.0, 3.0
ELBOW_UP = (0.0, 0.5, 0.0, -1.5, 0.0, 1.1, 0.0)  # over the volume, probe pointing down


@dataclass(frozen=True)
class Scene:
    """Files of a scene in its folder, and what the nodes must be told.

    Args:
        initial: world_T_ct (4, 4) to start from, off the truth by a draw. covariance: (6, 6) of that draw.
        truth: world_T_ct (4, 4).
    """

    folder: Path
    initial: Tensor
    covariance: Tensor
    truth: Tensor
    arm: str = "iiwa7"

    @property
    def volume(self) -> Path:
        return self.folder / "volume.nii"

    @property
    def probe(self) -> Path:
        return self.folder / "probe.yaml"

    @property
    def calibration(self) -> Path:
        return self.folder / "calibration.yaml"


def make_scene(
    folder: Path, size: int = 200, spacing_mm: float = 1.0, period_s: int = PERIOD_S, seed: int = 0
) -> Scene:
    """Write volume, probe, calibration, frames.npy and joints.npy of one turn of the path."""
    rng, geometry = np.random.default_rng(seed), convex_geometry()
    volume = _volume(rng, size, spacing_mm)
    write_volume(volume, folder / "volume.nii")
    world_T_ct = _world_T_ct(volume)
    probe_T_image = image_in_probe(geometry)
    (folder / "probe.yaml").write_text(yaml.safe_dump({"geometry": to_mapping(geometry)}), encoding="utf-8")
    write_calibration(Calibration(probe_T_image, geometry.pixel_to_mm, geometry), folder / "calibration.yaml")
    arm = load_arm("iiwa7")
    shares = np.arange(period_s * JOINT_HZ) / (period_s * JOINT_HZ)
    targets = torch.stack([se3.inverse(arm.world_T_base) @ world_T_probe(s) for s in shares])
    targets = targets @ se3.inverse(arm.flange_T_probe)
    stamps, start = np.arange(len(shares)) / JOINT_HZ, torch.tensor(ELBOW_UP, dtype=torch.float64)
    still = PathIkConfig(centring_per_s=0.0)  # the elbow stays, so that the path closes in the joints, too
    joints = inverse_path(arm.chain, targets.numpy(), stamps, start, still)
    np.save(folder / "joints.npy", joints.numpy())
    ct_T_image = [se3.inverse(world_T_ct) @ world_T_probe(s) @ probe_T_image for s in _frame_shares(period_s)]
    np.save(folder / "frames.npy", _frames(volume, geometry, ct_T_image, rng))
    return Scene(folder, *_start(volume, world_T_ct, rng), world_T_ct)


def convex_geometry() -> SectorGeometry:
    """A convex probe of 50 mm radius that sees 120 mm deep, wholly inside a volume of 200 mm."""
    plane = PlaneGrid(HEIGHT, WIDTH, ((PIXEL_MM, 0.0), (0.0, PIXEL_MM)))
    right, bottom, half = (WIDTH - 1) * PIXEL_MM, (HEIGHT - 1) * PIXEL_MM, math.radians(29.5)
    apex = (right / 2, -50.0 * math.cos(half))
    return SectorGeometry("convex", plane, apex, (50.0, 170.0), (-half, half), (0.0, 0.0, right, bottom), 120.0)


def world_T_probe(share: float) -> Tensor:
    """Pose (4, 4) of the probe at a share of its closed path: to and fro along the body, tilting; it points down."""
    a = 2 * math.pi * share
    shift = (6 * math.sin(2 * a + 0.5), 22 * math.sin(a), 64 + 2 * math.sin(3 * a))
    turns = (math.radians(7) * math.sin(a + 1), math.radians(4) * math.sin(2 * a), math.radians(6) * math.sin(a))
    down = torch.diag(torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64))
    turn = rotation.exp(torch.tensor(turns, dtype=torch.float64))
    place = torch.tensor(CENTRE_MM, dtype=torch.float64) + torch.tensor(shift, dtype=torch.float64)
    return se3.from_parts(turn @ down, place)


def _frame_shares(period_s: int) -> np.ndarray:
    return np.arange(period_s * FRAME_HZ) / (period_s * FRAME_HZ)


def _volume(rng: np.random.Generator, size: int, spacing_mm: float) -> Volume:
    """Speckle of about 2.5 mm on tissue that changes slowly."""
    shape = (size,) * 3
    grey = 110 + 9 * speckle_db(shape, 2.5 / spacing_mm, rng) + 20 * smooth_field(shape, 6.0 / spacing_mm, rng)
    data = torch.from_numpy(np.clip(np.rint(grey), 1, 255).astype(np.uint8))[None]
    return Volume(data, VoxelGrid(shape, (spacing_mm,) * 3, (-40.0, 25.0, 60.0)), "US")


def _world_T_ct(volume: Volume) -> Tensor:
    turn = rotation.exp(torch.tensor([0.10, -0.15, 0.2], dtype=torch.float64))
    centre = torch.tensor(CENTRE_MM, dtype=torch.float64)
    return se3.from_parts(turn, centre - turn @ volume.grid.centre_ct)


def _frames(volume: Volume, geometry: SectorGeometry, ct_T_image: list[Tensor], rng: np.random.Generator) -> np.ndarray:
    """Images (N, h, w) uint8 with noise of their own."""
    sector = geometry.mask().numpy()
    images = np.zeros((len(ct_T_image), HEIGHT, WIDTH), np.uint8)
    for image, pose in zip(images, ct_T_image, strict=True):
        grey = slice_fast(volume, pose, geometry.plane)[0].numpy()[sector]
        noise = rng.standard_normal((2, grey.size), dtype=np.float32)
        image[sector] = np.clip(np.rint(0.9 * grey * (1 + 0.12 * noise[0]) + 8 + 4 * noise[1]), 0, 255)
    return images


def _start(volume: Volume, world_T_ct: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    limit_rad = math.radians(DRAW_DEG)
    shift = torch.from_numpy(rng.uniform(-DRAW_MM, DRAW_MM, 3))
    turn = rotation.exp(torch.from_numpy(rng.uniform(-limit_rad, limit_rad, 3)))
    pivot = se3.transform_points(world_T_ct, volume.grid.centre_ct[None])[0]
    start = se3.translation(pivot) @ se3.from_parts(turn, shift) @ se3.translation(-pivot) @ world_T_ct
    return start, torch.diag(torch.tensor([DRAW_MM**2 / 3] * 3 + [limit_rad**2 / 3] * 3, dtype=torch.float64))
