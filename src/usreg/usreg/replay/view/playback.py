# SPDX-License-Identifier: Apache-2.0
"""The clock of a playback: which frame is due. Without threads: who uses it brings the time."""

from __future__ import annotations

import math
import statistics
import time
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

from ...config import check_range
from ...errors import ConfigError, TimeError

State = Literal["running", "paused", "ended", "waiting"]


class Playback:
    """Position in a recording that moves with a clock: pause, step, seek, speed.

    Args:
        stamps_s: of the frames, rising. loop: begin again at the end, else it ends on the last frame.

    Raises:
        TimeError: there are none, or they do not rise.
    """

    def __init__(
        self,
        stamps_s: Sequence[float],
        speed: float = 1.0,
        loop: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not stamps_s or any(b <= a for a, b in pairwise(stamps_s)):
            raise TimeError("a playback needs frames whose stamps rise")
        self._stamps, self._clock = list(stamps_s), clock
        self.speed = check_speed(speed)
        self.paused = False
        self._holds: set[str] = set()
        self._position_s, self._since_s = self._stamps[0], clock()
        span_s = self._stamps[-1] - self._stamps[0]
        self.period_s = statistics.median(b - a for a, b in pairwise(self._stamps)) if self.last else math.nan
        self._round_s = span_s + self.period_s if loop and self.last else math.inf

    @property
    def last(self) -> int:
        """Index of the last frame."""
        return len(self._stamps) - 1

    @property
    def state(self) -> State:
        """waiting: held, see `hold`. ended: on the last frame."""
        if self.paused:
            return "paused"
        if self._holds:
            return "waiting"
        return "ended" if self._at_end else "running"

    @property
    def index(self) -> int:
        """Of the newest frame that is due."""
        return bisect_right(self._stamps, self.position_s) - 1

    @property
    def position_s(self) -> float:
        """Time in the recording."""
        moved = 0.0 if self._stands else (self._clock() - self._since_s) * self.speed
        if math.isinf(self._round_s):
            return min(self._position_s + moved, self._stamps[-1])
        return self._stamps[0] + (self._position_s + moved - self._stamps[0]) % self._round_s

    @property
    def wait_s(self) -> float:
        """Until the next frame is due; infinity where the clock stands."""
        if self.state != "running":
            return math.inf
        position_s, index = self.position_s, self.index
        due_s = self._stamps[0] + self._round_s if index == self.last else self._stamps[index + 1]
        return max(0.0, (due_s - position_s) / self.speed)

    def age_s(self, index: int) -> float:
        """For how long a frame has been due, by the clock on the wall; 0 where the playback stands."""
        if self.state != "running":
            return 0.0
        return max(0.0, (self.position_s - self._stamps[index]) / self.speed)

    def pause(self, on: bool) -> None:
        """Stand still, or go on; at the end: from the beginning."""
        if not on and self._at_end:
            self.seek(0)
        self._anchor()
        self.paused = on

    def step(self, count: int = 1) -> None:
        """Pause, `count` frames further."""
        self.pause(True)
        self.seek(min(max(self.index + count, 0), self.last))

    def seek(self, index: int) -> None:
        """To a frame.

        Raises:
            ConfigError: there is no such frame.
        """
        if not 0 <= index <= self.last:
            raise ConfigError(f"frame {index} was asked for; the recording has frames 0 to {self.last}")
        self._position_s, self._since_s = self._stamps[index], self._clock()

    def set_speed(self, speed: float) -> None:
        """Times the speed of the recording.

        Raises:
            ConfigError: outside 0.1 to 8.
        """
        check_speed(speed)
        self._anchor()
        self.speed = speed

    def hold(self, reason: str, on: bool) -> None:
        """Stand still for a reason of our own (nobody looks, nothing is registered yet), or no longer."""
        self._anchor()
        (self._holds.add if on else self._holds.discard)(reason)

    @property
    def _at_end(self) -> bool:
        return math.isinf(self._round_s) and self.index == self.last

    @property
    def _stands(self) -> bool:
        return self.paused or bool(self._holds)

    def _anchor(self) -> None:
        self._position_s, self._since_s = self.position_s, self._clock()


def check_speed(speed: float) -> float:
    """The speed, if it is one.

    Raises:
        ConfigError: outside 0.1 to 8.
    """
    check_range("speed", speed, 0.1, 8.0)
    return speed
