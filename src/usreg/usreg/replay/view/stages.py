# SPDX-License-Identifier: Apache-2.0
"""How the stages of a recorded graph did at a time of the recording, from its /diagnostics."""

from __future__ import annotations

from bisect import bisect_right
from typing import Any

from ...web.status import LEVELS, ORDER, Stage

WORST = len(LEVELS) - 1  # STALE counts as ERROR


class RecordedStages:
    """What each stage told, by the time when it was recorded."""

    def __init__(self) -> None:
        self._told: dict[str, tuple[list[float], list[Stage]]] = {}

    def take(self, logged_s: float, message: Any) -> None:
        """A diagnostic_msgs/DiagnosticArray; messages come in the order of their times."""
        for status in message.status:
            node, _, what = str(status.name).partition(":")
            if not what or not node.startswith("/"):
                continue  # not one of ours
            level = status.level[0] if isinstance(status.level, bytes) else int(status.level)
            values = {str(v.key): str(v.value) for v in status.values}
            name = node.rpartition("/")[2]
            stage = Stage.of(name, LEVELS[min(level, WORST)], str(status.message), values)
            times, stages = self._told.setdefault(name, ([], []))
            times.append(logged_s)
            stages.append(stage)

    def at(self, stamp_s: float) -> tuple[Stage, ...]:
        """The newest word of each stage until a stamp, in the order of the flow."""
        found = ((stages, bisect_right(times, stamp_s)) for times, stages in self._told.values())
        told = [stages[place - 1] for stages, place in found if place]
        return tuple(sorted(told, key=lambda s: ORDER.index(s.name) if s.name in ORDER else len(ORDER)))
