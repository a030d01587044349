# SPDX-License-Identifier: Apache-2.0
"""Names of labels that a NIfTI file carries in its header extension, as TotalSegmentator and Caret write them."""

from __future__ import annotations

import re
import struct
from pathlib import Path

from ..config import MAX_YAML_BYTES
from ..errors import FileFormatError, MissingFileError
from .volume_headers import read_start

HEADER = 348
EXTENSION_FLAG = 4
LABEL = re.compile(
    r'<Label\s+Key="(\d{1,5})"[^>]{0,400}>\s*(?:<!\[CDATA\[([^\]]{1,200})\]\]>|([^<]{1,200}))\s*</Label>'
)


def embedded_label_names(path: str | Path) -> dict[int, str]:
    """Names by label value; empty where the file carries none, or is no NIfTI-1 file.

    The table of labels is picked out by a pattern, not parsed as XML: no entities, nothing to expand.

    Raises:
        MissingFileError: no such file. FileFormatError: it cannot be unpacked, or its extension is over 4 MiB.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"no file '{path.name}' in '{path.parent}': check the name")
    if not path.name.lower().endswith((".nii", ".nii.gz")):
        return {}
    start = read_start(path, HEADER + EXTENSION_FLAG + 8)
    order = next((o for o in "<>" if len(start) >= HEADER + 12 and struct.unpack(o + "i", start[:4])[0] == HEADER), "")
    if not order or start[HEADER] == 0:
        return {}
    size = struct.unpack(order + "i", start[HEADER + 4 : HEADER + 8])[0]
    if not 8 <= size <= MAX_YAML_BYTES:
        raise FileFormatError(f"'{path.name}' declares an extension of {size} bytes; at most {MAX_YAML_BYTES} are read")
    text = read_start(path, HEADER + EXTENSION_FLAG + size)[HEADER + 12 :].decode("utf-8", errors="replace")
    return {int(key): (quoted or plain).strip() for key, quoted, plain in LABEL.findall(text)}
