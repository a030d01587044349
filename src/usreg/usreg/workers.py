# SPDX-License-Identifier: Apache-2.0
"""Threads for compiled kernels that release the GIL.

numba's own threading layers either spin while they wait or must not be entered by two threads at once; nodes share the
process with others, so fixed ranges of jobs go to a small pool instead. Results do not depend on the number of threads.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

MAX_THREADS = 8


@functools.lru_cache(maxsize=1)
def thread_count() -> int:
    """Threads for kernels: USREG_THREADS, or the processors that this process may use, at most 8."""
    wanted = os.environ.get("USREG_THREADS", "")
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(int(wanted) if wanted.isdigit() else available, MAX_THREADS))


@functools.lru_cache(maxsize=1)
def _pool(process: int) -> ThreadPoolExecutor:
    """One pool per process: a fork must not inherit threads that are not there."""
    return ThreadPoolExecutor(max(1, thread_count() - 1), thread_name_prefix="usreg-kernel")


def run_ranges(work: Callable[[int, int], None], jobs: int, least: int) -> None:
    """Call work(first, last) over [0, jobs), on several threads if each gets at least `least` jobs.

    The calling thread takes the first range.
    """
    threads = max(1, min(thread_count(), jobs // max(1, least)))
    bounds = [jobs * k // threads for k in range(threads + 1)]
    pending = [_pool(os.getpid()).submit(work, a, b) for a, b in zip(bounds[1:], bounds[2:], strict=False)]
    work(bounds[0], bounds[1])
    for job in pending:
        job.result()
