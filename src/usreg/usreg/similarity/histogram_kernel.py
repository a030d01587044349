# SPDX-License-Identifier: Apache-2.0
"""Compiled joint histogram of two images by cubic B-splines, and the way back from its derivative to the images'.

Each pixel touches 4 x 4 bins. Blocks of pixels have histograms of their own, added in order: threads change no bit. The
slow reference is `mutual_information.information_torch`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from ..compiled import njit
from .running import Array, Run

BLOCK = 16384  # pixels of one histogram


def value_and_gradients(
    a: Array, b: Array, mask: Array, rule: tuple[int, bool, float], out_a: Array | None, out_b: Array | None, run: Run
) -> float:
    """Mutual information of one image, NaN where no pixel has weight.

    Args:
        a, b: (N,) float32 or float64; what is not finite counts as outside. mask: (N,) weights.
        rule: bins; normalised or not; rounding of the images' type.
        out_a, out_b: (N,) zeros, to fill with derivatives, or None.
        run: over blocks of pixels.
    """
    bins, normalised, rounding = rule
    known = (mask > 0) & np.isfinite(a) & np.isfinite(b)
    whole = float(mask[known].sum(dtype=np.float64))
    if whole <= 0.0:
        return float("nan")
    limits = np.stack([survey(x, known, mask) for x in (a, b)])
    if any(power <= 100.0 * rounding**2 * square * whole + 1e-30 for _, _, _, _, square, power in limits):
        return 0.0
    blocks = -(-len(a) // BLOCK)
    joints = np.zeros((blocks, bins, bins))
    run(partial(fill, a, b, mask, limits, joints), blocks, BLOCK)
    value, slope = information(joints.sum(0) / whole, normalised)
    for of, out in enumerate((out_a, out_b)):
        if out is not None:
            ends = np.zeros((blocks, 2))
            run(partial(pull, a, b, mask, limits, slope / whole, of, out, ends), blocks, BLOCK)
            spread_ends(a if of == 0 else b, mask, (a, b), limits[of], ends.sum(0), out)
    return value


def information(p: Array, normalised: bool) -> tuple[float, Array]:
    """Information of a joint distribution (bins, bins), and its derivative by each entry."""

    def log(x: Array) -> Array:
        return np.log(np.where(x > 0, x, 1.0))

    rows, columns = p.sum(1), p.sum(0)
    logs = log(rows)[:, None], log(columns)[None], log(p)
    entropy = -float((p * logs[2]).sum())
    value = -float((rows * logs[0][:, 0]).sum() + (columns * logs[1][0]).sum()) - entropy
    slope = np.where(p > 0, logs[2] - logs[0] - logs[1] - 1.0, 0.0)
    if not normalised:
        return value, slope
    return value / entropy, slope / entropy + np.where(p > 0, value * (logs[2] + 1.0), 0.0) / entropy**2


def survey(x: Array, known: Array, weight: Array) -> Array:
    """Least, greatest, pixels at either, sum of squares, and that about the mean, of the known pixels."""
    v, w = x[known].astype(np.float64), weight[known].astype(np.float64)
    low, high, less = v.min(), v.max(), v - (w * v).sum() / w.sum()
    return np.array([low, high, (v == low).sum(), (v == high).sum(), (w * v * v).sum(), (w * less * less).sum()])


@njit()
def _known(a: Any, b: Any, mask: Any, i: int) -> bool:
    return mask[i] > 0.0 and np.isfinite(a[i]) and np.isfinite(b[i])


@njit()
def _spline(x: float, low: float, high: float, bins: int, weights: Any, slopes: Any) -> int:
    """First of the four bins that x touches; its shares of them, and their derivatives by its place."""
    place = 1.0 + (bins - 3.0) * (x - low) / (high - low)
    k = min(int(place), bins - 3)
    t = place - k
    s = 1.0 - t
    weights[0], weights[3] = s * s * s / 6.0, t * t * t / 6.0
    weights[1], weights[2] = (4.0 + t * t * (3.0 * t - 6.0)) / 6.0, (4.0 + s * s * (3.0 * s - 6.0)) / 6.0
    slopes[0], slopes[3] = -0.5 * s * s, 0.5 * t * t
    slopes[1], slopes[2] = 0.5 * t * (3.0 * t - 4.0), -0.5 * s * (3.0 * s - 4.0)
    return k - 1


@njit()
def fill(a: Any, b: Any, mask: Any, limits: Any, joints: Any, first: int, last: int) -> None:
    """Joint histograms (K, bins, bins) of the blocks [first, last)."""
    bins, wa, wb, unused = joints.shape[1], np.empty(4), np.empty(4), np.empty(4)
    for block in range(first, last):
        joint = joints[block]
        for i in range(block * BLOCK, min((block + 1) * BLOCK, len(a))):
            if _known(a, b, mask, i):
                m = _spline(a[i], limits[0, 0], limits[0, 1], bins, wa, unused)
                n = _spline(b[i], limits[1, 0], limits[1, 1], bins, wb, unused)
                for p in range(4):
                    for q in range(4):
                        joint[m + p, n + q] += mask[i] * wa[p] * wb[q]


@njit()
def pull(
    a: Any, b: Any, mask: Any, limits: Any, slope: Any, of: int, out: Any, ends: Any, first: int, last: int
) -> None:
    """Derivative by image `of` with its limits held, out (N,), and by its limits, ends (K, 2), for blocks of pixels."""
    bins, wa, wb, da, db = len(slope), np.empty(4), np.empty(4), np.empty(4), np.empty(4)
    low, high = limits[of, 0], limits[of, 1]
    per_grey = (bins - 3.0) / (high - low)
    for block in range(first, last):
        at_low, at_high = 0.0, 0.0
        for i in range(block * BLOCK, min((block + 1) * BLOCK, len(a))):
            total = 0.0
            if _known(a, b, mask, i):
                m = _spline(a[i], limits[0, 0], limits[0, 1], bins, wa, da)
                n = _spline(b[i], limits[1, 0], limits[1, 1], bins, wb, db)
                for p in range(4):
                    for q in range(4):
                        total += slope[m + p, n + q] * (da[p] * wb[q] if of == 0 else wa[p] * db[q])
                total *= mask[i] * per_grey
                share = ((a[i] if of == 0 else b[i]) - low) / (high - low)
                at_low -= total * (1.0 - share)
                at_high -= total * share
            out[i] = total
        ends[block, 0], ends[block, 1] = at_low, at_high


@njit()
def spread_ends(x: Any, mask: Any, images: Any, limits: Any, ends: Any, out: Any) -> None:
    """Hand the derivative by the limits to the pixels that are the limits, in equal parts."""
    for i in range(len(x)):
        if _known(images[0], images[1], mask, i):
            if x[i] == limits[0]:
                out[i] += ends[0] / limits[2]
            if x[i] == limits[1]:
                out[i] += ends[1] / limits[3]
