# SPDX-License-Identifier: Apache-2.0
"""What `usreg run` shows: on a terminal a table of the stages that is kept up to date, elsewhere plain lines."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ..web.status import Stage

STYLES = {"OK": "green", "WARN": "yellow", "ERROR": "bold red"}
Say = Callable[[str], None]


class Display(Protocol):
    """Where the progress goes."""

    @property
    def live(self) -> bool:
        """Whether `show` is of use."""

    def line(self, text: str) -> None:
        """A line that stays."""

    def show(self, stages: Iterable[Stage], head: str) -> None:
        """How the stages do now, under a line."""


class Lines:
    """Plain lines."""

    live = False

    def __init__(self, say: Say) -> None:
        self.line = say

    def show(self, stages: Iterable[Stage], head: str) -> None:
        """Nothing: lines are told one by one."""


class LiveTable:
    """A table at the foot of the terminal, lines above it."""

    live = True

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False, redirect_stderr=False)

    def __enter__(self) -> LiveTable:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()  # gives the cursor back, whatever ended the session

    def line(self, text: str) -> None:
        """Above the table, with the colours that it carries."""
        self._console.print(Text.from_ansi(text), soft_wrap=True)

    def show(self, stages: Iterable[Stage], head: str) -> None:
        """Draw the table anew."""
        self._live.update(Group(Text(head, style="bold"), table_of(stages)), refresh=True)


def table_of(stages: Iterable[Stage]) -> Table:
    """Rate, latency, drops and state of each stage."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("stage", no_wrap=True)
    for name in ("rate Hz", "p50 ms", "p99 ms", "drops"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("state", overflow="ellipsis", no_wrap=True)
    for s in stages:
        numbers = (_number(s.rate_hz, 1), _number(s.latency_ms, 0), _number(s.latency_p99_ms, 0), str(s.drops or "-"))
        said = s.level if s.text in ("", s.level) else f"{s.level} {s.text}"
        table.add_row(s.name, *numbers, Text(said, style=STYLES.get(s.level, "")))
    return table


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else "-"


@contextmanager
def display(say: Say, live: bool, console: Console | None = None) -> Iterator[Display]:
    """A table where `live` and the terminal can redraw, else plain lines through `say`."""
    console = console or Console()
    if not live or not console.is_terminal or console.is_dumb_terminal:
        yield Lines(say)
        return
    with LiveTable(console) as table, _errors_above(table.line):
        yield table


@contextmanager
def _errors_above(line: Say) -> Iterator[None]:
    """What this process and its children write to standard error goes above the table, which it would tear apart.

    ROS's log is written below Python, so the file descriptor itself is led through a pipe. One that does not end on a
    terminal is left alone.
    """
    if not os.isatty(2):
        yield
        return
    before, (read, write) = os.dup(2), os.pipe()
    os.dup2(write, 2)
    os.close(write)

    def run() -> None:
        with os.fdopen(read, encoding="utf-8", errors="replace") as lines:
            for text in lines:
                line(text.rstrip("\n"))

    thread = threading.Thread(target=run, name="errors", daemon=True)
    thread.start()
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)
        thread.join(1.0)  # a child that lives on keeps the pipe open
