# SPDX-License-Identifier: Apache-2.0
"""Tracked ultrasound sequences of PLUS, read and written: `.mha`, `.mhd` with `.raw` or `.zraw`, `.nrrd`."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch

from ..errors import FileFormatError, MissingFileError, ShapeError, TimeError
from .atomic import atomic_file
from .metaimage import metaimage_text, read_metaimage_header
from .nrrd import nrrd_text, read_nrrd_header
from .pixels import data_path, deflate, read_pixels
from .sequence import Sequence, subset
from .sequence_fields import OK, FrameFields, format_fields, parse_fields
from .sequence_header import PREFIX, Axis, SequenceHeader, SequenceLimits
from .stamp_checks import increasing_stamps, stamp_problems

GLANCE_BYTES = 65536  # PLUS writes its per-frame keys right after a dozen others
META_ENDINGS, NRRD_ENDINGS = (".mha", ".mhd"), (".nrrd", ".nhdr")


def read_header(path: str | Path, limits: SequenceLimits | None = None) -> SequenceHeader:
    """Header of a sequence file, by its ending.

    Raises:
        MissingFileError: no such file. FileFormatError: another kind of file, or a damaged header.
    """
    path, limits = Path(path), limits or SequenceLimits()
    if not path.is_file():
        raise MissingFileError(f"no file '{path.name}' in '{path.parent}': check the name")
    if path.suffix.lower() in META_ENDINGS:
        header = read_metaimage_header(path, limits)
    elif path.suffix.lower() in NRRD_ENDINGS:
        header = read_nrrd_header(path, limits)
    else:
        raise FileFormatError(
            f"'{path.name}' does not end in {', '.join(META_ENDINGS + NRRD_ENDINGS)}: sequences have one of these "
            "endings"
        )
    if header.count > limits.max_frames:
        raise FileFormatError(f"'{path.name}' declares {header.count} frames; at most {limits.max_frames} are read")
    return header


def is_sequence(path: str | Path) -> bool:
    """Whether a MetaImage or NRRD file holds 2D frames over time; PLUS writes volumes with per-frame keys, too.

    Raises:
        FileFormatError: a sequence by its name or keys whose header is damaged.
    """
    path = Path(path)
    if path.suffix.lower() not in META_ENDINGS + NRRD_ENDINGS or not path.is_file():
        return False
    with path.open("rb") as stream:
        keyed = PREFIX.encode() in stream.read(GLANCE_BYTES)
    if not keyed and not any(mark in path.name.lower() for mark in (".igs.", ".seq.")):
        return False
    return _slices(read_header(path)) <= 1


def _slices(header: SequenceHeader) -> int:
    """Slices of a frame: above one only in volumes."""
    domain = [a.size for a in header.axes if a.kind == "domain"]
    return domain[2] if len(domain) > 2 else 1


def read_sequence(path: str | Path, limits: SequenceLimits | None = None) -> Sequence:
    """Read a PLUS sequence.

    Args:
        path: `.mha`, `.mhd`, `.nrrd` or `.nhdr`.
        limits: bounds for files that are not trusted.

    Raises:
        MissingFileError: the file, or the data file beside it, is not there.
        FileFormatError: cut off, mis-declared, not text where text must be, or a volume instead of a sequence.
        TimeError: with `bad_stamps="refuse"`, stamps that repeat or run backwards.
    """
    path, limits = Path(path), limits or SequenceLimits()
    header = read_header(path, limits)
    _check_frames(header, path)
    parsed = parse_fields(header, limits, path.name)
    valid = np.array([s is None or s.upper() == OK for s in parsed.image_status], bool)
    images = read_pixels(header, valid, limits)
    good = increasing_stamps(parsed.stamps_s)
    stamps = stamp_problems(parsed.stamps_s, good)
    if stamps and limits.bad_stamps == "refuse":
        raise TimeError(f"'{path.name}': {'; '.join(stamps)}")
    problems = (*parsed.problems, *stamps, *_orientation_problem(header, images))
    return Sequence(
        None if images is None else torch.from_numpy(images),
        torch.from_numpy(valid & (images is not None)),
        parsed.stamps_s,
        parsed.transforms,
        fields=parsed.other,
        source_format=path.suffix.lower().lstrip("."),
        header=header.fields,
        statuses=parsed.statuses,
        image_status=parsed.image_status,
        problems=problems,
    )


def _check_frames(header: SequenceHeader, path: Path) -> None:
    """A file of poses alone has no pixels that would bound its number of frames: its keys must."""
    if not header.frames or header.count < 1:
        raise FileFormatError(f"'{path.name}' has no keys of frames ({PREFIX}0000_...): it is empty, or a volume")
    if _slices(header) > 1:
        raise FileFormatError(f"'{path.name}' holds {_slices(header)} slices a frame: read it as a volume")
    keys = 1 + max(header.frames)
    if header.size == (0, 0) and header.count > keys:
        raise FileFormatError(
            f"'{path.name}' declares {header.count} frames but has keys of {keys}: cut off, or mis-declared"
        )


def _orientation_problem(header: SequenceHeader, images: np.ndarray | None) -> list[str]:
    if images is not None and header.orientation.upper() in ("", "XX"):
        return [
            "the file does not state the orientation of its images; MF is assumed (x to the marked side, y away "
            "from the probe)"
        ]
    return []


def write_sequence(sequence: Sequence, path: str | Path, compress: bool = True) -> None:
    """Write a PLUS sequence; the ending chooses the format.

    Frames without pixels get a blank image and their status, as PLUS does.

    Raises:
        WriteError: the disk is full or there is no permission; an older file of that name is unchanged.
        FileFormatError: unknown ending. ShapeError: no frames, or a field that would break the header.
    """
    path = Path(path)
    if path.suffix.lower() not in (*META_ENDINGS, ".nrrd"):
        raise FileFormatError(f"cannot write '{path.name}': sequences are written as .mha, .mhd or .nrrd")
    if sequence.count == 0:
        raise ShapeError(f"cannot write '{path.name}': the sequence has no frames")
    frames = _blanked(sequence)
    packed = compress and frames.size > 0
    pixels = deflate(frames, "gzip" if path.suffix.lower() == ".nrrd" else "zlib") if packed else frames.tobytes()
    header = _header_for(sequence, path, "packed" if packed else "", len(pixels))
    if path.suffix.lower() == ".mhd":
        _write_pair(path, header, data_path(path, packed), pixels)
        return
    text = nrrd_text(header) if path.suffix.lower() == ".nrrd" else metaimage_text(header, "LOCAL")
    with atomic_file(path) as stream:
        stream.write(text.encode("utf-8"))
        stream.write(pixels)


def _blanked(sequence: Sequence) -> np.ndarray:
    """Pixels (N, h, w) with zeros where a frame has none; empty for poses alone."""
    if sequence.images is None:
        return np.zeros((0, 0, 0), np.uint8)
    valid = sequence.image_valid.numpy()
    images = sequence.images.numpy()
    return images if valid.all() else images * valid[:, None, None].astype(np.uint8)


def _write_pair(path: Path, header: SequenceHeader, data: Path, pixels: bytes) -> None:
    """Header and data file: both are on the disk before either takes its name."""
    with atomic_file(data) as data_stream, atomic_file(path) as stream:
        data_stream.write(pixels)
        stream.write(metaimage_text(header, data.name).encode("utf-8"))
        for each in (data_stream, stream):
            each.flush()
            os.fsync(each.fileno())


def _header_for(sequence: Sequence, path: Path, compression: str, data_size: int) -> SequenceHeader:
    width, height = sequence.size or (0, 0)
    key = "Status" if path.suffix.lower() == ".nrrd" else "ImageStatus"
    poses_only = sequence.images is None
    return SequenceHeader(
        (Axis("domain", width), Axis("domain", height), Axis("list", sequence.count)),
        "other" if poses_only and key == "ImageStatus" else "uint8",
        compression,
        "XX" if poses_only else sequence.orientation,
        "XX" if poses_only else "BRIGHTNESS",
        sequence.header,
        format_fields(_filled(sequence), key),
        path,
        0,
        data_size,
        key,
    )


def _filled(sequence: Sequence) -> FrameFields:
    """Statuses in words where a sequence made in memory only has flags."""
    image = sequence.image_status or tuple(OK if v else "INVALID" for v in sequence.image_valid.tolist())
    statuses = {}
    for name, trajectory in sequence.transforms.items():
        finite = torch.isfinite(trajectory.poses).flatten(1).all(1).tolist()
        derived = tuple(
            OK if v else "INVALID" if f else None for v, f in zip(trajectory.valid.tolist(), finite, strict=True)
        )
        statuses[name] = sequence.statuses.get(name, derived)
    return FrameFields(sequence.stamps_s, sequence.transforms, statuses, image, sequence.fields, ())


__all__ = ["Sequence", "SequenceLimits", "is_sequence", "read_header", "read_sequence", "subset", "write_sequence"]
