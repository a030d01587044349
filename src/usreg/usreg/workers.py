# SPDX-License-Identifier: Apache-2.0
"""Threads for compiled kernels that release the GIL.

numba's own threading layers either spin while they wait or must not be entered by two threads at once; nodes share the
process with others, so fixed ranges of jobs go to a small pool instead. Results do not depend on the number of threads.
"""

from __future__ import annotations

import functools
import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numba

from .errors import ConfigError

MAX_THREADS = 8
NAME = "usreg-kernel"
_log = logging.getLogger(__name__)


@functools.lru_cache(maxsize=1)
def thread_count() -> int:
    """Threads for kernels: USREG_THREADS, or the processors that this process may use, at most 8.

    Raises:
        ConfigError: USREG_THREADS is no whole number above zero.
    """
    wanted = os.environ.get("USREG_THREADS", "").strip()
    if wanted and not (wanted.isascii() and wanted.isdigit() and int(wanted) > 0):
        raise ConfigError(f"USREG_THREADS is '{wanted}': give a whole number above zero, or leave it unset")
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(int(wanted) if wanted else available, MAX_THREADS)


def foreign_layer() -> str:
    """The threading layer of numba that somebody else in this process has started; empty for none."""
    try:
        return str(numba.threading_layer())
    except ValueError:  # nobody has: usreg never does
        return ""


@functools.lru_cache(maxsize=1)
def _pool(process: int) -> ThreadPoolExecutor:
    """One pool per process: a fork must not inherit threads that are not there. The layer is checked at its start."""
    if foreign_layer() == "workqueue":
        _log.warning(
            "another library in this process runs numba kernels with parallel=True on the layer 'workqueue', which "
            "aborts the process when two threads enter it: set NUMBA_THREADING_LAYER to omp or tbb for it; usreg's "
            "own kernels do not use it"
        )
    return ThreadPoolExecutor(max(1, thread_count() - 1), thread_name_prefix=NAME)


def run_ranges(work: Callable[[int, int], None], jobs: int, least: int) -> None:
    """Call work(first, last) over [0, jobs), on several threads if each gets at least `least` jobs.

    The calling thread takes the first range. From a thread of the pool everything is done at once: it must not wait for
    its own pool.
    """
    if threading.current_thread().name.startswith(NAME):
        work(0, jobs)
        return
    threads = max(1, min(thread_count(), jobs // max(1, least)))
    bounds = [jobs * k // threads for k in range(threads + 1)]
    pending = [_pool(os.getpid()).submit(work, a, b) for a, b in zip(bounds[1:], bounds[2:], strict=False)]
    work(bounds[0], bounds[1])
    for job in pending:
        job.result()
