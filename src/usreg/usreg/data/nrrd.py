# SPDX-License-Identifier: Apache-2.0
"""NRRD headers (`.nrrd`, `.seq.nrrd`, `.nhdr`) with the per-frame keys of PLUS."""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import FileFormatError
from .sequence_header import (
    PREFIX,
    SequenceHeader,
    SequenceLimits,
    add_frame_key,
    beside,
    check_text,
    header_lines,
    make_axes,
    whole_number,
)

TYPES = {
    "uint8": "uint8", "uchar": "uint8", "unsigned char": "uint8", "uint8_t": "uint8", "int8": "int8",
    "signed char": "int8", "short": "int16", "int16": "int16", "unsigned short": "uint16", "uint16": "uint16",
    "float": "float32", "double": "float64",
}  # fmt: skip
ENCODINGS = {"raw": "", "gz": "gzip", "gzip": "gzip"}
ORIENTATION, IMAGE_TYPE = "ultrasound image orientation", "ultrasound image type"
STRUCTURE = {
    "dimension", "encoding", "endian", "kinds", "sizes", "type", "space", "space dimension", "space directions",
    "space origin", "data file", "datafile", "line skip", "lineskip", "byte skip", "byteskip", ORIENTATION, IMAGE_TYPE,
}  # fmt: skip


def read_nrrd_header(path: Path, limits: SequenceLimits) -> SequenceHeader:
    """Read the header of an NRRD sequence.

    Raises:
        FileFormatError: not NRRD, cut off, mis-declared, an encoding that is not read, or beyond the limits.
    """
    keys: dict[str, str] = {}
    frames: dict[int, dict[str, str]] = {}
    with path.open("rb") as stream:
        lines = header_lines(stream, limits.max_header_bytes, path.name)
        if not next(lines, "").startswith("NRRD000"):
            raise FileFormatError(f"'{path.name}' does not begin with 'NRRD000': it is empty or of another kind")
        for line in lines:
            if not line.strip():
                return _header(path, keys, frames, stream.tell())
            if not line.startswith("#"):
                _add(keys, frames, line, limits, path)
        if "data file" in keys or "datafile" in keys:
            return _header(path, keys, frames, 0)
    raise FileFormatError(f"'{path.name}' ends inside its header: it was cut off while it was written")


def _unescape(match: re.Match[str]) -> str:
    return " " if match.group(1) == "n" else match.group(1)


def _add(
    keys: dict[str, str], frames: dict[int, dict[str, str]], line: str, limits: SequenceLimits, path: Path
) -> None:
    custom, field = line.find(":="), line.find(": ")
    if custom >= 0 and (field < 0 or custom < field):
        key, value = line[:custom], re.sub(r"\\(.)", _unescape, line[custom + 2 :])
    else:
        key, colon, value = line.partition(":")
        if not colon:
            raise FileFormatError(
                f"'{path.name}' has the header line '{line[:60]}'; expected 'field: value' or 'key:=value'"
            )
        key = key.lower()
    key, value = key.strip(), value.strip()
    if key.startswith(PREFIX):
        add_frame_key(frames, key, value, limits, path.name)
    else:
        keys[key] = value


def _header(path: Path, keys: dict[str, str], frames: dict[int, dict[str, str]], offset: int) -> SequenceHeader:
    encoding = keys.get("encoding", "").lower()
    if encoding not in ENCODINGS:
        raise FileFormatError(
            f"'{path.name}' is encoded as '{encoding}'; raw and gzip are read, write it again as gzip"
        )
    skips = [keys[k] for k in ("line skip", "lineskip", "byte skip", "byteskip") if keys.get(k, "0") != "0"]
    if "sizes" not in keys or skips:
        raise FileFormatError(
            f"'{path.name}' has no 'sizes', or skips bytes of its data file ({skips}), which is not read"
        )
    sizes = [whole_number(t, "sizes", path.name) for t in keys["sizes"].split()]
    data_name = keys.get("data file", keys.get("datafile", ""))
    return SequenceHeader(
        make_axes(keys.get("kinds", "").split(), sizes, bool(frames), path.name),
        TYPES.get(keys.get("type", "").lower(), keys.get("type", "")),
        ENCODINGS[encoding],
        keys.get(ORIENTATION, ""),
        keys.get(IMAGE_TYPE, ""),
        {k: v for k, v in keys.items() if k.lower() not in STRUCTURE},
        frames,
        beside(path, data_name) if data_name else path,
        0 if data_name else offset,
        image_status_key="Status",
    )


def nrrd_text(header: SequenceHeader) -> str:
    """Header text of a sequence, ready to be followed by its pixels."""
    sizes = " ".join(str(a.size) for a in header.axes)
    kinds = " ".join(a.kind for a in header.axes)
    lines = [
        "NRRD0005",
        f"type: {header.element_type}",
        f"dimension: {len(header.axes)}",
        "space dimension: 2",
        f"sizes: {sizes}",
    ]
    lines += ["space directions: (1,0) (0,1) none", f"kinds: {kinds}", "endian: little", "space origin: (0,0)"]
    lines += [f"encoding: {'gzip' if header.compression else 'raw'}"]
    custom = {ORIENTATION: header.orientation, IMAGE_TYPE: header.image_type, **header.fields}
    for index in sorted(header.frames):
        custom |= {f"{PREFIX}{index:04d}_{k}": v for k, v in header.frames[index].items()}
    for key, value in custom.items():
        check_text(key, value, ":")
        lines.append(f"{key}:=" + value.replace("\\", "\\\\"))
    return "\n".join(lines) + "\n\n"
