# SPDX-License-Identifier: Apache-2.0
"""Rate, latency, age and drops of a stage on /diagnostics, once a second by the steady clock; a change at once."""

from __future__ import annotations

import math
import statistics
import time
from collections import Counter, deque
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock, ClockType
from rclpy.node import Node

from . import qos

PERIOD_S = 1.0
TAIL = 10  # periods over which the 99th percentile of the latency is taken
LEVELS = {"OK": DiagnosticStatus.OK, "WARN": DiagnosticStatus.WARN, "ERROR": DiagnosticStatus.ERROR}


def level_name(level: bytes) -> str:
    """OK, WARN or ERROR of a status' level."""
    return next((name for name, known in LEVELS.items() if known == level), "ERROR")


class Diagnostics:
    """Counts what a node does. Any thread may call; the node's timer publishes.

    rate: results in the last second. latency: stamp to result, and time spent on it; its 99th percentile is of the last
    ten seconds. age: now less the stamp of the newest result. drops: by reason, since the start.
    """

    def __init__(self, node: Node, stage: str) -> None:
        self._node, self._stage = node, stage
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", qos.profile("diagnostics"))
        self.timer = node.create_timer(PERIOD_S, self.publish, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._drops: Counter[str] = Counter()
        self.facts: dict[str, str] = {}
        self._state = ("OK", "")
        self._latencies: list[float] = []
        self._spent: list[float] = []
        self._before: deque[list[float]] = deque(maxlen=TAIL)
        self._rows: dict[str, str] = {}
        self._new_drops, self._total, self._count, self._newest_s = 0, 0, 0, float("nan")
        self._since = time.monotonic()

    def done(self, stamp_s: float, spent_s: float = 0.0) -> None:
        """One result, of the frame at a stamp (NaN: one that the node's clock cannot tell), after `spent_s` of work."""
        self._total += 1
        self._count += 1
        if math.isfinite(stamp_s):
            self._newest_s = stamp_s
            self._latencies.append(self._now_s() - stamp_s)
            self._spent.append(spent_s)

    def drop(self, reason: str, count: int = 1) -> None:
        """Something came and was not used; `reason` is a short class of reasons, not a sentence."""
        self._drops[reason] += count
        self._new_drops += count

    def state(self, level: str, text: str = "") -> None:
        """Condition of the stage until it is told otherwise: OK, WARN or ERROR."""
        self._state = (level, text)

    def fact(self, name: str, value: Any) -> None:
        """A further line, for example the filter's status."""
        self.facts[name] = str(value)

    @property
    def condition(self) -> tuple[str, str]:
        """Level and text that `state` was told last."""
        return self._state

    @property
    def drops(self) -> dict[str, int]:
        """Drops by reason since the start."""
        return dict(self._drops)

    @property
    def total(self) -> int:
        """Results since the start."""
        return self._total

    def publish(self) -> None:
        """Publish what happened since the last time."""
        now = time.monotonic()
        latencies, spent, elapsed = self._latencies, self._spent, max(now - self._since, 1e-6)
        count, self._latencies, self._spent, self._since, self._count = self._count, [], [], now, 0
        self._before.append(latencies)
        tail = sorted(value for period in list(self._before) for value in period)
        values = {
            "rate_hz": count / elapsed,
            "latency_median_s": statistics.median(latencies) if latencies else float("nan"),
            "latency_p99_s": tail[int(0.99 * (len(tail) - 1) + 0.5)] if tail else float("nan"),
            "latency_max_s": max(latencies, default=float("nan")),
            "work_median_s": statistics.median(spent) if spent else float("nan"),
        }
        self._rows = {k: f"{v:.4f}" for k, v in values.items()}
        dropped, self._new_drops = self._new_drops, 0
        self._send(dropped)

    def publish_now(self) -> None:
        """Publish state and facts as they are now, with the figures that were published last."""
        self._send(0)

    def _send(self, dropped: int) -> None:
        level, text = self._state
        if level == "OK" and dropped:
            level, text = "WARN", f"{dropped} dropped in the last second"
        rows = self._rows | {"age_s": f"{self._now_s() - self._newest_s:.4f}"}
        rows |= {"results": str(self._total), "drops": str(sum(self._drops.values()))}
        rows |= {f"drops: {reason}": str(n) for reason, n in sorted(self._drops.items())} | self.facts
        status = DiagnosticStatus(
            name=f"{self._node.get_fully_qualified_name()}: {self._stage}", hardware_id="usreg", level=LEVELS[level],
            message=text or level, values=[KeyValue(key=k, value=v) for k, v in rows.items()],
        )  # fmt: skip
        message = DiagnosticArray(status=[status])
        message.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(message)

    def _now_s(self) -> float:
        return self._node.get_clock().now().nanoseconds * 1e-9
