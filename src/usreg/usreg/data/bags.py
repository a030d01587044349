# SPDX-License-Identifier: Apache-2.0
"""MCAP bags without ROS: `BagReader`, `BagWriter`, and a summary of a bag."""

from __future__ import annotations

import statistics
from collections import Counter
from pathlib import Path
from typing import Any

from ..errors import UsregError
from .bag_poses import decode_transforms
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
GAP_FACTOR = 2.5  # an interval this many times the usual one counts as a gap
IMAGE, TRANSFORMS = "sensor_msgs/msg/Image", "tf2_msgs/msg/TFMessage"


def describe_bag(path: str | Path) -> dict[str, Any]:
    """Topics with their types, counts, rates, gaps and image sizes; transforms; what is wrong; as plain values."""
    with BagReader(path, skip_damaged=True) as bag:
        found = _look(bag)
        span = bag.span_ns
        return {
            "kind": "bag",
            "files": [p.name for p in bag_files(Path(path))],
            "start_s": span[0] * 1e-9 if span else None,
            "duration_s": (span[1] - span[0]) * 1e-9 if span else 0.0,
            "messages": sum(len(times) for times in found.times.values()),
            "truncated": bag.truncated,
            "problems": bag.problems + found.problems,
            "topics": [_describe_topic(t, found) for t in bag.topics.values()],
            "transforms": {f"{child} in {parent}": n for (parent, child), n in sorted(found.transforms.items())},
        }


class _Found:
    """What one walk through a bag gathers."""

    def __init__(self) -> None:
        self.times: dict[str, list[int]] = {}
        self.sizes: dict[str, set[tuple[int, int, str]]] = {}
        self.transforms: Counter[tuple[str, str]] = Counter()
        self.problems: list[str] = []

    def take(self, bag: BagReader, raw: RawMessage) -> None:
        self.times.setdefault(raw.topic, []).append(raw.log_ns)
        if raw.type_name == IMAGE:
            m = bag.decode(raw)
            self.sizes.setdefault(raw.topic, set()).add((int(m.width), int(m.height), str(m.encoding)))
        elif raw.type_name == TRANSFORMS:
            self.transforms.update((t.parent, t.child) for t in decode_transforms(bag.decode(raw)))


def _look(bag: BagReader) -> _Found:
    found, bad = _Found(), Counter[str]()
    for raw in bag.raw_messages():
        try:
            found.take(bag, raw)
        except UsregError as error:
            bad[raw.topic] += 1
            if bad[raw.topic] == 1:
                found.problems.append(str(error))
    found.problems += [f"{n} messages on {topic} cannot be read" for topic, n in bad.items()]
    return found


def _describe_topic(topic: Topic, found: _Found) -> dict[str, Any]:
    times = found.times.get(topic.name, [])
    steps = [b - a for a, b in zip(times, times[1:], strict=False)]
    usual = statistics.median(steps) if steps else 0
    summary: dict[str, Any] = {
        "name": topic.name,
        "type": topic.type_name,
        "count": len(times),
        "latched": latched(topic),
        "rate_hz": 1e9 / usual if usual else None,
        "gaps": sum(step > GAP_FACTOR * usual for step in steps) if usual else 0,
    }
    if topic.name in found.sizes:
        summary["sizes"] = [f"{w}x{h} {encoding}" for w, h, encoding in sorted(found.sizes[topic.name])]
    return summary
