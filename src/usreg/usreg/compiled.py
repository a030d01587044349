# SPDX-License-Identifier: Apache-2.0
"""Kernels compiled by numba and kept on disk, where there is a folder to keep them in."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

import numba

from .errors import ConfigError

F = TypeVar("F", bound=Callable[..., Any])
_log = logging.getLogger(__name__)


def njit(**options: Any) -> Callable[[F], F]:
    """Decorator: compile on the first call, without the interpreter's lock, and load from the cache at later starts.

    numba keeps its cache beside the package or, where that is read-only, in the user's cache folder; NUMBA_CACHE_DIR
    names another. Where none can be written the kernel is compiled at every start instead of failing at import.

    Raises:
        ConfigError: parallel=True. numba's threads abort the process when two threads enter their simplest layer at
            once, and spin in the others; `workers` shares out work instead.
    """
    if options.get("parallel"):
        raise ConfigError(
            "kernels do not use numba's threads (parallel=True): share the work out with workers.run_ranges"
        )

    def decorate(function: F) -> F:
        try:
            return numba.njit(cache=True, nogil=True, **options)(function)
        except RuntimeError as error:  # numba found no folder that it can write
            _log.info("%s is compiled at every start: %s", function.__name__, error)
            return numba.njit(nogil=True, **options)(function)

    return decorate
