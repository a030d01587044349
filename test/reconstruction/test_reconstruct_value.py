# SPDX-License-Identifier: Apache-2.0
"""Known planes land in the voxels where they must."""

import numpy as np
import pytest
import torch

from usreg.geometry import rotation, se3
from usreg.geometry.plane import PlaneGrid
from usreg.geometry.sector import SectorGeometry
from usreg.reconstruction import ReconstructionConfig, grid_for, reconstruct

PLAIN = {"spacing_mm": 1.0, "hole_filling": "none"}


def _at(z: float) -> torch.Tensor:
    return se3.translation(torch.tensor([10.0, 20.0, z], dtype=torch.float64))


@pytest.mark.parametrize("interpolation", ["nearest", "linear"])
def test_a_frame_on_the_grid_is_the_volume(frame, interpolation):
    image = torch.arange(12, dtype=torch.uint8).reshape(3, 4) * 20
    volume = reconstruct([frame(image, _at(30.0))], ReconstructionConfig(interpolation=interpolation, **PLAIN))
    assert volume.grid.origin_mm == (10.0, 20.0, 30.0)
    assert volume.grid.size == (4, 3, 1)
    assert torch.equal(volume.data[0, 0], image)
    assert volume.mask.all() and volume.modality == "US"


def test_a_turned_frame_lands_along_its_axes(frame):
    """Columns along world z, rows along world x, after a cyclic turn of the axes."""
    image = torch.arange(6, dtype=torch.uint8).reshape(2, 3) + 1
    turn = torch.tensor([[0.0, 1, 0], [0, 0, 1], [1, 0, 0]], dtype=torch.float64)
    volume = reconstruct(
        [frame(image, se3.from_parts(turn, torch.zeros(3, dtype=torch.float64)))], ReconstructionConfig(**PLAIN)
    )
    assert volume.grid.size == (2, 1, 3)
    assert torch.equal(volume.data[0, :, 0, :], image.T)


def test_shear_moves_pixels_along_the_row(frame):
    """With pixel_to_mm[0][1] = 1 mm, row 2 starts 2 mm further along x."""
    image = torch.full((3, 2), 9, dtype=torch.uint8)
    volume = reconstruct([frame(image, _at(0.0), ((1.0, 1.0), (0.0, 1.0)))], ReconstructionConfig(**PLAIN))
    expected = torch.tensor([[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]], dtype=torch.bool)
    assert torch.equal(volume.mask[0], expected)


def test_linear_insertion_is_a_weighted_mean(frame):
    """Planes 100 at z = 0.25 and 200 at z = 0.5: voxel 0 gets weights 0.75 and 0.5, voxel 1 0.25 and 0.5."""
    frames = [
        frame(torch.full((2, 2), v, dtype=torch.uint8), _at(z))
        for v, z in ((100, 0.25), (200, 0.5), (0, 0.0), (0, 3.0))
    ]
    volume = reconstruct(frames, ReconstructionConfig(**PLAIN))
    assert volume.data[0, :2, 1, 0].tolist() == [round((75 + 100) / (0.75 + 0.5 + 1)), round((25 + 100) / 0.75)]
    assert volume.mask[:, 1, 0].tolist() == [True, True, False, True]


@pytest.mark.parametrize(
    ("compounding", "expected"), [("mean", 80), ("maximum", 200), ("latest", 30), ("mean_8bit", 79)]
)
def test_compounding(frame, compounding, expected):
    frames = [frame(torch.full((2, 2), v, dtype=torch.uint8), _at(0.0)) for v in (10, 200, 30)]
    volume = reconstruct(frames, ReconstructionConfig(interpolation="nearest", compounding=compounding, **PLAIN))
    # 8 bits, rounded down: (10 + 200) / 2 = 105, (2 * 105 + 30) / 3 = 80; one lower where a step is not whole
    assert abs(int(volume.data[0, 0, 0, 0]) - expected) <= (1 if compounding == "mean_8bit" else 0)


def test_mean_8bit_rounds_down_at_each_pixel(frame):
    frames = [frame(torch.full((2, 2), v, dtype=torch.uint8), _at(0.0)) for v in (1, 0, 0)]
    for compounding, value in (("mean_8bit", 0), ("maximum", 1)):
        config = ReconstructionConfig(interpolation="nearest", compounding=compounding, **PLAIN)
        assert reconstruct(frames, config).data.max() == value


