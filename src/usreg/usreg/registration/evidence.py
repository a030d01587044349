# SPDX-License-Identifier: Apache-2.0
"""What a refinement can say of its own result beyond score and covariance, by name: the material of `confidence`.

A wrong optimum betrays itself in how it was reached (far from the start), in what lies around it (nothing falls off,
other optima as good, another place at another scale).
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor

from ..config import check_range
from ..data.types import Estimate
from ..geometry import rotation, se3
from .covariance import point_sigma_mm
from .levenberg import LevenbergConfig, move
from .normal import View
from .scene import Scene
from .spread import halton

AROUND = ("drop", "mean_drop", "standout")
RESTARTS = ("level_mm", "restart_mm", "restart_gain")


@dataclass(frozen=True)
class EvidenceConfig:
    """How closely an optimum is looked at.

    Args:
        level: at which the similarity is asked, 0 = the coarsest. views: of a sweep, so many frames at most.
        probe_mm: how far the images' points are moved to see the score fall off.
        around: poses about the optimum whose scores it is compared with, within `around_mm` of image motion per axis.
        restarts: climbs from all over the prior of the start, or, where there is none, within `restart_mm` of image
            motion per axis of the optimum.
        all: whether everything is looked at, or only what the coefficients of `confidence` ask for (to fit them: all).
        iterations, tolerance_mm: of each of these climbs.
        believed: samples' worth of information in a unit of the score; sets what the image says against the prior.
    """

    level: int = 1
    views: int = 4
    probe_mm: float = 4.0
    around: int = 24
    around_mm: float = 12.0
    restarts: int = 4
    restart_mm: float = 6.0
    iterations: int = 12
    tolerance_mm: float = 0.3
    believed: float = 100.0
    all: bool = False

    def __post_init__(self) -> None:
        for name in ("probe_mm", "around_mm", "restart_mm"):
            check_range(name, getattr(self, name), 0.1, 100.0)
        check_range("level", self.level, 0, 100)
        check_range("views", self.views, 1, 10_000)
        check_range("around", self.around, 2, 10_000)
        check_range("restarts", self.restarts, 0, 1000)
        check_range("iterations", self.iterations, 2, 1000)
        check_range("tolerance_mm", self.tolerance_mm, 0.0, 10.0)
        check_range("believed", self.believed, 1e-6, 1e9)


def look_closer(
    scene: Scene, ct_T_ref: Tensor, start: Estimate, config: EvidenceConfig, asked: Collection[str] = ()
) -> dict[str, float]:
    """Evidence about an optimum.

    Args:
        ct_T_ref: the optimum (4, 4). start: where the search began, with its covariance (zeros: none is stated).
        asked: names; what has not been asked for and costs evaluations is left out, see `EvidenceConfig.all`.

    Returns:
        frames: how many. moved_mm: largest distance by which a point of the images moved from the start.
        prior_mm, moved_sigmas, posterior_mm: with a prior alone: standard deviation of the worst point under it; how
            far the start was off in its units; standard deviation of the worst point under prior and image together.
        drop: how far the score falls at `probe_mm` in the direction, out of twelve, in which it falls least; negative
            where it rises. mean_drop: on average over them.
        standout: score minus the mean of those around, in their standard deviations.
        level_mm: distance to the optimum at `level`, from here.
        restart_mm: mean distance between the optimum at `level` and where restarts end. restart_gain: best score of
            theirs minus that of the optimum.
    """
    look = _Look(scene, min(config.level, len(scene.volumes) - 1), config)
    begin = se3.inverse(start.world_T_ct) @ scene.world_T_ref
    found = {"frames": float(len(scene.frames)), "moved_mm": float(scene.apart_mm(begin, ct_T_ref[None])[0])}
    prior = in_ref_axes(start, scene.world_T_ref)
    found |= _against_prior(look, ct_T_ref, begin, prior)
    if config.all or any(name in asked for name in AROUND):
        found |= _around(look, ct_T_ref)
    if config.all or any(name in asked for name in RESTARTS):
        found |= _restarts(look, ct_T_ref, begin, prior)
    return found


def in_ref_axes(estimate: Estimate, world_T_ref: Tensor) -> Tensor:
    """An estimate's covariance (6, 6) as one of the images' pose, in reference axes."""
    a = se3.adjoint(se3.inverse(world_T_ref) @ se3.translation(estimate.pivot))
    return a @ estimate.covariance @ a.T


@dataclass(frozen=True, eq=False)
class _Look:
    """A scene at one level, with some of its views."""

    scene: Scene
    level: int
    config: EvidenceConfig

    @property
    def views(self) -> list[View]:
        found = self.scene.views[self.level]
        step = -(-len(found) // self.config.views)
        return found[step // 2 :: step]

    def scores(self, poses: Tensor) -> Tensor:
        return self.scene.matcher.compare(self.scene.volumes[self.level], self.views, poses)

    def climb(self, starts: Tensor, views: list[View]) -> tuple[Tensor, Tensor]:
        """Ends (B, 4, 4) and their scores (B,), less what the prior takes off."""
        stop = LevenbergConfig(iterations=self.config.iterations, tolerance_mm=self.config.tolerance_mm)
        volume, matcher = self.scene.volumes[self.level], self.scene.matcher
        prior = self.scene.prior
        poses, normal, _ = matcher.climb(volume, views, starts, self.scene.radius_mm, 0.0, stop, prior)
        return poses, normal.score if prior is None else normal.score - prior.cost(poses)


def image_twists(unit: Tensor, reach_mm: float, radius_mm: float) -> Tensor:
    """Twists (N, 6), mm and rad, of rows of -1 to 1: turns move points at `radius_mm` as far as shifts do."""
    reach = torch.tensor([reach_mm] * 3 + [reach_mm / max(radius_mm, 1.0)] * 3, dtype=torch.float64)
    return unit * reach


def _around(look: _Look, pose: Tensor) -> dict[str, float]:
    """One batch of scores: here, a step away along each axis, and spread about."""
    c, radius = look.config, look.scene.radius_mm
    eye = torch.eye(6, dtype=torch.float64)
    steps = image_twists(torch.cat([eye, -eye]), c.probe_mm, radius)
    spread = image_twists(2.0 * halton(c.around) - 1.0, c.around_mm, radius)
    twists = torch.cat([torch.zeros(1, 6, dtype=torch.float64), steps, spread])
    score = look.scores(move(pose.expand(len(twists), 4, 4), twists))
    drop, others = score[0] - score[1:13], score[13:]
    standout = (score[0] - others.mean()) / others.std().clamp_min(1e-6)
    return {"drop": float(drop.min()), "mean_drop": float(drop.mean()), "standout": float(standout)}


def _against_prior(look: _Look, pose: Tensor, start: Tensor, prior: Tensor) -> dict[str, float]:
    sigma = prior.diagonal().clamp_min(0.0).sqrt()
    if not bool((sigma > 0).all()):
        return {}
    information = torch.linalg.inv(_correlation(prior, sigma)) / sigma[:, None] / sigma[None]
    seen = look.scene.matcher.evaluate(look.scene.volumes[look.level], look.views, pose[None]).matrix[0]
    posterior = torch.linalg.inv(information + look.config.believed * seen)
    points = look.scene.points_ref
    return {
        "prior_mm": point_sigma_mm(prior, points),
        "moved_sigmas": moved_sigmas(prior, _twist(start, pose)),
        "posterior_mm": point_sigma_mm(0.5 * (posterior + posterior.T), points),
    }


def _twist(start: Tensor, pose: Tensor) -> Tensor:
    """Right twist (6,) from a start to a pose: shift, and rotation vector."""
    moved = se3.inverse(start) @ pose
    return torch.cat([moved[:3, 3], rotation.log(moved[:3, :3])])


def _restarts(look: _Look, pose: Tensor, start: Tensor, prior: Tensor) -> dict[str, float]:
    """Climbs from here and from elsewhere, all at once."""
    c = look.config
    if c.restarts == 0:
        return {}
    unit = 2.0 * halton(c.restarts) - 1.0
    if bool((prior.diagonal() > 0).all()):
        values, axes = torch.linalg.eigh(prior)
        root = axes * values.clamp_min(0.0).sqrt()
        others = move(start.expand(c.restarts, 4, 4), math.sqrt(3.0) * unit @ root.T)
    else:
        others = move(pose.expand(c.restarts, 4, 4), image_twists(unit, c.restart_mm, look.scene.radius_mm))
    ends, scores = look.climb(torch.cat([pose[None], others]), look.views)
    away = look.scene.apart_mm(ends[0], ends[1:])
    return {
        "level_mm": float(look.scene.apart_mm(pose, ends[:1])[0]),
        "restart_mm": float(away.mean()),
        "restart_gain": float(scores[1:].max() - scores[0]),
    }


def moved_sigmas(covariance: Tensor, twist: Tensor) -> float:
    """Length of a start's error twist (6,) in units of its stated covariance (6, 6); NaN where none is stated."""
    sigma = covariance.diagonal().clamp_min(0.0).sqrt()
    if not bool((sigma > 0).all()):
        return math.nan
    white = torch.linalg.solve(_correlation(covariance, sigma), twist / sigma)
    return math.sqrt(max(0.0, float((twist / sigma) @ white)) / 6.0)


def _correlation(covariance: Tensor, sigma: Tensor) -> Tensor:
    """Scaled to a unit diagonal, with a little more: it can be inverted also where directions depend on one another."""
    return covariance / sigma[:, None] / sigma[None] + 1e-6 * torch.eye(6, dtype=torch.float64)
