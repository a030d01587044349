# SPDX-License-Identifier: Apache-2.0
"""MCAP bags without ROS: `BagReader`, `BagWriter`, and a summary of a bag."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .bag_reader import BagReader, bag_files
from .bag_types import BagLimits, RawMessage, Topic, latched, qos_profile
from .bag_writer import BagWriter

__all__ = [
    "BagLimits",
    "BagReader",
    "BagWriter",
    "RawMessage",
    "Topic",
    "bag_files",
    "describe_bag",
    "latched",
    "qos_profile",
]


def describe_bag(path: str | Path) -> dict[str, Any]:
    """Topics, types, counts, rates and what is wrong with a bag: plain values for `usreg info`."""
    with BagReader(path) as bag:
        span = bag.span_ns
        duration = (span[1] - span[0]) * 1e-9 if span else 0.0
        return {
            "kind": "bag",
            "files": [p.name for p in bag_files(Path(path))],
            "start_s": span[0] * 1e-9 if span else None,
            "duration_s": duration,
            "messages": sum(t.count for t in bag.topics.values()),
            "truncated": bag.truncated,
            "problems": bag.problems,
            "topics": [
                {
                    "name": t.name, "type": t.type_name, "count": t.count, "latched": latched(t),
                    "rate_hz": (t.count - 1) / duration if duration > 0 and t.count > 1 else None,
                }
                for t in bag.topics.values()
            ],
        }  # fmt: skip
