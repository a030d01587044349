# SPDX-License-Identifier: Apache-2.0
"""Crops: they lie where they should in mm, volume and frame on one grid, compiled against torch, bad input."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from usreg.data.types import Frame, Volume
from usreg.errors import ConfigError, GeometryError, NoOverlapError, ShapeError
from usreg.geometry import rotation, se3
from usreg.geometry.grid import VoxelGrid
from usreg.geometry.plane import PlaneGeometry, PlaneGrid
from usreg.geometry.sector import SectorGeometry
from usreg.networks.delta import corrected, correction
from usreg.registration.learned.crop import Crop, crop_frame, crop_images, crop_volume, sampled, sampled_fast

CROP = Crop(2.0, (13, 11, 7))
TURN = rotation.from_axis_angle_deg((0.2, 1.0, -0.4), 25.0)
# sheared and not square, as after a scan conversion
GEOMETRY = PlaneGeometry(PlaneGrid(40, 50, ((0.8, 0.05), (0.0, 0.7))))


def ramp(points: Tensor) -> Tensor:
    """A linear field of mm: trilinear sampling of it is exact."""
    return points @ torch.tensor([0.5, -0.8, 1.1], dtype=points.dtype) + 60.0


def ramp_volume(dtype: torch.dtype = torch.float32, size: tuple[int, int, int] = (40, 44, 36)) -> Volume:
    grid = VoxelGrid(size, (1.5, 1.5, 2.0), (-30.0, 10.0, 20.0), tuple(TURN.flatten().tolist()))
    index = torch.stack(torch.meshgrid(*(torch.arange(float(n)) for n in size), indexing="ij"), -1).double()
    points = se3.transform_points(grid.ct_T_index, index.reshape(-1, 3)).reshape(*size, 3)
    return Volume(ramp(points).permute(2, 1, 0)[None].to(dtype), grid)


def start(volume: Volume) -> Tensor:
    """ct_T_image with the image's centre at the volume's, turned."""
    turned = se3.exp(torch.tensor([0.5, -1.0, 0.7, 0.3, -0.5, 0.4], dtype=torch.float64))
    return se3.translation(volume.grid.centre_ct) @ turned @ se3.translation(-GEOMETRY.plane.centre_mm)


def box_points(ct_T_image: Tensor, crop: Crop) -> Tensor:
    """Where the voxels (D, H, W) of a crop lie in ct, written down from its meaning."""
    x, y, z = (crop.spacing_mm * (torch.arange(float(n)).double() - (n - 1) / 2) for n in crop.size)
    dz, dy, dx = torch.meshgrid(z, y, x, indexing="ij")
    return se3.transform_points(ct_T_image, GEOMETRY.plane.centre_mm + torch.stack([dx, dy, dz], -1).reshape(-1, 3))


def test_voxels_of_the_box_lie_about_the_images_centre() -> None:
    volume = ramp_volume()
    values, mask = crop_volume(volume, start(volume), GEOMETRY, CROP)
    assert values.shape == mask.shape == (1, 1, 7, 11, 13) and values.dtype == torch.float32 and bool(mask.all())
    low, high = float(volume.data.min()), float(volume.data.max())
    expected = (ramp(box_points(start(volume), CROP)).reshape(7, 11, 13) - low) / (high - low)
    torch.testing.assert_close(values[0, 0].double(), expected, atol=1e-5, rtol=0)


def test_frame_lies_on_the_same_grid() -> None:
    """A frame cut from the volume at the start is the middle slice of the box."""
    volume = ramp_volume()
    shown = se3.transform_points(start(volume), GEOMETRY.plane.points_mm().reshape(-1, 3))
    image = ramp(shown).reshape(1, 40, 50).float()
    pixels, mask = crop_images(image, GEOMETRY, CROP)
    low, high = float(volume.data.min()), float(volume.data.max())
    values, _ = crop_volume(volume, start(volume), GEOMETRY, CROP)
    assert pixels.shape == mask.shape == (1, 1, 11, 13) and bool(mask.all())
    torch.testing.assert_close((pixels[0, 0] - low) / (high - low), values[0, 0, 3], atol=2e-5, rtol=0)


def test_a_correction_moves_the_box_as_it_says() -> None:
    """The box about the corrected pose is the box about the truth: crop and correction speak of one centre."""
    volume = ramp_volume()
    centre = GEOMETRY.plane.centre_mm
    true = start(volume)[None]
    off = se3.right_at_centre(
        true, torch.tensor([2.0, -1.0, 1.0]).double(), torch.tensor([0.1, 0.0, 0.2]).double(), centre
    )
    found = corrected(off, correction(off, true, centre), centre)
    a, b = (crop_volume(volume, pose, GEOMETRY, CROP)[0] for pose in (found, true))
    torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


def test_compiled_sampling_against_torch() -> None:
    volume = ramp_volume()
    mask = torch.ones(36, 44, 40, dtype=torch.bool)
    mask[:, :20] = False
    volume = Volume(volume.data, volume.grid, mask=mask)
    planes = start(volume) @ Crop(3.0, (40, 36, 30)).image_T_planes(GEOMETRY.plane.centre_mm)
    plane = Crop(3.0, (40, 36, 30)).plane
    (fast, known), (slow, expected) = sampled_fast(volume, planes, plane), sampled(volume, planes, plane)
    assert (known != expected).float().mean() < 1e-4 and 0.05 < known.float().mean() < 0.9
    torch.testing.assert_close(fast[known & expected], slow[known & expected], atol=1e-3, rtol=0)


def test_batches_and_one_pose() -> None:
    volume = ramp_volume()
    moved = start(volume) @ se3.translation(torch.tensor([3.0, 0.0, 1.0]).double())
    both, _ = crop_volume(volume, torch.stack([start(volume), moved]), GEOMETRY, CROP)
    assert both.shape == (2, 1, 7, 11, 13)
    assert torch.equal(both[1:], crop_volume(volume, moved, GEOMETRY, CROP)[0])


def test_gradient_by_the_pose() -> None:
    """Of a linear field it is the field's own slope."""
    volume = ramp_volume()
    twist = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    values, _ = crop_volume(volume, se3.translation(twist) @ start(volume), GEOMETRY, CROP)
    values.mean().backward()
    span = float(volume.data.max() - volume.data.min())
    assert twist.grad is not None
    torch.testing.assert_close(twist.grad, torch.tensor([0.5, -0.8, 1.1]).double() / span, atol=1e-4, rtol=0)


