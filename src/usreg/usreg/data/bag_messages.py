# SPDX-License-Identifier: Apache-2.0
"""Frames, geometries and joints as ROS messages, without ROS: rosbags' classes, metres.

`encode_*` builds a message for `BagWriter.write`; `decode_*` reads one, of rosbags or of rclpy alike, and checks it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import FileFormatError, GeometryError, ShapeError
from ..geometry.plane import PlaneGeometry, PlaneGrid
from ..geometry.sector import SectorGeometry, full_rectangle
from . import ros_time
from .definitions import standard_store
from .types import ImageGeometry

KINDS = ("linear", "convex", "phased")
KIND_PLANE = 3
MAX_PIXELS = 64 * 1024 * 1024
GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601, as OpenCV weighs R, G, B
CHANNELS = {"mono8": None, "8UC1": None, "rgb8": (0, 1, 2), "bgr8": (2, 1, 0), "rgba8": (0, 1, 2), "bgra8": (2, 1, 0)}


def make(type_name: str, *values: Any) -> Any:
    """A message object by type name, fields in their order."""
    return standard_store().types[type_name](*values)


def header(stamp_s: float, frame_id: str) -> Any:
    """std_msgs/Header."""
    return make("std_msgs/msg/Header", make("builtin_interfaces/msg/Time", *ros_time.split(stamp_s)), frame_id)


def encode_image(stamp_s: float, image: Tensor, frame_id: str = "us_image") -> Any:
    """sensor_msgs/Image, mono8 of (h, w) uint8 or rgb8 of (h, w, 3) uint8."""
    if image.dtype != torch.uint8 or image.dim() not in (2, 3) or (image.dim() == 3 and image.shape[2] != 3):
        raise ShapeError(f"an image is (h, w) or (h, w, 3) uint8, got {tuple(image.shape)} {image.dtype}")
    h, w = image.shape[:2]
    encoding, step = ("mono8", w) if image.dim() == 2 else ("rgb8", 3 * w)
    data = np.ascontiguousarray(image.numpy()).reshape(-1)
    return make("sensor_msgs/msg/Image", header(stamp_s, frame_id), h, w, encoding, 0, step, data)


def decode_image(message: Any) -> tuple[float, Tensor]:
    """Stamp and grey image (h, w) uint8; colour is turned to grey.

    Raises:
        FileFormatError: size, step and data contradict each other, or an encoding that is not read.
    """
    h, w, step, encoding = int(message.height), int(message.width), int(message.step), str(message.encoding)
    if encoding not in CHANNELS:
        raise FileFormatError(f"image encoding '{encoding}' is not read; publish one of {sorted(CHANNELS)}")
    depth = 1 if CHANNELS[encoding] is None else len(encoding) - 1
    data = np.frombuffer(message.data, np.uint8)
    if h < 1 or w < 1 or h * w > MAX_PIXELS or step < w * depth or data.size != h * step:
        raise FileFormatError(
            f"an image says {w}x{h} '{encoding}' with rows of {step} bytes, but carries {data.size} bytes"
        )
    rows = data.reshape(h, step)[:, : w * depth]
    return ros_time.of_header(message.header.stamp), _grey(rows.reshape(h, w, depth), CHANNELS[encoding])


def _grey(pixels: np.ndarray, order: tuple[int, int, int] | None) -> Tensor:
    if order is None:
        return torch.from_numpy(np.array(pixels[..., 0]))
    weights = np.zeros(pixels.shape[2])
    weights[list(order)] = GREY
    return torch.from_numpy(np.rint(pixels @ weights).astype(np.uint8))


def encode_geometry(stamp_s: float, geometry: ImageGeometry, frame_id: str = "us_image", sequence: int = 0) -> Any:
    """usreg_msgs/UltrasoundGeometry; `sequence` counts the changes within a session."""
    if isinstance(geometry, PlaneGeometry):
        geometry = _as_sector(geometry)
        kind = KIND_PLANE
    elif isinstance(geometry, SectorGeometry):
        kind = KINDS.index(geometry.kind)
    else:
        raise GeometryError(f"{type(geometry).__name__} cannot be published as the geometry of an ultrasound image")
    (a, b), (_, d) = geometry.pixel_to_mm
    metres = [v / 1000 for v in (a, d, b, *geometry.apex_mm, *geometry.radius_mm)]
    clip = np.array(geometry.clip_mm) / 1000
    return make(
        "usreg_msgs/msg/UltrasoundGeometry", header(stamp_s, frame_id), kind, geometry.plane.width,
        geometry.plane.height, *metres, *geometry.angle_rad, clip, geometry.depth_mm / 1000, geometry.orientation,
        geometry.sound_speed_m_s, geometry.probe_id, sequence,
    )  # fmt: skip


def decode_geometry(message: Any) -> tuple[float, ImageGeometry]:
    """Stamp and geometry.

    Raises:
        GeometryError: not finite, empty, an orientation other than MF, or an unknown probe kind. ShapeError: no pixels.
    """
    mm = _mm
    spacing = ((mm(message.spacing_x), mm(message.shear)), (0.0, mm(message.spacing_y)))
    plane = PlaneGrid(int(message.height), int(message.width), spacing)
    kind, orientation = int(message.probe_kind), str(message.orientation)
    if not 0 <= kind <= KIND_PLANE:
        raise GeometryError(f"probe kind {kind} is unknown; 0 linear, 1 convex, 2 phased, 3 plane")
    if orientation not in ("MF", ""):
        raise GeometryError(
            f"images here have orientation MF, this one says '{orientation}': flip its pixels where it is acquired"
        )
    stamp_s = ros_time.of_header(message.header.stamp)
    x0, y0, x1, y1 = (mm(v) for v in message.clip)
    clip = (x0, y0, x1, y1)
    if kind == KIND_PLANE and _covers(clip, plane):
        return stamp_s, PlaneGeometry(plane)
    return stamp_s, SectorGeometry(
        KINDS[0 if kind == KIND_PLANE else kind], plane, (mm(message.apex_x), mm(message.apex_y)),  # type: ignore[arg-type]
        (mm(message.radius_start), mm(message.radius_stop)), (float(message.angle_start), float(message.angle_stop)),
        clip, mm(message.depth), "MF", float(message.sound_speed), str(message.probe_id),
    )  # fmt: skip


def _mm(metres: float) -> float:
    """Millimetres, rounded to 1e-12 so that what was written as 0.6296 mm is read as 0.6296 mm."""
    value = float(metres) * 1000
    return round(value, 12) if math.isfinite(value) else value


def _as_sector(geometry: PlaneGeometry) -> SectorGeometry:
    return full_rectangle(geometry.plane)


def _covers(clip: Sequence[float], plane: PlaneGrid) -> bool:
    x0, y0, x1, y1 = _as_sector(PlaneGeometry(plane)).clip_mm
    return clip[0] <= x0 + 1e-6 and clip[1] <= y0 + 1e-6 and clip[2] >= x1 - 1e-6 and clip[3] >= y1 - 1e-6


def encode_joints(
    stamp_s: float, names: Sequence[str], positions: Sequence[float], frame_id: str = "", sliding: Collection[str] = ()
) -> Any:
    """sensor_msgs/JointState with positions only.

    Args:
        positions: rad, mm for the prismatic joints, whose names are `sliding` (`Arm.sliding`); metres in the message.
    """
    if len(names) != len(positions):
        raise ShapeError(f"{len(names)} joint names came with {len(positions)} positions")
    empty = np.zeros(0)
    scaled = [p / 1000 if name in sliding else p for name, p in zip(names, positions, strict=True)]
    return make(
        "sensor_msgs/msg/JointState", header(stamp_s, frame_id), list(names), np.array(scaled, np.float64), empty, empty
    )


def decode_joints(message: Any) -> tuple[float, tuple[str, ...], tuple[float, ...]]:
    """Stamp, names and positions as ROS has them (REP-103): rad, metres for prismatic joints, which a message does not
    tell apart. `joints_in_mm` makes them the library's, where the arm is known.

    Raises:
        FileFormatError: counts differ. Values are checked by the arm, which knows the limits.
    """
    names, positions = tuple(map(str, message.name)), tuple(map(float, message.position))
    if len(names) != len(positions):
        raise FileFormatError(f"a joint state names {len(names)} joints but has {len(positions)} positions")
    return ros_time.of_header(message.header.stamp), names, positions


def joints_in_mm(names: Sequence[str], positions: Sequence[float], sliding: Collection[str]) -> tuple[float, ...]:
    """Positions in rad and mm of positions in rad and metres; `sliding` are the names of the prismatic joints.

    Counts that differ are left to the arm, which says what it expected.
    """
    if not sliding:  # this runs at 500 Hz, and most arms only turn
        return tuple(positions)
    return tuple(1000 * p if i < len(names) and names[i] in sliding else p for i, p in enumerate(positions))
