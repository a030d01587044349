# SPDX-License-Identifier: Apache-2.0
"""MetaImage headers (`.mha`, `.mhd`) with the per-frame keys of PLUS."""

from __future__ import annotations

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
    "MET_UCHAR": "uint8", "MET_CHAR": "int8", "MET_USHORT": "uint16", "MET_SHORT": "int16", "MET_UINT": "uint32",
    "MET_INT": "int32", "MET_FLOAT": "float32", "MET_DOUBLE": "float64", "MET_OTHER": "other", "MET_NONE": "other",
}  # fmt: skip
STRUCTURE = {
    "objecttype", "ndims", "dimsize", "kinds", "elementtype", "elementnumberofchannels", "binarydata", "headersize",
    "binarydatabyteordermsb", "compresseddata", "compresseddatasize", "elementdatafile", "ultrasoundimageorientation",
    "ultrasoundimagetype", "elementbyteordermsb",
}  # fmt: skip
SPATIAL_DEFAULTS = {
    "TransformMatrix": "1 0 0 0 1 0 0 0 1",
    "Offset": "0 0 0",
    "CenterOfRotation": "0 0 0",
    "ElementSpacing": "1 1 1",
}


def read_metaimage_header(path: Path, limits: SequenceLimits) -> SequenceHeader:
    """Read the header of a MetaImage sequence.

    Raises:
        FileFormatError: not MetaImage, cut off, mis-declared, not binary, or beyond the limits.
    """
    keys: dict[str, str] = {}
    frames: dict[int, dict[str, str]] = {}
    with path.open("rb") as stream:
        for line in header_lines(stream, limits.max_header_bytes, path.name):
            key, equal, value = (part.strip() for part in line.partition("="))
            if not equal and line.strip():
                raise FileFormatError(f"'{path.name}' has the header line '{line[:60]}'; expected 'Key = value'")
            if key.startswith(PREFIX):
                add_frame_key(frames, key, value, limits, path.name)
            elif key:
                _check_first(keys, key, path)
                keys[key] = value
            if key.lower() == "elementdatafile":
                return _header(path, keys, frames, stream.tell())
    raise FileFormatError(
        f"'{path.name}' ends before its 'ElementDataFile' line: the file is empty or was cut off while it was written"
    )


def _check_first(keys: dict[str, str], key: str, path: Path) -> None:
    if not keys and key.lower() not in ("objecttype", "ndims"):
        raise FileFormatError(
            f"'{path.name}' begins with '{key[:40]}'; a MetaImage header begins with 'ObjectType = Image'"
        )


def _header(path: Path, keys: dict[str, str], frames: dict[int, dict[str, str]], offset: int) -> SequenceHeader:
    low = {k.lower(): v for k, v in keys.items()}
    if "dimsize" not in low:
        raise FileFormatError(f"'{path.name}' has no 'DimSize' line")
    _check_binary(path, low)
    sizes = [whole_number(t, "DimSize", path.name) for t in low["dimsize"].split()]
    kinds = low.get("kinds", "").split()
    channels = whole_number(low.get("elementnumberofchannels", "1"), "ElementNumberOfChannels", path.name)
    compressed = low.get("compresseddata", "false").lower() == "true"
    return SequenceHeader(
        make_axes(kinds, sizes, bool(frames), path.name, channels),
        TYPES.get(low.get("elementtype", "").upper(), low.get("elementtype", "")),
        "zlib" if compressed else "",
        low.get("ultrasoundimageorientation", ""),
        low.get("ultrasoundimagetype", ""),
        {k: v for k, v in keys.items() if k.lower() not in STRUCTURE},
        frames,
        *_data(path, low, offset),
    )


def _check_binary(path: Path, low: dict[str, str]) -> None:
    if low.get("binarydata", "true").lower() != "true":
        raise FileFormatError(
            f"'{path.name}' holds its pixels as text (BinaryData = {low['binarydata']}); only binary pixels are read"
        )
    if low.get("headersize", "0") != "0":
        raise FileFormatError(
            f"'{path.name}' skips a foreign header (HeaderSize = {low['headersize']}); that is not read"
        )


def _data(path: Path, low: dict[str, str], offset: int) -> tuple[Path, int, int | None]:
    where = low["elementdatafile"]
    size = None
    if low.get("compresseddata", "").lower() == "true" and low.get("compresseddatasize", "").strip():
        size = whole_number(low["compresseddatasize"], "CompressedDataSize", path.name) or None
    if where.upper() == "LOCAL":
        return path, offset, size
    return beside(path, where), 0, size


def metaimage_text(header: SequenceHeader, data_name: str) -> str:
    """Header text of a sequence, ready to be followed by its pixels where `data_name` is LOCAL."""
    sizes = [a.size for a in header.axes]
    lines = {"ObjectType": "Image", "NDims": str(len(sizes))}
    lines |= {k: v for k, v in header.fields.items() if k not in SPATIAL_DEFAULTS}
    lines |= {k: _spatial(header.fields.get(k, ""), default) for k, default in SPATIAL_DEFAULTS.items()}
    lines |= {"BinaryData": "True", "BinaryDataByteOrderMSB": "False", "CompressedData": str(bool(header.compression))}
    if header.compression:
        lines["CompressedDataSize"] = str(header.data_size)
    lines |= {
        "DimSize": " ".join(map(str, sizes)),
        "Kinds": " ".join(a.kind for a in header.axes),
        "ElementNumberOfChannels": "1",
    }
    lines |= {"UltrasoundImageOrientation": header.orientation, "UltrasoundImageType": header.image_type}
    lines["ElementType"] = "MET_UCHAR" if header.element_type == "uint8" else "MET_OTHER"
    for index in sorted(header.frames):
        lines |= {f"{PREFIX}{index:04d}_{k}": v for k, v in header.frames[index].items()}
    for key, value in lines.items():
        check_text(key, value, "=")
    return "".join(f"{k} = {v}\n" for k, v in lines.items()) + f"ElementDataFile = {data_name}\n"


def _spatial(kept: str, default: str) -> str:
    """What the file said, unless it had another number of axes (a single 2D frame is written as a list of one)."""
    return kept if len(kept.split()) == len(default.split()) else default
