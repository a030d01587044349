# SPDX-License-Identifier: Apache-2.0
"""Counts what the graph publishes and hears how its stages do: what `usreg run` shows."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from usreg_msgs.msg import Registration

from ..data.bag_poses import STATUS
from ..web.status import Board
from . import qos
from .diagnostics import level_name
from .terminal import Display

LINE_S, TABLE_S = 2.0, 0.5


class Monitor(Node):
    """Listens to the estimates and to /diagnostics; small enough to run beside everything else.

    Args:
        display: told what happens. token: of the page, put behind its address.
    """

    def __init__(self, display: Display, namespace: str = "", token: str = "") -> None:
        super().__init__("usreg_run", namespace=namespace, use_global_arguments=False)
        self._display, self._token = display, token
        self.board, self.url = Board(self.get_namespace()), ""
        self._count: Counter[str] = Counter()
        self._last: Any = None
        self._before, self._since = 0, time.monotonic()
        qos.subscription(self, Registration, "registration/estimate", self.on_estimate, "result")
        qos.subscription(self, DiagnosticArray, "/diagnostics", self.on_diagnostics, "diagnostics")
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(TABLE_S if display.live else LINE_S, self.tell, clock=steady)

    def start(self) -> None:
        """Nothing to begin."""

    def on_estimate(self, message: Registration) -> None:
        """An estimate came."""
        self._count[_name(message.status)] += 1
        self._last = message

    def on_diagnostics(self, message: DiagnosticArray) -> None:
        """How a stage does; the page's address is told once it is known."""
        for status in message.status:
            values = {pair.key: pair.value for pair in status.values}
            self.board.take(status.name, level_name(status.level), status.message, values)
        url = self.board.fact("web_view", "url")
        if url and url != self.url:
            self.url = url
            self._display.line(f"view: {self._page()}")

    def _page(self) -> str:
        return self.url + (f"?token={self._token}" if self._token else "")

    def tell(self) -> None:
        """The table, or a line."""
        if self._display.live:
            self._display.show(self.board.stages(), " · ".join(filter(None, (self.score(), self._page()))))
        else:
            self._display.line(self.line())

    def score(self) -> str:
        """The newest estimate in a few words."""
        if self._last is None:
            return "waiting for the first estimate"
        return f"score {self._last.score:.3f}, {self._last.reason or _name(self._last.status)}"

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
        self._display.line(self.summary())


def _name(status: int) -> str:
    return STATUS[status].lower() if status < len(STATUS) else "unknown"
