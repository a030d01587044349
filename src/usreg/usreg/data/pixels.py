# SPDX-License-Identifier: Apache-2.0
"""Pixel blocks of sequence files: bounded reading, any order of axes, any orientation, colour to grey."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..errors import FileFormatError, MissingFileError
from .sequence_header import SequenceHeader, SequenceLimits

CHUNK, PART = 1 << 20, 1 << 24
DEFLATE_LIMIT = 1040  # zlib cannot compress better than about 1032 : 1
WINDOW = {"zlib": 15, "gzip": 31}
LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601


def read_pixels(header: SequenceHeader, present: np.ndarray, limits: SequenceLimits) -> np.ndarray | None:
    """Pixels of all frames in MF orientation; frames without pixels are zero.

    Args:
        header: where and how they lie.
        present: (N,) bool, frames whose image status is OK. PLUS stores a blank frame for the others; files that leave
            them out are read too.
        limits: bounds.

    Returns:
        (N, h, w) uint8, or None for a file of poses alone.

    Raises:
        FileFormatError: too large, cut off, not compressed as declared, or not 8 bits.
        MissingFileError: the data file beside the header is not there.
    """
    width, height = header.size
    if width * height * header.count == 0:
        return None
    if header.element_type != "uint8" or header.image_type.upper().startswith("RF_"):
        raise FileFormatError(
            f"'{header.data_file.name}' holds '{header.element_type}' pixels of type '{header.image_type}'; "
            "usreg reads 8-bit B-mode images: convert it with PLUS first"
        )
    frame_bytes = width * height * header.channels
    block = _read_block(header, frame_bytes, int(present.sum()), limits)
    if block.size == frame_bytes * header.count:
        frames = _ordered(block.reshape([a.size for a in reversed(header.axes)]), header)
        frames[~present] = 0
    else:
        frames = _spread(block, header, present)
    return _oriented(grey(frames), header.orientation)


def _read_block(header: SequenceHeader, frame_bytes: int, present: int, limits: SequenceLimits) -> np.ndarray:
    full, name = frame_bytes * header.count, header.data_file.name
    if full > limits.max_bytes:
        raise FileFormatError(
            f"'{name}' declares {full} bytes of pixels ({header.count} frames of {frame_bytes}); at most "
            f"{limits.max_bytes} are read"
        )
    if not header.data_file.is_file():
        raise MissingFileError(f"the data file '{name}' is not beside its header: keep both in one folder")
    stored = header.data_file.stat().st_size - header.data_offset
    if header.data_size is not None and header.data_size > stored:
        raise FileFormatError(
            f"'{name}' is cut off: {header.data_size} bytes of compressed pixels were declared, {stored} are there"
        )
    expected = {full, frame_bytes * present}
    least = min(expected)
    if stored * (DEFLATE_LIMIT if header.compression else 1) < least:
        raise FileFormatError(
            f"'{name}' is cut off or mis-declared: its header asks for {least} bytes of pixels, {stored} are there"
        )
    with header.data_file.open("rb") as stream:
        stream.seek(header.data_offset)
        block = _inflate(stream, header, full) if header.compression else np.fromfile(stream, np.uint8, full)
    if block.size not in expected:
        raise FileFormatError(
            f"'{name}' is cut off or mis-declared: its header asks for {full} bytes of pixels, {block.size} are there"
        )
    return block


def _inflate(stream: BinaryIO, header: SequenceHeader, limit: int) -> np.ndarray:
    """Decompress at most `limit` bytes into one array: what a file declares is all that it can take."""
    out, used, left = np.empty(limit, np.uint8), 0, header.data_size
    engine = zlib.decompressobj(WINDOW[header.compression])
    try:
        while not engine.eof and (chunk := stream.read(CHUNK if left is None else min(CHUNK, left))):
            left = None if left is None else left - len(chunk)
            while chunk and not engine.eof:
                part = engine.decompress(chunk, min(limit - used, PART) + 1)
                used = _append(out, used, part, header)
                chunk = engine.unconsumed_tail
    except zlib.error as error:
        raise FileFormatError(
            f"the compressed pixels of '{header.data_file.name}' are damaged after {used} bytes: {error}"
        ) from error
    if not engine.eof and used < limit:
        raise FileFormatError(f"'{header.data_file.name}' is cut off: its pixels end after {used} of {limit} bytes")
    return out[:used]


def _append(out: np.ndarray, used: int, part: bytes, header: SequenceHeader) -> int:
    if used + len(part) > out.size:
        raise FileFormatError(
            f"'{header.data_file.name}' unpacks to more than the {out.size} bytes that its header declares"
        )
    out[used : used + len(part)] = np.frombuffer(part, np.uint8)
    return used + len(part)


def _ordered(block: np.ndarray, header: SequenceHeader) -> np.ndarray:
    """Axes slowest first, in the order of the file -> (N, h, w, C)."""
    kinds = [a.kind for a in reversed(header.axes)]
    domain = [i for i, k in enumerate(kinds) if k == "domain"]
    if len(domain) == 3:  # a third axis of one slice
        block, kinds = np.take(block, 0, axis=domain[0]), kinds[: domain[0]] + kinds[domain[0] + 1 :]
    if "list" not in kinds:
        block, kinds = block[None], ["list", *kinds]
    if "channel" not in kinds:
        block, kinds = block[..., None], [*kinds, "channel"]
    rows, columns = (i for i, k in enumerate(kinds) if k == "domain")
    return block.transpose(kinds.index("list"), rows, columns, kinds.index("channel"))


def _spread(block: np.ndarray, header: SequenceHeader, present: np.ndarray) -> np.ndarray:
    """Frames of a file that leaves out those without pixels; only possible where frames lie one after the other."""
    if header.axes[-1].kind != "list":
        raise FileFormatError(
            f"'{header.data_file.name}' lacks pixels of some frames while its frames are interleaved: it is cut off"
        )
    (width, height), c = header.size, header.channels
    shape = (int(present.sum()), height, width, c)
    if c > 1 and header.axes[0].kind != "channel":
        raise FileFormatError(
            f"'{header.data_file.name}' lacks pixels of some frames while its channels are not interleaved: it is "
            "cut off"
        )
    out = np.zeros((header.count, height, width, c), np.uint8)
    out[present] = block.reshape(shape)
    return out


def grey(frames: np.ndarray) -> np.ndarray:
    """(N, h, w, C) -> (N, h, w): one channel as it is, three (or four with opacity) by luminance."""
    channels = frames.shape[3]
    if channels == 1:
        return frames[..., 0]
    if channels not in (3, 4):
        raise FileFormatError(f"pixels have {channels} components; 1 (grey), 3 (RGB) and 4 (RGBA) are read")
    out = np.empty(frames.shape[:3], np.uint8)
    for image, target in zip(frames, out, strict=True):
        target[:] = np.rint(image[..., :3] @ LUMA)
    return out


def _oriented(frames: np.ndarray, orientation: str) -> np.ndarray:
    """Bring frames to MF by flipping (FM and its kin: exchanging) axes; a file's matrices refer to MF already."""
    letters = (orientation.upper() or "MF")[:2]
    if letters == "XX":
        letters = "MF"
    if letters[0] in "FN" and letters[1:] in ("M", "U"):
        frames, letters = frames.transpose(0, 2, 1), letters[::-1]
    if len(letters) != 2 or letters[0] not in "MU" or letters[1] not in "FN":
        raise FileFormatError(
            f"image orientation '{orientation}' is unknown; PLUS writes MF, MN, UF or UN (and a third letter)"
        )
    frames = frames[:, :, ::-1] if letters[0] == "U" else frames
    frames = frames[:, ::-1] if letters[1] == "N" else frames
    return np.ascontiguousarray(frames)


def deflate(frames: np.ndarray, kind: str, level: int = 6) -> bytes:
    """Pixels (N, h, w) as one compressed block."""
    engine = zlib.compressobj(level, zlib.DEFLATED, WINDOW[kind])
    parts = [engine.compress(np.ascontiguousarray(frame).data) for frame in frames]
    return b"".join([*parts, engine.flush()])


def data_path(path: Path, compressed: bool) -> Path:
    """Data file of a `.mhd` header: `.zraw` or `.raw` beside it."""
    return path.with_suffix(".zraw" if compressed else ".raw")
