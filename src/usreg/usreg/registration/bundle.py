# SPDX-License-Identifier: Apache-2.0
"""One pose of the volume, one correction of the probe's calibration and the errors of the measured poses, together.

ct_T_image of frame k is ct_T_ref Exp(e_k) ref_T_image_k K: the pose that is sought, the error e_k of the tracking
(left, reference axes, covariance S_k as the arm states it), and the correction K of the calibration (right, image axes,
about the image's centre, the same for all frames). Minimised is

    sum_k n_k / 2 log(1 - s_k) + |log K|^2 / sigma^2 / 2 + sum_k e_k' S_k^-1 e_k / 2,

the likelihood of residuals whose variance is not known, 1 - s being the share of the frame that is left unexplained.
Gauss-Newton with damping in (x, c), 12 unknowns; each e_k is eliminated by its own 6x6 block (Schur complement; Triggs
et al., "Bundle adjustment", 2000). Without an error of the tracking e_k is zero; with a stiff prior K is the identity.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..config import check_range
from ..errors import NoOverlapError, ShapeError
from ..geometry import se3
from .keyframes import LEAST_REST, independent
from .levenberg import motion_mm, move
from .normal import Normal, View

Measure = Callable[[View, Tensor], Normal]  # one frame at poses ct_T_ref (1, 4, 4)


@dataclass(frozen=True)
class BundleConfig:
    """What is known of the calibration, and when to stop.

    Args:
        calibration_mm, calibration_deg: standard deviations of the calibration's error; 0: it is taken as exact.
        iterations: budget. tolerance_mm: a step that moves no image by more ends it.
        damping: first factor on the diagonal; divided by `ease` after a good step, times `brake` after a bad one.
        min_overlap: a step that leaves a frame less than this (or than it had, if less) is not taken.
    """

    calibration_mm: float = 0.5
    calibration_deg: float = 0.5
    iterations: int = 25
    tolerance_mm: float = 0.005
    damping: float = 1e-3
    ease: float = 10.0
    brake: float = 10.0
    damping_limit: float = 1e6
    min_overlap: float = 0.4

    def __post_init__(self) -> None:
        check_range("calibration_mm", self.calibration_mm, 0.0, 10.0)
        check_range("calibration_deg", self.calibration_deg, 0.0, 10.0)
        check_range("iterations", self.iterations, 1, 10_000)
        check_range("tolerance_mm", self.tolerance_mm, 0.0, 100.0)
        check_range("damping", self.damping, 1e-12, self.damping_limit)
        check_range("ease", self.ease, 1.001, 1e3)
        check_range("brake", self.brake, 1.001, 1e3)
        check_range("min_overlap", self.min_overlap, 0.0, 1.0)

    @property
    def calibration(self) -> Tensor:
        """Standard deviations (6,), mm and rad."""
        return torch.tensor([self.calibration_mm] * 3 + [math.radians(self.calibration_deg)] * 3, dtype=torch.float64)


@dataclass(frozen=True, eq=False)
class Bundle:
    """A joint solution.

    Args:
        ct_T_ref: (4, 4). correction: (4, 4) of the calibration, image axes about the image's centre.
        errors: (F, 6) of the measured poses, reference axes.
        scores: (F,). objective: what was minimised.
    """

    ct_T_ref: Tensor
    correction: Tensor
    errors: Tensor
    scores: Tensor
    objective: float


@dataclass(frozen=True, eq=False)
class _Linear:
    """The frames at one solution: objective, overlaps (F,), curvature K and slope b of each, in reference axes."""

    bundle: Bundle
    overlap: Tensor
    curvature: Tensor
    slope: Tensor


def adjust(
    measure: Measure,
    views: list[View],
    sigma_mm: float,
    ct_T_ref: Tensor,
    covariances: Tensor,
    radius_mm: float,
    config: BundleConfig,
) -> Bundle:
    """Solve for pose, calibration and tracking errors.

    Args:
        measure: normal equations of a frame. views: one for each frame. sigma_mm: smoothing of their level.
        ct_T_ref: (4, 4) to begin with: the frames registered as they are.
        covariances: (F, 6, 6) of the frames' poses in reference axes, see `keyframes.pose_covariances`.
        radius_mm: of the images about the reference frame's origin.

    Raises:
        ShapeError: no frame, or covariances of another number of frames.
        NoOverlapError: a frame sees nothing of the volume at the start.
    """
    if not views or covariances.shape != (len(views), 6, 6):
        raise ShapeError(f"{len(views)} frames need as many covariances (F, 6, 6), got {tuple(covariances.shape)}")
    eye = torch.eye(4, dtype=torch.float64)
    begin = Bundle(ct_T_ref, eye, torch.zeros(len(views), 6, dtype=torch.float64), torch.zeros(len(views)), math.inf)
    solver = _Solver(measure, views, sigma_mm, covariances, config)
    current, damping = solver.at(begin), config.damping
    floor = current.overlap.clamp_max(config.min_overlap)
    if bool((current.overlap <= 0).any()):
        raise NoOverlapError("a frame of the sweep does not cut the volume: leave it out")
    for _ in range(config.iterations):
        step = solver.step(current, damping)
        trial = solver.at(solver.moved(current, step))
        if trial.bundle.objective < current.bundle.objective and bool((trial.overlap >= floor).all()):
            current, damping = trial, damping / config.ease
        else:
            damping *= config.brake
        motion = motion_mm(step[None, :6], radius_mm) + motion_mm(step[None, 6:], radius_mm)
        if float(motion) < config.tolerance_mm or damping > config.damping_limit:
            break
    return current.bundle


class _Solver:
    """The frames and their priors; holds no state between calls."""

    def __init__(
        self, measure: Measure, views: list[View], sigma_mm: float, covariances: Tensor, config: BundleConfig
    ) -> None:
        self.measure, self.views, self.covariances, self.sigmas = measure, views, covariances, config.calibration
        self.counts = torch.tensor(
            [len(v.level.value) * independent(v.level.spacing_mm, sigma_mm) for v in views], dtype=torch.float64
        )

    def placed(self, bundle: Bundle) -> list[View]:
        """The frames where the solution puts them."""
        errors = se3.exp(bundle.errors)
        return [
            replace(view, ref_T_centre=errors[k] @ view.ref_T_centre @ bundle.correction)
            for k, view in enumerate(self.views)
        ]

    def at(self, bundle: Bundle) -> _Linear:
        """Scores, slopes and the objective of a solution."""
        normals = [self.measure(view, bundle.ct_T_ref[None]) for view in self.placed(bundle)]
        scores, overlap = (torch.cat([getattr(n, name) for n in normals]) for name in ("score", "overlap"))
        rest = (1.0 - scores).clamp_min(0.0) + LEAST_REST
        weight = self.counts / (2.0 * rest)
        curvature = torch.cat([n.matrix for n in normals]) * weight[:, None, None]
        slope = torch.cat([n.gradient for n in normals]) * weight[:, None]
        objective = float((0.5 * self.counts * rest.log()).sum()) + self._prior(bundle)
        return _Linear(replace(bundle, scores=scores, objective=objective), overlap, curvature, slope)

    def _prior(self, bundle: Bundle) -> float:
        free = self.sigmas > 0
        calibration = (se3.log(bundle.correction)[free] / self.sigmas[free]).square().sum()
        inverse = torch.linalg.pinv(self.covariances, hermitian=True)
        return 0.5 * float(calibration + torch.einsum("fi,fij,fj->", bundle.errors, inverse, bundle.errors))

    def step(self, at: _Linear, damping: float) -> Tensor:
        """Twists of pose (reference axes) and calibration (image axes), (12,), the tracking's errors eliminated."""
        jacobian = self._jacobians(at.bundle)
        curvature, slope = self._reduced(at)
        h = (jacobian.transpose(-1, -2) @ curvature @ jacobian).sum(0)
        g = (jacobian.transpose(-1, -2) @ slope[..., None]).sum(0)[:, 0]
        free = self.sigmas > 0
        information = torch.where(free, self.sigmas.clamp_min(1e-12) ** -2, torch.zeros_like(self.sigmas))
        h[6:, 6:] += torch.diag(information)
        g[6:] -= information * se3.log(at.bundle.correction)
        keep = torch.cat([torch.ones(6, dtype=torch.bool), free])
        diagonal = h.diagonal().clamp_min(1e-9 * float(h.diagonal().max()) + 1e-30)
        found = torch.zeros(12, dtype=torch.float64)
        damped = (h + damping * torch.diag(diagonal))[keep][:, keep]
        found[keep] = torch.linalg.solve(damped, g[keep])
        return found

    def _jacobians(self, bundle: Bundle) -> Tensor:
        """(F, 6, 12): how the twist of each frame, in reference axes, follows the pose and the calibration."""
        eye = torch.eye(6, dtype=torch.float64)
        return torch.stack([torch.cat([eye, se3.adjoint(v.ref_T_centre)], 1) for v in self.placed(bundle)])

    def _reduced(self, at: _Linear) -> tuple[Tensor, Tensor]:
        """Curvature and slope of each frame when its own error follows: K - K (K + S^-1)^-1 K and so on."""
        eye, s = torch.eye(6, dtype=torch.float64), self.covariances
        gain = torch.linalg.solve(eye + s @ at.curvature, s)  # (K + S^-1)^-1
        give = eye - at.curvature @ gain
        pull = at.slope + (at.curvature @ at.bundle.errors[..., None])[..., 0]  # slope as if the errors were zero
        return give @ at.curvature, (give @ pull[..., None])[..., 0]

    def moved(self, at: _Linear, step: Tensor) -> Bundle:
        """The solution after a step; the tracking's errors take their best values for it."""
        eye, s = torch.eye(6, dtype=torch.float64), self.covariances
        motion = (self._jacobians(at.bundle) @ step[:, None])[..., 0]
        pull = at.slope + (at.curvature @ (at.bundle.errors - motion)[..., None])[..., 0]
        errors = (torch.linalg.solve(eye + s @ at.curvature, s) @ pull[..., None])[..., 0]
        correction = at.bundle.correction @ se3.exp(step[6:])
        return replace(
            at.bundle, ct_T_ref=move(at.bundle.ct_T_ref[None], step[None, :6])[0], correction=correction, errors=errors
        )