def test_a_volume_smaller_than_the_box_is_padded_with_zeros() -> None:
    volume = ramp_volume(size=(8, 9, 6))
    values, mask = crop_volume(volume, start(volume), GEOMETRY, Crop(2.0, (32, 30, 28)))
    assert values.shape == (1, 1, 28, 30, 32) and 0.0 < mask.float().mean() < 0.2
    assert not bool(values[~mask].any()) and bool(torch.isfinite(values).all())
    assert bool(mask[0, 0, 13:15, 14:16, 15:17].all())


def test_nan_and_what_the_mask_hides_are_zeros() -> None:
    volume = ramp_volume()
    volume.data[0, 18, 22, 20] = math.nan
    values, mask = crop_volume(volume, start(volume), GEOMETRY, CROP)
    assert bool(torch.isfinite(values).all()) and 0 < int((~mask).sum()) <= 8 and values[~mask].abs().max() == 0
    hidden = Volume(volume.data, volume.grid, mask=torch.zeros(36, 44, 40, dtype=torch.bool))
    with pytest.raises(NoOverlapError):
        crop_volume(hidden, start(volume), GEOMETRY, CROP)


def test_intensities_of_bytes_keep_their_scale() -> None:
    volume = ramp_volume(torch.uint8)
    values, _ = crop_volume(volume, start(volume), GEOMETRY, CROP)
    expected = ramp(box_points(start(volume), CROP)).reshape(7, 11, 13) / 255.0
    torch.testing.assert_close(values[0, 0].double(), expected, atol=1.0 / 255, rtol=0)


