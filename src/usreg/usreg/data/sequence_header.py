# SPDX-License-Identifier: Apache-2.0
"""What the header of a PLUS sequence says, the same for MetaImage and NRRD, and the limits for untrusted files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from ..config import check_range
from ..errors import FileFormatError, ShapeError

PREFIX = "Seq_Frame"
GIBIBYTE = 1024**3


@dataclass(frozen=True)
class SequenceLimits:
    """Bounds while reading; beyond them a file is refused instead of filling the memory.

    Args:
        max_bytes: pixels of all frames together.
        max_header_bytes: of the text before the pixels.
        max_frames: frames.
        max_pose_bytes: of all poses together, 128 each.
        bad_stamps: "report" flags frames whose stamp repeats or runs backwards, "refuse" raises TimeError.
    """

    max_bytes: int = 4 * GIBIBYTE
    max_header_bytes: int = 256 * 1024 * 1024
    max_frames: int = 1_000_000
    max_pose_bytes: int = GIBIBYTE
    bad_stamps: Literal["report", "refuse"] = "report"

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_header_bytes", "max_frames", "max_pose_bytes"):
            check_range(name, getattr(self, name), 1, 2**48)


@dataclass(frozen=True)
class Axis:
    """One axis of the pixel block, fastest first: kind "domain", "list" or "channel"."""

    kind: str
    size: int


@dataclass(frozen=True)
class SequenceHeader:
    """The header of a sequence file.

    Args:
        axes: of the pixel block, fastest first.
        element_type: of one component, "uint8" for images that are read.
        compression: "" (raw), "zlib" or "gzip".
        orientation, image_type: as the file says, "" if it does not.
        fields: every other key of the file, kept for writing.
        frames: keys of each frame without their prefix.
        data_file, data_offset, data_size: where the pixels lie; size None = up to the file's end.
        image_status_key: "ImageStatus" (MetaImage) or "Status" (NRRD).
    """

    axes: tuple[Axis, ...]
    element_type: str
    compression: str
    orientation: str
    image_type: str
    fields: dict[str, str]
    frames: dict[int, dict[str, str]]
    data_file: Path
    data_offset: int
    data_size: int | None = None
    image_status_key: str = "ImageStatus"

    @property
    def count(self) -> int:
        """Frames that the file declares."""
        return next((a.size for a in self.axes if a.kind == "list"), 1)

    @property
    def size(self) -> tuple[int, int]:
        """Declared width and height; (0, 0) for a file of poses alone."""
        domain = [a.size for a in self.axes if a.kind == "domain"]
        return (domain[0], domain[1]) if min(domain[:2], default=0) > 0 and len(domain) >= 2 else (0, 0)

    @property
    def channels(self) -> int:
        """Components of a pixel."""
        return next((a.size for a in self.axes if a.kind == "channel"), 1)


SPATIAL, LIST = {"domain", "space"}, {"list", "time"}
CHANNEL = {"vector", "rgb-color", "rgba-color", "3-color", "4-color", "scalar", "2-vector", "3-vector", "4-vector"}


def make_axes(kinds: list[str], sizes: list[int], has_frames: bool, where: str, channels: int = 1) -> tuple[Axis, ...]:
    """Name the axes; where a file does not, the last of three or more is the list of frames, as PLUS takes it.

    Raises:
        FileFormatError: kinds and sizes disagree, an unknown kind, or not two axes of pixels.
    """
    if not kinds:
        last = ["list"] if has_frames and len(sizes) > 2 else ["domain"]
        kinds = ["domain"] * (len(sizes) - 1) + last
    if len(kinds) != len(sizes):
        raise FileFormatError(f"'{where}' names {len(kinds)} kinds of axes but {len(sizes)} sizes")
    axes = tuple(Axis(_kind(k, where), n) for k, n in zip(kinds, sizes, strict=True))
    axes = axes if channels == 1 else (Axis("channel", channels), *axes)
    domain = [a.size for a in axes if a.kind == "domain"]
    lists, vectors = (sum(a.kind == kind for a in axes) for kind in ("list", "channel"))
    if lists > 1 or vectors > 1 or not 2 <= len(domain) <= 3 or min(*sizes, channels) < 0:
        raise FileFormatError(
            f"'{where}' has axes {kinds} of sizes {sizes}; expected two of pixels and one list of frames"
        )
    return axes


def _kind(kind: str, where: str) -> str:
    low = kind.lower()
    for name, group in (("domain", SPATIAL), ("list", LIST), ("channel", CHANNEL)):
        if low in group:
            return name
    raise FileFormatError(f"'{where}' has an axis of kind '{kind}'; known are domain, list, time and vector")


def header_lines(stream: BinaryIO, limit: int, name: str) -> Iterator[str]:
    """Lines of a text header, bounded, checked to be text.

    Raises:
        FileFormatError: longer than the limit, or not UTF-8.
    """
    used = 0
    while raw := stream.readline(limit - used + 1):
        used += len(raw)
        if used > limit:
            raise FileFormatError(
                f"the header of '{name}' is longer than {limit} bytes: this is no sequence file, or raise "
                "max_header_bytes"
            )
        if b"\0" in raw:
            raise FileFormatError(
                f"the header of '{name}' holds binary data after {used - len(raw)} bytes: the file is damaged or "
                "no sequence"
            )
        try:
            yield raw.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise FileFormatError(
                f"the header of '{name}' holds bytes that are no text ({raw[:60]!r}): save it as ASCII or UTF-8"
            ) from error


def add_frame_key(frames: dict[int, dict[str, str]], key: str, value: str, limits: SequenceLimits, name: str) -> None:
    """Sort `Seq_FrameNNNN_Key = value` under its frame.

    Raises:
        FileFormatError: no number after the prefix, or a number beyond the limit.
    """
    digits, _, rest = key[len(PREFIX) :].partition("_")
    if not (digits.isascii() and digits.isdigit()) or not rest or len(digits) > 9 or int(digits) >= limits.max_frames:
        raise FileFormatError(
            f"'{name}' has a key '{key[:80]}'; expected {PREFIX}NNNN_Name with a number below {limits.max_frames}"
        )
    frames.setdefault(int(digits), {})[rest] = value


def whole_number(text: str, what: str, name: str) -> int:
    """A whole number of a header.

    Raises:
        FileFormatError: it is not one.
    """
    text = text.strip()
    if not (text.isascii() and text.lstrip("-").isdigit()) or len(text) > 18:
        raise FileFormatError(f"'{name}' says {what} = '{text[:40]}'; expected a whole number")
    return int(text)


def beside(path: Path, data_name: str) -> Path:
    """The data file that a header names: in the header's own folder, never elsewhere.

    Raises:
        FileFormatError: a name with a folder in it.
    """
    if not data_name or data_name != Path(data_name).name or "\\" in data_name or data_name.startswith("."):
        raise FileFormatError(
            f"'{path.name}' names its data file '{data_name}'; only a plain file name beside the header is read"
        )
    return path.parent / data_name


def check_text(key: str, value: str, separator: str) -> None:
    """Raise ShapeError where a key or value would break the lines of a header."""
    if any(c in key + value for c in "\r\n\0") or not key or separator in key or key != key.strip():
        raise ShapeError(
            f"the field {key!r} = {value[:40]!r} cannot be written into a header: "
            f"no line breaks, and in its name no '{separator}' and no spaces at the ends"
        )
