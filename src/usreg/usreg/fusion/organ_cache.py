# SPDX-License-Identifier: Apache-2.0
"""Surfaces of organs kept on disk: made once for a volume's labels. May be deleted at any time."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from dataclasses import astuple
from pathlib import Path

from ..data.meshes import read_mesh, stl_bytes, write_mesh, write_stl
from ..data.types import Volume
from ..errors import MissingFileError, ShapeError, UsregError, WriteError
from ..rendering.surface import Surface

_log = logging.getLogger(__name__)
FORMAT = 1  # to be raised when the same labels give other surfaces
MAX_BYTES = 256 * 1024 * 1024


def cache_folder() -> Path:
    """The user's cache folder for usreg (XDG base directories: a relative path there is to be ignored)."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(given) if os.path.isabs(given) else Path.home() / ".cache"
    return base / "usreg"


def surfaces_key(volume: Volume, *parameters: object) -> str:
    """Name for what is made of a volume's labels on their grid with these parameters. Names of labels do not count."""
    if volume.labels is None:
        raise ShapeError("the volume has no labels to make surfaces of")
    told = hashlib.sha256(repr((FORMAT, astuple(volume.grid), str(volume.labels.dtype), parameters)).encode())
    told.update(volume.labels.contiguous().numpy().data.cast("B"))
    return told.hexdigest()[:32]


class OrganCache:
    """A folder for each set of labels with a mesh for each label; the folders used longest ago are removed.

    No name of a file says whose labels they are; the folder is for its user alone.

    Args:
        folder: None: `surfaces` in the user's cache folder. max_bytes: of all files, about.
    """

    def __init__(self, folder: Path | None = None, max_bytes: int = MAX_BYTES) -> None:
        self.folder = folder or cache_folder() / "surfaces"
        self.max_bytes = max_bytes

    def get(self, key: str, value: int) -> Surface | None:
        """The surface of a label; None where there is none that can be read."""
        path = self.folder / key / f"{value}.ply"
        try:
            surface = Surface(*read_mesh(path))
            os.utime(path.parent)  # used just now
            return surface
        except MissingFileError:
            return None
        except (UsregError, OSError) as error:
            _log.info("'%s' in the cache is made again: %s", path.name, error)
            return None

    def put(self, key: str, value: int, surface: Surface) -> None:
        """Keep a surface; where that cannot be done it is made again next time."""
        try:
            write_mesh(self._shelf(key) / f"{value}.ply", surface.vertices_mm, surface.triangles)
            self._prune(key)
        except OSError as error:  # WriteError too
            _log.info("surfaces are not kept: %s", error)

    def stl(self, key: str, value: int, surface: Surface) -> Path:
        """A file with the surface in metres.

        Raises:
            WriteError: it cannot be written.
        """
        path = self._shelf(key) / f"{value}.stl"
        if not (path.is_file() and path.stat().st_size == stl_bytes(len(surface.triangles))):
            write_stl(path, surface.vertices_mm, surface.triangles)
            self._prune(key)
        return path

    def _shelf(self, key: str) -> Path:
        shelf = self.folder / key
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            shelf.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise WriteError(f"no folder for surfaces can be made in the cache: {error.strerror or error}") from error
        return shelf

    def _prune(self, current: str) -> None:
        """Remove the folders used longest ago until the rest fits; never the current one."""
        shelves = sorted((s for s in self.folder.glob("*") if s.is_dir()), key=_used, reverse=True)
        total = 0
        for shelf in shelves:
            total += _size(shelf)
            if total > self.max_bytes and shelf.name != current:
                shutil.rmtree(shelf, ignore_errors=True)


def _used(shelf: Path) -> float:
    try:
        return shelf.stat().st_mtime
    except OSError:  # another process has just removed it
        return 0.0


def _size(shelf: Path) -> int:
    total = 0
    for file in shelf.glob("*"):
        try:
            total += file.stat().st_size
        except OSError:
            continue
    return total
