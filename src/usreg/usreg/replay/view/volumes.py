# SPDX-License-Identifier: Apache-2.0
"""The volume that a recording names: the same file, or none and why; and the session that the file belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from ...data.sessions import FILE_NAME, Session, read_session
from ...data.types import Volume
from ...data.volumes import read_volume
from ...errors import UsregError
from ..build import session_volume


def session_named(info: Any, bag: Path) -> Session | None:
    """The session that a recording was made of: the volume of its VolumeInfo lies in a session's folder."""
    path = None if info is None else path_of(str(info.uri), bag.parent)
    if path is None or not (path.parent / FILE_NAME).is_file():
        return None
    try:
        session = read_session(path.parent)
    except UsregError:
        return None
    volumes = [session.volume_path, *session.volume_paths.values()]
    return session if path.resolve() in volumes else None


@dataclass(frozen=True, eq=False)
class Chosen:
    """A volume, or why there is none; `own`: it is the session's, with its labels."""

    volume: Volume | None
    reason: str = ""
    own: bool = False


def volume_for(info: Any, session: Session | None, bag: Path) -> Chosen:
    """The volume of a recording.

    Args:
        info: VolumeInfo of the recording; None: it holds none, and the session's is taken.
    """
    own = _own(session)
    if info is None:
        return own
    wanted = str(info.sha256)
    if own.volume is not None and own.volume.sha256 == wanted:
        return own
    path = path_of(str(info.uri), bag.parent)
    name = Path(urlparse(str(info.uri)).path).name
    if path is None or not path.exists():
        why = "is not on this machine: name its session (--session)"
        return Chosen(None, f"the volume '{name}' of this recording {why}")
    try:
        volume = read_volume(path, str(info.modality))
    except UsregError as error:
        return Chosen(None, f"the volume of this recording cannot be read: {error}")
    if volume.sha256 != wanted:
        why = "the file has changed (its sha256 differs)"
        return Chosen(None, f"the volume '{name}' is not the one of this recording: {why}")
    return Chosen(volume)


def _own(session: Session | None) -> Chosen:
    if session is None:
        return Chosen(None, "the recording names no volume: name its session (--session)")
    try:
        return Chosen(session_volume(session), own=True)
    except UsregError as error:
        return Chosen(None, str(error))


def path_of(uri: str, folder: Path) -> Path | None:
    """A file: URI or a path (relative ones to a folder); None for another kind."""
    parts = urlparse(uri)
    if parts.scheme not in ("", "file") or not parts.path:
        return None
    return folder / unquote(parts.path)
