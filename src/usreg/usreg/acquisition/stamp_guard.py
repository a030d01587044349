# SPDX-License-Identifier: Apache-2.0
"""Stamps that repeat or run backwards: dropped with a reason, or taken as a new beginning."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..config import check_range


@dataclass(frozen=True)
class Admission:
    """Whether a stamp may pass.

    Args:
        accepted: it is later than the one before.
        reset: it lies so far back that everything with a memory begins again; it passes.
        reason: why it was dropped, or why there is a reset.
    """

    accepted: bool
    reset: bool = False
    reason: str = ""


class StampGuard:
    """Lets stamps pass that increase.

    Args:
        reset_after_s: a backward jump of more than this is a reset; a smaller one is dropped.
    """

    def __init__(self, reset_after_s: float = 1.0) -> None:
        check_range("reset_after_s", reset_after_s, 0.0, 3600.0)
        self._limit = reset_after_s
        self._last: float | None = None
        self.dropped = 0

    def check(self, stamp_s: float) -> Admission:
        """Judge a stamp and remember it when it passes."""
        if not math.isfinite(stamp_s):
            return self._drop(f"the stamp is {stamp_s}")
        last, step = self._last, math.inf if self._last is None else stamp_s - self._last
        if last is not None and step == 0:
            return self._drop(f"the stamp {stamp_s:.6f} s repeats: the source sent a frame twice")
        if last is not None and -self._limit <= step < 0:
            return self._drop(f"the stamp runs back by {-step:.6f} s, below the {self._limit:g} s that mean a restart")
        self._last = stamp_s
        if step < 0:
            return Admission(True, True, f"time jumped back by {-step:.3f} s: everything begins again")
        return Admission(True)

    def reset(self) -> None:
        """Forget the last stamp; the count of drops stays."""
        self._last = None

    def _drop(self, reason: str) -> Admission:
        self.dropped += 1
        return Admission(False, False, reason)
