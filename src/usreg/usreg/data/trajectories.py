# SPDX-License-Identifier: Apache-2.0
"""Trajectory files in TUM format (`stamp tx ty tz qx qy qz qw`, metres), as evo and other tools read them."""

from __future__ import annotations

from pathlib import Path

import torch

from ..errors import FileFormatError, MissingFileError
from ..geometry import rotation, se3
from .atomic import write_text
from .types import Trajectory

MAX_BYTES = 256 * 1024 * 1024
_MM = 1000.0


def write_tum(path: str | Path, trajectory: Trajectory) -> None:
    """Write the valid poses, one a line.

    Raises:
        WriteError: the file cannot be written.
    """
    keep = trajectory.valid
    poses = trajectory.poses[keep]
    values = torch.cat([poses[:, :3, 3] / _MM, rotation.to_quat_xyzw(poses[:, :3, :3])], -1)
    lines = [
        f"{stamp:.9f} " + " ".join(f"{v:.9f}" for v in row)
        for stamp, row in zip(trajectory.stamps_s[keep].tolist(), values.tolist(), strict=True)
    ]
    text = "# stamp tx ty tz qx qy qz qw\n" + "".join(f"{line}\n" for line in lines)
    write_text(path, text)


def read_tum(path: str | Path, source: str = "", target: str = "") -> Trajectory:
    """Read a TUM file; lines with `#` are comments.

    Raises:
        MissingFileError: there is no such file.
        FileFormatError: too large, not eight finite numbers a line, a quaternion without length, stamps that run back.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"no file '{path.name}' in '{path.parent}': check the name")
    if path.stat().st_size > MAX_BYTES:
        raise FileFormatError(f"'{path.name}' has {path.stat().st_size} bytes; a trajectory has at most {MAX_BYTES}")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        numbers = [
            [float(p) for p in line.split()] for line in lines if line.strip() and not line.lstrip().startswith("#")
        ]
    except ValueError as error:
        raise FileFormatError(f"'{path.name}' is no TUM trajectory: {error}") from error
    wrong = [n for n, row in enumerate(numbers) if len(row) != 8]
    if wrong:
        raise FileFormatError(f"'{path.name}': pose {wrong[0]} has {len(numbers[wrong[0]])} numbers, 8 are expected")
    return _trajectory(torch.tensor(numbers, dtype=torch.float64).reshape(-1, 8), path.name, source, target)


def _trajectory(rows: torch.Tensor, name: str, source: str, target: str) -> Trajectory:
    if not bool(torch.isfinite(rows).all()) or bool((rows[:, 4:].norm(dim=-1) < 1e-9).any()):
        raise FileFormatError(f"'{name}' holds NaN, infinity or a quaternion without length")
    poses = se3.from_parts(rotation.from_quat_xyzw(rows[:, 4:]), rows[:, 1:4] * _MM)
    if (rows[:, 0].diff() <= 0).any():
        raise FileFormatError(f"'{name}': stamps repeat or run backwards")
    return Trajectory(rows[:, 0], poses, torch.ones(len(rows), dtype=torch.bool), source, target)
