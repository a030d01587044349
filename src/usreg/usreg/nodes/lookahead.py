# SPDX-License-Identifier: Apache-2.0
"""Messages of a simulated session made ahead of their time, so that no joint state waits for an image.

Imports nothing of ROS.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from ..config import check_range
from ..errors import UsregError

NS = 10**9


class Entry(Protocol):
    """A message of a simulation; `message` may be a function that makes it, which is how an image should come."""

    @property
    def log_ns(self) -> int:
        """When a recorder would receive it."""
        ...

    @property
    def stamp_ns(self) -> int:
        """When it was measured."""
        ...

    @property
    def topic(self) -> str:
        """Name in a bag."""
        ...

    @property
    def message(self) -> Any:
        """Of rosbags' classes, or a function without arguments that gives it."""
        ...


class Source(Protocol):
    """A session that is made while it runs."""

    def entries(self) -> Iterator[Entry]:
        """In the order of `log_ns`; a frame's geometry before its image."""
        ...


@dataclass(frozen=True)
class LookaheadConfig:
    """How far ahead messages are made.

    Args:
        ahead_s: before they are due. workers: threads that make images.
        late_s: an image is dropped when it comes so long after it is due.
    """

    ahead_s: float = 1.0
    workers: int = 1
    late_s: float = 0.05

    def __post_init__(self) -> None:
        check_range("ahead_s", self.ahead_s, 0.05, 60.0)
        check_range("workers", self.workers, 1, 64)
        check_range("late_s", self.late_s, 0.0, 10.0)


class Slot:
    """An entry on its way: `message` is None until it is made."""

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.message = None if callable(entry.message) else entry.message


class Lookahead:
    """Reads a source ahead of the clock; what is slow to make is made by threads of their own, or left out.

    A maker takes the first image that it will have in time, by how long the last ones took: behind its time it skips
    some, and the rest still come when they are due.
    """

    def __init__(
        self, source: Source, config: LookaheadConfig, steady_ns: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self.config, self._steady_ns = config, steady_ns
        self._source = source
        self._condition = threading.Condition()
        self._slots: deque[Slot] = deque()
        self._unmade: deque[Slot] = deque()
        self._begun_ns: int | None = None
        self._first_ns: int | None = None
        self._ended = self._stopped = False
        self._error: BaseException | None = None
        self._made, self._spent_ns = 0, 0
        names = ["reader"] + ["maker"] * config.workers
        work = [self._read] + [self._make] * config.workers
        self._threads = [
            threading.Thread(target=w, name=f"simulator {n}", daemon=True) for n, w in zip(names, work, strict=True)
        ]
        for thread in self._threads:
            thread.start()

    def begin(self) -> int:
        """Wait until the beginning is made (the first image may take long), start the clock; the first log time, ns.

        Raises:
            UsregError: the source has failed or is empty.
        """
        with self._condition:
            self._condition.wait_for(lambda: self._filled() or self._ended or self._stopped)
            self._raise()
            if self._first_ns is None:
                raise UsregError("the simulation gives no messages")
            self._begun_ns = self._steady_ns()
            self._condition.notify_all()
            return self._first_ns

    def now_ns(self) -> int:
        """Log time by the clock; before `begin` the first log time."""
        first = self._first_ns or 0
        return first if self._begun_ns is None else first + self._steady_ns() - self._begun_ns

    def next(self) -> Slot | None:
        """The next entry once it has been read; None at the end. Raises what the source raised."""
        with self._condition:
            self._condition.wait_for(lambda: bool(self._slots) or self._ended or self._stopped)
            if self._slots and not self._stopped:
                slot = self._slots.popleft()
                self._condition.notify_all()
                return slot
            self._raise()
            return None

    def in_time(self, slot: Slot) -> bool:
        """Whether a message that is due is made, and no later than `late_s`. Waits for nothing."""
        return slot.message is not None and self.now_ns() <= slot.entry.log_ns + int(self.config.late_s * NS)

    def stop(self) -> None:
        """End the threads."""
        with self._condition:
            self._stopped = True
            self._condition.notify_all()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(3.0)

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _filled(self) -> bool:
        """The look-ahead is full, and the first image that it holds is made."""
        full = bool(self._slots) and not self._room(self._slots[-1].entry.log_ns + 1)
        return full and (self._made > 0 or not self._unmade)

    def _room(self, log_ns: int) -> bool:
        return log_ns <= self.now_ns() + int(self.config.ahead_s * NS)

    def _read(self) -> None:
        try:
            for entry in self._source.entries():
                if not self._put(Slot(entry)):
                    return
        except BaseException as error:  # told to who waits for the next entry
            self._error = error
        with self._condition:
            self._ended = True
            self._condition.notify_all()

    def _put(self, slot: Slot) -> bool:
        with self._condition:
            self._first_ns = slot.entry.log_ns if self._first_ns is None else self._first_ns
            self._slots.append(slot)
            if slot.message is None:
                self._unmade.append(slot)
            self._condition.notify_all()
            while not self._stopped and not self._room(slot.entry.log_ns):
                self._condition.wait(0.01)
            return not self._stopped

    def _make(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: bool(self._unmade) or self._stopped)
                if self._stopped:
                    return
                slot = self._choose()
            begin = self._steady_ns()
            try:
                slot.message = slot.entry.message()
            except BaseException as error:  # told to who waits for the next entry
                self._error, self._ended = error, True
            with self._condition:
                self._note(self._steady_ns() - begin)
                self._condition.notify_all()

    def _choose(self) -> Slot:
        """The first image that will be there in time; the last one where none will."""
        slot = self._unmade.popleft()
        limit_ns = self.now_ns() + self._spent_ns
        while self._unmade and slot.entry.log_ns < limit_ns:
            slot = self._unmade.popleft()
        return slot

    def _note(self, spent_ns: int) -> None:
        """Running mean of the making time; the first one holds compilation and does not count."""
        self._made += 1
        if self._made > 1:
            self._spent_ns = spent_ns if self._made == 2 else (3 * self._spent_ns + spent_ns) // 4
