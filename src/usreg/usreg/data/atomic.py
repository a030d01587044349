# SPDX-License-Identifier: Apache-2.0
"""Files appear whole or not at all: written under a temporary name, then renamed."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ..errors import UsregError, WriteError


@contextmanager
def atomic_file(path: str | Path) -> Iterator[BinaryIO]:
    """Open a file for writing; it takes its name only when everything is on the disk.

    Raises:
        WriteError: the disk is full, or there is no permission. What stood under the name before is unchanged.
    """
    path = Path(path)
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    except OSError as error:
        raise WriteError(f"'{path.name}' cannot be written in '{path.parent}': {error.strerror or error}") from error
    try:
        with os.fdopen(handle, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except OSError as error:
        _remove(temporary)
        raise WriteError(
            f"'{path.name}' could not be written ({error.strerror or error}): make room or choose another folder"
        ) from error
    except BaseException:
        _remove(temporary)
        raise


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path with the same ending for libraries that write by name; renamed at the end, removed on an error.

    Raises:
        WriteError: as `atomic_file`.
    """
    path = Path(path)
    try:
        folder = tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    except OSError as error:
        raise WriteError(f"'{path.name}' cannot be written in '{path.parent}': {error.strerror or error}") from error
    temporary = Path(folder) / path.name
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise WriteError(
            f"'{path.name}' could not be written ({error.strerror or error}): make room or choose another folder"
        ) from error
    finally:
        _remove(str(temporary))
        os.rmdir(folder)


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text whole or not at all."""
    with atomic_file(path) as stream:
        stream.write(text.encode("utf-8"))


def _umask() -> int:
    """The process's umask; mkstemp makes files for their owner alone."""
    current = os.umask(0)
    os.umask(current)
    return current


def _remove(path: str) -> None:
    Path(path).unlink(missing_ok=True)


@contextmanager
def atomic_folder(folder: str | Path) -> Iterator[Path]:
    """A hidden folder to fill; it takes its name at the end, and is removed on an error.

    Raises:
        WriteError: the name is taken (before anything is made), no permission, or the disk is full.
    """
    folder = Path(folder)
    if folder.exists():
        raise WriteError(f"'{folder.name}' exists already: choose another name or remove it; nothing was changed")
    partial = folder.with_name(f".{folder.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
        partial.rename(folder)
    except UsregError:
        raise  # some are OSErrors too, and say already what is wrong
    except OSError as error:
        raise WriteError(f"cannot write the folder '{folder.name}': {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
