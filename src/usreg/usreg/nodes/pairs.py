# SPDX-License-Identifier: Apache-2.0
"""Messages of one frame travel on several topics with one stamp: here they find each other."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any


class StampPairs:
    """Collects parts by stamp until a set is whole.

    Args:
        parts: names of what belongs together.
        limit: sets that wait; beyond it the oldest is given up.
        on_drop: told the stamp and the parts that had come.
    """

    def __init__(
        self, parts: Iterable[str], limit: int = 16, on_drop: Callable[[float, dict[str, Any]], None] | None = None
    ) -> None:
        self._parts = frozenset(parts)
        self._limit, self._on_drop = limit, on_drop
        self._waiting: dict[float, tuple[float, dict[str, Any]]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, part: str, stamp_s: float, value: Any) -> dict[str, Any] | None:
        """The whole set when this was its last part, else None."""
        _, found = self._waiting.setdefault(stamp_s, (time.monotonic(), {}))
        found[part] = value
        if self._parts <= found.keys():
            del self._waiting[stamp_s]
            return found
        while len(self._waiting) > self._limit:
            oldest = next(iter(self._waiting))
            self._drop(oldest, self._waiting.pop(oldest)[1])
        return None

    def overdue(self, wait_s: float) -> list[tuple[float, dict[str, Any]]]:
        """Take out the sets that have waited longer than this, by the steady clock."""
        before = time.monotonic() - wait_s
        late = [stamp for stamp, (since, _) in self._waiting.items() if since < before]
        return [(stamp, self._waiting.pop(stamp)[1]) for stamp in late]

    def reset(self) -> None:
        """Forget what waits."""
        self._waiting.clear()

    def _drop(self, stamp_s: float, found: dict[str, Any]) -> None:
        if self._on_drop is not None:
            self._on_drop(stamp_s, found)
