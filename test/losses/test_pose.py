# SPDX-License-Identifier: Apache-2.0
"""Losses of poses and slices: values, laws, finite gradients also at no error and at half a turn, errors."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from usreg.data.types import Volume
from usreg.errors import ConfigError, ShapeError
from usreg.geometry import rotation, se3
from usreg.geometry.grid import VoxelGrid
from usreg.geometry.plane import PlaneGrid
from usreg.losses.pose import SMOOTH_RAD, PoseLossConfig, geodesic, image_loss, pose_losses, squared_distance
from usreg.rendering import slice_volume

PLANE = PlaneGrid(20, 24, ((1.0, 0.0), (0.0, 1.0)))


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def volume() -> Volume:
    smooth = torch.nn.functional.avg_pool3d(draw(1, 1, 34, 44, 46)[0], 5, 1).float()
    return Volume(smooth, VoxelGrid((42, 40, 30), (1.0, 1.0, 1.0)))


def centred(shift: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Tensor:
    """ct_T_image (1, 4, 4) of the plane in the middle of the volume, moved, off the voxels."""
    centre = volume().grid.centre_ct - PLANE.centre_mm + torch.tensor(shift, dtype=torch.float64)
    return (se3.translation(centre) @ se3.exp(torch.tensor([0.1, 0.2, 0.3, 0.02, 0.03, 0.01]).double()))[None]


def test_squared_distance() -> None:
    found, true = torch.tensor([[1.0, 2.0, 2.0], [0.0, 0.0, 0.0]]), torch.zeros(2, 3)
    assert squared_distance(found, true).tolist() == [9.0, 0.0]


@pytest.mark.parametrize("degrees", [0.0, 0.01, 1.0, 10.0, 90.0, 179.0, 180.0])
def test_geodesic_is_the_angle(degrees: float) -> None:
    base = rotation.exp(draw(1, 3))
    turned = base @ rotation.from_axis_angle_deg((0.3, -0.5, 0.8), degrees)
    assert float(geodesic(turned, base)) == pytest.approx(math.radians(degrees), abs=2 * SMOOTH_RAD)


def test_geodesic_is_symmetric_and_does_not_depend_on_the_frame() -> None:
    a, b, c = (rotation.exp(draw(5, 3, seed=s)) for s in range(3))
    torch.testing.assert_close(geodesic(a, b), geodesic(b, a))
    torch.testing.assert_close(geodesic(c @ a, c @ b), geodesic(a, b))
    torch.testing.assert_close(geodesic(a, b), rotation.geodesic_angle(a, b), atol=2 * SMOOTH_RAD, rtol=0)


@pytest.mark.parametrize("degrees", [0.0, 180.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradient_of_the_angle_is_finite_at_its_ends(degrees: float, dtype: torch.dtype) -> None:
    base = rotation.exp(draw(1, 3))
    turned = (base @ rotation.from_axis_angle_deg((0.3, -0.5, 0.8), degrees)).to(dtype).requires_grad_()
    geodesic(turned, base.to(dtype)).sum().backward()
    assert turned.grad is not None and bool(torch.isfinite(turned.grad).all()) and float(turned.grad.norm()) < 3.0


def test_gradient_of_the_angle() -> None:
    base = rotation.exp(draw(2, 3))
    assert torch.autograd.gradcheck(lambda w: geodesic(base @ rotation.exp(w), base), 0.3 * draw(2, 3).requires_grad_())


def test_pose_losses_are_means() -> None:
    found = torch.tensor([[3.0, 0.0, 0.0], [0.0, 1.0, 0.0]]), rotation.from_axis_angle_deg((1.0, 0.0, 0.0), 2.0)
    losses = pose_losses((found[0], found[1].expand(2, 3, 3)), (torch.zeros(2, 3), torch.eye(3).expand(2, 3, 3)))
    assert float(losses["translation"]) == pytest.approx(5.0)
    assert float(losses["rotation"]) == pytest.approx(math.radians(2.0), abs=2 * SMOOTH_RAD)


def test_weights_of_the_paper() -> None:
    weights = PoseLossConfig().weights
    assert math.fsum(weights.values()) == pytest.approx(1.0)
    assert weights["image"] / weights["translation"] == pytest.approx(20.0)
    assert weights["rotation"] / weights["translation"] == pytest.approx(10.0)


def test_image_loss_is_least_at_the_truth() -> None:
    body, truth = volume(), centred()
    image, mask = slice_volume(body, truth, PLANE)
    values = [
        float(image_loss(body, centred(shift), PLANE, image, mask, 9))
        for shift in ((0.0, 0.0, 0.0), (1.5, 0.0, 0.0), (0.0, 0.0, 3.0))
    ]
    assert values[0] == pytest.approx(0.0, abs=1e-5) and min(values[1:]) > 0.05 and max(values) < 2.0


def test_image_loss_sees_only_where_both_are_known() -> None:
    """What lies outside the sector may hold anything, NaN too."""
    body, truth = volume(), centred()
    image, mask = slice_volume(body, truth, PLANE)
    sector = mask.clone()
    sector[..., :8] = False
    spoiled = torch.where(sector, image, torch.nan)
    assert float(image_loss(body, truth, PLANE, spoiled, sector, 9)) == pytest.approx(0.0, abs=1e-5)


def test_gradient_of_the_image_loss() -> None:
    body = volume()
    image, mask = slice_volume(body, centred(), PLANE)
    start = centred((0.7, -0.4, 0.6))

    def loss(twist: Tensor) -> Tensor:
        return image_loss(body, start @ se3.exp(twist), PLANE, image, mask, 9)

    twist = torch.zeros(1, 6, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(loss(twist).sum(), twist)
    for k in (0, 1, 2, 5):
        step = torch.zeros(1, 6, dtype=torch.float64)
        step[0, k] = 1e-4
        expected = float(loss(step) - loss(-step)) / 2e-4
        assert float(slope[0, k]) == pytest.approx(expected, rel=0.05, abs=2e-3)


def test_an_image_that_misses_the_volume_has_no_gradient() -> None:
    body, truth = volume(), centred()
    image, mask = slice_volume(body, truth, PLANE)
    poses = torch.cat([truth, centred((500.0, 0.0, 0.0))]).requires_grad_()
    both = image_loss(body, poses, PLANE, image.repeat(2, 1, 1, 1), mask.repeat(2, 1, 1, 1), 9)
    assert both[1] == 1.0 and both[0] < 1e-5
    (gradient,) = torch.autograd.grad(both.sum(), poses)
    assert bool(torch.isfinite(gradient).all()) and not bool(gradient[1].any())
    alone = image_loss(body, poses[1:], PLANE, image, mask, 9)
    assert alone.tolist() == [1.0]


def test_shapes_are_checked() -> None:
    with pytest.raises(ShapeError, match="translations"):
        squared_distance(torch.zeros(2, 3), torch.zeros(1, 3))
    with pytest.raises(ShapeError, match="rotations"):
        geodesic(torch.eye(4), torch.eye(4))


@pytest.mark.parametrize("wrong", [{"window": 50}, {"window": 1}, {"image": -1.0}, {"rotation": math.nan}])
def test_configuration_is_checked(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        PoseLossConfig(**wrong)  # type: ignore[arg-type]


def test_weights_need_a_sum() -> None:
    with pytest.raises(ConfigError, match="sum above zero"):
        _ = PoseLossConfig(0.0, 0.0, 0.0).weights
