# SPDX-License-Identifier: Apache-2.0
"""Whether stated covariances fit the errors that were made."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from scipy.stats import chi2
from torch import Tensor

from ..errors import GeometryError, ShapeError
from ..geometry import rotation, se3


@dataclass(frozen=True)
class Consistency:
    """Normalised errors of many estimates (Bar-Shalom et al., Estimation with Applications, 2001, section 5.4).

    Args:
        count: estimates that were compared.
        nees_per_dof: mean normalised squared error a degree of freedom; 1 is ideal, above 1 is overconfident.
        coverage_95: share whose truth lies inside the 95 % ellipsoid.
    """

    count: int
    nees_per_dof: float
    coverage_95: float


def normalised_error(estimate: Tensor, truth: Tensor, covariance: Tensor, pivot: Tensor) -> float:
    """Squared error twist in units of its covariance (NEES), 6 degrees of freedom; NaN for a singular covariance.

    Args:
        estimate, truth: world_T_ct, (4, 4).
        covariance: (6, 6) of (v, w), mm and rad, world axes, left perturbation about the pivot.
        pivot: (3,) mm in world.
    """
    return _squared(se3.error_at_pivot(estimate, truth, pivot), covariance)


def covariance_consistency(errors: Tensor, covariances: Tensor) -> Consistency:
    """Compare error twists with their covariances.

    Args:
        errors: (N, k) float64, as `se3.error_at_pivot` gives them.
        covariances: (N, k, k), same axes and pivot.

    Raises:
        ShapeError: the shapes do not fit or there is no estimate. GeometryError: a covariance is not positive definite.
    """
    if errors.dim() != 2 or not len(errors) or covariances.shape != (*errors.shape, errors.shape[1]):
        raise ShapeError(
            f"errors (N, k) and covariances (N, k, k) are needed, "
            f"got {tuple(errors.shape)} and {tuple(covariances.shape)}"
        )
    squared = [_squared(e, c) for e, c in zip(errors, covariances, strict=True)]
    if any(map(math.isnan, squared)):
        raise GeometryError(f"{sum(map(math.isnan, squared))} of {len(squared)} covariances are not positive definite")
    return from_squared(squared, errors.shape[1])


def from_squared(squared: list[float], dof: int = 6) -> Consistency:
    """The same from normalised squared errors; NaN is left out, all NaN gives NaN."""
    known = [s for s in squared if math.isfinite(s)]
    if not known:
        return Consistency(0, math.nan, math.nan)
    limit = float(chi2.ppf(0.95, dof))
    return Consistency(len(known), sum(known) / len(known) / dof, sum(s <= limit for s in known) / len(known))


def expected_error_mm(covariance: Tensor, pivot: Tensor, points: Tensor) -> float:
    """Root mean square displacement of points that a covariance predicts: what the TRE should be about.

    Args:
        covariance: (6, 6) of (v, w), mm and rad, about `pivot`.
        pivot: (3,). points: (N, 3). Both mm, world.
    """
    jacobian = torch.cat(
        [torch.eye(3, dtype=torch.float64).expand(len(points), 3, 3), -rotation.hat(points - pivot)], -1
    )
    variance = (jacobian @ covariance @ jacobian.transpose(-1, -2)).diagonal(dim1=-2, dim2=-1).sum(-1)
    return math.sqrt(max(0.0, variance.mean().item()))


def _squared(error: Tensor, covariance: Tensor) -> float:
    # scale to unit diagonal first: mm and rad differ by orders of magnitude
    scale = covariance.diagonal().clamp_min(0).sqrt()
    if bool((scale <= 0).any()) or not bool(torch.isfinite(error).all() & torch.isfinite(covariance).all()):
        return math.nan
    factor, info = torch.linalg.cholesky_ex(covariance / scale[:, None] / scale[None])
    if int(info) != 0:
        return math.nan
    white = torch.linalg.solve_triangular(factor, (error / scale)[:, None], upper=False)
    return (white**2).sum().item()
