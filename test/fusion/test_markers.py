# SPDX-License-Identifier: Apache-2.0
"""Outlines as plain data, and the frame as a map of square cells."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from usreg.data.types import Frame, TrackedFrame
from usreg.errors import ConfigError, ShapeError
from usreg.fusion import SweepTrail, label_colour, organ_lines, sector_line, target_dot, textured_plane
from usreg.geometry import se3
from usreg.geometry.plane import PlaneGrid
from usreg.geometry.sector import full_rectangle


def test_sector_outline_lies_in_the_image_plane_in_the_world(scene):
    pose = se3.exp(torch.tensor([10.0, 20.0, 30.0, 0.3, 0.2, 0.1], dtype=torch.float64))
    line = sector_line(scene.tracked(scene.fan(), pose))
    back = se3.transform_points(se3.inverse(pose), line.points)
    assert line.closed and line.where == "world" and back[:, 2].abs().max() < 1e-9
    assert back[:, 1].max() == pytest.approx(127.0, abs=1.0)


def test_organ_lines_surround_the_organ(scene):
    volume = replace(scene.volume(), grid=replace(scene.grid, spacing_mm=(1.0, 1.0, 2.0), origin_mm=(5.0, 6.0, 7.0)))
    lines = organ_lines(volume, step_mm=6.0)
    ball = [line for line in lines if line.name == "ball"]
    assert {line.name for line in lines} == {"ball", "slab"} and ball[0].colour == label_colour(1)
    for line in ball:
        index = (line.points - torch.tensor([5.0, 6.0, 7.0])) / torch.tensor([1.0, 1.0, 2.0])
        radius = (index - scene.ball).norm(dim=1)
        assert line.where == "ct" and line.closed and ((radius > 9.5) & (radius < 12.1)).all()
    assert len({line.points[0, 2].item() for line in ball}) == 8
    assert organ_lines(scene.volume(labels=False)) == []


def test_islands_below_the_limit_are_left_out(scene):
    assert not [line for line in organ_lines(scene.volume(), min_mm2=600.0) if line.name == "ball"]


def test_trail_is_thinned_bounded_and_forgotten(scene):
    trail = SweepTrail(min_step_mm=2.0, max_points=5)
    for z in range(30):
        trail.add(scene.tracked(scene.fan(), scene.at_z(float(z))))
    line = trail.line()
    assert line.points.shape == (5, 3) and line.points[-1].tolist() == pytest.approx([85.4, 7.0, 28.0])
    trail.reset()
    assert trail.line().points.shape == (0, 3)


def test_a_target_must_be_a_point():
    assert target_dot(torch.tensor([1.0, 2.0, 3.0])).where == "ct"
    for bad in (torch.zeros(2), torch.full((3,), float("nan"))):
        with pytest.raises(ShapeError):
            target_dot(bad)


def test_small_square_frames_become_a_plane_as_they_are(scene, generator):
    geometry = full_rectangle(PlaneGrid(50, 80, ((0.5, 0.0), (0.0, 0.5))))
    image = torch.randint(0, 256, (50, 80), generator=generator, dtype=torch.uint8)
    pose = se3.exp(torch.tensor([10.0, 20.0, 30.0, 0.3, 0.2, 0.1], dtype=torch.float64))
    plane = textured_plane(TrackedFrame(Frame(image, geometry, 0.0), pose))
    assert torch.equal(plane.image, image) and plane.cell_mm == 0.5
    corner = se3.inverse(pose) @ plane.world_T_corner
    assert corner[:3, 3].tolist() == pytest.approx([-0.25, -0.25, 0.0])


@given(
    st.floats(0.2, 1.5), st.floats(0.2, 1.5), st.floats(-0.08, 0.08), st.integers(40, 200), st.integers(40, 200),
    st.sampled_from([48, 256]),
)  # fmt: skip
def test_cells_hold_the_grey_value_of_their_place(a, d, shear, height, width, limit):
    """A frame whose grey is linear in mm: every cell well inside must show the value at its own centre."""
    plane_grid = PlaneGrid(height, width, ((a, a * shear), (0.0, d)))
    points = plane_grid.points_mm()
    scale = 200.0 / (points[..., 0].abs().max() + points[..., 1].max())
    image = (30 + scale * (points[..., 0] + points[..., 1]) * 0.9).clamp(0, 255).round().to(torch.uint8)
    tracked = TrackedFrame(Frame(image, full_rectangle(plane_grid), 0.0), se3.identity())
    found = textured_plane(tracked, limit)
    rows, columns = found.image.shape
    assert max(rows, columns) <= limit
    j, i = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    x = found.world_T_corner[0, 3] + (i + 0.5) * found.cell_mm
    y = found.world_T_corner[1, 3] + (j + 0.5) * found.cell_mm
    pixel_row = y / d
    pixel_column = (x - a * shear * pixel_row) / a
    edge = 2 * max(1.0, found.cell_mm / min(a, d))
    inside = (pixel_row > edge) & (pixel_row < height - 1 - edge)
    inside &= (pixel_column > edge) & (pixel_column < width - 1 - edge)
    expected = 30 + scale * (x + y) * 0.9
    error = (found.image.double() - expected)[inside].abs()
    assert not len(error) or error.max() < 3.0 + scale * max(a, d)


def test_sizes_are_checked(scene):
    with pytest.raises(ConfigError):
        textured_plane(scene.tracked(scene.fan()), 1)
    with pytest.raises(ConfigError):
        organ_lines(scene.volume(), step_mm=0.0)
    with pytest.raises(ConfigError):
        SweepTrail(max_points=1)
