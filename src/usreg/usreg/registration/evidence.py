# SPDX-License-Identifier: Apache-2.0
"""What a refinement can say of its own result beyond score and covariance, by name: the material of `confidence`.

A wrong optimum betrays itself in how it was reached (far from the start), in what lies around it (nothing falls off,
other optima as good, another place at another scale) and in its parts (halves of the image that want other poses).
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..config import check_range
from .levenberg import LevenbergConfig, move
from .normal import View
from .scene import Scene
from .spread import halton

HALVES = ("left", "right", "top", "bottom")


@dataclass(frozen=True)
class EvidenceConfig:
    """How closely an optimum is looked at.

    Args:
        probe_mm: how far the images' points are moved, on average, to see the score fall off.
        around: poses about the optimum whose scores it is compared with, within `around_mm` of image motion per axis.
        restarts: climbs that begin near the optimum, within `restart_mm` of image motion per axis.
        iterations, tolerance_mm: of each of these climbs.
    """

    probe_mm: float = 4.0
    around: int = 48
    around_mm: float = 12.0
    restarts: int = 6
    restart_mm: float = 6.0
    iterations: int = 12
    tolerance_mm: float = 0.2

    def __post_init__(self) -> None:
        for name in ("probe_mm", "around_mm", "restart_mm"):
            check_range(name, getattr(self, name), 0.1, 100.0)
        check_range("around", self.around, 2, 10_000)
        check_range("restarts", self.restarts, 0, 1000)
        check_range("iterations", self.iterations, 2, 1000)
        check_range("tolerance_mm", self.tolerance_mm, 0.0, 10.0)


def look_closer(
    scene: Scene, level: int, ct_T_ref: Tensor, ct_T_start: Tensor, config: EvidenceConfig | None = None
) -> dict[str, float]:
    """Evidence about an optimum.

    Args:
        level: at which the similarity is asked; as a rule the gate's structure level.
        ct_T_ref: the optimum (4, 4). ct_T_start: where the search began, as a pose of the same reference frame.

    Returns:
        moved_mm: largest distance by which a point of the images moved from the start.
        drop: how far the score falls at `probe_mm` in the direction, out of twelve, in which it falls least; negative
            where it rises. mean_drop: on average over them.
        standout: score minus the mean of those around, in their standard deviations.
        level_mm: distance to the optimum at `level`, from here.
        halves_mm: mean distance between here and where the left, right, upper and lower half of the images would go.
        restart_mm: mean distance between here and where restarts end. restart_gain: best score of theirs minus that of
            here, both at the optimum at `level`.
    """
    config = config or EvidenceConfig()
    at = ct_T_ref[None]
    here = float(scene.measure(level, at).score)
    back = _climb(scene, level, at, scene.views[level], config)
    out = {
        "moved_mm": float(scene.apart_mm(ct_T_start, at)[0]),
        **_drops(scene, level, ct_T_ref, here, config),
        "standout": _standout(scene, level, ct_T_ref, here, config),
        "level_mm": float(scene.apart_mm(ct_T_ref, back[0])[0]),
        "halves_mm": _halves_mm(scene, level, ct_T_ref, config),
    }
    return out | _restarts(scene, level, back, config)


def image_twists(unit: Tensor, reach_mm: float, radius_mm: float) -> Tensor:
    """Twists (N, 6), mm and rad, of rows of -1 to 1: turns move points at `radius_mm` as far as shifts do."""
    reach = torch.tensor([reach_mm] * 3 + [reach_mm / max(radius_mm, 1.0)] * 3, dtype=torch.float64)
    return unit * reach


def _drops(scene: Scene, level: int, pose: Tensor, here: float, config: EvidenceConfig) -> dict[str, float]:
    eye = torch.eye(6, dtype=torch.float64)
    twists = image_twists(torch.cat([eye, -eye]), config.probe_mm, scene.radius_mm)
    drop = here - scene.measure(level, move(pose.expand(12, 4, 4), twists)).score
    return {"drop": float(drop.min()), "mean_drop": float(drop.mean())}


def _standout(scene: Scene, level: int, pose: Tensor, here: float, config: EvidenceConfig) -> float:
    twists = image_twists(2.0 * halton(config.around) - 1.0, config.around_mm, scene.radius_mm)
    found = scene.measure(level, move(pose.expand(config.around, 4, 4), twists))
    seen = found.score[found.overlap > 0]
    if len(seen) < 2:
        return 0.0
    return (here - float(seen.mean())) / max(float(seen.std()), 1e-6)


def _halves_mm(scene: Scene, level: int, pose: Tensor, config: EvidenceConfig) -> float:
    total = 0.0
    for half in HALVES:
        views = [half_view(v, half) for v in scene.views[level]]
        total += float(scene.apart_mm(pose, _climb(scene, level, pose[None], views, config)[0])[0])
    return total / len(HALVES)


def _restarts(scene: Scene, level: int, back: tuple[Tensor, Tensor], config: EvidenceConfig) -> dict[str, float]:
    if config.restarts == 0:
        return {}
    centre, score = back
    twists = image_twists(2.0 * halton(config.restarts) - 1.0, config.restart_mm, scene.radius_mm)
    ends, scores = _climb(scene, level, move(centre.expand(config.restarts, 4, 4), twists), scene.views[level], config)
    away = scene.apart_mm(centre[0], ends)
    return {"restart_mm": float(away.mean()), "restart_gain": float(scores.max() - score[0])}


def _climb(
    scene: Scene, level: int, starts: Tensor, views: list[View], config: EvidenceConfig
) -> tuple[Tensor, Tensor]:
    """Ends (B, 4, 4) and their scores (B,)."""
    levenberg = LevenbergConfig(iterations=config.iterations, tolerance_mm=config.tolerance_mm)
    poses, normal, _ = scene.matcher.climb(scene.volumes[level], views, starts, scene.radius_mm, 0.0, levenberg)
    return poses, normal.score


def half_view(view: View, half: str) -> View:
    """Samples on one side of the middle of those that there are."""
    f = view.level
    rows, cell = _half(f.cell, f.shape, half)
    part = replace(f, x_mm=f.x_mm[rows], y_mm=f.y_mm[rows], value=f.value[rows], cell=cell)
    return View(part, view.ref_T_centre)


@functools.lru_cache(maxsize=64)
def _half(cell: Tensor, shape: tuple[int, int], half: str) -> tuple[Tensor, Tensor]:
    """Rows of the samples of a half, and their cells: kept, since the cells are shared by all frames of a geometry."""
    place = (cell % shape[1] if half in ("left", "right") else cell // shape[1]).double()
    middle = place.median()
    chosen = place <= middle if half in ("left", "top") else place > middle
    rows = torch.nonzero(chosen)[:, 0]
    return rows, cell[rows]


def moved_sigmas(covariance: Tensor, twist: Tensor) -> float:
    """Length of a start's error twist (6,) in units of its stated covariance (6, 6); NaN where none is stated."""
    sigma = covariance.diagonal().clamp_min(0.0).sqrt()
    if not bool((sigma > 0).all()):
        return math.nan
    white = torch.linalg.solve(covariance / sigma[:, None] / sigma[None], twist / sigma)
    return math.sqrt(max(0.0, float((twist / sigma) @ white)) / 6.0)
