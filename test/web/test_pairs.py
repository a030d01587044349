# SPDX-License-Identifier: Apache-2.0
"""A start from landmark pairs: the pose, how sure it is, and what is refused."""

import pytest
import torch

from usreg.errors import GeometryError, ShapeError
from usreg.geometry import se3
from usreg.web.pairs import CLICK_MM, initial_pose

TRUTH = se3.exp(torch.tensor([120.0, -40.0, 300.0, 0.8, -1.3, 2.0], dtype=torch.float64))
POINTS = torch.tensor([[0.0, 0.0, 0.0], [80.0, 5.0, 0.0], [10.0, 60.0, 20.0], [30.0, 30.0, -50.0]]).double()
CENTRE = torch.tensor([25.0, 35.0, 10.0], dtype=torch.float64)


@pytest.mark.parametrize("count", [3, 4])
def test_pairs_without_error_give_the_pose(count):
    ct = POINTS[:count]
    start = initial_pose(se3.transform_points(TRUTH, ct), ct, CENTRE)
    assert torch.allclose(start.world_T_ct, TRUTH, atol=1e-9)
    assert start.residual_mm == pytest.approx(0, abs=1e-9)
    assert torch.allclose(start.pivot, se3.transform_points(TRUTH, CENTRE[None])[0])
    assert torch.linalg.eigvalsh(start.covariance).min() > 0


def test_without_a_pivot_the_landmarks_middle_is_taken():
    start = initial_pose(se3.transform_points(TRUTH, POINTS), POINTS)
    assert torch.allclose(start.pivot, se3.transform_points(TRUTH, POINTS.mean(0)[None])[0])
    # about the middle of N points a shift is known N times better than one of them
    assert torch.allclose(start.covariance[:3, :3].diagonal(), torch.full((3,), CLICK_MM**2 / 4).double(), rtol=1e-9)
    assert start.covariance[:3, 3:].abs().max() < 1e-9


def test_the_covariance_is_what_pointing_with_2_mm_does():
    """Squared error per degree of freedom of many starts from pairs that are off by CLICK_MM."""
    generator = torch.Generator().manual_seed(3)
    squares = []
    for _ in range(400):
        noise = CLICK_MM * torch.randn(4, 3, dtype=torch.float64, generator=generator)
        start = initial_pose(se3.transform_points(TRUTH, POINTS) + noise, POINTS, CENTRE)
        off = se3.error_at_pivot(start.world_T_ct, TRUTH, start.pivot)
        squares.append(float(off @ torch.linalg.solve(start.covariance, off)) / 6)
    # the residual is counted beside the floor, so that the statement is careful: about half
    assert 0.35 < sum(squares) / len(squares) < 1.0


def test_what_the_fit_leaves_widens_the_covariance():
    world = se3.transform_points(TRUTH, POINTS)
    narrow = initial_pose(world, POINTS, CENTRE)
    world[0] += torch.tensor([9.0, -6.0, 4.0], dtype=torch.float64)
    wide = initial_pose(world, POINTS, CENTRE)
    assert wide.residual_mm > 2 and (wide.covariance.diagonal() > 1.5 * narrow.covariance.diagonal()).all()


def test_pairs_that_do_not_fit_are_refused():
    world = se3.transform_points(TRUTH, POINTS)
    with pytest.raises(GeometryError, match=r"after the best fit.*place the worst one again"):
        initial_pose(world[[1, 2, 0, 3]], POINTS)
    with pytest.raises(GeometryError, match="after the best fit"):
        initial_pose(world * torch.tensor([1.0, 1.0, -1.0]).double(), POINTS)  # a mirrored volume


def test_points_that_determine_no_pose_are_refused():
    line = torch.tensor([[0.0, 0.0, 0.0], [30.0, 30.0, 0.0], [62.0, 58.0, 1.0]], dtype=torch.float64)
    with pytest.raises(GeometryError, match="image lie on a line"):
        initial_pose(se3.transform_points(TRUTH, line), line)
    with pytest.raises(GeometryError, match="volume lie on a line"):
        initial_pose(POINTS[:3], line)
    near = POINTS[:3].clone()
    near[1] = near[0] + 3.0
    with pytest.raises(GeometryError, match=r"5\.2 mm apart"):
        initial_pose(se3.transform_points(TRUTH, near), near)
    with pytest.raises(GeometryError, match="three or more"):
        initial_pose(POINTS[:2], POINTS[:2])
    with pytest.raises(GeometryError, match="not finite"):
        initial_pose(POINTS, POINTS * torch.nan)
    with pytest.raises(ShapeError, match="twice"):
        initial_pose(POINTS, POINTS[:3])
