# SPDX-License-Identifier: Apache-2.0
"""A thread that works on the newest item, so that the executor never waits for heavy work."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from typing import Any

log = logging.getLogger(__name__)


class NewestWorker:
    """Calls `work(item)` in its own thread; an item that comes while one waits replaces it.

    Args:
        on_skip: told of the item that was replaced.
        niceness: added to the thread's own (Linux), so that display and tracking go first.
    """

    def __init__(
        self,
        work: Callable[[Any], None],
        on_skip: Callable[[Any], None] | None = None,
        niceness: int = 0,
        name: str = "worker",
    ) -> None:
        self._work, self._on_skip, self._niceness = work, on_skip, niceness
        self._condition = threading.Condition()
        self._item: Any = None
        self._busy = self._stopped = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, item: Any) -> None:
        """Hand over the newest item."""
        with self._condition:
            skipped, self._item = self._item, item
            self._condition.notify_all()
        if skipped is not None and self._on_skip is not None:
            self._on_skip(skipped)

    def clear(self) -> None:
        """Forget the item that waits."""
        with self._condition:
            self._item = None

    def waiting(self) -> bool:
        """Whether an item has not been taken up yet."""
        with self._condition:
            return self._item is not None

    def idle(self, timeout_s: float) -> bool:
        """Wait until nothing is left to do; false when that takes longer."""
        with self._condition:
            return self._condition.wait_for(lambda: not self._busy and self._item is None, timeout_s)

    def stop(self, timeout_s: float = 5.0) -> None:
        """Let the work in hand finish, then end the thread."""
        with self._condition:
            self._stopped, self._item = True, None
            self._condition.notify_all()
        if self._thread is not threading.current_thread():
            self._thread.join(timeout_s)

    def _run(self) -> None:
        self._be_nice()
        while True:
            with self._condition:
                self._busy = False
                self._condition.notify_all()
                self._condition.wait_for(lambda: self._item is not None or self._stopped)
                if self._stopped:
                    return
                item, self._item, self._busy = self._item, None, True
            try:
                self._work(item)
            except Exception:  # a defect in the work must be seen and must not end the thread in silence
                log.exception("unexpected error in %s", self._thread.name)

    def _be_nice(self) -> None:
        if self._niceness and hasattr(os, "setpriority"):
            thread = threading.get_native_id()
            os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + self._niceness)
