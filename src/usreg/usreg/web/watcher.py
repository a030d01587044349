# SPDX-License-Identifier: Apache-2.0
"""One client as the hub sees it: what it has, what it has acknowledged, and what it gets next."""

from __future__ import annotations

import math
import statistics
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..config import check_range

LATENCIES = 300  # of the last frames, per client
FIRST_INTERVAL_S = 0.1  # of frames, until two were shown; slower sources count as this


@dataclass(frozen=True)
class HubConfig:
    """When a frame is sent and when a client counts as stalled.

    Args:
        wait_s: a frame older than half the interval of frames waits for the next one, until it is this old.
        stalled_s: a client whose acknowledgement is missing for this long gets nothing but pings.
        max_answers: replies that wait for a client at most.
    """

    wait_s: float = 0.1
    stalled_s: float = 10.0
    max_answers: int = 64

    def __post_init__(self) -> None:
        check_range("wait_s", self.wait_s, 0.0, 10.0)
        check_range("stalled_s", self.stalled_s, 0.01, 3600.0)
        check_range("max_answers", self.max_answers, 1, 10_000)


@dataclass(frozen=True)
class Shown:
    """A frame of the source: its own number, the message, when it was shown, and a count that only rises."""

    seq: int
    message: bytes
    at_s: float
    number: int


@dataclass
class Shelf:
    """What all clients share: the newest frame and the kept messages. `changed` guards it and the watchers."""

    config: HubConfig
    clock: Callable[[], float]
    changed: threading.Condition = field(default_factory=threading.Condition)
    newest: Shown | None = None
    kept: dict[str, bytes] = field(default_factory=dict)
    interval_s: float = FIRST_INTERVAL_S


class Watcher:
    """State of one client. Its methods may be called from any thread."""

    def __init__(self, shelf: Shelf, number: int, wake: Callable[[], None]) -> None:
        self.number, self.wake = number, wake
        self.pending: dict[str, None] = dict.fromkeys(shelf.kept)
        self._shelf = shelf
        self._answers: deque[bytes] = deque()
        self._out: Shown | None = None  # sent, not acknowledged
        self._out_since_s = 0.0
        self._has = self._first = shelf.newest.number - 1 if shelf.newest else 0
        self._kept_last = False
        self._sent = self._acknowledged = self._bytes = 0
        self._latencies_s: deque[float] = deque(maxlen=LATENCIES)

    @property
    def ready(self) -> bool:
        """No frame is out."""
        return self._out is None

    @property
    def stalled(self) -> bool:
        """A frame is out, and its acknowledgement is long missing."""
        return self.unacknowledged_s > self._shelf.config.stalled_s

    @property
    def unacknowledged_s(self) -> float:
        """For how long a frame has been out; 0 where none is."""
        return 0.0 if self._out is None else self._shelf.clock() - self._out_since_s

    def take(self) -> bytes | None:
        """The message to write now; None: nothing (ask again after `wait_s`, or when woken)."""
        with self._shelf.changed:
            message = self._choose()
            self._bytes += len(message or b"")
            return message

    def wait_s(self) -> float:
        """After how many seconds there is something to write: 0 now, infinity when only a wake can tell."""
        with self._shelf.changed:
            if self._answers or self.pending and not self.stalled:
                return 0.0
            return self._frame_due_s()

    def answer(self, message: bytes) -> bool:
        """A message for this client alone. False: too many wait already, this one is not taken."""
        with self._shelf.changed:
            if len(self._answers) >= self._shelf.config.max_answers:
                return False
            self._answers.append(message)
        self.wake()
        return True

    def acknowledge(self, seq: int, drawn_s: float | None = None) -> bool:
        """The client has drawn a frame, at `drawn_s` of this process's clock. False: that frame was not out."""
        with self._shelf.changed:
            if self._out is None or seq != self._out.seq:
                return False
            if drawn_s is not None and self._out_since_s <= drawn_s <= self._shelf.clock() + 1.0:
                self._latencies_s.append(drawn_s - self._out.at_s)
            self._out = None
            self._acknowledged += 1
            self._shelf.changed.notify_all()
        self.wake()
        return True

    def figures(self) -> dict[str, Any]:
        """Counts since the client came; latency from `show` to drawn over the last frames (NaN: none yet)."""
        with self._shelf.changed:
            latencies_s = sorted(self._latencies_s)
            shown = self._shelf.newest.number - self._first if self._shelf.newest else 0
            return {
                "client": self.number,
                "sent": self._sent,
                "skipped": shown - self._sent,
                "acknowledged": self._acknowledged,
                "bytes": self._bytes,
                "stalled": self.stalled,
                "unacknowledged_s": self.unacknowledged_s,
                "drawn_median_s": statistics.median(latencies_s) if latencies_s else math.nan,
                "drawn_p95_s": latencies_s[math.ceil(0.95 * len(latencies_s)) - 1] if latencies_s else math.nan,
            }

    def _choose(self) -> bytes | None:
        """Answers, then kept messages; those of many parts ("organ/3") take turns with frames."""
        if self._answers:
            return self._answers.popleft()
        due = self._frame_due_s() <= 0.0
        if self.pending and not self.stalled:
            key = next((key for key in self.pending if "/" not in key), None)
            if key is not None or not (due and self._kept_last):
                self._kept_last = True
                key = key or next(iter(self.pending))
                del self.pending[key]
                return self._shelf.kept[key]
        if not due or self._shelf.newest is None:
            return None
        self._kept_last = False
        self._out, self._out_since_s = self._shelf.newest, self._shelf.clock()
        self._has = self._out.number
        self._sent += 1
        return self._out.message

    def _frame_due_s(self) -> float:
        newest = self._shelf.newest
        if newest is None or self._out is not None or newest.number <= self._has:
            return math.inf
        age_s = self._shelf.clock() - newest.at_s
        wait_s = self._shelf.config.wait_s - age_s
        return 0.0 if age_s <= 0.5 * self._shelf.interval_s or wait_s <= 0.0 else wait_s
