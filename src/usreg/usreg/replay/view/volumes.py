# SPDX-License-Identifier: Apache-2.0
"""The volume that a recording names: the same file, or none and why; and the session that the file belongs to."""

from __future__ import annotations

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


def volume_for(info: Any, session: Session | None, bag: Path) -> tuple[Volume | None, str]:
    """The volume of a recording, with the session's labels where it is the session's; else None, and why.

    Args:
        info: VolumeInfo of the recording; None: it holds none.
    """
    if info is None:
        return _own(session)
    wanted = str(info.sha256)
    own, _ = _own(session)
    if own is not None and own.sha256 == wanted:
        return own, ""
    path = path_of(str(info.uri), bag.parent)
    name = Path(urlparse(str(info.uri)).path).name
    if path is None or not path.exists():
        return None, f"the volume '{name}' of this recording is not on this machine: name its session (--session)"
    try:
        volume = read_volume(path, str(info.modality))
    except UsregError as error:
        return None, f"the volume of this recording cannot be read: {error}"
    if volume.sha256 != wanted:
        return None, f"the volume '{name}' is not the one of this recording: the file has changed (its sha256 differs)"
    return volume, ""


def _own(session: Session | None) -> tuple[Volume | None, str]:
    if session is None:
        return None, "the recording names no volume: name its session (--session)"
    try:
        return session_volume(session), ""
    except UsregError as error:
        return None, str(error)


def path_of(uri: str, folder: Path) -> Path | None:
    """A file: URI or a path (relative ones to a folder); None for another kind."""
    parts = urlparse(uri)
    if parts.scheme not in ("", "file") or not parts.path:
        return None
    return folder / unquote(parts.path)
