# SPDX-License-Identifier: Apache-2.0
"""Drive a session through the Navigator, frame by frame, in the order of stamps: the same every time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..data.session_events import FrameEvent, SkippedEvent, TransformEvent, TruthEvent, session_frames
from ..data.session_events import ReplayConfig as OrderConfig
from ..data.session_volumes import with_volume
from ..data.sessions import Session
from ..errors import LostError, UsregError
from ..evaluation import write_report
from ..navigator import Navigator
from .build import (
    ReplayConfig,
    build_navigator,
    find_session,
    frame_count,
    initial_pose,
    session_geometry,
    session_landmarks,
    static_transforms,
)
from .feed import Feed
from .report import Collector
from .step import Step

Progress = Callable[[int, int], None]
Skip = Callable[[float, str], None]


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
    config = config or ReplayConfig(system=system)
    session = with_volume(find_session(path), config.register_to)
    total = frame_count(session)
    collector = Collector(total, config.snapshots)
    with fixed_threads():
        navigator, feed = build_navigator(session, config)
        for step in run_session(session, navigator, feed, collector.skip):
            collector.take(step)
            if progress is not None:
                progress(collector.count, total)
    names, name = session.config.frames, session.folder.resolve().name
    facts = {"session": name, "system": config.system or session.config.system, "seed": session.config.seed}
    content = collector.content(f"usreg replay: {name}", names.world, names.volume, **facts)
    write_report(report, **content)
    summary: dict[str, Any] = content["result"]["summary"]
    return summary


@contextmanager
def fixed_threads(count: int = 1) -> Iterator[None]:
    """The same number of torch threads on every machine: sums that are split otherwise differ in their last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def run_session(session: Session, navigator: Navigator, feed: Feed, skip: Skip | None = None) -> Iterator[Step]:
    """Steps of a session in order; each comes out once its fixed-lag pose is known.

    Args:
        skip: told stamp and reason of every message that could not be used.
    """
    waiting: list[Step] = []
    for step in session_steps(session, navigator, feed, skip):
        waiting.append(step)
        ripe = step.stamp_s - navigator.pose_filter.config.lag_s
        while waiting and waiting[0].stamp_s < ripe:
            yield _with_lagged(waiting.pop(0), navigator)
    for step in waiting:
        yield _with_lagged(step, navigator)


def session_steps(
    session: Session, navigator: Navigator, feed: Feed, skip: Skip | None = None, order: OrderConfig | None = None
) -> Iterator[Step]:
    """As `run_session`, but at once, without fixed-lag poses; `order`: how the bag's events are put in order."""
    skip = skip or (lambda stamp_s, reason: None)
    names, truth, landmarks = session.config.frames, dict[tuple[str, str], Tensor](), session_landmarks(session)
    begun = False
    for static in static_transforms(session):
        feed.take(static)
    for event in session_frames(session, session_geometry(session), order):
        if isinstance(event, TruthEvent):
            truth[event.parent, event.child] = event.parent_T_child
        elif isinstance(event, SkippedEvent):
            skip(event.stamp_s, f"{event.topic}: {event.reason}")
        elif isinstance(event, FrameEvent):
            begun = begun or _begin(session, navigator, event.stamp_s)
            yield Step(navigator.step(event.frame), names, dict(truth), landmarks=landmarks)
        elif not (isinstance(event, TransformEvent) and event.static):
            try:
                feed.take(event)
            except UsregError as error:
                skip(event.stamp_s, str(error))


def _begin(session: Session, navigator: Navigator, stamp_s: float) -> bool:
    """Where the session says no pose, the navigator stays UNINITIALISED and its report shows that."""
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
