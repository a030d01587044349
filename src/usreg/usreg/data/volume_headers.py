# SPDX-License-Identifier: Apache-2.0
"""Checks that ITK does not make: it takes zero spacing for one, NaN for zero, and fills what is cut off."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

from ..errors import FileFormatError, GeometryError
from .sequence_fields import numbers
from .sequence_header import SequenceLimits, beside, header_lines

# field: (struct format, byte position), for the header of 348 bytes and for that of 540
NIFTI_LAYOUTS = {
    348: {"dim": ("8h", 40), "bits": ("h", 72), "pixdim": ("8f", 76), "offset": ("f", 108), "codes": ("2h", 252),
          "qform": ("6f", 256), "sform": ("12f", 280)},
    540: {"dim": ("8q", 16), "bits": ("h", 14), "pixdim": ("8d", 104), "offset": ("q", 168), "codes": ("2i", 344),
          "qform": ("6d", 352), "sform": ("12d", 400)},
}  # fmt: skip
CHUNK = 1 << 20
META_NUMBERS = {
    "elementspacing", "elementsize", "offset", "position", "origin", "transformmatrix", "rotation", "centerofrotation",
}  # fmt: skip


def check_volume_header(path: Path, max_bytes: int) -> None:
    """Look at the header of a NIfTI, MetaImage or NRRD volume before ITK reads it; other formats pass.

    Raises:
        GeometryError: spacing of zero, or numbers that are not finite.
        FileFormatError: cut off, no such format, or a data file elsewhere.
    """
    name = path.name.lower()
    if name.endswith((".nii", ".nii.gz")):
        check_nifti(path, max_bytes)
    elif name.endswith((".mha", ".mhd")):
        _check_metaimage(path)
    elif name.endswith((".nrrd", ".nhdr")):
        _check_nrrd(path)


def check_nifti(path: Path, max_bytes: int) -> None:
    """Spacing, orientation and length of a NIfTI file.

    Raises:
        GeometryError: zero or non-finite spacing or orientation. FileFormatError: not NIfTI, cut off, or too large.
    """
    header = _nifti_fields(path)
    _check_nifti_numbers(path, header)
    count, bits = int(header["dim"][0]), int(header["bits"][0])
    sizes = [int(n) for n in header["dim"][1 : 1 + max(0, min(7, count))]]
    if min(sizes, default=0) < 1 or not 0 < bits <= 256:
        raise FileFormatError(f"'{path.name}' declares sizes {sizes} and {bits} bits a voxel: its header is damaged")
    needed = int(header["offset"][0]) + math.prod(sizes) * bits // 8
    if needed > max_bytes + 2**20:
        raise FileFormatError(f"'{path.name}' declares {needed} bytes; at most {max_bytes} are read")
    if (there := _length(path, needed)) < needed:
        raise FileFormatError(f"'{path.name}' is cut off: {there} of {needed} bytes are there; copy or write it again")


def _nifti_fields(path: Path) -> dict[str, tuple[float, ...]]:
    head = read_start(path, 540)
    for order in "<>":
        size = struct.unpack(order + "i", head[:4])[0] if len(head) >= 4 else 0
        if size in NIFTI_LAYOUTS and len(head) >= size:
            return {k: struct.unpack_from(order + form, head, at) for k, (form, at) in NIFTI_LAYOUTS[size].items()}
    raise FileFormatError(f"'{path.name}' has no NIfTI header: it is cut off, damaged, or of another kind")


def _check_nifti_numbers(path: Path, header: dict[str, tuple[float, ...]]) -> None:
    spacing = header["pixdim"][1:4]
    if not all(math.isfinite(s) and s != 0 for s in spacing):
        raise GeometryError(
            f"'{path.name}' has voxel spacing {spacing} mm; expected numbers above zero: mend its header"
        )
    used = [header[form] for form, code in zip(("qform", "sform"), header["codes"], strict=True) if code > 0]
    if not all(map(math.isfinite, (*header["offset"], *(n for form in used for n in form)))):
        raise GeometryError(f"'{path.name}' has NaN or infinity in its orientation (qform, sform): mend its header")


def read_start(path: Path, count: int) -> bytes:
    """The first bytes of a file, unpacked where its name ends in .gz; fewer where it is shorter.

    Raises:
        FileFormatError: it cannot be unpacked.
    """
    try:
        if path.name.lower().endswith(".gz"):
            with gzip.open(path, "rb") as stream:
                return stream.read(count)
        with path.open("rb") as plain:
            return plain.read(count)
    except (OSError, EOFError, zlib.error) as error:
        raise FileFormatError(f"'{path.name}' cannot be unpacked: {error}") from error


def _length(path: Path, needed: int) -> int:
    """Bytes of the file, unpacked, counted up to what is needed."""
    if not path.name.lower().endswith(".gz"):
        return path.stat().st_size
    used = 0
    try:
        with gzip.open(path, "rb") as stream:
            while used < needed and (part := stream.read(min(CHUNK, needed - used))):
                used += len(part)
    except (OSError, EOFError, zlib.error) as error:
        raise FileFormatError(f"'{path.name}' is cut off or damaged after {used} of {needed} bytes: {error}") from error
    return used


def _check_metaimage(path: Path) -> None:
    with path.open("rb") as stream:
        for line in header_lines(stream, SequenceLimits().max_header_bytes, path.name):
            key, equal, value = (part.strip() for part in line.partition("="))
            if equal and key.lower() in META_NUMBERS:
                values = numbers(value)
                if values is None or not all(map(math.isfinite, values)):
                    raise GeometryError(
                        f"'{path.name}' has {key} = {value[:80]}; expected finite numbers: mend its header"
                    )
            if key.lower() == "elementdatafile":
                return _check_data_file(path, value, "LOCAL")
    raise FileFormatError(f"'{path.name}' ends inside its header: it is empty, cut off, or no MetaImage")


def _check_nrrd(path: Path) -> None:
    with path.open("rb") as stream:
        for line in header_lines(stream, SequenceLimits().max_header_bytes, path.name):
            key, _, value = (part.strip() for part in line.partition(":"))
            if key.lower() in ("data file", "datafile"):
                return _check_data_file(path, value, "")
            if not line:
                return None


def _check_data_file(path: Path, name: str, inline: str) -> None:
    """ITK would open any file that a header names, and lists of them."""
    if inline and name.upper() == inline:
        return
    if name.upper().startswith("LIST") or "%" in name:
        raise FileFormatError(
            f"'{path.name}' is spread over several data files ({name[:60]}): write it again as one file"
        )
    beside(path, name)
