# SPDX-License-Identifier: Apache-2.0
"""Re-tries: promising starts around a start, and the choice among their optima."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .kernel import common_ncc
from .levenberg import move
from .maximise import Climb
from .normal import plane_matrices
from .scene import Scene
from .spread import SpreadConfig, spread_twists

SAME_MM = 2.0  # at the coarsest level, optima closer than this are one


def promising(
    scene: Scene, start: Tensor, covariance: Tensor, config: SpreadConfig, min_overlap: float, climb: Climb
) -> Tensor:
    """The best different optima (K, 4, 4) at the coarsest level around a start (4, 4); K may be 0.

    Args:
        covariance: (6, 6) of the start in reference axes; zeros when unknown.
        climb: from poses (B, 4, 4) up the coarsest level.
    """
    if config.count == 0:
        return start.new_empty(0, 4, 4)
    starts = move(start.expand(config.count, 4, 4), spread_twists(config, covariance))
    look = scene.measure(0, starts)
    rows = torch.nonzero(look.overlap >= min_overlap)[:, 0]
    rows = rows[torch.argsort(look.score[rows], descending=True, stable=True)][: config.climb]
    if len(rows) == 0:
        return starts[:0]
    poses, normal, _ = climb(starts[rows])
    return poses[distinct(scene, poses, normal.score, config.finish)]


def distinct(scene: Scene, poses: Tensor, score: Tensor, count: int, same_mm: float = SAME_MM) -> list[int]:
    """Rows of the best scores, each more than `same_mm` of image motion from those before."""
    chosen: list[int] = []
    for row in torch.argsort(score, descending=True, stable=True).tolist():
        if not chosen or float(scene.apart_mm(poses[row], poses[chosen]).min()) > same_mm:
            chosen.append(row)
        if len(chosen) == count:
            break
    return chosen


def common_scores(scene: Scene, level: int, poses: Tensor) -> Tensor:
    """NCC (B,) of poses (B, 4, 4) over the samples that all of them see; over each one's own where these are too few.

    A pose that looks away from half of the frame finds it easy to score well on the rest: only equal questions compare.
    """
    total, seen = np.zeros(len(poses)), 0
    for view in scene.views[level]:
        planes, axes = (t.numpy() for t in plane_matrices(scene.volumes[level].index_T_ct, poses @ view.ref_T_centre))
        samples = tuple(t.numpy() for t in (view.level.x_mm, view.level.y_mm, view.level.value))
        scores, count = common_ncc(scene.volumes[level].data.numpy(), planes, axes, *samples)
        if 4 * count < len(samples[0]):
            return scene.measure(level, poses).score
        total += count * scores
        seen += count
    return torch.from_numpy(total / max(1, seen))
