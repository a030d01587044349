# SPDX-License-Identifier: Apache-2.0
"""What every client of the live page is to get next: the newest frame and the newest of each kept message, no queue.

A source shows frames from its own thread; the server asks each client's `Watcher` what to write now. A frame goes to
a client that has acknowledged the one before. Clocks are `time.monotonic()` of this process, in seconds.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from typing import Any

from .watcher import FIRST_INTERVAL_S, HubConfig, Shelf, Shown, Watcher

log = logging.getLogger(__name__)
__all__ = ["Hub", "HubConfig", "Watcher"]


class Hub:
    """Newest frame and kept messages, for any number of clients. All methods may be called from any thread."""

    def __init__(self, config: HubConfig | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._shelf = Shelf(config or HubConfig(), clock)
        self._changed = self._shelf.changed
        self._watchers: list[Watcher] = []
        self._told: list[Callable[[bool], None]] = []
        self._joined = 0

    # --- the source ---

    def show(self, seq: int, message: bytes) -> None:
        """The newest frame; it replaces the one before."""
        with self._changed:
            now_s, before = self._shelf.clock(), self._shelf.newest
            if before is not None:
                step_s = min(max(now_s - before.at_s, 0.0), FIRST_INTERVAL_S)
                self._shelf.interval_s += 0.2 * (step_s - self._shelf.interval_s)
            self._shelf.newest = Shown(seq, message, now_s, before.number + 1 if before else 1)
            self._wake()

    def keep(self, key: str, message: bytes | None) -> None:
        """Sent to all, and to each client that comes, in order of the keys' first use; None forgets it.

        Keys without a slash come before any frame; those with one ("organ/3") take turns with frames.
        """
        with self._changed:
            if message is None:
                self._drop([key])
                return
            self._shelf.kept[key] = message
            for watcher in self._watchers:
                watcher.pending[key] = None
            self._wake()

    def forget(self, prefix: str) -> None:
        """Forget the kept messages whose key starts so."""
        with self._changed:
            self._drop([key for key in self._shelf.kept if key.startswith(prefix)])

    @property
    def watched(self) -> bool:
        """Somebody is connected."""
        return bool(self._watchers)

    @property
    def hungry(self) -> bool:
        """At least one client has acknowledged its last frame: making the next one is worth while."""
        with self._changed:
            return any(watcher.ready for watcher in self._watchers)

    def wait_hungry(self, timeout_s: float | None = None) -> bool:
        """Wait until a client could take a frame; False when none can within the time."""
        with self._changed:
            return self._changed.wait_for(lambda: any(watcher.ready for watcher in self._watchers), timeout_s)

    def on_watch(self, told: Callable[[bool], None]) -> None:
        """Have `told` called with True when the first client comes, False when the last one has left."""
        self._told.append(told)

    def figures(self) -> dict[str, Any]:
        """Frames shown, their interval, and what each client got; see `Watcher.figures`."""
        with self._changed:
            return {
                "shown": self._shelf.newest.number if self._shelf.newest else 0,
                "interval_s": self._shelf.interval_s,
                "kept_bytes": sum(map(len, self._shelf.kept.values())),
                "clients": [watcher.figures() for watcher in self._watchers],
            }

    # --- the server ---

    def join(self, wake: Callable[[], None]) -> Watcher:
        """A client has come. `wake` is called, from any thread, when there may be something to write."""
        with self._changed:
            self._joined += 1
            watcher = Watcher(self._shelf, self._joined, wake)
            self._watchers.append(watcher)
            first = len(self._watchers) == 1
            self._changed.notify_all()
        if first:
            self._tell(True)
        return watcher

    def leave(self, watcher: Watcher) -> None:
        """A client has left; a second call does nothing."""
        with self._changed:
            if watcher not in self._watchers:
                return
            self._watchers.remove(watcher)
            last = not self._watchers
        if last:
            self._tell(False)

    def _drop(self, keys: list[str]) -> None:
        for key in keys:
            self._shelf.kept.pop(key, None)
            for watcher in self._watchers:
                watcher.pending.pop(key, None)

    def _wake(self) -> None:
        for watcher in self._watchers:
            if watcher.wait_s() < math.inf:
                watcher.wake()

    def _tell(self, watched: bool) -> None:
        for told in self._told:
            try:
                told(watched)
            except Exception:  # what a source does on it must not end the server
                log.exception("on_watch(%s) failed", watched)
