# SPDX-License-Identifier: Apache-2.0
"""The thread that paints: always the newest frame, and only while a page can take one. Imports nothing of ROS."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from ..web.hub import Hub

log = logging.getLogger(__name__)
WAIT_S = 0.2  # between two looks whether the thread is to end


class Painting:
    """Calls `paint(item)` with the newest item once a page has acknowledged its last frame; shows what it returns.

    Args:
        paint: the message of an item with this number; None: it cannot be shown.
    """

    def __init__(self, hub: Hub, paint: Callable[[Any, int], bytes | None]) -> None:
        self._hub, self._paint = hub, paint
        self._condition = threading.Condition()
        self._item: Any = None
        self._stopped = False
        self._seq = 0
        self._thread = threading.Thread(target=self._run, name="painting", daemon=True)
        self._thread.start()

    def put(self, item: Any) -> None:
        """The newest item; it replaces one that was not painted yet."""
        with self._condition:
            self._item = item
            self._condition.notify_all()

    def clear(self) -> None:
        """Forget the item that waits."""
        with self._condition:
            self._item = None

    def stop(self) -> None:
        """Let the picture in hand finish, then end the thread."""
        with self._condition:
            self._stopped, self._item = True, None
            self._condition.notify_all()
        self._thread.join(5.0)

    def _run(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._item is not None or self._stopped)
            if self._stopped:
                return
            if not self._hub.wait_hungry(WAIT_S):
                continue
            with self._condition:
                item, self._item = self._item, None
            if item is not None:
                self._show(item)

    def _show(self, item: Any) -> None:
        try:
            message = self._paint(item, self._seq + 1)
        except Exception:  # a defect must be seen and must not end the thread in silence
            log.exception("unexpected error while a frame was painted")
            return
        if message is not None:
            self._seq += 1
            self._hub.show(self._seq, message)
