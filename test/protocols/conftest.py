# SPDX-License-Identifier: Apache-2.0
"""Tiny subjects: smooth noise, and planes of it as frames."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from usreg.data.types import Frame, TrackedFrame, Volume
from usreg.data.volumes import with_labels
from usreg.geometry import se3
from usreg.geometry.grid import VoxelGrid
from usreg.geometry.plane import PlaneGrid
from usreg.geometry.sector import full_rectangle
from usreg.rendering.slicing import slice_volume
from usreg.simulation.subjects import Subject

SIZE, FRAMES = 48, 6
GEOMETRY = full_rectangle(PlaneGrid(24, 30, ((1.0, 0.0), (0.0, 1.0))))


def subject(seed: int) -> Subject:
    """A volume of 48 mm with six planes of it, the volume moved in the room by another pose for each."""
    g = torch.Generator().manual_seed(seed)
    noise = torch.rand(1, 1, SIZE // 6, SIZE // 6, SIZE // 6, generator=g)
    smooth = torch.nn.functional.interpolate(noise, (SIZE,) * 3, mode="trilinear", align_corners=True)[0]
    grid = VoxelGrid((SIZE,) * 3, (1.0,) * 3, (-3.0, 4.0, 5.0))
    known = torch.ones(SIZE, SIZE, SIZE, dtype=torch.bool)
    volume = with_labels(Volume((255 * smooth).to(torch.uint8), grid, "US", known), known.to(torch.int16), {1: "liver"})
    corner = se3.translation(grid.centre_ct - torch.tensor([15.0, 12.0, 0.0], dtype=torch.float64))
    small = torch.tensor([2.0, 2.0, 2.0, 0.1, 0.1, 0.1], dtype=torch.float64)
    ct_T_images = corner @ se3.exp(small * _uniform(FRAMES, g))
    world_T_cts = se3.exp(small * _uniform(FRAMES, g))
    images, _ = slice_volume(volume, ct_T_images, GEOMETRY.plane)
    frames = tuple(
        TrackedFrame(Frame(images[n, 0].round().to(torch.uint8), GEOMETRY, 0.1 * n, n), pose)
        for n, pose in enumerate(world_T_cts @ ct_T_images)
    )
    landmarks = {"portal_1": grid.centre_ct, "other": grid.centre_ct + 5.0}
    return Subject(seed, volume, frames, world_T_cts, torch.ones(FRAMES, 24, 30, dtype=torch.bool), landmarks)


def _uniform(count: int, g: torch.Generator) -> Tensor:
    return 2.0 * torch.rand(count, 6, generator=g, dtype=torch.float64) - 1.0


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory):
    """Folders of two tiny subjects, 1 and 2."""
    from usreg.simulation.subject_files import write_subject

    top = tmp_path_factory.mktemp("subjects")
    return [write_subject(subject(seed), top / str(seed)) for seed in (1, 2)]
