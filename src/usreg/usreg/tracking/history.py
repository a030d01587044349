# SPDX-License-Identifier: Apache-2.0
"""Values that hold from a stamp on: static transforms and calibrations that change within a session."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from typing import Generic, TypeVar

from ..errors import TimeError

T = TypeVar("T")


class History(Generic[T]):
    """Each value holds from its stamp until the next one; the first also before its stamp.

    Nothing is forgotten on `reset` of who holds it: a clock that jumps back finds what held then.
    """

    def __init__(self) -> None:
        self._stamps: list[float] = []
        self._values: list[T] = []

    def __len__(self) -> int:
        return len(self._values)

    def add(self, stamp_s: float, value: T) -> None:
        """Note a value; one with the same stamp is replaced.

        Raises:
            TimeError: the stamp is not finite.
        """
        if not math.isfinite(stamp_s):
            raise TimeError(f"a value that holds from {stamp_s} s on: a finite time in seconds is expected")
        place = bisect_left(self._stamps, stamp_s)
        if place < len(self._stamps) and self._stamps[place] == stamp_s:
            self._values[place] = value
            return
        self._stamps.insert(place, stamp_s)
        self._values.insert(place, value)

    def at(self, stamp_s: float) -> T:
        """The value at a stamp.

        Raises:
            TimeError: nothing was noted yet.
        """
        if not self._values:
            raise TimeError("nothing is known at any time yet")
        return self._values[max(0, bisect_right(self._stamps, stamp_s) - 1)]
