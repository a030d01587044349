# SPDX-License-Identifier: Apache-2.0
"""Where do these frames lie? A coarse search over all positions and orientations, several ranked answers."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from ...data.types import Estimate, Rigid, TrackedFrame, Volume
from ...errors import NoOverlapError
from ...geometry import se3
from .climb import climb, distinct
from .config import GlobalStartConfig
from .echoes import Echoes, echoes
from .places import Places, all_places
from .score import Scorer
from .table import Array, ratios, shipped
from .tissue_map import tissue_map

Progress = Callable[[int, int], None]
SEARCH_SHARE = 0.7  # of the time, for the first stage
STEPS = 100


@dataclass(frozen=True, eq=False)
class Found:
    """Poses ct_T_ref (K, 4, 4), best first, with scores (K,)."""

    poses: Array
    scores: Array


def find_starts(
    frames: tuple[TrackedFrame, ...],
    volume: Volume,
    config: GlobalStartConfig | None = None,
    progress: Progress | None = None,
    budget_s: float = math.inf,
) -> list[Estimate]:
    """Ranked hypotheses of world_T_ct for one frame or a sweep with known relative poses, without any prior pose.

    In a CT the echo of each tissue is known from experience (a table of likelihoods) and gas, bone and cartilage cast
    shadows; in other volumes any relation between their values and the echoes will do.

    Args:
        frames: of one image geometry. volume: CT with the skin where it was scanned, or any volume (`skin`).
        progress: called with (done, total). budget_s: time after which no more places are looked at: what was found by
            then is finished; unlimited, the result depends on the input alone.

    Returns:
        At most `hypotheses` estimates, none accepted, reason "hypothesis 1" and so on; `evidence` holds the score and
        its distance to the best other one.

    Raises:
        ShapeError: no frames, or of different geometries. NoOverlapError: dark frames, or a volume without content.
    """
    config = config or GlobalStartConfig()
    begin = time.perf_counter()
    sampled = echoes(frames, config)
    scorer = Scorer(
        tissue_map(volume, config.voxel_mm), ratios(shipped(), sampled.kind, sampled.length, config.shadow_weight)
    )
    found = search(scorer, sampled, config, progress, begin + SEARCH_SHARE * budget_s)
    spent = time.perf_counter() - begin
    return [
        _estimate(found, k, scorer, sampled, volume, config, spent)
        for k in range(len(found.scores[: config.hypotheses]))
    ]


def search(
    scorer: Scorer,
    sampled: Echoes,
    config: GlobalStartConfig,
    progress: Progress | None = None,
    deadline_s: float = math.inf,
) -> Found:
    """The stages: all poses on a few samples, the best of them on more, the best of those climb."""
    places = all_places(scorer.tissue, sampled, config)
    if len(places) == 0:
        raise NoOverlapError("the volume holds no tissue: there is nowhere to look")
    few = sampled.part(3, 2, 2) if sampled.frames > 1 else sampled.part(1, 1, 2)
    more = sampled.part(7, 2, 2) if sampled.frames > 1 else sampled.part(1, 1, 1)
    numbers = _first(scorer, few, places, config.keep[0], progress, deadline_s)
    poses = places.poses(numbers)
    poses, score = _best(scorer, more, poses, config.keep[1])
    poses, score = _best(scorer, sampled, poses, config.keep[1])
    centre = sampled.centre
    poses = poses[distinct(poses, score, centre, config.keep[2], 12.0, 12.0)]
    middle = sampled.part(10, 2, 1) if sampled.frames > 1 else sampled
    poses, score = climb(lambda p: scorer.scores(middle, p), poses, centre, 8.0, 8.0, 12)
    poses = poses[distinct(poses, score, centre, config.keep[3], 10.0, 10.0)]
    poses, score = climb(lambda p: scorer.scores(sampled, p), poses, centre, 3.0, 3.0, 8)
    rows = distinct(poses, score, centre, config.hypotheses + 1, config.same_mm, config.same_deg)
    if progress is not None:
        progress(STEPS, STEPS)
    return Found(poses[rows], score[rows])


def _first(
    scorer: Scorer, few: Echoes, places: Places, keep: int, progress: Progress | None, deadline_s: float
) -> Array:
    """Numbers (keep,) of the poses with the best scores of all, best first."""
    numbers, scores, done = np.zeros(0, np.int64), np.zeros(0), 0
    for block, poses in places.blocks():
        numbers, scores = np.append(numbers, block), np.append(scores, scorer.scores(few, poses))
        if len(numbers) > 4 * keep:
            best = np.argpartition(-scores, keep)[:keep]
            numbers, scores = numbers[best], scores[best]
        done += len(block)
        if progress is not None:
            progress(int(0.9 * STEPS * done / len(places)), STEPS)
        if time.perf_counter() > deadline_s:
            break
    order = np.lexsort((numbers, -scores))[:keep]
    return numbers[order]


def _best(scorer: Scorer, sampled: Echoes, poses: Array, keep: int) -> tuple[Array, Array]:
    score = scorer.scores(sampled, poses)
    rows = np.argsort(-score, kind="stable")[:keep]
    return poses[rows], score[rows]


def _estimate(
    found: Found, rank: int, scorer: Scorer, sampled: Echoes, volume: Volume, config: GlobalStartConfig, spent: float
) -> Estimate:
    """A hypothesis as an estimate that nobody has accepted."""
    world_T_ct = sampled.world_T_ref @ np.linalg.inv(found.poses[rank])
    pose = se3.check_rigid(torch.from_numpy(world_T_ct), "world_T_ct")
    pivot = se3.transform_points(pose, volume.grid.centre_ct[None])[0]
    variance = [config.sigma_mm**2] * 3 + [math.radians(config.sigma_deg) ** 2] * 3
    covariance = torch.diag(torch.tensor(variance, dtype=torch.float64))
    score, others = float(found.scores[rank]), np.delete(found.scores, rank)
    margin = score - float(others.max()) if len(others) else score
    _, overlap = scorer.meetings(sampled, found.poses[rank])
    return Estimate(
        Rigid(pose), covariance, pivot, score, overlap, False, f"hypothesis {rank + 1}", system="global_start",
        compute_s=spent, evidence={"score": score, "margin": margin, "overlap": overlap},
    )  # fmt: skip
