# SPDX-License-Identifier: Apache-2.0
"""Compiled LNCC of one plane image with its derivatives, by running sums: down the columns, then along the rows.

Columns are independent in the first pass and rows in the second, so that threads may share them in any way without a
change in the last bit. The slow reference is `lncc.lncc_torch`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from ..compiled import njit
from .running import SAFE, Run, field_sums, moments, scratch
from .windows import FLAT, LOST

Array = npt.NDArray[Any]


MOMENTS = ((0, -1, -1), (0, 1, -1), (0, 2, -1), (0, 1, 1), (0, 2, 2), (0, 1, 2))  # of planes weight, a, b
FIELDS = ((0, 3, 4), (0, 1, 2))  # what the derivatives by a, and by b, are sums of: see `correlate_along`


def value_and_gradients(
    a: Array, b: Array, mask: Array, rule: tuple[int, bool], out_a: Array | None, out_b: Array | None, run: Run
) -> float:
    """LNCC of one image, NaN where no pixel has weight; its derivatives by `a` and `b` where there is room for them.

    Args:
        a, b: (h, w) float32 or float64; what is not finite counts as outside.
        mask: (h, w), bool or weights.
        rule: radius of the window; squared or not.
        out_a, out_b: (h, w) to fill, or None.
        run: over columns or rows.
    """
    radius, squared = rule
    planes, down, fields = scratch(3, 6, 5, a.shape)
    levels, parts, wanted = np.empty((2, 3)), np.empty((len(a), 2)), (out_a is not None, out_b is not None)
    if not prepare(a, b, mask, planes, levels):
        return float("nan")
    moments(planes, MOMENTS, radius, down, run)
    settings = (radius, squared, *wanted)
    run(lambda i, k: correlate_along(down, planes, levels, settings, i, k, fields, parts), *a.shape)
    value, whole = parts.sum(0)
    field_sums(fields, sorted({f for of in (0, 1) if wanted[of] for f in FIELDS[of]}), radius, down, run)
    for of, out in enumerate((out_a, out_b)):
        if out is not None:
            run(partial(gradient_along, down, planes, (radius, of, 1.0 / whole), out), *a.shape)
    return float(value / whole)


@njit()
def prepare(a: Any, b: Any, mask: Any, planes: Any, levels: Any) -> bool:
    """Fill planes with weights and both images less their means, and levels (2, 3): mean, and what counts as flat."""
    height, width = a.shape
    weights, sum_a, sum_b = 0.0, 0.0, 0.0
    for i in range(height):
        w_row, a_row, b_row = 0.0, 0.0, 0.0
        for j in range(width):
            x, y, w = np.float64(a[i, j]), np.float64(b[i, j]), np.float64(mask[i, j])
            if not (w > 0.0 and np.isfinite(x) and np.isfinite(y)):
                x, y, w = 0.0, 0.0, 0.0
            planes[0, i, j], planes[1, i, j], planes[2, i, j] = w, x, y
            w_row, a_row, b_row = w_row + w, a_row + w * x, b_row + w * y
        weights, sum_a, sum_b = weights + w_row, sum_a + a_row, sum_b + b_row
    if weights <= 0.0:
        return False
    levels[0, 0], levels[1, 0] = sum_a / weights, sum_b / weights
    for k in range(2):
        power = 0.0
        for i in range(height):
            row = 0.0
            for j in range(width):
                x = planes[1 + k, i, j] - levels[k, 0] if planes[0, i, j] > 0.0 else 0.0
                planes[1 + k, i, j] = x
                row += planes[0, i, j] * x * x
            power += row
        levels[k, 1], levels[k, 2] = FLAT, LOST * power + 1e-300
    return True


@njit(fastmath=SAFE)
def correlate_along(
    down: Any, planes: Any, levels: Any, settings: Any, first: int, last: int, fields: Any, parts: Any
) -> None:
    """Finish the sums along rows [first, last) and correlate.

    fields (5, h, w): p, q_b, q_b mean_b - p mean_a, q_a, q_a mean_a - p mean_b, with p = d / sqrt(A B) and
    q_x = d r / X for A, B the sums of squares about the window's means and d the derivative of the sum by r: what the
    derivatives are window sums of. parts (h, 2): sum of count times r, and of count, of each row.
    """
    radius, squared, by_a, by_b = settings
    level_a, level_b, weight = levels[0], levels[1], planes[0]
    width = weight.shape[1]
    for i in range(first, last):
        n, sa, sb, saa, sbb, sab = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
        value, whole = 0.0, 0.0
        for j in range(-radius, width):
            k = j + radius
            if k < width:
                n += down[0, i, k]
                sa += down[1, i, k]
                sb += down[2, i, k]
                saa += down[3, i, k]
                sbb += down[4, i, k]
                sab += down[5, i, k]
            k = j - radius - 1
            if k >= 0:
                n -= down[0, i, k]
                sa -= down[1, i, k]
                sb -= down[2, i, k]
                saa -= down[3, i, k]
                sbb -= down[4, i, k]
                sab -= down[5, i, k]
            if j < 0:
                continue
            p, q_a, q_b, mean_a, mean_b = 0.0, 0.0, 0.0, 0.0, 0.0
            if weight[i, j] > 0.0:
                by = weight[i, j] * n
                whole += by
                mean_a, mean_b = sa / n, sb / n
                var_a, var_b = saa - sa * mean_a, sbb - sb * mean_b
                power_a = saa + level_a[0] * (2.0 * sa + level_a[0] * n)
                power_b = sbb + level_b[0] * (2.0 * sb + level_b[0] * n)
                if var_a > level_a[1] * power_a + level_a[2] and var_b > level_b[1] * power_b + level_b[2]:
                    p = 1.0 / np.sqrt(var_a * var_b)
                    r = (sab - sa * mean_b) * p
                    value += by * (r * r if squared else r)
                    slope = by * (2.0 * r if squared else 1.0)
                    p *= slope
                    q_a, q_b = slope * r / var_a, slope * r / var_b
            if by_a or by_b:
                fields[0, i, j] = p
            if by_b:
                fields[1, i, j], fields[2, i, j] = q_b, q_b * mean_b - p * mean_a
            if by_a:
                fields[3, i, j], fields[4, i, j] = q_a, q_a * mean_a - p * mean_b
        parts[i, 0], parts[i, 1] = value, whole


@njit(fastmath=SAFE)
def gradient_along(down: Any, planes: Any, settings: Any, out: Any, first: int, last: int) -> None:
    """Finish the sums along rows [first, last): derivative by x, w (y P - x Q_x + T_x), into out (h, w)."""
    radius, of, scale = settings
    weight, x, y = planes[0], planes[1 + of], planes[2 - of]
    width, q_plane, t_plane = weight.shape[1], 3 - 2 * of, 4 - 2 * of
    for i in range(first, last):
        p, q, t = 0.0, 0.0, 0.0
        for j in range(-radius, width):
            k = j + radius
            if k < width:
                p += down[0, i, k]
                q += down[q_plane, i, k]
                t += down[t_plane, i, k]
            k = j - radius - 1
            if k >= 0:
                p -= down[0, i, k]
                q -= down[q_plane, i, k]
                t -= down[t_plane, i, k]
            if j >= 0:
                out[i, j] = weight[i, j] * scale * (y[i, j] * p - x[i, j] * q + t)