def test_only_the_sector_is_inserted(frame):
    plane = PlaneGrid(20, 21, ((1.0, 0.0), (0.0, 1.0)))
    sector = SectorGeometry("convex", plane, (10.0, -5.0), (8.0, 20.0), (-0.5, 0.5), (0.0, 4.0, 15.0, 18.0), 12.0)
    image = torch.full((20, 21), 50, dtype=torch.uint8)
    volume = reconstruct(
        [frame(image, _at(0.0), geometry=sector)], ReconstructionConfig(interpolation="nearest", **PLAIN)
    )
    assert int(volume.mask.sum()) == int(sector.mask().sum())
    rows, columns = sector.mask().nonzero().T
    assert volume.grid.origin_mm[:2] == (10.0 + columns.min(), 20.0 + rows.min())


def test_sticks_fill_between_planes(frame):
    """Planes 0 and 90 three voxels apart: the two holes get 30 and 60."""
    frames = [frame(torch.full((5, 5), v, dtype=torch.uint8), _at(z)) for v, z in ((0, 0.0), (90, 3.0))]
    volume = reconstruct(frames, ReconstructionConfig(1.0, interpolation="nearest"))
    assert volume.mask.all()
    assert volume.data[0, :, 2, 2].tolist() == [0, 30, 60, 90]


def test_sticks_leave_wide_gaps(frame):
    """A stick of 5 voxels spans 3 holes, not 4."""
    for gap, filled in ((4.0, True), (5.0, False)):
        frames = [frame(torch.full((9, 9), 7, dtype=torch.uint8), _at(z)) for z in (0.0, gap)]
        volume = reconstruct(frames, ReconstructionConfig(1.0, interpolation="nearest", stick_length=5))
        assert bool(volume.mask.all()) is filled


def test_gaussian_keeps_known_voxels_and_a_constant(frame):
    frames = [frame(torch.full((9, 9), 70, dtype=torch.uint8), _at(z)) for z in (0.0, 2.0)]
    config = ReconstructionConfig(1.0, interpolation="nearest", hole_filling="gaussian")
    volume = reconstruct(frames, config)
    assert volume.mask[1, 4, 4] and (volume.data[0][volume.mask] == 70).all()


def test_grid_holds_all_pixels(sweep):
    grid = grid_for(sweep, 0.7)
    for f in sweep:
        points = se3.transform_points(f.world_T_image, f.frame.plane.points_mm().reshape(-1, 3))
        index = se3.transform_points(grid.index_T_ct, points)
        assert index.min() > -1e-6 and (index.max(0).values <= torch.tensor(grid.size) - 1 + 1e-6).all()


def test_a_smooth_field_comes_back(frame):
    """Oblique frames of a linear field: mean insertion restores it to about a grey level."""
    turn = rotation.exp(torch.tensor([0.2, 0.1, 0.0], dtype=torch.float64))
    frames = []
    for n in range(60):
        pose = se3.from_parts(turn, torch.tensor([0.0, 0.0, 0.4 * n], dtype=torch.float64))
        blank = frame(torch.zeros(40, 50, dtype=torch.uint8), pose, ((0.4, 0.01), (0.0, 0.5)))
        world = se3.transform_points(pose, blank.frame.plane.points_mm().reshape(-1, 3))
        field = (100 + 3 * world[:, 0] - 2 * world[:, 1] + world[:, 2]).round().clamp(0, 255)
        frames.append(frame(field.to(torch.uint8).reshape(40, 50), pose, ((0.4, 0.01), (0.0, 0.5))))
    volume = reconstruct(frames, ReconstructionConfig(1.0))
    index = volume.mask.nonzero().flip(1).to(torch.float64)
    world = se3.transform_points(volume.grid.ct_T_index, index)
    expected = 100 + 3 * world[:, 0] - 2 * world[:, 1] + world[:, 2]
    error = (volume.data[0][volume.mask] - expected).abs().numpy()
    assert np.median(error) < 0.6 and np.percentile(error, 95) < 2.5
