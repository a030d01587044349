# SPDX-License-Identifier: Apache-2.0
"""Pixel grids, projection geometry, voxel grids: values, laws, what is refused."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from usreg.errors import GeometryError, ShapeError
from usreg.geometry import rotation, se3
from usreg.geometry.grid import VoxelGrid
from usreg.geometry.plane import PlaneGeometry, PlaneGrid, ProjectionGeometry

SHEARED = PlaneGrid(3, 4, ((0.5, 0.1), (0.0, 0.25)))
spacing = st.floats(0.01, 5)


def test_points_of_a_sheared_plane():
    points = SHEARED.points_mm()
    assert points.shape == (3, 4, 3)
    torch.testing.assert_close(points[2, 3], torch.tensor([0.5 * 3 + 0.1 * 2, 0.5, 0.0], dtype=torch.float64))
    assert SHEARED.spacing_mm == (0.5, math.hypot(0.1, 0.25))


@given(h=st.integers(1, 8), w=st.integers(1, 8), a=spacing, b=st.floats(-0.1, 0.1), d=spacing)
def test_matrix_and_points_agree(h, w, a, b, d):
    plane = PlaneGrid(h, w, ((a, b), (0.0, d)))
    row, column = h - 1, w // 2
    pixel = torch.tensor([column, row, 0.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close((plane.image_T_pixel @ pixel)[:3], plane.points_mm()[row, column])
    torch.testing.assert_close(plane.points_mm().mean((0, 1)), plane.centre_mm)


@pytest.mark.parametrize(
    "matrix",
    [((0.0, 0.0), (0.0, 1.0)), ((1.0, 0.0), (0.1, 1.0)), ((1.0, 0.0), (0.0, -1.0)), ((math.nan, 0.0), (0.0, 1.0))],
)
def test_pixel_sizes_that_are_refused(matrix):
    with pytest.raises(GeometryError, match="upper triangular"):
        PlaneGrid(2, 2, matrix)


@pytest.mark.parametrize("size", [(0, 4), (4, 0), (-1, 4)])
def test_planes_without_pixels(size):
    with pytest.raises(ShapeError, match="at least one pixel"):
        PlaneGrid(*size, ((1.0, 0.0), (0.0, 1.0)))


def test_projection_source_lies_above_the_detector():
    plane = PlaneGrid(2, 2, ((1.0, 0.0), (0.0, 1.0)))
    geometry = ProjectionGeometry(plane, 1000.0, (3.0, 4.0))
    assert geometry.source_mm.tolist() == [3.0, 4.0, -1000.0]
    assert bool(geometry.mask().all()) and bool(PlaneGeometry(plane).mask().all())
    for wrong in (0.0, -5.0, math.nan):
        with pytest.raises(GeometryError, match="above zero"):
            ProjectionGeometry(plane, wrong, (0.0, 0.0))
    with pytest.raises(GeometryError, match="principal"):
        ProjectionGeometry(plane, 1.0, (math.inf, 0.0))


twists = st.lists(st.floats(-3, 3), min_size=3, max_size=3)
grids = st.builds(
    lambda size, step, origin, w, flip: VoxelGrid(
        size,
        step,
        origin,
        tuple((rotation.exp(torch.tensor(w, dtype=torch.float64)) * (-1 if flip else 1)).flatten().tolist()),
    ),
    st.tuples(*[st.integers(1, 9)] * 3),
    st.tuples(spacing, spacing, spacing),
    st.tuples(*[st.floats(-100, 100)] * 3),
    twists,
    st.booleans(),
)


@given(grid=grids)
def test_index_and_mm_are_inverse(grid):
    eye = torch.eye(4, dtype=torch.float64)
    torch.testing.assert_close(grid.ct_T_index @ grid.index_T_ct, eye, atol=1e-9, rtol=0)
    assert grid.ct_T_index[:3, 3].tolist() == list(grid.origin_mm)
    torch.testing.assert_close(grid.corners_ct.mean(0), grid.centre_ct, atol=1e-9, rtol=0)
    torch.testing.assert_close(grid.ct_T_index[:3, :3].norm(dim=0), torch.tensor(grid.spacing_mm, dtype=torch.float64))


def test_a_voxel_of_a_turned_grid():
    direction = (0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0)  # i runs along y, j along -x
    grid = VoxelGrid((4, 3, 2), (1.0, 2.0, 3.0), (10.0, 20.0, 30.0), direction)
    got = se3.transform_points(grid.ct_T_index, torch.tensor([[3.0, 2.0, 1.0]], dtype=torch.float64))
    assert got[0].tolist() == [10.0 - 4.0, 20.0 + 3.0, 33.0]
    assert grid.corners_ct.shape == (8, 3)


@pytest.mark.parametrize(
    ("change", "kind", "match"),
    [
        ({"size": (0, 1, 1)}, ShapeError, "above zero"),
        ({"size": (1, 1)}, ShapeError, "three sizes"),
        ({"spacing_mm": (1.0, 0.0, 1.0)}, GeometryError, "above zero"),
        ({"spacing_mm": (1.0, math.nan, 1.0)}, GeometryError, "above zero"),
        ({"spacing_mm": (1.0, 1.0)}, GeometryError, "above zero"),
        ({"origin_mm": (math.inf, 0.0, 0.0)}, GeometryError, "not finite"),
        ({"origin_mm": (0.0, 0.0)}, ShapeError, "origin of 3"),
        ({"direction": (1.0,) * 8}, ShapeError, "direction of 9"),
        ({"direction": (1.0,) * 9}, GeometryError, "not orthonormal"),
        ({"direction": (1.0, 0, 0, 0, 1.0, 0, 0, 0, math.nan)}, GeometryError, "not finite"),
    ],
)
def test_grids_that_are_refused(change, kind, match):
    with pytest.raises(kind, match=match):
        VoxelGrid(**({"size": (2, 2, 2), "spacing_mm": (1.0, 1.0, 1.0)} | change))
