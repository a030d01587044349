# SPDX-License-Identifier: Apache-2.0
"""One pass through a bag: its frames without their pixels, where the probe was, what is true at their stamps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from ...data.session_events import FrameEvent, SkippedEvent, TransformEvent, TruthEvent, session_frames
from ...data.session_events import ReplayConfig as OrderConfig
from ...data.sessions import FILE_NAME, Session
from ...errors import CalibrationError, FileFormatError, UsregError
from ...tracking import Tracker
from ..build import ReplayConfig, build_feed, session_geometry, session_tracker, static_transforms
from ..feed import Feed
from .known import FrameNote, Matrix, Truth

BARE = (
    "the bag says neither where the image was (us/pose) nor how it lies in the probe (us_probe -> us_image on "
    "/tf_static): name its session (--session)"
)


@dataclass(frozen=True, eq=False)
class Reading:
    """Frames in the order of their stamps, and what could not be used (stamp, why)."""

    frames: list[FrameNote]
    skipped: list[tuple[float, str]] = field(default_factory=list)


def read_frames(
    session: Session,
    measured: Mapping[float, Matrix] | None = None,
    truths: Mapping[float, Truth] | None = None,
    told: Callable[[int], None] = lambda done: None,
) -> Reading:
    """Read a session's bag once.

    Args:
        measured: world_T_image by stamp, where the bag says them itself; else the session's arm or transforms do.
        truths: by stamp, where the bag does not say them.
        told: of the frames so far.

    Raises:
        UsregError: the bag cannot be read, or holds no frame.
    """
    reading = Reading([])
    for note in _notes(session, measured or {}, truths, reading.skipped):
        if reading.frames and note.stamp_s <= reading.frames[-1].stamp_s:
            reading.skipped.append((note.stamp_s, "a frame came again, or late: it is left out"))
            continue
        reading.frames.append(note)
        told(len(reading.frames))
    if not reading.frames:
        why = f": {reading.skipped[0][1]}" if reading.skipped else ""
        raise FileFormatError(f"'{session.bag_path.name}' holds no frame that can be shown{why}")
    return reading


def _notes(
    session: Session,
    measured: Mapping[float, Matrix],
    truths: Mapping[float, Truth] | None,
    skipped: list[tuple[float, str]],
) -> Iterator[FrameNote]:
    probe, truth = _Probe(session), Truth()
    for event in session_frames(session, session_geometry(session), OrderConfig(skip_damaged=True)):
        if isinstance(event, TruthEvent):
            truth = truth | {(event.parent, event.child): event.parent_T_child}
        elif isinstance(event, SkippedEvent):
            skipped.append((event.stamp_s, f"{event.topic}: {event.reason}"))
        elif isinstance(event, FrameEvent):
            known = truth if truths is None else truths.get(event.stamp_s, {})
            yield probe.note(event, measured.get(event.stamp_s), known)
        elif not (isinstance(event, TransformEvent) and event.static):
            try:
                probe.take(event)
            except UsregError as error:
                skipped.append((event.stamp_s, str(error)))


class _Probe:
    """Where the probe was, as far as a session lets know: `problem` says what is missing."""

    def __init__(self, session: Session) -> None:
        self._feed: Feed | None = None
        self._tracker: Tracker | None = None
        self.problem = ""
        try:
            self._feed = build_feed(session, ReplayConfig())
            for static in static_transforms(session):
                self._feed.take(static)
            self._tracker = session_tracker(session, self._feed)
        except UsregError as error:
            bare = not (session.folder / FILE_NAME).is_file()
            self.problem = BARE if bare and isinstance(error, CalibrationError) else str(error)

    def take(self, event: object) -> None:
        """A measurement."""
        if self._feed is not None:
            self._feed.take(event)  # type: ignore[arg-type]

    def note(self, event: FrameEvent, measured: Matrix | None, truth: Truth) -> FrameNote:
        """What is known of a frame."""
        pose, why = (measured, "") if measured is not None else self._tracked(event)
        names, links = self._links(event.stamp_s)
        frame = event.frame
        return FrameNote(frame.stamp_s, event.place, frame.geometry, pose, why, truth, names, links)

    def _tracked(self, event: FrameEvent) -> tuple[Matrix | None, str]:
        if self._tracker is None:
            return None, self.problem
        try:
            return self._tracker.track(event.frame).world_T_image.numpy(), ""
        except UsregError as error:
            return None, str(error)

    def _links(self, stamp_s: float) -> tuple[tuple[str, ...], NDArray[np.float32] | None]:
        if self._feed is None:
            return (), None
        try:
            names, poses = self._feed.links_at(stamp_s)
        except UsregError:
            return (), None
        return names, poses.to(torch.float32).numpy()
