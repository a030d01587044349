# SPDX-License-Identifier: Apache-2.0
"""The path of a breath from past cycles: a robust, shrunk Fourier fit over the phase."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from .config import BreathingModelConfig
from .cycles import Cycle
from .memory import LEVER_MM, Memory
from .path import BreathPath, harmonics

Array = NDArray[np.float64]
SCALE = np.array([1.0, 1.0, 1.0, LEVER_MM, LEVER_MM, LEVER_MM])


def learn_path(memory: Memory, cycles: list[Cycle], config: BreathingModelConfig) -> BreathPath | None:
    """The mean path of the newest cycles in the memory; None where estimates leave a fifth of the phases bare.

    A sample of cycle c at phase f is base_c + depth_c P(f): P and the bases come from least squares with Huber's
    weights; depths are relative to the median. The phase is 0 where the volume rises through the middle level, and runs
    evenly to where it falls through it, and evenly on. Directions in which P is no larger than the noise of the fit are
    dropped (hard threshold of singular values), which leaves two or three of six.
    """
    cycles = cycles[-config.cycles :]
    depth = float(np.median([c.depth_mm for c in cycles]))
    fall = float(np.median([c.fall for c in cycles]))
    phase, scale, group, values = _samples(memory, cycles, fall, depth)
    if _largest_gap(phase) > 0.2:
        return None
    weights, bases, residual = _fit(phase, scale, group, values * SCALE, len(cycles), config.harmonics)
    noise = residual.std() if residual.size else 0.0
    weights = _low_rank(weights, noise * math.sqrt(2.0 / len(phase)))
    rest = _resting_phase(weights)
    offset = -harmonics(rest, config.harmonics) @ weights
    base = bases[-1] - offset
    fit = np.abs(residual).mean(0) * 1.25 * math.sqrt((2 * config.harmonics + 1) / len(phase))
    rates, depths = (np.array(x) for x in zip(*((1 / c.period_s, c.depth_mm / depth) for c in cycles), strict=True))
    spread = (float(rates.std() / rates.mean()), float(depths.std())) if len(cycles) > 2 else (0.0, 0.0)
    return BreathPath(
        weights / SCALE, offset / SCALE, float(np.median(rates)), *spread, base / SCALE, fit / SCALE, len(cycles),
        cycles[-1].end_s,
    )  # fmt: skip


def _samples(memory: Memory, cycles: list[Cycle], fall: float, depth: float) -> tuple[Array, Array, Array, Array]:
    """Phase (n,), relative depth (n,), index of the cycle (n,) and place (n, 6) of all samples of the cycles."""
    parts = []
    for k, c in enumerate(cycles):
        inside = (memory.stamps >= c.rise_s) & (memory.stamps < c.end_s)
        phase = np.interp(memory.stamps[inside], [c.rise_s, c.fall_s, c.end_s], [0.0, fall, 1.0])
        count = len(phase)
        parts.append((phase, np.full(count, c.depth_mm / depth), np.full(count, k), memory.places[inside]))
    phase, scale, group, values = (np.concatenate(p) for p in zip(*parts, strict=True))
    return phase, scale, group, values


def _fit(
    phase: Array, scale: Array, group: Array, values: Array, cycles: int, count: int
) -> tuple[Array, Array, Array]:  # fmt: skip
    """Weights (2 K, 6), bases (cycles, 6) and residuals (n, 6)."""
    waves = scale[:, None] * harmonics(phase, count)
    owner = np.eye(cycles)[group.astype(int)]
    design = np.concatenate([waves, owner], 1)
    order = np.concatenate([np.arange(1, count + 1)] * 2).astype(np.float64)
    ridge = np.diag(np.concatenate([1e-4 * order**4, np.full(cycles, 1e-9)]))
    weight = np.ones(len(phase))
    for _ in range(3):
        normal = design.T @ (weight[:, None] * design) + ridge
        solution = np.linalg.solve(normal, design.T @ (weight[:, None] * values))
        residual = values - design @ solution
        size = np.linalg.norm(residual, axis=1)
        limit = 2.0 * float(np.median(size)) + 1e-9
        weight = np.minimum(1.0, limit / np.maximum(size, 1e-12))
    return solution[: 2 * count], solution[2 * count :], residual


def _low_rank(weights: Array, noise: float) -> Array:
    """Without the directions that noise of that standard deviation in each weight would explain."""
    u, s, vt = np.linalg.svd(weights, full_matrices=False)
    edge = noise * (math.sqrt(weights.shape[0]) + math.sqrt(weights.shape[1]))
    keep = s > 1.1 * edge
    keep[0] = True
    return np.asarray((u[:, keep] * s[keep]) @ vt[keep])


def _resting_phase(weights: Array) -> float:
    """Where the path lingers at the end of expiration: its lowest point along the first principal direction."""
    phases = np.linspace(0.0, 1.0, 100, endpoint=False)
    places = harmonics(phases, len(weights) // 2) @ weights
    _, vectors = np.linalg.eigh(places.T @ places)
    level = places @ vectors[:, -1]
    if level[:50].mean() < level[50:].mean():  # phase 0 is a rise, so the first half is the higher one
        level = -level
    return float(phases[int(level.argmin())])


def _largest_gap(phase: Array) -> float:
    ordered = np.sort(phase)
    return float(np.diff(np.append(ordered, ordered[0] + 1.0)).max())