def test_a_volume_of_one_value_stays_finite() -> None:
    volume = ramp_volume()
    flat = Volume(torch.full_like(volume.data, 7.0), volume.grid)
    values, _ = crop_volume(flat, start(volume), GEOMETRY, CROP)
    assert bool(torch.isfinite(values).all())


def test_far_from_the_volume_there_is_no_overlap() -> None:
    volume = ramp_volume()
    far = se3.translation(torch.tensor([500.0, 0.0, 0.0]).double()) @ start(volume)
    for pose in (far, torch.stack([start(volume), far])):
        with pytest.raises(NoOverlapError, match="no known voxel"):
            crop_volume(volume, pose, GEOMETRY, CROP)


def test_bad_poses_and_volumes_are_refused() -> None:
    volume = ramp_volume()
    with pytest.raises(GeometryError, match="NaN"):
        crop_volume(volume, start(volume) * math.nan, GEOMETRY, CROP)
    with pytest.raises(ShapeError, match="ct_T_image"):
        crop_volume(volume, torch.eye(3), GEOMETRY, CROP)
    two = Volume(volume.data.repeat(2, 1, 1, 1), volume.grid)
    with pytest.raises(ShapeError, match="channels"):
        crop_volume(two, start(volume), GEOMETRY, CROP)


def fan() -> SectorGeometry:
    plane = PlaneGrid(120, 150, ((0.5, 0.0), (0.0, 0.5)))
    half = math.radians(30)
    return SectorGeometry("convex", plane, (37.25, -25.0), (27.0, 80.0), (-half, half), (0, 0, 74.5, 59.5), 53.0)


def test_a_frame_is_smoothed_inside_its_sector_alone() -> None:
    """What lies outside the sector does not bleed in: a flat sector stays flat up to its edge."""
    geometry = fan()
    image = torch.where(geometry.mask(), 200, 13).to(torch.uint8)
    pixels, mask = crop_frame(Frame(image, geometry, 0.0), Crop(2.0, (48, 40, 8)))
    assert pixels.shape == mask.shape == (1, 1, 40, 48)
    inside = pixels[mask]
    assert inside.min() > 199 / 255 and inside.max() < 201 / 255 and not bool(pixels[~mask].any())
    share = geometry.mask().float().mean() * (75 * 60) / (96 * 80)
    assert float(mask.float().mean()) == pytest.approx(float(share), rel=0.06)


def test_a_frame_larger_than_the_crop_is_cut_about_its_centre() -> None:
    row, column = torch.meshgrid(torch.arange(41.0), torch.arange(61.0), indexing="ij")
    geometry = PlaneGeometry(PlaneGrid(41, 61, ((2.0, 0.0), (0.0, 2.0))))
    pixels, mask = crop_images((column + 100 * row)[None], geometry, Crop(2.0, (5, 3, 1)))
    assert bool(mask.all())
    torch.testing.assert_close(pixels[0, 0], (column + 100 * row)[19:22, 28:33])


def test_images_of_another_size_are_refused() -> None:
    for wrong in (torch.zeros(1, 40, 51), torch.zeros(40, 50), torch.zeros(1, 40, 50, dtype=torch.uint8)):
        with pytest.raises(ShapeError, match="images must be"):
            crop_images(wrong, GEOMETRY, CROP)


@pytest.mark.parametrize(
    "wrong", [{"spacing_mm": 0.0}, {"spacing_mm": math.nan}, {"size": (0, 4, 4)}, {"size": (4, 4, 5000)}]
)
def test_configuration_is_checked(wrong: dict) -> None:
    with pytest.raises(ConfigError):
        Crop(**wrong)
