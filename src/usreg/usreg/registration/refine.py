# SPDX-License-Identifier: Apache-2.0
"""Refinement of tracked frames in a volume by masked NCC: coarse to fine, re-tries, covariance, gate."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ..config import check_range
from ..data.types import Estimate, Problem, Rigid, TrackedFrame, Volume
from ..errors import ConfigError, NoOverlapError, ShapeError
from ..geometry import se3
from . import covariance as cov
from .gate import GateConfig, refusal
from .levenberg import LevenbergConfig, move
from .maximise import climb_compiled
from .normal import Normal, View, normal_equations, views, world_T_ref
from .pyramid import VolumeLevel, volume_level
from .spread import SpreadConfig, spread_twists


@dataclass(frozen=True)
class LevelConfig:
    """Smoothing (standard deviation), distance of the frame's samples, and motion at which the search ends, mm."""

    sigma_mm: float
    step_mm: float
    tolerance_mm: float = 0.01

    def __post_init__(self) -> None:
        check_range("sigma_mm", self.sigma_mm, 0.0, 100.0)
        check_range("step_mm", self.step_mm, 1e-3, 100.0)


@dataclass(frozen=True)
class RefineConfig:
    """Levels from coarse to fine, the optimiser, the re-tries and the gate.

    Args:
        channel: of the volume.
        min_overlap: share of the sector's samples that must lie inside known voxels to begin at all.
    """

    levels: tuple[LevelConfig, ...] = (LevelConfig(4.0, 4.0, 0.2), LevelConfig(2.0, 2.0, 0.1), LevelConfig(0.5, 1.25, 0.01))
    channel: int = 0
    min_overlap: float = 0.4
    levenberg: LevenbergConfig = field(default_factory=LevenbergConfig)
    spread: SpreadConfig = field(default_factory=SpreadConfig)
    gate: GateConfig = field(default_factory=GateConfig)

    def __post_init__(self) -> None:
        if not self.levels or any(b.sigma_mm > a.sigma_mm for a, b in zip(self.levels, self.levels[1:], strict=False)):
            raise ConfigError(f"'levels' must go from coarse to fine, got {self.levels}")
        check_range("min_overlap", self.min_overlap, 0.0, 1.0)


@dataclass(frozen=True, eq=False)
class _Scene:
    """What one call works with: frames sampled at every level."""

    frames: tuple[TrackedFrame, ...]
    volumes: list[VolumeLevel]
    views: list[list[View]]
    world_T_ref: Tensor
    points_ref: Tensor
    radius_mm: float

    def measure(self, level: int, ct_T_ref: Tensor) -> Normal:
        return normal_equations(self.volumes[level], self.views[level], ct_T_ref)


@dataclass(frozen=True, eq=False)
class _Result:
    ct_T_ref: Tensor
    score: float
    coarse_score: float
    overlap: float
    covariance: Tensor
    noises: list[cov.Noise]
    reason: str


