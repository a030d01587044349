# SPDX-License-Identifier: Apache-2.0
"""Where the files that ship with usreg lie: config/, launch/, bags/; and where ROS packages keep theirs."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from ..errors import ConfigError, MissingFileError

PACKAGE = "usreg"


def source_root() -> Path | None:
    """Top level of the source tree this module lies in; None where usreg was installed by copy."""
    root = Path(__file__).resolve().parents[4]
    return root if (root / "src" / "usreg_msgs").is_dir() and (root / "config").is_dir() else None


def prefixes() -> list[Path]:
    """Install prefixes in the order in which ROS looks at them, then Python's own."""
    found = [Path(p) for p in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p]
    return list(dict.fromkeys([*found, Path(sys.prefix)]))


def share_dir() -> Path:
    """Folder that holds config/, launch/ and bags/: the source tree where there is one, else <prefix>/share/usreg.

    Raises:
        MissingFileError: neither is there.
    """
    root = source_root()
    if root is not None:
        return root
    for prefix in prefixes():
        if (prefix / "share" / PACKAGE / "config").is_dir():
            return prefix / "share" / PACKAGE
    raise MissingFileError(
        "usreg's config folder was not found; run 'make build', or source the workspace's setup file"
    )


def find_named(folder: str, name_or_path: str | Path, suffix: str = ".yaml") -> Path:
    """A file by path, or by its bare name inside a shipped folder such as `config/probes`.

    Raises:
        MissingFileError: there is none; the message lists the names that ship.
    """
    path = Path(name_or_path)
    if path.suffix or path.is_absolute() or len(path.parts) > 1:
        if path.is_file():
            return path
        raise MissingFileError(f"no file '{path.name}' in '{path.parent}': check the name")
    base = share_dir() / folder
    if (base / f"{path}{suffix}").is_file():
        return base / f"{path}{suffix}"
    names = sorted(p.stem for p in base.glob(f"*{suffix}")) if base.is_dir() else []
    raise MissingFileError(
        f"no '{name_or_path}' in {folder}; shipped: {names}. Give one of these or the path of a file"
    )


def inside(folder: Path, relative: str | Path, what: str) -> Path:
    """`folder / relative`, resolved, refused where it leaves the folder (also through a link).

    Raises:
        ConfigError: an absolute path, `..`, or a link that leads out.
    """
    path = Path(relative)
    resolved = (folder / path).resolve()
    if path.is_absolute() or not resolved.is_relative_to(folder.resolve()):
        raise ConfigError(f"'{what}' is '{relative}'; it must be a path inside the folder '{folder.name}'")
    return resolved
