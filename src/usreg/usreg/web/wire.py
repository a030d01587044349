# SPDX-License-Identifier: Apache-2.0
"""Binary messages of the live page: a JSON header and little-endian arrays, each aligned to 8 bytes.

Layout: b"USR1", uint32 length of the header, header as UTF-8 padded with spaces to a multiple of 8, then the arrays.
`header["buffers"]` names them: {"name", "dtype", "shape", "offset"}, offset in bytes from the end of the header.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import FileFormatError, ShapeError

MAGIC = b"USR1"
DTYPES = ("u1", "u2", "u4", "i4", "f4", "f8")
NO_BUFFERS: Mapping[str, np.ndarray] = {}


def pack(header: Mapping[str, Any], buffers: Mapping[str, np.ndarray] = NO_BUFFERS) -> bytes:
    """One message. Each array is copied once; numbers in the header that are not finite become null.

    Args:
        header: JSON values, numpy and torch numbers and arrays too; without the key "buffers".
        buffers: arrays of uint8, uint16, uint32, int32, float32 or float64, any byte order and strides.

    Raises:
        ShapeError: an array of another type, or a header that JSON cannot hold.
    """
    if "buffers" in header:
        raise ShapeError("the header already has 'buffers': give the arrays as second argument")
    described, parts, offset = [], [], 0
    for name, array in buffers.items():
        array = _little_endian(name, array)
        described.append({"name": name, "dtype": array.dtype.str[1:], "shape": array.shape, "offset": offset})
        parts += [array.data.cast("B") if array.size else b"", bytes(-array.nbytes % 8)]
        offset += array.nbytes + -array.nbytes % 8
    text = _json({**header, "buffers": described})
    text += b" " * (-(8 + len(text)) % 8)
    return b"".join([MAGIC, len(text).to_bytes(4, "little"), text, *parts])


def unpack(data: bytes | bytearray | memoryview) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Header (without "buffers") and arrays, which are read-only views of `data`. The inverse of `pack`.

    Raises:
        FileFormatError: anything that `pack` would not have written.
    """
    if len(data) < 8 or bytes(data[:4]) != MAGIC:
        raise FileFormatError(f"not a message: it must begin with {MAGIC!r}, it begins with {bytes(data[:4])!r}")
    start = 8 + int.from_bytes(data[4:8], "little")
    if start % 8 or start > len(data):
        raise FileFormatError(f"the header ends at byte {start}; that must be a multiple of 8, at most {len(data)}")
    header = _parse(bytes(data[8:start]))
    buffers: dict[str, np.ndarray] = {}
    end = start
    for entry in header.pop("buffers"):
        name, dtype, shape, offset = _entry(entry)
        if name in buffers or start + offset != end:
            raise FileFormatError(f"array '{name}' is named twice or does not begin at byte {end - start}")
        size = math.prod(shape) * np.dtype(dtype).itemsize
        end += size + -size % 8
        if end > len(data):
            raise FileFormatError(f"array '{name}' ends at byte {end}, the message at {len(data)}")
        buffers[name] = np.frombuffer(data, f"<{dtype}", math.prod(shape), start + offset).reshape(shape)
        buffers[name].flags.writeable = False
    if end != len(data):
        raise FileFormatError(f"{len(data) - end} bytes follow the last array")
    return header, buffers


def _little_endian(name: str, array: np.ndarray) -> np.ndarray:
    array = np.asarray(array)
    if array.dtype.str[1:] not in DTYPES:
        raise ShapeError(f"array '{name}' is of {array.dtype}; a message takes {', '.join(DTYPES)}")
    # ascontiguousarray makes a number an array of one: the shape is kept
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(array.shape)


def _json(header: Mapping[str, Any]) -> bytes:
    try:
        try:
            return _dump(header)
        except ValueError:  # a number that is not finite: rare, so the header is not searched for it each time
            return _dump(_finite(header))
    except (TypeError, ValueError, RecursionError) as error:
        raise ShapeError(f"a header must hold JSON values: {error}") from error


def _dump(header: Any) -> bytes:
    text = json.dumps(header, allow_nan=False, ensure_ascii=False, separators=(",", ":"), default=_plain)
    return text.encode(errors="replace")  # names of files may hold half characters


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):  # numpy and torch, without importing torch
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is no JSON value")


def _finite(value: Any) -> Any:
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(v) for key, v in value.items()}
    return [_finite(v) for v in value] if isinstance(value, list | tuple) else value


def _parse(text: bytes) -> dict[str, Any]:
    try:
        header = json.loads(text.decode(), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"the header is not JSON: {error}") from error
    if not isinstance(header, dict) or not isinstance(header.get("buffers"), list):
        raise FileFormatError("the header must be an object with a list 'buffers'")
    return header


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no JSON value")


def _entry(entry: Any) -> tuple[str, str, tuple[int, ...], int]:
    if not isinstance(entry, dict) or set(entry) != {"name", "dtype", "shape", "offset"}:
        raise FileFormatError(f"an array is described by name, dtype, shape and offset, not by {entry!r:.200}")
    name, dtype, shape, offset = entry["name"], entry["dtype"], entry["shape"], entry["offset"]
    if not isinstance(name, str) or dtype not in DTYPES or not isinstance(shape, list) or len(shape) > 8:
        raise FileFormatError(f"array {name!r:.50} has the type {dtype!r:.50} and the shape {shape!r:.50}")
    if not all(type(n) is int and 0 <= n < 2**40 for n in [*shape, offset]):
        raise FileFormatError(f"array '{name}': shape and offset must be whole numbers, not negative")
    return name, dtype, tuple(shape), offset
