# SPDX-License-Identifier: Apache-2.0
"""Errors of poses with known answers."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from usreg.errors import GeometryError, ShapeError
from usreg.evaluation import pose_error, sample_points, tre_mm
from usreg.geometry import rotation, se3
from usreg.geometry.plane import PlaneGeometry, PlaneGrid
from usreg.geometry.sector import SectorGeometry

PLANE = PlaneGrid(101, 101, ((1.0, 0.0), (0.0, 1.0)))
SQUARE = PlaneGeometry(PLANE)
twists = st.lists(st.floats(-2.0, 2.0), min_size=6, max_size=6).map(lambda x: torch.tensor(x, dtype=torch.float64))


def test_no_error_is_zero(sector):
    pose = se3.exp(torch.tensor([5.0, -3, 2, 0.3, 0.1, -0.7], dtype=torch.float64))
    error = pose_error(pose, pose, sector)
    assert max(vars(error).values()) < 1e-6


def test_a_shift_along_the_normal_is_out_of_plane_only():
    """True plane tilted in ct; a shift by (3, 0, 4) mm in its own axes."""
    true = se3.exp(torch.tensor([10.0, 20, 30, 0.4, -0.2, 0.9], dtype=torch.float64))
    found = true @ se3.translation(torch.tensor([3.0, 0, 4], dtype=torch.float64))
    error = pose_error(found, true, SQUARE)
    assert error.tre_mm == pytest.approx(5)
    assert error.translation_mm == pytest.approx(5)
    assert error.out_of_plane_mm == pytest.approx(4)
    assert error.rotation_deg == pytest.approx(0, abs=1e-5)


def test_a_tilt_about_the_centre_line():
    """10 degrees about x through the centre of a 100 mm square: points at 0, 25 and 50 mm on both sides move."""
    centre = torch.tensor([50.0, 50, 0], dtype=torch.float64)
    tilt = torch.tensor([math.radians(10), 0, 0], dtype=torch.float64)
    found = se3.right_at_centre(se3.identity(), torch.zeros(3, dtype=torch.float64), tilt, centre)
    error = pose_error(found, se3.identity(), SQUARE)
    arm = (2 * 25 + 2 * 50) / 5
    assert error.rotation_deg == pytest.approx(10)
    assert error.translation_mm == pytest.approx(0, abs=1e-9)
    assert error.out_of_plane_mm == pytest.approx(arm * math.sin(math.radians(10)))
    assert error.tre_mm == pytest.approx(arm * 2 * math.sin(math.radians(5)))


@given(twists, twists)
def test_where_the_volume_lies_does_not_matter(move, error):
    """Moving both poses by the same rigid motion changes no error."""
    true, found = se3.identity(), se3.exp(error)
    common = se3.exp(move)
    for a, b in zip(
        vars(pose_error(found, true, SQUARE)).values(),
        vars(pose_error(common @ found, common @ true, SQUARE)).values(),
        strict=True,
    ):
        assert a == pytest.approx(b, abs=1e-6)


@given(twists)
def test_parts_are_not_larger_than_the_whole(error):
    e = pose_error(se3.exp(error), se3.identity(), SQUARE)
    assert e.translation_mm <= e.tre_mm + 1e-9 and e.out_of_plane_mm <= e.tre_mm + 1e-9
    assert tre_mm(se3.exp(error), se3.identity(), SQUARE) == e.tre_mm


def test_points_lie_inside_the_sector(sector):
    points = sample_points(sector)
    assert points.shape == (25, 3)
    x0, y0, x1, y1 = sector.clip_mm
    assert (points[:, 0] >= x0).all() and (points[:, 0] <= x1).all() and (points[:, 2] == 0).all()
    assert (points[:, 1] >= y0).all() and (points[:, 1] <= y1).all()
    assert isinstance(sector, SectorGeometry)


def test_bad_poses_are_refused():
    broken = se3.identity()
    broken[0, 3] = math.nan
    with pytest.raises(GeometryError, match="ct_T_image_true"):
        pose_error(se3.identity(), broken, SQUARE)
    with pytest.raises(GeometryError, match="not rigid"):
        pose_error(2 * se3.identity(), se3.identity(), SQUARE)
    with pytest.raises(ShapeError, match="float64"):
        pose_error(torch.eye(4), se3.identity(), SQUARE)


def test_rotations_up_to_half_a_turn():
    turn = se3.from_parts(rotation.from_axis_angle_deg((0, 0, 1), 180.0), torch.zeros(3, dtype=torch.float64))
    assert pose_error(turn, se3.identity(), SQUARE).rotation_deg == pytest.approx(180)
