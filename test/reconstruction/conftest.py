# SPDX-License-Identifier: Apache-2.0
"""Small synthetic sweeps whose volume is known."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from usreg.data.types import Frame, TrackedFrame
from usreg.geometry import rotation, se3
from usreg.geometry.plane import PlaneGrid
from usreg.geometry.sector import full_rectangle


def make_frame(
    image: torch.Tensor,
    world_T_image: torch.Tensor,
    pixel_to_mm=((1.0, 0.0), (0.0, 1.0)),
    geometry=None,
    index: int = 0,
) -> TrackedFrame:
    geometry = geometry or full_rectangle(PlaneGrid(image.shape[0], image.shape[1], pixel_to_mm))
    return TrackedFrame(Frame(image, geometry, float(index), index), world_T_image)


@pytest.fixture
def frame() -> Callable[..., TrackedFrame]:
    return make_frame


@pytest.fixture
def sweep() -> list[TrackedFrame]:
    """Twelve noisy, oblique frames with anisotropic, sheared pixels."""
    generator = torch.Generator().manual_seed(3)
    frames = []
    for n in range(12):
        image = torch.randint(0, 256, (23, 31), generator=generator).to(torch.uint8)
        turn = rotation.exp(torch.tensor([0.3, -0.02 * n, 0.4], dtype=torch.float64))
        pose = se3.from_parts(turn, torch.tensor([4.0, -3.0 + 0.2 * n, 1.7 * n], dtype=torch.float64))
        frames.append(make_frame(image, pose, ((0.45, 0.02), (0.0, 0.6)), index=n))
    return frames
