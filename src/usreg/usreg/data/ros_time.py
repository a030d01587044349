# SPDX-License-Identifier: Apache-2.0
"""Stamps: float seconds in the library, whole nanoseconds in bags, (sec, nanosec) in messages."""

from __future__ import annotations

import math
from typing import Any

from ..errors import TimeError

MAX_SECONDS = 2**31 - 1  # ROS's int32


def to_ns(stamp_s: float) -> int:
    """Nearest nanosecond.

    Raises:
        TimeError: not finite, negative, or beyond what a ROS stamp holds.
    """
    if not (math.isfinite(stamp_s) and 0 <= stamp_s < MAX_SECONDS):
        raise TimeError(f"a stamp must lie in 0 to 2^31 s, got {stamp_s}; shift the sequence to start at zero or later")
    whole = math.floor(stamp_s)
    return whole * 1_000_000_000 + round((stamp_s - whole) * 1e9)


def to_s(ns: int) -> float:
    """Seconds; `to_s(to_ns(s))` is the same for every call from then on."""
    whole, rest = divmod(int(ns), 1_000_000_000)
    return whole + rest * 1e-9


def split(stamp_s: float) -> tuple[int, int]:
    """(sec, nanosec) of a message."""
    return divmod(to_ns(stamp_s), 1_000_000_000)


def of_header(stamp: Any) -> float:
    """Seconds of a message's stamp (builtin_interfaces/Time of rosbags or of rclpy)."""
    return to_s(int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec))
