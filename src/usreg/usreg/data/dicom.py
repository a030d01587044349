# SPDX-License-Identifier: Apache-2.0
"""Ultrasound cines in DICOM: grey frames, the calibrated region, stamps from the frame time."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..config import check_range
from ..errors import FileFormatError, MissingFileError
from ..geometry.plane import PlaneGrid
from ..geometry.sector import SectorGeometry, full_rectangle
from .pixels import grey
from .sequence_header import GIBIBYTE

DEFLATED = "1.2.840.10008.1.2.1.99"  # pydicom would unpack it without a limit
UNITS_CM, FORMAT_2D, TYPE_TISSUE = 3, 1, 1  # DICOM PS3.3 C.8.5.5
READ_ERRORS = (
    ValueError,
    AttributeError,
    NotImplementedError,
    RuntimeError,
    OSError,
    LookupError,
    TypeError,
    struct.error,
)


@dataclass(frozen=True)
class CineLimits:
    """Bounds while reading.

    Args:
        max_bytes: of all frames, unpacked. max_frames: frames.
    """

    max_bytes: int = 4 * GIBIBYTE
    max_frames: int = 100_000

    def __post_init__(self) -> None:
        check_range("max_bytes", self.max_bytes, 1, 2**48)
        check_range("max_frames", self.max_frames, 1, 10**7)


@dataclass(frozen=True, eq=False)
class Cine:
    """A recorded cine.

    Args:
        images: (N, h, w) uint8, as they were shown; DICOM does not say on which side the probe's marker is.
        stamps_s: (N,) float64 from the first frame, which has 0.
        geometry: the calibrated region as a linear sector; None where the file has no calibration in cm.
        problems: in words.
    """

    images: Tensor
    stamps_s: Tensor
    geometry: SectorGeometry | None
    problems: tuple[str, ...] = ()


def read_cine(path: str | Path, limits: CineLimits | None = None) -> Cine:
    """Read an ultrasound multi-frame file (or a single image): 8 bits, grey or colour, raw or JPEG.

    Raises:
        MissingFileError: no such file. FileFormatError: no DICOM image, an encoding that is not read, too large, cut
            off, or without frame time.
    """
    import pydicom.filereader

    path, limits = Path(path), limits or CineLimits()
    if not path.is_file():
        raise MissingFileError(f"no file '{path.name}' in '{path.parent}': check the name")
    try:
        if pydicom.filereader.read_file_meta_info(path).get("TransferSyntaxUID") == DEFLATED:
            raise FileFormatError(f"'{path.name}' is deflated as a whole, which cannot be bounded: convert it first")
        dataset = pydicom.dcmread(path)
        count, height, width = _declared(dataset, path.name, limits)
        stamps = _stamps(dataset, count, path.name)
        geometry, problems = _geometry(dataset, height, width)
        images = np.empty((count, height, width), np.uint8)
        for image, pixels in zip(images, _frames(dataset, (height, width), count, path.name), strict=True):
            image[:] = pixels
    except FileFormatError:
        raise
    except (*READ_ERRORS, pydicom.errors.InvalidDicomError) as error:
        raise FileFormatError(f"'{path.name}' cannot be read as a DICOM cine: {str(error)[:300]}") from error
    return Cine(torch.from_numpy(images), stamps, geometry, tuple(problems))


def _declared(dataset: Any, name: str, limits: CineLimits) -> tuple[int, int, int]:
    """Frames, rows and columns, checked before anything is unpacked."""
    count, height, width = (int(dataset.get(k, 1) or 1) for k in ("NumberOfFrames", "Rows", "Columns"))
    samples, bits = int(dataset.get("SamplesPerPixel", 1)), int(dataset.get("BitsAllocated", 0))
    if bits != 8 or samples not in (1, 3) or "PixelData" not in dataset:
        raise FileFormatError(
            f"'{name}' has {samples} samples of {bits} bits a pixel; ultrasound cines of 8 bits are read"
        )
    if (
        count > limits.max_frames
        or count * height * width * samples > limits.max_bytes
        or min(count, height, width) < 1
    ):
        raise FileFormatError(
            f"'{name}' declares {count} frames of {width}x{height}; at most {limits.max_bytes} bytes are read"
        )
    return count, height, width


def _frames(dataset: Any, shape: tuple[int, int], count: int, name: str) -> Iterator[np.ndarray]:
    """Grey frames one after the other; colour is decoded to RGB, then to luminance."""
    from pydicom.pixels import iter_pixels

    seen = 0
    for pixels in iter_pixels(dataset):
        if pixels.shape[:2] != shape:
            raise FileFormatError(f"frame {seen} of '{name}' is {pixels.shape[:2]}, the header says {shape}")
        seen += 1
        yield grey(pixels.reshape(1, *shape, -1))[0]
    if seen < count:
        raise FileFormatError(f"'{name}' is cut off: {seen} of {count} frames are there")


def _stamps(dataset: Any, count: int, name: str) -> Tensor:
    """Seconds from the first frame: FrameTimeVector, FrameTime (both ms), or a rate of frames."""
    vector = dataset.get("FrameTimeVector")
    if vector is not None and not isinstance(vector, (str, float, int)) and len(vector) == count:
        steps = [0.0, *(float(v) for v in list(vector)[1:])]
    else:
        step = _first_positive(dataset, "FrameTime", 1.0) or _first_positive(dataset, "CineRate", 0.0)
        step = step or _first_positive(dataset, "RecommendedDisplayFrameRate", 0.0)
        if not step and count > 1:
            raise FileFormatError(
                f"'{name}' has {count} frames but no frame time (FrameTime, FrameTimeVector, CineRate)"
            )
        steps = [0.0] + [step] * (count - 1)
    if not all(math.isfinite(s) and s > 0 for s in steps[1:]):
        raise FileFormatError(f"'{name}' has frame times that are not above zero")
    return torch.tensor(steps, dtype=torch.float64).cumsum(0) / 1000


def _first_positive(dataset: Any, key: str, is_time: float) -> float:
    """Milliseconds of a frame from a time, or from a rate where `is_time` is zero; 0 = not stated."""
    value = dataset.get(key)
    number = float(value) if value not in (None, "") else 0.0
    if not math.isfinite(number) or number <= 0:
        return 0.0
    return number if is_time else 1000.0 / number


def _geometry(dataset: Any, height: int, width: int) -> tuple[SectorGeometry | None, list[str]]:
    """The first two-dimensional region that is calibrated in cm."""
    for region in dataset.get("SequenceOfUltrasoundRegions", None) or []:
        spacing = [10 * abs(float(region.get(f"PhysicalDelta{axis}", 0) or 0)) for axis in "XY"]
        units = [int(region.get(f"PhysicalUnits{axis}Direction", 0)) for axis in "XY"]
        flat = (
            int(region.get("RegionSpatialFormat", 0)) == FORMAT_2D
            and int(region.get("RegionDataType", 0)) == TYPE_TISSUE
        )
        if flat and units == [UNITS_CM, UNITS_CM] and all(math.isfinite(s) and s > 0 for s in spacing):
            return _sector(region, PlaneGrid(height, width, ((spacing[0], 0.0), (0.0, spacing[1]))))
    return None, ["the file has no region of tissue calibrated in cm: give a calibration"]


def _sector(region: Any, plane: PlaneGrid) -> tuple[SectorGeometry, list[str]]:
    x0, y0 = (int(region.get(f"RegionLocationMin{k}", 0)) for k in ("X0", "Y0"))
    x1, y1 = (int(region.get(f"RegionLocationMax{k}", n - 1)) for k, n in (("X1", plane.width), ("Y1", plane.height)))
    inside = 0 <= x0 < x1 < plane.width and 0 <= y0 < y1 < plane.height
    if not inside:
        text = (
            f"the calibrated region ({x0}, {y0}) to ({x1}, {y1}) does not fit the image of {plane.width}x{plane.height}"
        )
        return full_rectangle(plane), [f"{text}: it was resized after its calibration, check the pixel size"]
    (sx, _), (_, sy) = plane.pixel_to_mm
    clip = (x0 * sx, y0 * sy, x1 * sx, y1 * sy)
    height = clip[3] - clip[1]
    apex = ((clip[0] + clip[2]) / 2, clip[1])
    return SectorGeometry("linear", plane, apex, (0.0, height), (0.0, 0.0), clip, height), []
