# SPDX-License-Identifier: Apache-2.0
"""Running sums of several moments of an image at once, down its columns: what compiled LNCC and LC2 share.

Columns are independent in this pass, and rows in those that finish the sums along the rows, so that threads may share
them in any way without a change in the last bit.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..compiled import njit
from ..workers import run_ranges

Array = npt.NDArray[Any]
Work = Callable[[int, int], None]
Run = Callable[[Work, int, int], None]  # work(first, last) over a number of lines, each of a number of pixels
LEAST_PIXELS = 16384  # per thread
SAFE = {"contract"}


class _Planes(threading.local):
    """Planes of work, kept per thread: fresh memory for every call costs more than the sums."""

    def __init__(self) -> None:
        self.planes: Array = np.empty((0, 0, 0))


_own = _Planes()


def scratch(images: int, moments_: int, fields: int, shape: Sequence[int]) -> tuple[Array, Array, Array]:
    """Planes (images, h, w), (moments, h, w), (fields, h, w) of float64, holding anything, of the calling thread."""
    count = images + moments_ + fields
    if _own.planes.shape[1:] != tuple(shape) or len(_own.planes) < count:
        _own.planes = np.empty((count, *shape))
    planes = _own.planes
    return planes[:images], planes[images : images + moments_], planes[images + moments_ : count]


def shared(work: Work, lines: int, pixels: int) -> None:
    """`Run` on several threads."""
    run_ranges(work, lines, max(1, LEAST_PIXELS // pixels))


def alone(work: Work, lines: int, pixels: int) -> None:
    """`Run` on the calling thread: inside work that is shared already."""
    work(0, lines)


def each(one: Callable[[int, Run], None], images: int) -> None:
    """Call one(job, run) for every image of a batch: several images side by side, or the lines of a single one."""
    if images == 1:
        one(0, shared)
        return

    def several(first: int, last: int) -> None:
        for job in range(first, last):
            one(job, alone)

    run_ranges(several, images, 1)


def moments(planes: Array, table: Sequence[tuple[int, int, int]], radius: int, out: Array, run: Run) -> None:
    """Sums over 2 radius + 1 rows of products of planes, (K, h, w), for a table of their indices; -1 is one."""
    height, width = planes.shape[1:]
    rows = np.array(table)
    run(lambda first, last: moments_down(planes, rows, radius, first, last, out), width, height)


def field_sums(fields: Array, chosen: Sequence[int], radius: int, out: Array, run: Run) -> None:
    """Sums over 2 radius + 1 rows of the chosen fields, into the same planes of out."""
    height, width = fields.shape[1:]
    which = np.array(chosen, np.int64)
    run(lambda first, last: fields_down(fields, which, radius, first, last, out), width, height)


@njit(fastmath=SAFE)
def _add_row(total: Any, planes: Any, table: Any, row: int, ends: Any, one: Any, sign: float) -> None:
    first, last = ends
    for k in range(len(table)):
        into, x = total[k], planes[table[k, 0], row, first:last]
        y = planes[table[k, 1], row, first:last] if table[k, 1] >= 0 else one
        z = planes[table[k, 2], row, first:last] if table[k, 2] >= 0 else one
        for c in range(last - first):
            into[c] += sign * (x[c] * y[c] * z[c])


@njit(fastmath=SAFE)
def moments_down(planes: Any, table: Any, radius: int, first: int, last: int, out: Any) -> None:
    """See `moments`, for columns [first, last)."""
    height = planes.shape[1]
    total, one, ends = np.zeros((len(table), last - first)), np.ones(last - first), (first, last)
    for i in range(min(radius, height)):
        _add_row(total, planes, table, i, ends, one, 1.0)
    for i in range(height):
        if i + radius < height:
            _add_row(total, planes, table, i + radius, ends, one, 1.0)
        if i > radius:
            _add_row(total, planes, table, i - radius - 1, ends, one, -1.0)
        for k in range(len(table)):
            for c in range(last - first):
                out[k, i, first + c] = total[k, c]


@njit(fastmath=SAFE)
def fields_down(fields: Any, chosen: Any, radius: int, first: int, last: int, out: Any) -> None:
    """See `field_sums`, for columns [first, last)."""
    height = fields.shape[1]
    total = np.empty(last - first)
    for f in chosen:
        total[:] = 0.0
        for i in range(min(radius, height)):
            total += fields[f, i, first:last]
        for i in range(height):
            if i + radius < height:
                total += fields[f, i + radius, first:last]
            if i > radius:
                total -= fields[f, i - radius - 1, first:last]
            out[f, i, first:last] = total