class Refine:
    """A stage that refines `world_T_ct` of one or several tracked frames in a volume by masked NCC."""

    def __init__(self, config: RefineConfig | None = None) -> None:
        self.config = config or RefineConfig()
        self._prepared: tuple[Volume, list[VolumeLevel]] | None = None

    def prepare(self, volume: Volume) -> None:
        """Build the volume's pyramid (kept for this volume object)."""
        self._levels(volume)

    def _levels(self, volume: Volume) -> list[VolumeLevel]:
        if self._prepared is None or self._prepared[0] is not volume:
            if not 0 <= self.config.channel < volume.data.shape[0]:
                raise ShapeError(f"channel {self.config.channel} of a volume with {volume.data.shape[0]} channels")
            levels = [volume_level(volume, lv.sigma_mm, self.config.channel) for lv in self.config.levels]
            self._prepared = (volume, levels)
        return self._prepared[1]

    def __call__(self, problem: Problem, estimate: Estimate) -> Estimate:
        """Refine; the result is accepted or carries the reason why not.

        Raises:
            NoOverlapError: at the start, and at every re-try, too little of the sector lies inside known voxels.
        """
        scene = self._scene(problem)
        start = se3.inverse(estimate.world_T_ct) @ scene.world_T_ref
        overlaps = scene.measure(0, start[None]).overlap.item() >= self.config.min_overlap
        best = self._climb(scene, start[None], 0)[0] if overlaps else None
        if best is None or best.reason:
            best = self._retry(scene, start, self._start_covariance(estimate, scene), best)
        return self._estimate(problem, scene, best)

    def judge(self, problem: Problem, world_T_ct: Tensor) -> Estimate:
        """Score, covariance and gate of a pose as it is: nothing is refined."""
        scene = self._scene(problem)
        ct_T_ref = se3.inverse(world_T_ct) @ scene.world_T_ref
        last, coarse = (scene.measure(k, ct_T_ref[None]) for k in (len(scene.volumes) - 1, 0))
        return self._estimate(problem, scene, self._judge(scene, ct_T_ref, last, coarse, 0))

    def _scene(self, problem: Problem) -> _Scene:
        if isinstance(problem.fixed, Volume) or not problem.fixed:
            raise ShapeError("the refinement needs one or several tracked frames as 'fixed'")
        frames, reference = problem.fixed, world_T_ref(problem.fixed)
        sampled = [views(frames, lv.sigma_mm, lv.step_mm) for lv in self.config.levels]
        ref_T_world = se3.inverse(reference)
        points = torch.cat([se3.transform_points(ref_T_world @ f.world_T_image, sector_points(f)) for f in frames])
        radius = float((points**2).sum(1).mean().sqrt())
        return _Scene(frames, self._levels(problem.moving), sampled, reference, points, radius)

    def _start_covariance(self, estimate: Estimate, scene: _Scene) -> Tensor:
        a = se3.adjoint(se3.inverse(scene.world_T_ref) @ se3.translation(estimate.pivot))
        return a @ estimate.covariance @ a.T

    def _maximise(self, scene: _Scene, level: int, starts: Tensor) -> tuple[Tensor, Normal]:
        config, volume, frames = self.config, scene.volumes[level], scene.views[level]
        levenberg = replace(config.levenberg, tolerance_mm=config.levels[level].tolerance_mm)
        return climb_compiled(volume, frames, starts, scene.radius_mm, config.min_overlap, levenberg)[:2]

    def _climb(self, scene: _Scene, starts: Tensor, first: int) -> list[_Result]:
        """All levels from `first` on, from several starts at once."""
        pose = starts
        for level in range(first, len(scene.volumes)):
            pose, normal = self._maximise(scene, level, pose)
        coarse = scene.measure(0, pose)
        return [self._judge(scene, pose[i], normal, coarse, i) for i in range(len(pose))]

    def _judge(self, scene: _Scene, ct_T_ref: Tensor, normal: Normal, coarse: Normal, row: int) -> _Result:
        noises = [cov.frame_noise(scene.volumes[-1], v, ct_T_ref) for v in scene.views[-1]]
        covariance = cov.ref_covariance(noises)
        numbers = float(normal.score[row]), float(coarse.score[row]), float(normal.overlap[row])
        reason = refusal(self.config.gate, *numbers, cov.point_sigma_mm(covariance, scene.points_ref))
        return _Result(ct_T_ref, *numbers, covariance, noises, reason)

    def _retry(self, scene: _Scene, start: Tensor, covariance: Tensor, best: _Result | None) -> _Result:
        """Spread starts: look at all, climb the coarse level from the best, finish the best of those."""
        poses = self._promising(scene, start, covariance)
        results = self._climb(scene, poses, 1) if len(poses) else []
        results += [best] if best is not None else []
        if not results:
            raise NoOverlapError(
                f"less than {self.config.min_overlap:.0%} of the sector lies inside the volume at the start and "
                "around it: check the start, the calibration and the volume"
            )
        return max(results, key=lambda r: (not r.reason, r.score))

    def _promising(self, scene: _Scene, start: Tensor, covariance: Tensor) -> Tensor:
        """The best poses (K, 4, 4) at the coarsest level around a start."""
        config = self.config.spread
        starts = move(start.expand(config.count, 4, 4), spread_twists(config, covariance))
        look = scene.measure(0, starts) if config.count else None
        if look is None or not bool((look.overlap >= self.config.min_overlap).any()):
            return starts[:0]
        score = torch.where(look.overlap >= self.config.min_overlap, look.score, torch.full_like(look.score, -2.0))
        chosen = [row for row in _order(score)[: config.climb].tolist() if score[row] > -2.0]
        pose, normal = self._maximise(scene, 0, starts[chosen])
        return pose[_distinct(pose, normal.score, scene.radius_mm, config.finish)]

    def _estimate(self, problem: Problem, scene: _Scene, result: _Result) -> Estimate:
        world_T_ct = scene.world_T_ref @ se3.inverse(result.ct_T_ref)
        pivot = se3.transform_points(world_T_ct, problem.moving.grid.centre_ct[None])[0]
        covariance = cov.world_covariance(result.covariance, scene.world_T_ref, pivot)
        covariance = covariance + cov.tracking_covariance(scene.frames, result.noises, scene.world_T_ref, pivot)
        accepted = not result.reason
        return Estimate(Rigid(world_T_ct), covariance, pivot, result.score, result.overlap, accepted, result.reason)


def sector_points(frame: TrackedFrame) -> Tensor:
    """Points (N, 3), mm, that stand for the image: the 5x5 grid inside the sector, or of the rectangle."""
    geometry = frame.frame.geometry
    if hasattr(geometry, "sample_points_mm"):
        return geometry.sample_points_mm()
    points = geometry.plane.points_mm()
    rows, columns = (torch.linspace(0, n - 1, min(5, n)).round().long() for n in points.shape[:2])
    return points[rows][:, columns].reshape(-1, 3)


def _order(score: Tensor) -> Tensor:
    return torch.argsort(score, descending=True, stable=True)


def _distinct(pose: Tensor, score: Tensor, radius_mm: float, count: int, apart_mm: float = 2.0) -> list[int]:
    """Rows of the best scores whose poses differ by more than `apart_mm` of image motion."""
    chosen: list[int] = []
    for row in _order(score).tolist():
        twist = se3.log(se3.inverse(pose[row]) @ pose[chosen]) if chosen else torch.empty(0, 6, dtype=torch.float64)
        if not bool((twist[:, :3].norm(dim=1) + radius_mm * twist[:, 3:].norm(dim=1) < apart_mm).any()):
            chosen.append(row)
        if len(chosen) == count:
            break
    return chosen
