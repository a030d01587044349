# SPDX-License-Identifier: Apache-2.0
"""Poses of a frame from what each of its pixels says of its place: drawn, scored, and fitted in closed form.

Three pixels with their best places give a pose (as in RANSAC); the likelihood of all pixels at a pose is its score; and
from a pose the expectation of each pixel's place near to it gives a better one, by Kabsch, until nothing changes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...config import check_range
from ...errors import ConfigError
from ...geometry import rotation, se3
from .. import rigid_fit
from .vote_kernel import expect_near, score_poses

SEED = 0
WINDOW_SIGMAS = 1.7  # half width of a window
APART_MM = 12.0  # descriptors that lie nearer see the same tissue: their errors are not independent
LOOKED_AT = 12  # poses for each that is to differ from the others
SIDE_MM = 15.0  # shortest side of a triple of pixels
STRETCH = 0.25  # by which sides may differ between image and volume
TRIES = 4  # triples drawn for each that is wanted


@dataclass(frozen=True)
class VoteConfig:
    """How poses are looked for.

    Args:
        triples: poses that are drawn. best: places of a pixel from which one is drawn.
        climb: how many of the best are fitted, `fits` times each. keep: how many different ones are given back.
        windows_mm: standard deviation of the window about a pose, at the first fit and at the last.
        floor: share of pixels that lie anywhere.
        same_mm: poses that differ by less, on average over the pixels, are one.
        reach_mm, reach_deg: farthest from the start, on average over the pixels, and as an angle.
    """

    triples: int = 300
    best: int = 3
    climb: int = 8
    fits: int = 4
    keep: int = 4
    windows_mm: tuple[float, float] = (14.0, 6.0)
    floor: float = 0.05
    same_mm: float = 5.0
    reach_mm: float = 90.0
    reach_deg: float = 70.0

    def __post_init__(self) -> None:
        check_range("triples", self.triples, 0, 1_000_000)
        check_range("best", self.best, 1, 100)
        check_range("climb", self.climb, 1, 10_000)
        check_range("fits", self.fits, 0, 100)
        check_range("keep", self.keep, 1, self.climb)
        check_range("floor", self.floor, 1e-6, 0.99)
        check_range("same_mm", self.same_mm, 0.0, 100.0)
        check_range("reach_mm", self.reach_mm, 0.0, 1e4)
        check_range("reach_deg", self.reach_deg, 0.0, 180.0)
        if not self.windows_mm[0] >= self.windows_mm[1] > 0:
            raise ConfigError(f"'windows_mm' must go from wide to narrow, above zero, got {self.windows_mm}")


@dataclass(frozen=True, eq=False)
class Ballot:
    """What a frame's pixels say of their places.

    Args:
        ratio: (P, V) float32, likelihood of each known place over the mean likelihood.
        rows: (d, h, w) int32, column of `ratio` at each index of the grid, -1 where nothing is known.
        points: (P, 3) pixels, mm in the image frame, z = 0. weight: (P,) confidence.
        ct_T_index: (4, 4) from index x, y, z of the grid to mm. places: (V, 3) mm in ct.
    """

    ratio: Tensor
    rows: Tensor
    points: Tensor
    weight: Tensor
    ct_T_index: Tensor
    places: Tensor

    @property
    def step_mm(self) -> float:
        """Distance of neighbouring places."""
        return float(self.ct_T_index[:3, 0].norm())


@dataclass(frozen=True, eq=False)
class Vote:
    """A pose that pixels agree on.

    Args:
        ct_T_image: (4, 4). score: mean logarithm of the likelihood ratio; 0 is chance.
        share: weight of the pixels whose place is found near to the pose.
        covariance: (6, 6) of the twist on the right, image axes about its origin.
    """

    ct_T_image: Tensor
    score: float
    share: float
    covariance: Tensor


def scores(ballot: Ballot, ct_T_images: Tensor, floor: float) -> Tensor:
    """Scores (N,) of poses (N, 4, 4)."""
    matrices = (torch.linalg.inv(ballot.ct_T_index) @ ct_T_images)[:, :3].contiguous()
    out = np.empty(len(ct_T_images))
    score_poses(
        ballot.ratio.numpy(), ballot.rows.numpy(), ballot.points.numpy(), ballot.weight.numpy(), matrices.numpy(),
        floor, out,
    )  # fmt: skip
    return torch.from_numpy(out)


def expected(ballot: Ballot, ct_T_images: Tensor, window_mm: float) -> tuple[Tensor, Tensor]:
    """Where pixels expect to lie within a window about poses (N, 4, 4).

    Returns:
        Places (N, P, 3), mm in ct, and the mean likelihood ratio in the window (N, P).
    """
    sigma = window_mm / ballot.step_mm
    matrices = (torch.linalg.inv(ballot.ct_T_index) @ ct_T_images)[:, :3].contiguous()
    index = np.empty((len(ct_T_images), len(ballot.points), 3))
    mass = np.empty(index.shape[:2])
    reach = max(1, round(WINDOW_SIGMAS * sigma))
    expect_near(
        ballot.ratio.numpy(), ballot.rows.numpy(), ballot.points.numpy(), matrices.numpy(), reach, sigma, index, mass
    )
    return se3.transform_points(ballot.ct_T_index, torch.from_numpy(index)), torch.from_numpy(mass)


def whole_expectation(ballot: Ballot) -> Tensor:
    """Pose (4, 4) by Kabsch on the expectation over all places (soft-argmax)."""
    mean = ballot.ratio.mean(1, keepdim=True).clamp_min(1e-12)
    places = (ballot.ratio.double() / (mean.double() * ballot.ratio.shape[1])) @ ballot.places
    return rigid_fit.rigid_fit(ballot.points, places, ballot.weight)


def triples(ballot: Ballot, config: VoteConfig) -> Tensor:
    """Poses (N, 4, 4) of drawn triples of pixels whose places lie as far apart as they do; N may be 0."""
    generator = torch.Generator().manual_seed(SEED)
    count = config.triples * TRIES
    if count == 0 or len(ballot.points) < 3:
        return torch.empty(0, 4, 4, dtype=torch.float64)
    peak, best = ballot.ratio.topk(min(config.best, ballot.ratio.shape[1]), dim=1)
    sharp = ballot.weight * peak[:, 0].double().clamp_min(1.0).log().clamp_min(1e-3)
    pixel = torch.multinomial(sharp, 3 * count, replacement=True, generator=generator).reshape(count, 3)
    rank = torch.randint(best.shape[1], (count, 3), generator=generator)
    source, target = ballot.points[pixel], ballot.places[best[pixel, rank]]
    kept = _alike(source, target)[: config.triples]
    return rigid_fit.triple_fit(source[kept], target[kept])


def _alike(source: Tensor, target: Tensor) -> Tensor:
    """Rows whose triangles have long, equal sides and are not flat."""
    sides = [(0, 1), (1, 2), (2, 0)]
    a, b = (torch.stack([(p[:, i] - p[:, j]).norm(dim=-1) for i, j in sides], -1) for p in (source, target))
    half = a.sum(-1) / 2
    area = (half * (half - a[:, 0]) * (half - a[:, 1]) * (half - a[:, 2])).clamp_min(0).sqrt()
    fits = ((a - b).abs() <= STRETCH * a).all(-1) & (a.min(-1).values >= SIDE_MM)
    return (fits & (area >= 0.25 * SIDE_MM**2)).nonzero()[:, 0]


def look(ballot: Ballot, start: Tensor, config: VoteConfig, further: Tensor | None = None) -> list[Vote]:
    """The best different poses, best first; never none.

    Args:
        start: (4, 4) ct_T_image. further: (N, 4, 4) other poses to be tried.
    """
    drawn = triples(ballot, config)
    poses = torch.cat([start[None], whole_expectation(ballot)[None], drawn] + ([] if further is None else [further]))
    chosen, _ = _best(ballot, start, poses, config, config.climb)
    poses, worth = _best(ballot, start, fitted(ballot, chosen, config), config, config.keep)
    return _votes(ballot, poses, worth, config)


def fitted(ballot: Ballot, poses: Tensor, config: VoteConfig) -> Tensor:
    """Poses (N, 4, 4) after fits to what pixels expect near to them, in ever narrower windows."""
    first, last = config.windows_mm
    for number in range(config.fits):
        window = first * (last / first) ** (number / max(1, config.fits - 1))
        places, mass = expected(ballot, poses, window)
        weight = _weight(ballot, mass)
        usable = (weight > 0).sum(-1) >= 3
        found = rigid_fit.rigid_fit(ballot.points.expand_as(places)[usable], places[usable], weight[usable])
        poses = poses.clone()
        poses[usable] = found
    return poses


def _best(ballot: Ballot, start: Tensor, poses: Tensor, config: VoteConfig, count: int) -> tuple[Tensor, Tensor]:
    """The best different poses within reach, with their scores; the start where none is."""
    poses = poses[_reachable(ballot, start, poses, config)]
    poses = poses if len(poses) else start[None]
    worth = scores(ballot, poses, config.floor)
    order = torch.argsort(worth, descending=True, stable=True)
    rows = order[_distinct(ballot, poses[order], count, config.same_mm)]
    return poses[rows], worth[rows]


def _weight(ballot: Ballot, mass: Tensor) -> Tensor:
    """A pixel counts as it is sure of itself, and as its place is found near to the pose rather than elsewhere."""
    return ballot.weight * mass / (1.0 + mass)


def _votes(ballot: Ballot, poses: Tensor, worth: Tensor, config: VoteConfig) -> list[Vote]:
    independent = min(1.0, (ballot.step_mm / APART_MM) ** 2)
    places, mass = expected(ballot, poses, config.windows_mm[1])
    found = []
    for row, pose in enumerate(poses):
        weight = _weight(ballot, mass[row]).clamp_min(1e-9)
        near = float((ballot.weight * (mass[row] > 1.0)).sum() / ballot.weight.sum())
        covariance = rigid_fit.fit_covariance(ballot.points, places[row], weight, pose, independent)
        found.append(Vote(pose, float(worth[row]), near, covariance))
    return found


def _reachable(ballot: Ballot, start: Tensor, poses: Tensor, config: VoteConfig) -> Tensor:
    finite = torch.isfinite(poses).all(-1).all(-1)
    moved = (_some(ballot, poses) - _some(ballot, start)).norm(dim=-1).mean(-1)
    angle = rotation.geodesic_angle(start[:3, :3].expand(len(poses), 3, 3), poses[:, :3, :3])
    return finite & (moved <= config.reach_mm) & (angle <= math.radians(config.reach_deg))


def _some(ballot: Ballot, poses: Tensor) -> Tensor:
    """Some sixteen pixels (..., 16, 3), mm in ct, at poses."""
    return se3.transform_points(poses, ballot.points[:: max(1, len(ballot.points) // 16)])


def _distinct(ballot: Ballot, poses: Tensor, count: int, same_mm: float) -> list[int]:
    """Rows of the first poses of which each moves the pixels, on average, by more than `same_mm` from those before."""
    at = _some(ballot, poses[: LOOKED_AT * count])
    chosen: list[int] = []
    free = torch.ones(len(at), dtype=torch.bool)
    for row in range(len(at)):
        if bool(free[row]):
            chosen.append(row)
            free &= (at - at[row]).norm(dim=-1).mean(-1) > same_mm
        if len(chosen) == count:
            break
    return chosen
