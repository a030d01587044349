# SPDX-License-Identifier: Apache-2.0
"""A small body for tests: an elliptic trunk with ribs, lungs, liver and the other organs that breathe, at 4 mm."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from usreg.data.types import Volume
from usreg.geometry.grid import VoxelGrid
from usreg.simulation.body.types import STRUCTURES, VALUE, Body

SPACING_MM = 4.0


def make_trunk(direction: torch.Tensor | None = None) -> Body:
    """The trunk stands along z; `direction` (3, 3) turns the voxel axes, not the body."""
    size = (86, 62, 90) if direction is None else (92, 72, 72)
    turn = torch.eye(3, dtype=torch.float64) if direction is None else direction
    half = turn @ torch.tensor([(n - 1) / 2 * SPACING_MM for n in size], dtype=torch.float64)
    grid = VoxelGrid(size, (SPACING_MM,) * 3, tuple((-half).tolist()), tuple(turn.flatten().tolist()))
    index = np.stack(np.meshgrid(*map(np.arange, size), indexing="ij"), -1).transpose(2, 1, 0, 3)
    matrix = grid.ct_T_index.numpy()
    x, y, z = np.moveaxis(index @ matrix[:3, :3].T + matrix[:3, 3], -1, 0)
    labels = np.zeros(x.shape, np.uint8)

    def ball(centre: tuple[float, float, float], radii: tuple[float, float, float]) -> np.ndarray:
        return sum(((p - c) / r) ** 2 for p, c, r in zip((x, y, z), centre, radii, strict=True)) < 1

    def tube(rx: float, ry: float) -> np.ndarray:
        return (x / rx) ** 2 + (y / ry) ** 2 < 1

    cavity = tube(134, 84)
    for name, (rx, ry) in {"skin": (160, 110), "subcutaneous_fat": (156, 106), "muscle": (146, 96)}.items():
        labels[tube(rx, ry)] = VALUE[name]
    labels[cavity] = VALUE["visceral_fat"]
    ribs = tube(143, 93) & ~cavity & (np.mod(z - 0.4 * np.abs(y), 28) < 9) & (z > 30 - 0.6 * np.abs(x))
    labels[ribs] = VALUE["ribs"]
    labels[ball((0, 88, 0), (22, 20, 1000))] = VALUE["spine"]
    lung = ball((0, -5, 180), (130, 80, 100)) & cavity
    labels[lung & (x < 0)], labels[lung & (x >= 0)] = VALUE["lung_right"], VALUE["lung_left"]
    liver = (ball((-60, -10, 20), (85, 75, 75)) | ball((20, -40, 35), (60, 35, 35))) & cavity & ~lung
    labels[liver] = VALUE["liver"]
    labels[ball((-70, 45, -60), (28, 25, 50)) & cavity & ~liver] = VALUE["kidney_right_cortex"]
    labels[ball((70, 45, -35), (28, 25, 50)) & cavity & ~liver] = VALUE["kidney_left_cortex"]
    labels[ball((95, 20, 50), (30, 35, 50)) & cavity & ~liver & ~lung] = VALUE["spleen"]
    return Body(Volume(torch.from_numpy(labels)[None], grid, label_names=dict(STRUCTURES)))


@pytest.fixture(scope="session")
def trunk_maker() -> Callable[..., Body]:
    return make_trunk


@pytest.fixture(scope="session")
def small_trunk() -> Body:
    return make_trunk()
