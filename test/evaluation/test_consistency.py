# SPDX-License-Identifier: Apache-2.0
"""Normalised errors: analytic cases and drawn errors."""

import math

import pytest
import torch

from usreg.errors import GeometryError, ShapeError
from usreg.evaluation import covariance_consistency, expected_error_mm, normalised_error
from usreg.geometry import rotation, se3


def _covariance() -> torch.Tensor:
    """Strongly correlated, mm and rad of very different size."""
    generator = torch.Generator().manual_seed(5)
    a = torch.randn(6, 6, generator=generator, dtype=torch.float64)
    scale = torch.diag(torch.tensor([1.0, 2.0, 0.5, 0.01, 0.02, 0.005], dtype=torch.float64))
    return scale @ (a @ a.T + 0.1 * torch.eye(6, dtype=torch.float64)) @ scale


def test_nees_of_a_diagonal_covariance():
    """(2 / 1)^2 + (0.03 / 0.01)^2 = 13."""
    errors = torch.tensor([[2.0, 0, 0, 0, 0, 0.03]], dtype=torch.float64)
    covariance = torch.diag(torch.tensor([1.0, 1, 1, 1e-4, 1e-4, 1e-4], dtype=torch.float64))[None]
    found = covariance_consistency(errors, covariance)
    assert found.count == 1
    assert found.nees_per_dof == pytest.approx(13 / 6)
    assert found.coverage_95 == 0.0  # 13 > 12.59, the 95 % point of chi-square with 6 degrees


@pytest.mark.parametrize(("length", "inside"), [(12.5, 1.0), (12.7, 0.0)])
def test_the_border_of_the_ellipsoid(length, inside):
    errors = torch.zeros(1, 6, dtype=torch.float64)
    errors[0, 1] = math.sqrt(length)
    assert covariance_consistency(errors, torch.eye(6, dtype=torch.float64)[None]).coverage_95 == inside


def test_errors_drawn_from_their_covariance_are_consistent():
    covariance = _covariance()
    generator = torch.Generator().manual_seed(11)
    errors = torch.randn(4000, 6, generator=generator, dtype=torch.float64) @ torch.linalg.cholesky(covariance).T
    found = covariance_consistency(errors, covariance.expand(4000, 6, 6))
    assert found.nees_per_dof == pytest.approx(1, abs=0.05)
    assert found.coverage_95 == pytest.approx(0.95, abs=0.015)
    overconfident = covariance_consistency(errors, (covariance / 4).expand(4000, 6, 6))
    assert overconfident.nees_per_dof == pytest.approx(4, abs=0.2) and overconfident.coverage_95 < 0.5


def test_the_convention_is_that_of_estimates():
    """truth = left_at_pivot(estimate, twist, pivot): the twist itself is what is normalised."""
    covariance = _covariance()
    twist = torch.tensor([0.5, -1, 0.2, 0.01, 0.02, -0.004], dtype=torch.float64)
    pivot = torch.tensor([30.0, -200, 90], dtype=torch.float64)
    estimate = se3.exp(torch.tensor([100.0, 20, -50, 0.3, 1.0, -0.2], dtype=torch.float64))
    expected = twist @ torch.linalg.solve(covariance, twist)
    found = normalised_error(estimate, se3.left_at_pivot(estimate, twist, pivot), covariance, pivot)
    assert found == pytest.approx(expected.item(), rel=1e-6)


def test_expected_error_against_drawn_displacements():
    covariance, pivot = 1e-4 * _covariance(), torch.tensor([5.0, 6, 7], dtype=torch.float64)
    points = torch.tensor([[0.0, 0, 0], [80, 10, -20], [5, 90, 40]], dtype=torch.float64)
    generator = torch.Generator().manual_seed(2)
    twists = torch.randn(20000, 6, generator=generator, dtype=torch.float64) @ torch.linalg.cholesky(covariance).T
    moved = se3.transform_points(se3.left_at_pivot(se3.identity(), twists, pivot), points) - points
    drawn = (moved**2).sum(-1).mean().sqrt().item()
    assert expected_error_mm(covariance, pivot, points) == pytest.approx(drawn, rel=0.02)


def test_expected_error_of_a_pure_rotation():
    """0.01 rad about z at 100 mm: 1 mm."""
    covariance = torch.zeros(6, 6, dtype=torch.float64)
    covariance[5, 5] = 1e-4
    zero = torch.zeros(3, dtype=torch.float64)
    assert expected_error_mm(covariance, zero, torch.tensor([[100.0, 0, 3]], dtype=torch.float64)) == pytest.approx(1)
    assert rotation.hat(zero).abs().max() == 0


def test_singular_covariances_are_not_a_pass():
    zero = torch.zeros(6, 6, dtype=torch.float64)
    assert math.isnan(normalised_error(se3.identity(), se3.identity(), zero, zero[0, :3]))
    with pytest.raises(GeometryError, match="1 of 2 covariances"):
        covariance_consistency(
            torch.zeros(2, 6, dtype=torch.float64), torch.stack([zero, torch.eye(6, dtype=torch.float64)])
        )


@pytest.mark.parametrize("shapes", [((0, 6), (0, 6, 6)), ((3, 6), (2, 6, 6)), ((3, 6), (3, 5, 5)), ((6,), (6, 6))])
def test_shapes(shapes):
    with pytest.raises(ShapeError, match="are needed"):
        covariance_consistency(*(torch.zeros(s, dtype=torch.float64) for s in shapes))
