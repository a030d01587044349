# SPDX-License-Identifier: Apache-2.0
"""Slices of analytic volumes, gradients in the pose, masks, and the fast reslice against the slow one."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from usreg.data.types import Volume
from usreg.errors import GeometryError, ShapeError
from usreg.geometry import rotation, se3
from usreg.geometry.grid import VoxelGrid
from usreg.geometry.plane import PlaneGrid
from usreg.rendering import Renderer, slice_fast, slice_volume

PLANE = PlaneGrid(9, 12, ((0.7, 0.05), (0.0, 0.6)))
TURN = rotation.from_axis_angle_deg((0.3, -0.5, 0.8), 40.0)


def linear_volume(dtype: torch.dtype = torch.float32, direction: torch.Tensor = TURN) -> tuple[Volume, torch.Tensor]:
    """Values a.p + 60 of the physical point p: trilinear sampling reproduces them exactly."""
    grid = VoxelGrid((20, 18, 16), (0.9, 1.1, 1.3), (-3.0, 5.0, 2.0), tuple(direction.reshape(-1).tolist()))
    slope = torch.tensor([0.9, -1.4, 0.6], dtype=torch.float64)
    k, j, i = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in (16, 18, 20)), indexing="ij")
    points = se3.transform_points(grid.ct_T_index, torch.stack([i, j, k], -1).reshape(-1, 3))
    return Volume((points @ slope + 60.0).reshape(1, 16, 18, 20).to(dtype), grid), slope


def pose_inside(volume: Volume, twist: tuple[float, ...] = (0, 0, 0, 0.2, -0.3, 0.4)) -> torch.Tensor:
    """The image's centre at the volume's centre, turned and shifted."""
    centre = se3.from_parts(torch.eye(3, dtype=torch.float64), volume.grid.centre_ct)
    return centre @ se3.exp(torch.tensor(twist, dtype=torch.float64)) @ se3.translation(-PLANE.centre_mm)


def test_a_linear_volume_is_sampled_exactly_in_mm() -> None:
    volume, slope = linear_volume()
    pose = pose_inside(volume)
    images, masks = slice_volume(volume, pose, PLANE)
    expected = se3.transform_points(pose, PLANE.points_mm().reshape(-1, 3)) @ slope + 60.0
    assert images.shape == (1, 1, 9, 12) and bool(masks.all())
    assert torch.allclose(images.reshape(-1), expected, atol=1e-4)


def test_rotation_of_a_non_cubic_volume_is_rigid_in_mm() -> None:
    volume, slope = linear_volume(direction=torch.eye(3, dtype=torch.float64))
    for degrees in (10.0, 90.0, 170.0):
        pose = pose_inside(volume, (0, 0, 0, 0, math.radians(degrees), 0))
        images, masks = slice_volume(volume, pose, PLANE)
        expected = se3.transform_points(pose, PLANE.points_mm().reshape(-1, 3)) @ slope + 60.0
        assert bool(masks.any())
        assert torch.allclose(images.reshape(-1)[masks.reshape(-1)], expected[masks.reshape(-1)], atol=1e-4)


def test_batches_are_single_poses_side_by_side() -> None:
    volume, _ = linear_volume()
    poses = torch.stack([pose_inside(volume), pose_inside(volume, (1, 2, -1, 0, 0, 0.1))])
    images, masks = slice_volume(volume, poses, PLANE)
    for k in range(2):
        one, mask = slice_volume(volume, poses[k], PLANE)
        assert torch.equal(images[k], one[0]) and torch.equal(masks[k], mask[0])


def test_gradient_in_the_pose_agrees_with_finite_differences() -> None:
    volume, _ = linear_volume(torch.float64)
    volume = Volume(volume.data + 5.0 * torch.sin(volume.data / 3.0), volume.grid)
    pose = pose_inside(volume)
    weight = torch.linspace(-1, 1, 108, dtype=torch.float64).reshape(9, 12)

    def value(twist: torch.Tensor) -> torch.Tensor:
        return (slice_volume(volume, pose @ se3.exp(twist), PLANE)[0][0, 0] * weight).sum()

    twist = torch.full((6,), 1e-3, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(value(twist), twist)
    step = 1e-6
    for axis in range(6):
        d = torch.zeros(6, dtype=torch.float64)
        d[axis] = step
        numeric = (value(twist.detach() + d) - value(twist.detach() - d)) / (2 * step)
        assert torch.isclose(gradient[axis], numeric, rtol=1e-4, atol=1e-5)


def test_the_mask_ends_at_the_outermost_voxel_centres() -> None:
    grid = VoxelGrid((5, 5, 5), (1.0, 1.0, 1.0))
    volume = Volume(torch.ones(1, 5, 5, 5), grid)
    pose = se3.translation(torch.tensor([-0.5, 0.25, 2.0], dtype=torch.float64))
    _, mask = slice_volume(volume, pose, PlaneGrid(1, 6, ((1.0, 0.0), (0.0, 1.0))))
    assert mask[0, 0, 0].tolist() == [False, True, True, True, True, False]


def test_samples_beside_unknown_voxels_are_unknown() -> None:
    known = torch.ones(5, 5, 5, dtype=torch.bool)
    known[2, 2, 2] = False
    volume = Volume(torch.full((1, 5, 5, 5), 7.0), VoxelGrid((5, 5, 5), (1.0, 1.0, 1.0)), mask=known)
    pose = se3.translation(torch.tensor([0.5, 2.1, 2.1], dtype=torch.float64))
    image, mask = slice_volume(volume, pose, PlaneGrid(1, 3, ((1.0, 0.0), (0.0, 1.0))))
    assert mask[0, 0, 0].tolist() == [True, False, False]
    assert image[0, 0, 0].tolist() == pytest.approx([7.0, 0.0, 0.0])


@pytest.mark.parametrize("masked", [False, True])
def test_nan_voxels_never_reach_the_image(masked: bool) -> None:
    data = torch.full((1, 5, 5, 5), 7.0)
    data[0, 2, 2, 2] = torch.nan
    known = torch.ones(5, 5, 5, dtype=torch.bool) if masked else None
    volume = Volume(data, VoxelGrid((5, 5, 5), (1.0, 1.0, 1.0)), mask=known)
    pose = se3.translation(torch.tensor([0.5, 2.1, 2.1], dtype=torch.float64))
    image, mask = slice_volume(volume, pose, PlaneGrid(1, 3, ((1.0, 0.0), (0.0, 1.0))))
    fast, fast_mask = slice_fast(volume, pose, PlaneGrid(1, 3, ((1.0, 0.0), (0.0, 1.0))))
    assert bool(torch.isfinite(image).all()) and mask[0, 0, 0].tolist() == [True, False, False]
    assert fast_mask[0].tolist() == [True, False, False] and fast[0].tolist() == [7, 0, 0]


@given(st.lists(st.floats(-6, 6), min_size=3, max_size=3), st.lists(st.floats(-2, 2), min_size=3, max_size=3))
def test_the_fast_reslice_agrees_with_the_slow_one(shift: list[float], turn: list[float]) -> None:
    volume, _ = linear_volume()
    known = torch.ones(16, 18, 20, dtype=torch.bool)
    known[3:6, 4:9, 5:12] = False
    volume = Volume(volume.data, volume.grid, mask=known)
    pose = pose_inside(volume, (*shift, *turn))
    fast, fast_mask = slice_fast(volume, pose, PLANE)
    slow, slow_mask = slice_volume(volume, pose, PLANE)
    agree = fast_mask == slow_mask[0, 0]
    assert agree.double().mean() > 0.99  # a sample that lies on a voxel's face to rounding may fall either way
    both = fast_mask & slow_mask[0, 0]
    shown = slow[0, 0].clamp(0, 255)
    assert bool(((fast.double() - shown).abs()[both] <= 0.5 + 1e-3).all())


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.float32])
def test_the_fast_reslice_takes_every_type_and_a_window(dtype: torch.dtype) -> None:
    volume = Volume(torch.full((1, 4, 4, 4), 80).to(dtype), VoxelGrid((4, 4, 4), (1.0, 1.0, 1.0)))
    pose = se3.translation(torch.full((3,), 1.0, dtype=torch.float64))
    image, mask = slice_fast(volume, pose, PlaneGrid(2, 2, ((0.5, 0.0), (0.0, 0.5))), window=(0.0, 200.0))
    assert bool(mask.all()) and bool((image == 102).all())


def test_a_plane_far_away_gives_an_empty_mask() -> None:
    volume, _ = linear_volume()
    pose = se3.translation(torch.full((3,), 1e4, dtype=torch.float64))
    assert not bool(slice_volume(volume, pose, PLANE)[1].any())
    assert not bool(slice_fast(volume, pose, PLANE)[1].any())


def test_bad_input_is_refused() -> None:
    volume, _ = linear_volume()
    pose = pose_inside(volume)
    with pytest.raises(GeometryError, match="NaN"):
        slice_volume(volume, torch.full((4, 4), torch.nan, dtype=torch.float64), PLANE)
    with pytest.raises(ShapeError, match="4, 4"):
        slice_volume(volume, torch.eye(3), PLANE)
    with pytest.raises(ShapeError, match="one pose"):
        slice_fast(volume, pose[None], PLANE)
    with pytest.raises(ShapeError, match="channel"):
        slice_fast(volume, pose, PLANE, channel=3)


def test_the_slicer_is_a_renderer() -> None:
    assert isinstance(slice_volume, Renderer)
