# SPDX-License-Identifier: Apache-2.0
"""Drive a session through the Navigator, frame by frame, in the order of stamps: the same every time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from ..data.session_events import FrameEvent, SkippedEvent, TransformEvent, TruthEvent, session_frames
from ..data.sessions import Session
from ..errors import LostError, UsregError
from ..evaluation import write_report
from ..navigator import Navigator, StepResult
from ..smoothing import Prediction
from .build import (
    ReplayConfig,
    build_navigator,
    find_session,
    frame_count,
    initial_pose,
    session_geometry,
    static_transforms,
)
from .feed import Feed
from .report import report_content

Progress = Callable[[int, int], None]


@dataclass(eq=False)
class Step:
    """A frame's result, what is true at its stamp, and its fixed-lag pose.

    Args:
        truth: poses (4, 4), mm, by (parent, child); empty where nobody knows.
        lagged: None where none may be given out.
    """

    result: StepResult
    truth: dict[tuple[str, str], Tensor] = field(default_factory=dict)
    lagged: Prediction | None = None

    @property
    def stamp_s(self) -> float:
        """Of the frame."""
        return self.result.frame.stamp_s


@dataclass(frozen=True)
class Skipped:
    """A message that could not be used."""

    stamp_s: float
    reason: str


def replay_session(
    path: str | Path,
    report: str | Path,
    system: str = "",
    progress: Progress | None = None,
    config: ReplayConfig | None = None,
) -> dict[str, Any]:
    """Replay a session and write its report.

    Args:
        path: the session's folder, or the name of one that ships. report: folder to write.
        system: registration system; "": the session's own. progress: called with (frames done, frames in all).

    Returns:
        The summary of the report.

    Raises:
        UsregError: the session cannot be read, or the report cannot be written.
    """
    session = find_session(path)
    config = config or ReplayConfig(system=system)
    navigator, feed = build_navigator(session, config)
    steps: list[Step] = []
    skipped: list[Skipped] = []
    total = frame_count(session)
    keep = set(_spread(total, config.snapshots))
    for step in run_session(session, navigator, feed, skipped):
        if len(steps) not in keep:
            step.result.overlay = None  # pictures of a long session do not fit into memory
        steps.append(step)
        if progress is not None:
            progress(len(steps), total)
    content = report_content(session, config, navigator, steps, skipped)
    write_report(report, **content)
    summary: dict[str, Any] = content["result"]["summary"]
    return summary


def run_session(
    session: Session, navigator: Navigator, feed: Feed, skipped: list[Skipped] | None = None
) -> Iterator[Step]:
    """Steps of a session in order; each comes out once its fixed-lag pose is known.

    Args:
        skipped: messages that could not be used are appended here.
    """
    skipped = [] if skipped is None else skipped
    waiting: list[Step] = []
    for step in _steps(session, navigator, feed, skipped):
        waiting.append(step)
        ripe = step.stamp_s - navigator.pose_filter.config.lag_s
        while waiting and waiting[0].stamp_s < ripe:
            yield _with_lagged(waiting.pop(0), navigator)
    for step in waiting:
        yield _with_lagged(step, navigator)


def _steps(session: Session, navigator: Navigator, feed: Feed, skipped: list[Skipped]) -> Iterator[Step]:
    truth: dict[tuple[str, str], Tensor] = {}
    begun = False
    for event in static_transforms(session):
        feed.take(event)
    for event in session_frames(session, session_geometry(session)):
        if isinstance(event, TruthEvent):
            truth[event.parent, event.child] = event.parent_T_child
        elif isinstance(event, SkippedEvent):
            skipped.append(Skipped(event.stamp_s, f"{event.topic}: {event.reason}"))
        elif isinstance(event, FrameEvent):
            begun = begun or _begin(session, navigator, event.stamp_s)
            yield Step(navigator.step(event.frame), dict(truth))
        elif not (isinstance(event, TransformEvent) and event.static):
            try:
                feed.take(event)
            except UsregError as error:
                skipped.append(Skipped(event.stamp_s, str(error)))


def _begin(session: Session, navigator: Navigator, stamp_s: float) -> bool:
    start = initial_pose(session)
    if start is not None:
        navigator.initialize(stamp_s, *start)
    return True


def _with_lagged(step: Step, navigator: Navigator) -> Step:
    try:
        step.lagged = navigator.pose_filter.lagged(step.stamp_s)
    except LostError:
        step.lagged = None  # the report shows the gap
    return step


def _spread(total: int, count: int) -> list[int]:
    """`count` places spread evenly over `total`, the ends left out."""
    return [int((i + 0.5) * total / count) for i in range(min(count, total))] if count else []
