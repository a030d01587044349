# SPDX-License-Identifier: Apache-2.0
"""Compiled LC2 of one plane image with its derivatives by the moving channels, by running sums.

The slow reference is `lc2.lc2_torch`. With theta the coefficients of a window, r its residual and E = theta' c what it
explains, dE = 2 theta_k sum r d m_k - n theta_k^2 d ridge_k: the derivatives are window sums of products of theta.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from ..compiled import njit
from .running import SAFE, Array, Run, field_sums, moments, scratch
from .windows import FLAT, LOST

# planes: 0 weight, 1 known, 2 u (fixed), 3 p (intensity), 4 q (gradient magnitude)
MOMENTS = ((0, -1, -1), (1, -1, -1), (0, 2, -1), (0, 3, -1), (0, 4, -1), (0, 2, 2), (0, 3, 3), (0, 4, 4), (0, 3, 4),
           (0, 2, 3), (0, 2, 4))  # fmt: skip
FIELDS = 7  # theta_p, theta_q, each times the offset, theta_p^2, theta_p theta_q, theta_q^2: all times the weight
LEAST = 4  # known pixels of a window: one more than it has unknowns


def value_and_gradient(
    a: Array, b: Array, mask: Array, rule: tuple[tuple[int, ...], float], out: Array | None, run: Run
) -> float:
    """LC2 of one image, NaN where no pixel has weight.

    Args:
        a: (h, w), b: (2, h, w) float32 or float64; what is not finite counts as outside.
        mask: (h, w), bool or weights.
        rule: radii and relative ridge.
        out: (2, h, w) zeros, to which the derivative by b is added, or None.
        run: over columns or rows.
    """
    radii, ridge = rule
    planes, down, fields = scratch(5, len(MOMENTS), FIELDS, a.shape)
    levels, parts, score = np.empty(6), np.empty((len(a), 4)), 0.0
    if not prepare(a, b, mask, ridge, planes, levels):
        return float("nan")
    for radius in radii:
        moments(planes, MOMENTS, radius, down, run)
        run(partial(fit_along, down, planes, levels, (radius, out is not None), fields, parts), *a.shape)
        explained, whole, held_p, held_q = parts.sum(0)
        if whole <= 0.0:
            continue
        score += float(explained / whole)
        if out is not None:
            field_sums(fields, range(FIELDS), radius, down, run)
            scale = 2.0 / (whole * len(radii))
            pull = (scale, scale * ridge * held_p / levels[5], scale * ridge * held_q / levels[5])
            run(partial(gradient_along, down, planes, radius, pull, out), *a.shape)
    return score / len(radii)


@njit()
def prepare(a: Any, b: Any, mask: Any, ridge: float, planes: Any, levels: Any) -> bool:
    """Fill planes with weights and images less their means; levels (6,): mean of a, what counts as flat in it by share
    and by power, ridges of both channels per pixel, total weight. A channel without contrast is zero, its ridge 1.
    """
    height, width = a.shape
    sums, row = np.zeros(4), np.empty(4)
    for i in range(height):
        row[:] = 0.0
        for j in range(width):
            w, u = np.float64(mask[i, j]), np.float64(a[i, j])
            p, q = np.float64(b[0, i, j]), np.float64(b[1, i, j])
            seen = w > 0.0 and np.isfinite(u) and np.isfinite(p) and np.isfinite(q)
            if not seen:
                w, u, p, q = 0.0, 0.0, 0.0, 0.0
            planes[0, i, j], planes[1, i, j] = w, 1.0 if seen else 0.0
            planes[2, i, j], planes[3, i, j], planes[4, i, j] = u, p, q
            row[0] += w
            row[1] += w * u
            row[2] += w * p
            row[3] += w * q
        sums += row
    if sums[0] <= 0.0:
        return False
    for k in range(3):
        mean, power = sums[1 + k] / sums[0], 0.0
        for i in range(height):
            line = 0.0
            for j in range(width):
                x = planes[2 + k, i, j] - mean if planes[0, i, j] > 0.0 else 0.0
                planes[2 + k, i, j] = x
                line += planes[0, i, j] * x * x
            power += line
        if k == 0:
            levels[0], levels[1], levels[2] = mean, FLAT, LOST * power + 1e-300
        elif power > FLAT * (power + sums[0] * mean * mean) + 1e-300 * sums[0]:
            levels[2 + k] = ridge * power / sums[0]
        else:
            levels[2 + k] = 1.0
            planes[2 + k] = 0.0
    levels[5] = sums[0]
    return True


@njit(fastmath=SAFE)
def fit_along(
    down: Any, planes: Any, levels: Any, settings: Any, fields: Any, parts: Any, first: int, last: int
) -> None:
    """Finish the sums along rows [first, last) and regress each window.

    fields (7, h, w): see FIELDS. parts (h, 4), of each row: explained, total, and n theta^2 of both channels.
    """
    radius, full = settings
    width = planes.shape[2]
    s, row = np.empty(11), np.empty(4)
    for i in range(first, last):
        s[:] = 0.0
        row[:] = 0.0
        for j in range(-radius, width):
            if j + radius < width:
                for k in range(11):
                    s[k] += down[k, i, j + radius]
            if j > radius:
                for k in range(11):
                    s[k] -= down[k, i, j - radius - 1]
            if j < 0:
                continue
            w, n, theta_p, theta_q, offset = planes[0, i, j], s[0], 0.0, 0.0, 0.0
            if w > 0.0 and s[1] > LEAST - 0.5:
                mean_u, mean_p, mean_q = s[2] / n, s[3] / n, s[4] / n
                sst = s[5] - s[2] * mean_u
                power = s[5] + levels[0] * (2.0 * s[2] + levels[0] * n)
                if sst > levels[1] * power + levels[2]:
                    pp, qq = s[6] - s[3] * mean_p + n * levels[3], s[7] - s[4] * mean_q + n * levels[4]
                    pq, up, uq = s[8] - s[3] * mean_q, s[9] - s[2] * mean_p, s[10] - s[2] * mean_q
                    determinant = pp * qq - pq * pq
                    theta_p, theta_q = (qq * up - pq * uq) / determinant, (pp * uq - pq * up) / determinant
                    offset = mean_u - theta_p * mean_p - theta_q * mean_q
                    row[0] += w * (theta_p * up + theta_q * uq)
                    row[1] += w * sst
                    row[2] += w * n * theta_p * theta_p
                    row[3] += w * n * theta_q * theta_q
            if full:
                fields[0, i, j], fields[1, i, j] = w * theta_p, w * theta_q
                fields[2, i, j], fields[3, i, j] = w * theta_p * offset, w * theta_q * offset
                fields[4, i, j], fields[6, i, j] = w * theta_p * theta_p, w * theta_q * theta_q
                fields[5, i, j] = w * theta_p * theta_q
        parts[i] = row


@njit(fastmath=SAFE)
def gradient_along(down: Any, planes: Any, radius: int, pull: Any, out: Any, first: int, last: int) -> None:
    """Finish the sums of fields along rows [first, last) and add the derivatives by p and q to out (2, h, w)."""
    scale, held_p, held_q = pull
    width = planes.shape[2]
    s = np.empty(7)
    for i in range(first, last):
        s[:] = 0.0
        for j in range(-radius, width):
            if j + radius < width:
                for k in range(7):
                    s[k] += down[k, i, j + radius]
            if j > radius:
                for k in range(7):
                    s[k] -= down[k, i, j - radius - 1]
            if j >= 0:
                w, u, p, q = planes[0, i, j], planes[2, i, j], planes[3, i, j], planes[4, i, j]
                out[0, i, j] += w * (scale * (u * s[0] - s[2] - p * s[4] - q * s[5]) - held_p * p)
                out[1, i, j] += w * (scale * (u * s[1] - s[3] - p * s[5] - q * s[6]) - held_q * q)
