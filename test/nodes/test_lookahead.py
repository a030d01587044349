# SPDX-License-Identifier: Apache-2.0
"""Messages made ahead of time: nothing waits for an image, and what cannot be in time is not begun."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from usreg.errors import ConfigError, UsregError
from usreg.nodes.lookahead import NS, Lookahead, LookaheadConfig

STEP_NS = NS // 10


@dataclass(frozen=True)
class Message:
    log_ns: int
    stamp_ns: int
    topic: str
    message: Any


class Listed:
    """A source of what is given."""

    def __init__(self, *entries: Message, error: Exception | None = None) -> None:
        self.listed, self.error = entries, error

    def entries(self) -> Iterator[Message]:
        yield from self.listed
        if self.error is not None:
            raise self.error


class HandClock:
    """A clock that the test turns."""

    now_ns = 0

    def __call__(self) -> int:
        return self.now_ns


def until(reached: Callable[[], bool]) -> None:
    end = time.monotonic() + 20.0
    while not reached():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.002)


def joint(k: int) -> Message:
    return Message(k * STEP_NS, k * STEP_NS, "joints", f"joint {k}")


def image(k: int, make: Callable[[], Any]) -> Message:
    return Message(k * STEP_NS, k * STEP_NS, "image", make)


def test_joints_never_wait_for_an_image() -> None:
    gate = threading.Event()
    late = image(1, lambda: gate.wait(30.0))
    ahead = Lookahead(Listed(joint(0), image(0, lambda: "first"), late, *map(joint, range(1, 5))), LookaheadConfig())
    try:
        ahead.begin()
        slots = []
        while (slot := ahead.next()) is not None:
            slots.append(slot)
        made = [s.message for s in slots if s.entry is not late]
        assert made == ["joint 0", "first", "joint 1", "joint 2", "joint 3", "joint 4"]
        assert not ahead.in_time(next(s for s in slots if s.entry is late))
    finally:
        gate.set()
        ahead.stop()


def test_images_whose_time_has_passed_are_not_begun() -> None:
    clock, gate, made = HandClock(), threading.Event(), list[int]()

    def maker(k: int) -> Callable[[], int]:
        def make() -> int:
            if k == 1:
                gate.wait(30.0)
            made.append(k)
            return k

        return make

    source = Listed(*(image(k, maker(k)) for k in range(20)))
    ahead = Lookahead(source, LookaheadConfig(ahead_s=0.55), clock)
    try:
        ahead.begin()
        until(lambda: 1 not in [s.entry.stamp_ns // STEP_NS for s in ahead._unmade])
        clock.now_ns = NS + STEP_NS // 2  # making image 1 took a second: 2 to 10 are past, the others would be late too
        until(lambda: [s.entry.stamp_ns // STEP_NS for s in ahead._unmade] == list(range(2, 18)))
        gate.set()
        until(lambda: len(made) == 3)
        assert made == [0, 1, 17]
    finally:
        gate.set()
        ahead.stop()


def test_it_is_read_no_further_than_told() -> None:
    clock = HandClock()
    ahead = Lookahead(Listed(*map(joint, range(100))), LookaheadConfig(ahead_s=0.55), clock)
    try:
        assert ahead.begin() == 0
        assert len(ahead._slots) == 7  # the first beyond 0.55 s is read, and waits
    finally:
        ahead.stop()


@pytest.mark.parametrize("lazy", [False, True])
def test_an_error_of_the_source_comes_to_who_reads(lazy: bool) -> None:
    def broken() -> Any:
        raise ConfigError("no such probe")

    source = Listed(joint(0), image(1, broken)) if lazy else Listed(joint(0), error=ConfigError("no such probe"))
    ahead = Lookahead(source, LookaheadConfig())
    try:
        with pytest.raises(ConfigError, match="no such probe"):
            ahead.begin()
            while ahead.next() is not None:
                pass
    finally:
        ahead.stop()


def test_a_source_without_messages_is_refused() -> None:
    ahead = Lookahead(Listed(), LookaheadConfig())
    with pytest.raises(UsregError, match="no messages"):
        ahead.begin()
    ahead.stop()


@pytest.mark.parametrize("values", [{"ahead_s": 0.0}, {"workers": 0}, {"late_s": -1.0}])
def test_bad_values_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(values))):
        LookaheadConfig(**values)
