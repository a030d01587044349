# SPDX-License-Identifier: Apache-2.0
"""Opens whatever can be viewed: a session, the recording of a running graph, a bare bag. What is missing is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from ...data.bag_reader import bag_files
from ...data.landmarks import read_landmarks
from ...data.session_events import FrameEvent, TruthEvent, session_frames
from ...data.session_events import ReplayConfig as OrderConfig
from ...data.sessions import FILE_NAME, FrameNames, Session, SessionConfig, read_session
from ...errors import ConfigError, UsregError
from ..build import find_session, session_geometry, session_landmarks
from .content import Content
from .known import Truth
from .outputs import Found, Outputs, find_topics, read_outputs, recorded_results
from .reading import read_frames
from .recorded_session import RecordedSession
from .volumes import Chosen, session_named, volume_for

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class OpenConfig:
    """What is to be opened beside the bag.

    Args:
        session: folder or name of the session that a recording was made of; "": as the recording says.
        register: have the Navigator register what the session allows; None: where nothing was registered.
    """

    session: str = ""
    register: bool | None = None


def open_recording(path: str | Path, config: OpenConfig | None = None, progress: Progress | None = None) -> Content:
    """Open a session (folder, or the name of one that ships) or a bag.

    Args:
        progress: called with (frames read, frames in all).

    Raises:
        UsregError: nothing there, not a bag, or nothing in it that can be shown; the message says what to do.
    """
    config, progress = config or OpenConfig(), progress or (lambda done, total: None)
    own, bag = _places(Path(path), config.session)
    found = find_topics(bag)
    outputs = read_outputs(bag, found.published)
    named = own or (find_session(config.session) if config.session else session_named(outputs.volume, bag))
    session = own or _recorded(bag, named, found, outputs)
    chosen = volume_for(outputs.volume, named, bag)
    truths = None if own or named is None or not named.config.truth else _truths(named)
    reading = read_frames(session, outputs.measured, truths, lambda done: progress(done, found.images))
    register, no_register = _to_register(session, named, chosen, outputs, config.register)
    problems = [*reading.skipped, *outputs.problems]
    landmarks, points = _landmarks(named, problems)
    content = Content(
        _title(named, own), bag, reading.frames, session.config.frames, problems, chosen.volume, chosen.reason,
        landmarks, points, register, no_register, _system(outputs, named), outputs.hypotheses, outputs.target_ct,
        outputs.stages,
    )  # fmt: skip
    if register is None:
        centre_ct = None if chosen.volume is None else chosen.volume.grid.centre_ct
        for stamp_s, result in recorded_results(reading.frames, outputs, centre_ct):
            content.put(stamp_s, result)
    return content


def _places(path: Path, session: str) -> tuple[Session | None, Path]:
    """The session of a path, if it is one's or one's own bag, and the bag."""
    if path.exists() and path.name != FILE_NAME and not (path / FILE_NAME).is_file():
        bag_files(path)
        own = None if session else _around(path.resolve())
        return own, path.resolve()
    if session:
        raise ConfigError(f"'{path.name}' is a session itself: leave out --session, or give a recording's bag with it")
    found = find_session(path)
    return found, found.bag_path


def _around(bag: Path) -> Session | None:
    """The session whose bag this is."""
    try:
        session = read_session(bag.parent)
    except UsregError:
        return None
    return session if session.bag_path == bag else None


def _recorded(bag: Path, named: Session | None, found: Found, outputs: Outputs) -> Session:
    """A recording as a session: with what is known of the one it was made of, where that is known."""
    if named is None:
        frames = FrameNames(world=outputs.world or FrameNames.world, volume=outputs.child or FrameNames.volume)
        config = SessionConfig(bag=bag.name, pose_source="tf", frames=frames, topics=found.measured)
        return RecordedSession(bag.parent, config, bag)
    source = named.config.pose_source if found.joints else "tf"
    return RecordedSession(named.folder, replace(named.config, topics=found.measured, pose_source=source), bag)


def _to_register(
    session: Session, named: Session | None, chosen: Chosen, outputs: Outputs, wanted: bool | None
) -> tuple[Session | None, str]:
    """The session that the Navigator is to register; None, and why."""
    if not (wanted or (wanted is None and not outputs.registered)):
        return None, "" if outputs.registered else "nothing was registered in it, and nothing is now (--register)"
    if named is None:
        return None, "nobody knows how to register it: name its session (--session)"
    if not chosen.own:
        return None, chosen.reason or "its volume is not the session's"
    return session, ""


def _truths(session: Session) -> dict[float, Truth]:
    """What is true at the stamps of a session's frames."""
    truth, found = Truth(), dict[float, Truth]()
    for event in session_frames(session, session_geometry(session), OrderConfig(skip_damaged=True)):
        if isinstance(event, TruthEvent):
            truth = truth | {(event.parent, event.child): event.parent_T_child}
        elif isinstance(event, FrameEvent):
            found[event.stamp_s] = truth
    return found


def _landmarks(
    session: Session | None, problems: list[tuple[float, str]]
) -> tuple[Mapping[str, Tensor], Tensor | None]:
    """Points by name, and those at which errors are told; none where they cannot be read."""
    if session is None or session.landmarks_path is None:
        return {}, None
    try:
        return read_landmarks(session.landmarks_path), session_landmarks(session)
    except UsregError as error:
        problems.append((0.0, str(error)))
        return {}, None


def _system(outputs: Outputs, session: Session | None) -> str:
    recorded = next((e.system for e in outputs.estimates), "")
    return recorded or ("" if session is None else session.config.system)


def _title(named: Session | None, own: Session | None) -> str:
    """Never the name of a file from outside: it may be a patient's."""
    if named is None:
        return "recording"
    name = named.folder.resolve().name
    return name if own else f"recording of {name}"
