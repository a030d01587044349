# SPDX-License-Identifier: Apache-2.0
"""Climbing without derivatives, many poses at once, and the choice of those that are different."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy.spatial.transform import Rotation

from .table import Array

Score = Callable[[Array], Array]
LONGER = 1.4  # the step along all improving axes at once, over that along one


def climb(
    score: Score, poses: Array, centre: Array, step_mm: float, step_deg: float, rounds: int
) -> tuple[Array, Array]:
    """Pattern search (Hooke and Jeeves, J. ACM 8 (1961) 212): poses (B, 4, 4) and their scores (B,), never worse.

    Steps along both ways of six axes about a centre (3,) of `ref`, and along all that improve together; where none
    does they are halved.
    """
    unit = np.array([step_mm] * 3 + [math.radians(step_deg)] * 3)
    axes = np.concatenate([np.diag(unit), -np.diag(unit)])
    best, size, rows = score(poses), np.ones(len(poses)), np.arange(len(poses))
    for _ in range(rounds):
        steps = (axes * size[:, None, None]).reshape(-1, 6)
        tried = moved(np.repeat(poses, 12, 0), steps, centre)
        found = score(tried).reshape(-1, 12)
        gain = np.maximum(found - best[:, None], 0.0)
        way = gain[:, :6] - gain[:, 6:]
        way /= np.maximum(np.linalg.norm(way, axis=1, keepdims=True), 1e-12)
        together = moved(poses, LONGER * way * unit * size[:, None], centre)
        together_found = score(together)
        axis = found.argmax(1)
        use = together_found > found[rows, axis]
        new = np.where(use[:, None, None], together, tried.reshape(-1, 12, 4, 4)[rows, axis])
        value = np.where(use, together_found, found[rows, axis])
        up = value > best
        poses, best = np.where(up[:, None, None], new, poses), np.where(up, value, best)
        size = np.where(up, size, 0.5 * size)
    return poses, best


def moved(poses: Array, steps: Array, centre: Array) -> Array:
    """Poses (B, 4, 4) moved by (v, w) (B, 6), mm and rad, in their own axes about a centre (3,)."""
    move = np.zeros((len(steps), 4, 4))
    move[:, :3, :3] = Rotation.from_rotvec(steps[:, 3:]).as_matrix()
    move[:, :3, 3] = centre + steps[:, :3] - move[:, :3, :3] @ centre
    move[:, 3, 3] = 1.0
    return np.asarray(poses @ move)


def apart(pose: Array, others: Array, centre: Array) -> tuple[Array, Array]:
    """Distances (K,), mm, of the centre and angles (K,), degrees, between a pose (4, 4) and others (K, 4, 4)."""
    c = np.append(centre, 1.0)
    far = np.linalg.norm((others @ c - pose @ c)[:, :3], axis=1)
    trace = np.einsum("kij,ij->k", others[:, :3, :3], pose[:3, :3])
    return far, np.degrees(np.arccos(np.clip(0.5 * (trace - 1.0), -1.0, 1.0)))


def distinct(poses: Array, score: Array, centre: Array, count: int, same_mm: float, same_deg: float) -> list[int]:
    """Rows of the best scores, best first, each further than both limits from those before in one of them."""
    chosen: list[int] = []
    for row in np.argsort(-score, kind="stable").tolist():
        far, angle = apart(poses[row], poses[chosen], centre)
        if not ((far < same_mm) & (angle < same_deg)).any():
            chosen.append(row)
        if len(chosen) == count:
            break
    return chosen
