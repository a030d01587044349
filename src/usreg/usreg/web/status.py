# SPDX-License-Identifier: Apache-2.0
"""How the stages of a running graph do, from what they say of themselves; the page's message "status"."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .wire import pack

LEVELS = ("OK", "WARN", "ERROR")
SILENT_S = 4.0  # a stage that says nothing for so long is told as silent
ORDER = (
    "player", "simulator", "us_acquisition", "arm_tracking", "registration", "pose_smoothing", "fusion", "recorder",
    "web_view",
)  # fmt: skip


@dataclass(frozen=True)
class Stage:
    """What a node told last on /diagnostics.

    Args:
        name: of the node. level: OK, WARN or ERROR, and why in `text`.
        rate_hz: results a second. latency_ms, latency_p99_ms, latency_max_ms: stamp to result; median and maximum of
            the last second, 99th percentile of the last ten. work_ms: time spent on a result, median.
        age_s: of its newest result. drops: since its start.
        facts: whatever else it told.
    """

    name: str
    level: str = "OK"
    text: str = ""
    rate_hz: float = math.nan
    latency_ms: float = math.nan
    latency_p99_ms: float = math.nan
    latency_max_ms: float = math.nan
    work_ms: float = math.nan
    age_s: float = math.nan
    drops: int = 0
    facts: Mapping[str, str] = field(default_factory=dict)

    @staticmethod
    def of(name: str, level: str, text: str, values: Mapping[str, str]) -> Stage:
        """From the values of a diagnostic status."""
        number = {key: _float(values.get(key, "nan")) for key in NUMBERS}
        return Stage(
            name, level, text, number["rate_hz"], 1000 * number["latency_median_s"], 1000 * number["latency_p99_s"],
            1000 * number["latency_max_s"], 1000 * number["work_median_s"], number["age_s"],
            _count(values.get("drops", "0")), {k: v for k, v in values.items() if k not in NUMBERS},
        )  # fmt: skip

    def row(self) -> dict[str, Any]:
        """For the page."""
        return {
            "name": self.name, "level": self.level, "text": self.text, "rate_hz": _number(self.rate_hz),
            "latency_ms": _number(self.latency_ms), "latency_p99_ms": _number(self.latency_p99_ms),
            "latency_max_ms": _number(self.latency_max_ms), "work_ms": _number(self.work_ms),
            "age_s": _number(self.age_s), "drops": self.drops,
        }  # fmt: skip


NUMBERS = ("rate_hz", "latency_median_s", "latency_p99_s", "latency_max_s", "work_median_s", "age_s")


class Board:
    """The newest word of every stage of one graph.

    Args:
        namespace: of the graph; what others say is not taken. clock: seconds that only rise.
    """

    def __init__(self, namespace: str = "", clock: Callable[[], float] = time.monotonic) -> None:
        self._namespace = "/" + namespace.strip("/") if namespace.strip("/") else ""
        self._clock = clock
        self._stages: dict[str, tuple[float, Stage]] = {}

    def take(self, full_name: str, level: str, text: str, values: Mapping[str, str]) -> Stage | None:
        """A status by its name, "/namespace/node: stage"; None where it belongs to another graph."""
        node = full_name.partition(":")[0]
        namespace, slash, name = node.rpartition("/")
        if not slash or namespace != self._namespace:
            return None
        stage = Stage.of(name, level, text, values)
        self._stages[name] = (self._clock(), stage)
        return stage

    def get(self, name: str) -> Stage | None:
        """What a node told last, if that was not long ago."""
        found = self._stages.get(name)
        return found[1] if found is not None and self._clock() - found[0] < SILENT_S else None

    def fact(self, name: str, key: str) -> str:
        """A fact of a node; empty where it does not tell it."""
        stage = self.get(name)
        return "" if stage is None else stage.facts.get(key, "")

    def stages(self) -> list[Stage]:
        """All in the order of the flow; one that has fallen silent is told so."""
        order = {name: place for place, name in enumerate(ORDER)}
        names = sorted(self._stages, key=lambda name: (order.get(name, len(order)), name))
        return [self.get(name) or Stage(name, "ERROR", "says nothing any more: has it ended?") for name in names]

    def clear(self) -> None:
        """Forget all."""
        self._stages.clear()


@dataclass(frozen=True)
class Recorder:
    """Whether a recorder writes, and where."""

    recording: bool
    path: str = ""


@dataclass(frozen=True)
class Status:
    """What the page shows beside the frames.

    Args:
        state: of the source. accept: whether estimates may be accepted. recorder: None where there is none.
        hypotheses: {rank, score, reason, world_T_ct: 16} each. landmark_pairs: {name, world, ct, error_mm} each.
        clients: pages that watch.
    """

    state: str = "waiting"
    accept: bool = True
    recorder: Recorder | None = None
    stages: tuple[Stage, ...] = ()
    hypotheses: tuple[Mapping[str, Any], ...] = ()
    landmark_pairs: tuple[Mapping[str, Any], ...] = ()
    clients: int = 0
    more: Mapping[str, Any] = field(default_factory=dict)


def status_message(status: Status) -> bytes:
    """The message "status"."""
    recorder = status.recorder
    return pack({
        "type": "status", "server_s": time.monotonic(), "state": status.state, "accept": status.accept,
        "recorder": None if recorder is None else {"recording": recorder.recording, "path": recorder.path},
        "stages": [stage.row() for stage in status.stages], "hypotheses": list(status.hypotheses),
        "landmark_pairs": list(status.landmark_pairs), "clients": status.clients, **status.more,
    })  # fmt: skip


def hello_message(
    title: str, kind: str, commands: Iterable[str], read_only: bool, system: str = "", replay: Any = None, **more: Any
) -> dict[str, Any]:
    """Header of the message "hello"; buffers, where there are some, are the caller's.

    Args:
        title: of the session, never a patient's name. kind: "live" or "replay".
        replay: what a recording is like; None: live.
    """
    from .. import __version__

    return {
        "type": "hello", "version": __version__, "title": title, "kind": kind, "system": system, "read_only": read_only,
        "commands": list(commands), "notice": NOTICE, "server_s": time.monotonic(), "stale_min_s": STALE_MIN_S,
        "stale_periods": STALE_PERIODS, "replay": replay, **more,
    }  # fmt: skip


NOTICE = "RESEARCH USE ONLY"
STALE_MIN_S, STALE_PERIODS = 0.3, 3


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _count(text: str) -> int:
    number = _float(text)
    return int(number) if math.isfinite(number) else 0


def _number(value: float) -> float | None:
    """JSON has no NaN."""
    return round(value, 4) if math.isfinite(value) else None
