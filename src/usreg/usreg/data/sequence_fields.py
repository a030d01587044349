# SPDX-License-Identifier: Apache-2.0
"""Per-frame keys of a PLUS sequence to stamps, poses and statuses, and back."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..errors import FileFormatError
from .chain import ANY, split_name
from .sequence_header import SequenceHeader, SequenceLimits, check_text
from .types import Trajectory

TRANSFORM, STATUS, TIMESTAMP = "Transform", "TransformStatus", "Timestamp"
OK = "OK"
Statuses = tuple[str | None, ...]


@dataclass(frozen=True, eq=False)
class FrameFields:
    """What the per-frame keys say: stamps, transforms, statuses (None = key absent) and all other keys."""

    stamps_s: Tensor
    transforms: dict[str, Trajectory]
    statuses: dict[str, Statuses]
    image_status: Statuses
    other: tuple[dict[str, str], ...]
    problems: tuple[str, ...]


def parse_fields(header: SequenceHeader, limits: SequenceLimits, name: str) -> FrameFields:
    """Read the per-frame keys; what cannot be read as a number stays in `other` as it was.

    Raises:
        FileFormatError: more poses than the limits allow.
    """
    rows = [dict(header.frames.get(i, {})) for i in range(header.count)]
    names = list(dict.fromkeys(k.removesuffix(TRANSFORM) for r in rows for k in r if is_transform(k)))
    if header.count * len(names) * 128 > limits.max_pose_bytes:
        raise FileFormatError(
            f"'{name}' declares {header.count} frames of {len(names)} transforms: more than {limits.max_pose_bytes} "
            "bytes of poses"
        )
    keys = {header.image_status_key, "ImageStatus"}  # "Status" alone may be any device's in a MetaImage
    image_status = tuple(next((r.pop(k) for k in keys if k in r), None) for r in rows)
    stamps = torch.tensor([_stamp(r) for r in rows], dtype=torch.float64)
    statuses = {n: tuple(r.pop(n + STATUS, None) for r in rows) for n in names}
    transforms = {n: _trajectory(n, rows, stamps, statuses[n]) for n in names}
    return FrameFields(stamps, transforms, statuses, image_status, tuple(rows), tuple(_problems(header, rows, names)))


def is_transform(key: str) -> bool:
    """Whether a per-frame key names a transform `<A>To<B>Transform`."""
    return key.endswith(TRANSFORM) and ANY.fullmatch(key.removesuffix(TRANSFORM)) is not None


def _trajectory(name: str, rows: list[dict[str, str]], stamps: Tensor, status: Statuses) -> Trajectory:
    array = np.empty((len(rows), 16))
    for pose, row in zip(array, rows, strict=True):
        pose[:] = _pose(row, name + TRANSFORM)
    poses = torch.from_numpy(array.reshape(-1, 4, 4))
    usable = torch.tensor([s is None or s.upper() == OK for s in status], dtype=torch.bool)
    return Trajectory(stamps, poses, torch.isfinite(poses).flatten(1).all(1) & usable, *split_name(name))


def _problems(header: SequenceHeader, rows: list[dict[str, str]], names: list[str]) -> list[str]:
    problems = []
    for name in names:
        if unusable := sum(name + TRANSFORM in r for r in rows):
            problems.append(f"{unusable} matrices of {name} are not 16 finite numbers: these poses are invalid")
    if extra := sum(i >= header.count for i in header.frames):
        problems.append(
            f"the header has keys of {extra} frames beyond the {header.count} that it declares: they are left out"
        )
    return problems


def numbers(text: str) -> list[float] | None:
    """Plain decimal numbers of a text, or None where something else stands in it."""
    if not text.isascii() or "_" in text:
        return None
    try:
        return [float(t) for t in text.split()]
    except ValueError:
        return None


def _pose(row: dict[str, str], key: str) -> list[float]:
    values = numbers(row.get(key, ""))
    if values is None or len(values) != 16 or not all(map(math.isfinite, values)):
        return [math.nan] * 16
    del row[key]
    return values


def _stamp(row: dict[str, str]) -> float:
    values = numbers(row.get(TIMESTAMP, ""))
    if values is None or len(values) != 1 or not math.isfinite(values[0]):
        return math.nan
    del row[TIMESTAMP]
    return values[0]


def format_fields(fields: FrameFields, image_status_key: str) -> dict[int, dict[str, str]]:
    """Keys of each frame as text; numbers in the shortest form that reads back to the same bits."""
    frames: dict[int, dict[str, str]] = {}
    for i, stamp in enumerate(fields.stamps_s.tolist()):
        row = dict(fields.other[i]) if fields.other else {}
        for key, value in row.items():
            check_text(key, value, "=")
        for name, trajectory in fields.transforms.items():
            _format_pose(row, name, trajectory, fields.statuses[name][i], i)
        if math.isfinite(stamp):
            row[TIMESTAMP] = repr(stamp)
        status = fields.image_status[i]
        frames[i] = row if status is None else {**row, image_status_key: status}
    return frames


def _format_pose(row: dict[str, str], name: str, trajectory: Trajectory, status: str | None, i: int) -> None:
    pose = trajectory.poses[i]
    if bool(torch.isfinite(pose).all()):
        row[name + TRANSFORM] = " ".join(map(repr, pose.flatten().tolist()))
    if status is not None:
        row[name + STATUS] = status
