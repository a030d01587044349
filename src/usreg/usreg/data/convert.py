# SPDX-License-Identifier: Apache-2.0
"""PLUS sequences to bags and sessions, bags to PLUS sequences, and one sequence format to another."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..errors import FileFormatError, WriteError
from .bag_reader import SUFFIXES
from .bag_to_plus import bag_to_sequence
from .calibration import read_calibration, write_calibration
from .plus_to_bag import Progress, sequence_to_bag
from .sequences import META_ENDINGS, NRRD_ENDINGS, Sequence, is_sequence, read_sequence, write_sequence
from .sessions import FILE_NAME, SessionConfig, read_session, write_session
from .types import Calibration, Trajectory
from .volumes import read_volume, write_volume

CALIBRATION_NAME = "calibration.yaml"
SEQUENCE_ENDINGS = META_ENDINGS + NRRD_ENDINGS


def is_bag(path: Path) -> bool:
    """Whether a path names a bag or a session (a folder with one, an .mcap or a .db3 file)."""
    return (
        path.suffix in SUFFIXES
        or (path.is_dir() and (path / FILE_NAME).is_file())
        or (path.is_dir() and any(p.suffix in SUFFIXES for p in path.iterdir()))
    )


def convert_file(
    source: str | Path,
    target: str | Path,
    calibration: str | Path | None = None,
    progress: Progress | None = None,
) -> list[str]:
    """`convert` with a calibration file; volumes are converted too.

    Raises:
        As `convert` and `read_calibration`.
    """
    source, target = Path(source), Path(target)
    if source.is_file() and source.suffix not in SUFFIXES and not is_sequence(source):
        write_volume(read_volume(source), target)
        return []
    size = None if calibration is None or is_bag(source) else read_sequence(source).size
    chosen = None if calibration is None else read_calibration(calibration, size)
    return convert(source, target, chosen, progress)


def convert(
    source: str | Path,
    target: str | Path,
    calibration: Calibration | None = None,
    progress: Progress | None = None,
) -> list[str]:
    """Convert by the endings: `.mha`, `.mhd`, `.nrrd` a sequence, `.mcap` a bag, without ending a session's folder.

    Args:
        calibration: for sequence to bag or session, see `sequence_to_bag`.
        progress: called with (frames done, frames in all).

    Returns:
        What the target does not hold or show, in words; empty when nothing.

    Raises:
        FileFormatError: endings that do not fit. Others: as the readers and writers.
    """
    source, target = Path(source), Path(target)
    sequence, lost = load(source, calibration)
    if target.suffix.lower() in SEQUENCE_ENDINGS:
        write_sequence(sequence, target)
        return lost
    if target.suffix == ".mcap":
        return lost + sequence_to_bag(sequence, target, calibration, progress=progress)
    if target.suffix:
        raise FileFormatError(f"cannot write '{target.name}': give .mha, .mhd, .nrrd, .mcap, or a name without ending")
    return lost + sequence_to_session(sequence, target, calibration, progress)


def load(
    source: Path, calibration: Calibration | None = None, poses: Trajectory | None = None
) -> tuple[Sequence, list[str]]:
    """A sequence of a sequence file, a bag or a session, and what was lost on the way."""
    if not is_bag(source):
        return read_sequence(source), []
    geometry = None if calibration is None else calibration.geometry
    if source.is_dir() and (source / FILE_NAME).is_file():
        session = read_session(source)
        return bag_to_sequence(session.bag_path, poses, geometry, session.config.frames, session.config.topics)
    return bag_to_sequence(source, poses, geometry)


def sequence_to_session(
    sequence: Sequence, folder: Path, calibration: Calibration | None = None, progress: Progress | None = None
) -> list[str]:
    """A session's folder with the bag of a sequence and its calibration; volume and initial pose are added by hand.

    Raises:
        WriteError: the folder holds a session already.
    """
    if (folder / FILE_NAME).exists():
        raise WriteError(f"'{folder.name}' holds a session already; choose another name or remove it")
    remarks = sequence_to_bag(sequence, folder / "bag", calibration, progress=progress)
    if calibration is None:
        write_session(folder, SessionConfig(pose_source="tf"))
        return remarks
    # the bag's stamps have the latency behind them: whoever reads this calibration must not subtract it again
    write_calibration(replace(calibration, latency_s=0.0), folder / CALIBRATION_NAME)
    config = SessionConfig(pose_source="tf", calibration=CALIBRATION_NAME, latency_applied_s=calibration.latency_s)
    write_session(folder, config)
    return remarks
