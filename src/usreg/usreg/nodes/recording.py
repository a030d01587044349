# SPDX-License-Identifier: Apache-2.0
"""A bag that is being recorded: a thread writes, so that a slow disk never stops the graph. Imports nothing of ROS."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from pathlib import Path

from ..data.bags import BagWriter, qos_profile
from ..errors import UsregError

log = logging.getLogger(__name__)
FLUSH_S = 0.5
CLOSE_S = 30.0
Entry = tuple[str, int, bytes]


class Recording:
    """Takes messages at once and writes them behind; whatever ends it leaves a readable bag.

    Messages that come before simulated time has begun (stamp 0: volume and statics) wait, and are written with the
    first time that is known.

    Args:
        path: folder to be made.
        waiting: messages that may wait for the disk.
        on_written: told of each message's log time, ns. on_failed: told why nothing more is written.

    Raises:
        WriteError: the path exists or cannot be made.
    """

    def __init__(
        self,
        path: Path,
        waiting: int,
        on_written: Callable[[int], None],
        on_failed: Callable[[UsregError], None],
    ) -> None:
        self.path = path
        self.failed = False
        self._on_written, self._on_failed = on_written, on_failed
        self._writer = BagWriter(path, live=True)
        self._waiting: queue.Queue[Entry] = queue.Queue(waiting)
        self._early: list[Entry] = []
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    def add_topic(self, topic: str, type_name: str, latched: bool) -> None:
        """Declare a topic.

        Raises:
            UsregError: its type is not known, or the disk is full.
        """
        self._writer.add_topic(topic, type_name, [qos_profile(transient_local=latched, depth=100)])

    def take(self, topic: str, stamp_ns: int, data: bytes) -> bool:
        """Whether there was room for a message."""
        if self.failed or self._ending.is_set():
            return True
        try:
            self._waiting.put_nowait((topic, stamp_ns, data))
        except queue.Full:
            return False
        return True

    def close(self) -> None:
        """Write what waits, and finish the bag."""
        self._ending.set()
        self._thread.join(CLOSE_S)

    def _run(self) -> None:
        try:
            while not (self._ending.is_set() and self._waiting.empty()):
                self._next()
            self._write_early(0)
            self._writer.close()
        except UsregError as error:
            self.failed = True
            self._give_up()
            self._on_failed(error)

    def _next(self) -> None:
        try:
            topic, stamp_ns, data = self._waiting.get(timeout=0.05 if self._ending.is_set() else FLUSH_S)
        except queue.Empty:
            self._writer.flush()  # nothing comes: what came survives a kill
            return
        if stamp_ns <= 0:
            self._early.append((topic, 0, data))
            return
        self._write_early(stamp_ns)
        self._writer.write_raw(topic, stamp_ns, data)
        self._on_written(stamp_ns)

    def _write_early(self, stamp_ns: int) -> None:
        early, self._early = self._early, []
        for topic, _, data in early:
            self._writer.write_raw(topic, stamp_ns, data)
            self._on_written(stamp_ns)

    def _give_up(self) -> None:
        try:
            self._writer.abort()
        except UsregError as error:
            log.error("%s", error)
