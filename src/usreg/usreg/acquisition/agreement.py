# SPDX-License-Identifier: Apache-2.0
"""What a source of frames is, and how a picture becomes a frame: crop, orientation, size, latency, stamps."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from ..config import check_range, from_mapping, load_yaml
from ..data.share import find_named
from ..data.types import Frame, ImageGeometry
from ..errors import ConfigError, ShapeError, TimeError
from ..geometry.sector import SectorGeometry

Orientation = Literal["MF", "MN", "UF", "UN"]


class FrameSource(Protocol):
    """Gives frames in the order of their stamps."""

    def __iter__(self) -> Iterator[Frame]:
        """Frames until the source ends; a live source ends when it is closed."""
        ...

    def reset(self) -> None:
        """Begin again: the next iteration gives the first frame (recordings) or the next one that arrives (live)."""
        ...


@dataclass(frozen=True)
class CropConfig:
    """The rectangle of the incoming picture that is the image, pixels. Zero width and height: all of it."""

    x: int = 0
    y: int = 0
    width: int = 0
    height: int = 0

    def __post_init__(self) -> None:
        if min(self.x, self.y, self.width, self.height) < 0 or (self.width == 0) != (self.height == 0):
            raise ConfigError(f"a crop is x, y, width, height in pixels, none negative, got {self}")


@dataclass(frozen=True)
class AcquisitionConfig:
    """How pictures become frames.

    Args:
        latency_s: arrival minus acquisition; subtracted here and nowhere else.
        orientation: of the incoming pixels, in PLUS's letters: where columns increase to (M marked, U unmarked side of
            the probe) and where rows increase to (F far from the probe, N near it).
        crop: of the incoming picture, before its orientation is changed.
        reset_after_s: a stamp that lies this much before the last one starts a new recording; less is dropped.
    """

    latency_s: float = 0.0
    orientation: Orientation = "MF"
    crop: CropConfig = field(default_factory=CropConfig)
    reset_after_s: float = 1.0

    def __post_init__(self) -> None:
        check_range("latency_s", self.latency_s, -10.0, 10.0)
        check_range("reset_after_s", self.reset_after_s, 0.0, 3600.0)


@dataclass(frozen=True)
class ProbeConfig:
    """A file of config/probes: field of view of a probe at one setting of the scanner, and how its pictures arrive."""

    geometry: SectorGeometry
    acquisition: AcquisitionConfig = field(default_factory=AcquisitionConfig)


def load_probe(name_or_path: str | Path) -> ProbeConfig:
    """A probe by its name in config/probes, or from a YAML file.

    Raises:
        MissingFileError, FileFormatError, ConfigError, GeometryError: see the message.
    """
    path = find_named("config/probes", name_or_path)
    return from_mapping(ProbeConfig, load_yaml(path), path.stem)


def as_grey(picture: Any) -> Tensor:
    """Grey image (h, w) uint8 of an array (h, w) or (h, w, 3) in OpenCV's order B, G, R.

    Raises:
        ShapeError: another shape or type. Floats are refused (they may hold NaN): scale them to 0..255 first.
    """
    array = picture.numpy() if isinstance(picture, Tensor) else np.asarray(picture)
    if (
        array.dtype != np.uint8
        or array.ndim not in (2, 3)
        or (array.ndim == 3 and array.shape[2] != 3)
        or array.size == 0
    ):
        raise ShapeError(f"a picture must be (h, w) or (h, w, 3) uint8, got {array.shape} {array.dtype}")
    if array.ndim == 3:
        import cv2

        array = cv2.cvtColor(np.ascontiguousarray(array), cv2.COLOR_BGR2GRAY)
    array = np.ascontiguousarray(array)
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def check_frame(image: Tensor, geometry: ImageGeometry) -> None:
    """Raise unless the image has the size that its geometry says.

    Raises:
        ShapeError: with both sizes and what to do.
    """
    plane = geometry.plane
    if tuple(image.shape) != (plane.height, plane.width):
        size = "x".join(str(n) for n in reversed(image.shape))
        raise ShapeError(
            f"the image is {size} but its geometry says {plane.width}x{plane.height}: "
            "choose the probe file of this scanner setting, or set its crop"
        )


def to_mf(image: Tensor, orientation: Orientation) -> Tensor:
    """Pixels (h, w) flipped to MF: columns increase to the marked side, rows away from the probe."""
    flips = [dim for dim, letter, wanted in ((1, orientation[0], "M"), (0, orientation[1], "F")) if letter != wanted]
    return image.flip(flips).contiguous() if flips else image


def crop(image: Tensor, rectangle: CropConfig) -> Tensor:
    """The rectangle of a picture (h, w).

    Raises:
        ShapeError: it leaves the picture.
    """
    if rectangle.width == 0:
        if (rectangle.x, rectangle.y) == (0, 0):
            return image
        return image[rectangle.y :, rectangle.x :].contiguous()
    bottom, right = rectangle.y + rectangle.height, rectangle.x + rectangle.width
    if bottom > image.shape[0] or right > image.shape[1]:
        raise ShapeError(
            f"the crop reaches to ({right}, {bottom}) but the picture is {image.shape[1]}x{image.shape[0]}"
        )
    return image[rectangle.y : bottom, rectangle.x : right].contiguous()


def acquire(
    picture: Any, arrival_s: float, geometry: ImageGeometry, config: AcquisitionConfig, index: int = -1
) -> Frame:
    """A frame from a picture: grey, cropped, in MF, of the geometry's size, stamped with the time of acquisition.

    Args:
        picture: (h, w) or (h, w, 3) uint8.
        arrival_s: when it arrived; `config.latency_s` is subtracted.

    Raises:
        ShapeError: wrong type or size. TimeError: the stamp is not finite or before zero.
    """
    image = to_mf(crop(as_grey(picture), config.crop), config.orientation)
    check_frame(image, geometry)
    stamp_s = arrival_s - config.latency_s
    if not math.isfinite(stamp_s) or stamp_s < 0:
        raise TimeError(f"a frame's stamp is {stamp_s} s; it must be finite and not negative")
    return Frame(image, geometry, stamp_s, index)
