# SPDX-License-Identifier: Apache-2.0
"""Bad input is refused with what came and what to do."""

import logging

import pytest
import torch

from usreg.config import from_mapping
from usreg.errors import ConfigError, GeometryError, MissingTransformError
from usreg.geometry import se3
from usreg.geometry.plane import PlaneGrid, ProjectionGeometry
from usreg.geometry.sector import SectorGeometry
from usreg.reconstruction import ReconstructionConfig, grid_for, reconstruct, tracked_only


def test_no_tracked_frame():
    with pytest.raises(MissingTransformError, match="none of 2 frames has a valid pose"):
        reconstruct([None, None])
    with pytest.raises(MissingTransformError, match="none of 0 frames"):
        reconstruct([])


def test_untracked_frames_are_left_out_and_counted(sweep, caplog):
    gappy = [sweep[0], None, *sweep[1:], None]
    assert tracked_only(gappy)[1] == 2
    with caplog.at_level(logging.WARNING):
        volume = reconstruct(gappy, ReconstructionConfig(1.0))
    assert "2 of 14 frames" in caplog.text
    assert torch.equal(volume.data, reconstruct(sweep, ReconstructionConfig(1.0)).data)


def test_an_outlier_pose_does_not_allocate_the_world(sweep, frame):
    far = frame(
        torch.zeros(4, 4, dtype=torch.uint8), se3.translation(torch.tensor([1e5, 1e5, 1e5], dtype=torch.float64))
    )
    with pytest.raises(GeometryError, match="voxels, more than .* spacing above"):
        reconstruct([*sweep, far], ReconstructionConfig(0.5))


@pytest.mark.parametrize("spacing", [0.0, -1.0, float("nan"), float("inf")])
def test_spacing(sweep, spacing):
    with pytest.raises(GeometryError, match="spacing must be above zero"):
        grid_for(sweep, spacing)


def test_a_sector_beside_the_image(frame):
    sector = SectorGeometry(
        "linear", PlaneGrid(4, 4, ((1.0, 0.0), (0.0, 1.0))), (0, 0), (0, 5), (0, 0), (50, 50, 60, 60), 5
    )
    with pytest.raises(GeometryError, match="inside its sector"):
        grid_for([frame(torch.zeros(4, 4, dtype=torch.uint8), se3.identity(), geometry=sector)], 1.0)


def test_projections_are_refused(frame):
    geometry = ProjectionGeometry(PlaneGrid(4, 4, ((1.0, 0.0), (0.0, 1.0))), 1000.0, (2.0, 2.0))
    with pytest.raises(GeometryError, match="projection"):
        reconstruct([frame(torch.zeros(4, 4, dtype=torch.uint8), se3.identity(), geometry=geometry)])


@pytest.mark.parametrize(
    "options",
    [
        {"interpolation": "cubic"},
        {"compounding": "median"},
        {"hole_filling": "all"},
        {"spacing_mm": 0.0},
        {"stick_length": 2},
        {"threads": -1},
        {"spaceing": 1.0},
    ],
)
def test_config(options):
    with pytest.raises(ConfigError):
        from_mapping(ReconstructionConfig, options)


def test_progress_reaches_the_end(sweep):
    calls: list[tuple[int, int]] = []
    reconstruct(sweep, ReconstructionConfig(1.0), progress=lambda done, total: calls.append((done, total)))
    assert calls == [(8, 12), (12, 12)]
