# SPDX-License-Identifier: Apache-2.0
"""Ranges of jobs on threads, for kernels that release the interpreter's lock."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch


def in_threads(work: Callable[[int, int], None], jobs: int, least: int) -> None:
    """Call work(first, last) over [0, jobs) on as many threads as torch uses, each with at least `least` jobs.

    Every job is on its own: the number of threads changes nothing in the result.
    """
    threads = max(1, min(torch.get_num_threads(), jobs // max(1, least)))
    bounds = [jobs * k // threads for k in range(threads + 1)]
    if threads == 1:
        work(0, jobs)
        return
    with ThreadPoolExecutor(threads - 1) as pool:
        pending = [pool.submit(work, a, b) for a, b in zip(bounds[1:], bounds[2:], strict=False)]
        work(bounds[0], bounds[1])
        for job in pending:
            job.result()
