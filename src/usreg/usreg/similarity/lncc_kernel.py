# SPDX-License-Identifier: Apache-2.0
"""Compiled LNCC of one plane image with its derivatives, by running sums: down the columns, then along the rows.

Columns are independent in the first pass and rows in the second, so that threads may share them in any way without a
change in the last bit. The slow reference is `lncc.lncc_torch`.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import numpy.typing as npt

from ..compiled import njit
from ..workers import run_ranges
from .windows import FLAT, LOST

Array = npt.NDArray[Any]
LEAST_PIXELS = 16384  # per thread
SAFE = {"contract"}


class _Scratch(threading.local):
    """Planes of work, kept per thread: fresh memory for every call costs more than the sums."""

    def __init__(self) -> None:
        self.planes: Array = np.empty((14, 0, 0))

    def get(self, height: int, width: int) -> Array:
        """(14, h, w) float64, holding anything."""
        if self.planes.shape[1:] != (height, width):
            self.planes = np.empty((14, height, width))
        return self.planes


_scratch = _Scratch()


def value_and_gradients(
    a: Array, b: Array, mask: Array, rule: tuple[int, bool], out_a: Array | None, out_b: Array | None
) -> float:
    """LNCC of one image, NaN where no pixel has weight; its derivatives by `a` and `b` where there is room for them.

    Args:
        a, b: (h, w) float32 or float64; what is not finite counts as outside.
        mask: (h, w), bool or weights.
        rule: radius of the window; squared or not.
        out_a, out_b: (h, w) to fill, or None.
    """
    radius, squared = rule
    height, width = a.shape
    columns, rows = max(1, LEAST_PIXELS // height), max(1, LEAST_PIXELS // width)
    planes = _scratch.get(height, width)
    weight, fixed, moving, down, fields = planes[0], planes[1], planes[2], planes[3:9], planes[9:14]
    levels, parts, wanted = np.empty((2, 3)), np.empty((height, 2)), (out_a is not None, out_b is not None)
    if not prepare(a, b, mask, planes, levels):
        return np.nan
    run_ranges(lambda first, last: moments_down(weight, fixed, moving, radius, first, last, down), width, columns)
    settings = (radius, squared, *wanted)
    run_ranges(lambda i, k: correlate_along(down, weight, levels, settings, i, k, fields, parts), height, rows)
    value, whole = parts.sum(0)
    if any(wanted):
        run_ranges(lambda first, last: fields_down(fields, radius, wanted, first, last, down), width, columns)
    for derivative, out in enumerate((out_a, out_b)):
        if out is not None:
            own, other = (moving, fixed) if derivative else (fixed, moving)

            def along(i: int, k: int, x: Array = own, y: Array = other, of: int = derivative, out: Array = out) -> None:
                gradient_along(down, weight, x, y, (radius, of, 1.0 / whole), i, k, out)

            run_ranges(along, height, rows)
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
def _add(total: Any, x: Any, y: Any, z: Any, sign: Any) -> None:
    """total += sign x y z."""
    for c in range(len(total)):
        total[c] += sign * (x[c] * y[c] * z[c])


@njit(fastmath=SAFE)
def _add_row(total: Any, w: Any, a: Any, b: Any, one: Any, sign: Any) -> None:
    _add(total[0], w, one, one, sign)
    _add(total[1], w, a, one, sign)
    _add(total[2], w, b, one, sign)
    _add(total[3], w, a, a, sign)
    _add(total[4], w, b, b, sign)
    _add(total[5], w, a, b, sign)


@njit(fastmath=SAFE)
def moments_down(weight: Any, a: Any, b: Any, radius: int, first: int, last: int, out: Any) -> None:
    """Sums of w, wa, wb, waa, wbb, wab over 2 radius + 1 rows, for columns [first, last): out (6, h, w)."""
    height = len(a)
    total, one = np.zeros((6, last - first)), np.ones(last - first)
    for i in range(min(radius, height)):
        _add_row(total, weight[i, first:last], a[i, first:last], b[i, first:last], one, 1.0)
    for i in range(height):
        k = i + radius
        if k < height:
            _add_row(total, weight[k, first:last], a[k, first:last], b[k, first:last], one, 1.0)
        k = i - radius - 1
        if k >= 0:
            _add_row(total, weight[k, first:last], a[k, first:last], b[k, first:last], one, -1.0)
        out[:, i, first:last] = total


@njit(fastmath=SAFE)
def correlate_along(
    down: Any, weight: Any, levels: Any, settings: Any, first: int, last: int, fields: Any, parts: Any
) -> None:
    """Finish the sums along rows [first, last) and correlate.

    fields (5, h, w): p, q_b, q_b mean_b - p mean_a, q_a, q_a mean_a - p mean_b, with p = d / sqrt(A B) and
    q_x = d r / X for A, B the sums of squares about the window's means and d the derivative of the sum by r: what the
    derivatives are window sums of. parts (h, 2): sum of count times r, and of count, of each row.
    """
    radius, squared, by_a, by_b = settings
    level_a, level_b = levels[0], levels[1]
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
def fields_down(fields: Any, radius: int, wanted: Any, first: int, last: int, out: Any) -> None:
    """Sums of the fields over 2 radius + 1 rows, for columns [first, last)."""
    height = fields.shape[1]
    total = np.empty(last - first)
    for f in range(5):
        if (f in (1, 2) and not wanted[1]) or (f in (3, 4) and not wanted[0]):
            continue
        total[:] = 0.0
        for i in range(min(radius, height)):
            total += fields[f, i, first:last]
        for i in range(height):
            if i + radius < height:
                total += fields[f, i + radius, first:last]
            if i > radius:
                total -= fields[f, i - radius - 1, first:last]
            out[f, i, first:last] = total


@njit(fastmath=SAFE)
def gradient_along(down: Any, weight: Any, x: Any, y: Any, settings: Any, first: int, last: int, out: Any) -> None:
    """Finish the sums along rows [first, last): derivative by x, w (y P - x Q_x + T_x), into out (h, w)."""
    radius, of, scale = settings
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
