# SPDX-License-Identifier: Apache-2.0
"""Counts what the graph publishes, for the lines of `usreg run`."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from usreg_msgs.msg import Registration

from ..data.bag_poses import STATUS
from . import qos

PERIOD_S = 2.0


class Monitor(Node):
    """Listens to the estimates; small enough to run beside everything else."""

    def __init__(self, say: Callable[[str], None], namespace: str = "") -> None:
        super().__init__("usreg_run", namespace=namespace, use_global_arguments=False)
        self._say = say
        self._count: Counter[str] = Counter()
        self._last: Any = None
        self._before, self._since = 0, time.monotonic()
        qos.subscription(self, Registration, "registration/estimate", self.on_estimate, "result")
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(PERIOD_S, lambda: self._say(self.line()), clock=steady)

    def start(self) -> None:
        """Nothing to begin."""

    def on_estimate(self, message: Registration) -> None:
        """An estimate came."""
        self._count[_name(message.status)] += 1
        self._last = message

    def line(self) -> str:
        """What has happened since the last line."""
        total, now = self._count.total(), time.monotonic()
        rate = (total - self._before) / (now - self._since)
        self._before, self._since = total, now
        if self._last is None:
            return "waiting for the first estimate"
        text = f"{rate:4.1f} registrations/s, score {self._last.score:.3f}, {self._last.compute_time * 1000:.0f} ms, "
        return text + (self._last.reason or _name(self._last.status))

    def summary(self) -> str:
        """Counts by status."""
        parts = ", ".join(f"{n} {name}" for name, n in sorted(self._count.items()))
        return f"{self._count.total()} registrations: {parts}" if parts else "nothing was registered"

    def stop(self) -> None:
        """The session has ended."""
        self._say(self.summary())


def _name(status: int) -> str:
    return STATUS[status].lower() if status < len(STATUS) else "unknown"
