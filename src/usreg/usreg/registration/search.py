# SPDX-License-Identifier: Apache-2.0
"""Re-tries: promising starts around a start, and the choice among their optima."""

from __future__ import annotations

import torch
from torch import Tensor

from .levenberg import move
from .maximise import Climb
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
    look = scene.measure(0, starts, full=False)
    rows = torch.nonzero(look.overlap >= min_overlap)[:, 0]
    worth = scene.worth(look.score, starts)[rows]
    rows = rows[torch.argsort(worth, descending=True, stable=True)][: config.climb]
    if len(rows) == 0:
        return starts[:0]
    poses, normal, _ = climb(starts[rows])
    return poses[distinct(scene, poses, scene.worth(normal.score, poses), config.finish)]


def distinct(scene: Scene, poses: Tensor, score: Tensor, count: int, same_mm: float = SAME_MM) -> list[int]:
    """Rows of the best scores, each more than `same_mm` of image motion from those before."""
    chosen: list[int] = []
    for row in torch.argsort(score, descending=True, stable=True).tolist():
        if not chosen or float(scene.apart_mm(poses[row], poses[chosen]).min()) > same_mm:
            chosen.append(row)
        if len(chosen) == count:
            break
    return chosen
