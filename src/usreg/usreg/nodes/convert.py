# SPDX-License-Identifier: Apache-2.0
"""Between ROS messages (metres, radians) and the library (millimetres). No other file of the nodes converts units.

What comes in is read by the functions that read bags (`data/bag_messages.py`, `data/bag_poses.py`): they take message
objects of rclpy as well. What goes out is made here of rclpy's message classes.
"""

from __future__ import annotations

import array
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from builtin_interfaces.msg import Time
from geometry_msgs.msg import (
    Point,
    Pose,
    PoseWithCovariance,
    PoseWithCovarianceStamped,
    Quaternion,
    Transform,
    TransformStamped,
    Vector3,
)
from nav_msgs.msg import OccupancyGrid
from sensor_msgs.msg import Image
from std_msgs.msg import ColorRGBA, Header
from torch import Tensor
from usreg_msgs.msg import Breathing as BreathingMsg
from usreg_msgs.msg import Registration, UltrasoundGeometry, VolumeInfo
from visualization_msgs.msg import Marker

from ..data import bag_messages, ros_time
from ..data.bag_messages import decode_geometry, decode_joints, joints_in_mm
from ..data.bag_poses import (
    STATUS,
    covariance_from_ros,
    covariance_to_ros,
    decode_pose,
    decode_poses,
    decode_registration,
    decode_stamped_pose,
    decode_transforms,
)
from ..data.types import Estimate, ImageGeometry, Volume
from ..errors import GeometryError, ShapeError
from ..fusion import Dot, Line, PlaneTexture
from ..geometry import rotation, se3
from ..geometry.plane import PlaneGeometry
from ..geometry.sector import SectorGeometry, full_rectangle
from ..smoothing import Breathing

__all__ = [
    "covariance_from_ros",
    "covariance_to_ros",
    "decode_geometry",
    "decode_joints",
    "decode_pose",
    "decode_poses",
    "decode_registration",
    "decode_stamped_pose",
    "decode_transforms",
    "joints_in_mm",
]

MAX_PIXELS = 64 * 1024 * 1024
MONO = ("mono8", "8UC1")
MM = 1000.0


# --- time ---------------------------------------------------------------------------------------------------------


def stamp_to_s(stamp: Any) -> float:
    """Seconds of a Time message. Messages are paired by this number."""
    return ros_time.of_header(stamp)


def s_to_stamp(stamp_s: float) -> Time:
    """Time message; `stamp_to_s(s_to_stamp(s))` is the same for every call from then on.

    Raises:
        TimeError: not finite, negative, or beyond what a Time holds.
    """
    sec, nanosec = ros_time.split(stamp_s)
    return Time(sec=sec, nanosec=nanosec)


def header(stamp: Time | float, frame_id: str) -> Header:
    """Header; a Time message is passed on as it is, so that what belongs to one frame carries one stamp."""
    return Header(stamp=stamp if isinstance(stamp, Time) else s_to_stamp(stamp), frame_id=frame_id)


# --- images -------------------------------------------------------------------------------------------------------


def image_from_msg(message: Image) -> Tensor:
    """Grey image (h, w) uint8; mono8 shares the message's memory, colour is turned to grey.

    Raises:
        FileFormatError, ShapeError: an encoding that is not read, or size, step and data contradict each other.
    """
    if message.encoding in MONO:
        _check_size(message, 1)
        data = torch.frombuffer(message.data, dtype=torch.uint8)
        return data.reshape(message.height, message.step)[:, : message.width]
    if message.encoding in bag_messages.CHANNELS:
        return bag_messages.decode_image(message)[1]
    return _by_cv_bridge(message)


def rgb_from_msg(message: Image) -> Tensor:
    """Colour image (h, w, 3) uint8 of an rgb8 message; shares the message's memory."""
    if message.encoding != "rgb8":
        raise ShapeError(f"an rgb8 image was expected, got '{message.encoding}'")
    _check_size(message, 3)
    data = torch.frombuffer(message.data, dtype=torch.uint8).reshape(message.height, message.step)
    return data[:, : 3 * message.width].reshape(message.height, message.width, 3)


def image_to_msg(image: Tensor, stamp: Time | float, frame_id: str) -> Image:
    """mono8 of (h, w) uint8, rgb8 of (h, w, 3) uint8; one copy, into the message."""
    if image.dtype != torch.uint8 or image.dim() not in (2, 3) or (image.dim() == 3 and image.shape[2] != 3):
        raise ShapeError(f"an image is (h, w) or (h, w, 3) uint8, got {tuple(image.shape)} {image.dtype}")
    h, w = image.shape[:2]
    message = Image(header=header(stamp, frame_id), height=h, width=w, is_bigendian=0)
    message.encoding, message.step = ("mono8", w) if image.dim() == 2 else ("rgb8", 3 * w)
    message.data = byte_array(image)
    return message


def byte_array(image: Tensor) -> array.array:
    """Bytes of an image as rclpy takes them without looking at each one."""
    data = array.array("B")
    data.frombytes(np.ascontiguousarray(image.numpy()).data.cast("B"))
    return data


def _check_size(message: Image, depth: int) -> None:
    h, w, step = message.height, message.width, message.step
    if h < 1 or w < 1 or h * w > MAX_PIXELS or step < w * depth or len(message.data) != h * step:
        raise ShapeError(
            f"an image says {w}x{h} '{message.encoding}' with rows of {step} bytes, "
            f"but carries {len(message.data)} bytes"
        )


def _by_cv_bridge(message: Image) -> Tensor:
    try:
        from cv_bridge import CvBridge, CvBridgeError
    except ImportError:
        known = sorted({*MONO, *bag_messages.CHANNELS})
        raise ShapeError(
            f"image encoding '{message.encoding}' is not read here: publish one of {known}, or install cv_bridge"
        ) from None
    try:
        return torch.from_numpy(np.array(CvBridge().imgmsg_to_cv2(message, "mono8")))
    except (CvBridgeError, ValueError, TypeError) as error:
        raise ShapeError(f"image encoding '{message.encoding}' cannot be turned to grey: {error}") from error


# --- poses --------------------------------------------------------------------------------------------------------


def point_to_msg(point: Tensor) -> Point:
    """Point of (3,), mm."""
    x, y, z = (point / MM).tolist()
    return Point(x=x, y=y, z=z)


def point_from_msg(message: Any) -> Tensor:
    """(3,) float64, mm.

    Raises:
        GeometryError: not finite.
    """
    point = torch.tensor([message.x, message.y, message.z], dtype=torch.float64) * MM
    if not bool(torch.isfinite(point).all()):
        raise GeometryError("a point is not finite")
    return point


def target_from_msg(message: Any, volume_frame: str) -> Tensor | None:
    """Target (3,) of a PointStamped, mm; None where all three numbers are NaN: no target any more.

    Raises:
        GeometryError: given in another frame, or not finite.
    """
    if message.header.frame_id.lstrip("/") != volume_frame:
        raise GeometryError(f"the target is given in '{message.header.frame_id}', not in '{volume_frame}'")
    point = message.point
    return None if all(map(math.isnan, (point.x, point.y, point.z))) else point_from_msg(point)


def pose_to_msg(pose: Tensor) -> Pose:
    """Pose of (4, 4), mm."""
    return Pose(position=point_to_msg(pose[:3, 3]), orientation=_quaternion(pose))


def _quaternion(pose: Tensor) -> Quaternion:
    x, y, z, w = rotation.to_quat_xyzw(pose[:3, :3]).tolist()
    return Quaternion(x=x, y=y, z=z, w=w)


def transform_to_msg(parent_T_child: Tensor, stamp: Time | float, parent: str, child: str) -> TransformStamped:
    """TransformStamped of (4, 4), mm."""
    x, y, z = (parent_T_child[:3, 3] / MM).tolist()
    body = Transform(translation=Vector3(x=x, y=y, z=z), rotation=_quaternion(parent_T_child))
    return TransformStamped(header=header(stamp, parent), child_frame_id=child, transform=body)


def transforms_to_msgs(
    parent_T_child: Tensor, stamp: Time | float, parents: Sequence[str], children: Sequence[str]
) -> list[TransformStamped]:
    """One TransformStamped for each of (N, 4, 4), mm; the quaternions are made together."""
    quaternions = rotation.to_quat_xyzw(parent_T_child[:, :3, :3]).tolist()
    shifts = (parent_T_child[:, :3, 3] / MM).tolist()
    return [
        TransformStamped(
            header=header(stamp, parent),
            child_frame_id=child,
            transform=Transform(
                translation=Vector3(x=t[0], y=t[1], z=t[2]), rotation=Quaternion(x=q[0], y=q[1], z=q[2], w=q[3])
            ),
        )
        for t, q, parent, child in zip(shifts, quaternions, parents, children, strict=True)
    ]


def transform_from_msg(message: TransformStamped) -> Tensor:
    """parent_T_child (4, 4) float64, mm.

    Raises:
        GeometryError: not finite, or a quaternion without length.
    """
    t, r = message.transform.translation, message.transform.rotation
    quaternion = torch.tensor([r.x, r.y, r.z, r.w], dtype=torch.float64)
    return se3.from_parts(rotation.from_quat_xyzw(quaternion), point_from_msg(t))


def pose_with_covariance(pose: Tensor, covariance: Tensor, pivot: Tensor | None = None) -> PoseWithCovariance:
    """Pose with its covariance moved from the pivot (3,), mm (None: the child's origin), to the child's origin."""
    offset = None if pivot is None else pose[:3, 3] - pivot
    return PoseWithCovariance(pose=pose_to_msg(pose), covariance=covariance_to_ros(covariance, offset))


def stamped_pose_to_msg(
    pose: Tensor, covariance: Tensor, stamp: Time | float, frame_id: str, pivot: Tensor | None = None
) -> PoseWithCovarianceStamped:
    """PoseWithCovarianceStamped; see `pose_with_covariance`."""
    return PoseWithCovarianceStamped(header=header(stamp, frame_id), pose=pose_with_covariance(pose, covariance, pivot))


# --- geometry and volume ------------------------------------------------------------------------------------------


def geometry_to_msg(
    geometry: ImageGeometry, stamp: Time | float, frame_id: str, sequence: int = 0
) -> UltrasoundGeometry:
    """UltrasoundGeometry of a sector or a plain plane.

    Raises:
        GeometryError: a projection geometry.
    """
    plain = isinstance(geometry, PlaneGeometry)
    sector = full_rectangle(geometry.plane) if plain else geometry
    if not isinstance(sector, SectorGeometry):
        raise GeometryError(f"{type(geometry).__name__} cannot be published as the geometry of an ultrasound image")
    kind = bag_messages.KIND_PLANE if plain else bag_messages.KINDS.index(sector.kind)
    (a, b), (_, d) = sector.pixel_to_mm
    return UltrasoundGeometry(
        header=header(stamp, frame_id), probe_kind=kind, width=sector.plane.width, height=sector.plane.height,
        spacing_x=a / MM, spacing_y=d / MM, shear=b / MM, apex_x=sector.apex_mm[0] / MM, apex_y=sector.apex_mm[1] / MM,
        radius_start=sector.radius_mm[0] / MM, radius_stop=sector.radius_mm[1] / MM, angle_start=sector.angle_rad[0],
        angle_stop=sector.angle_rad[1], clip=[v / MM for v in sector.clip_mm], depth=sector.depth_mm / MM,
        orientation=sector.orientation, sound_speed=sector.sound_speed_m_s, probe_id=sector.probe_id,
        geometry_seq=sequence,
    )  # fmt: skip


def volume_to_msg(volume: Volume, stamp: Time | float, frame_id: str, world: str) -> VolumeInfo:
    """VolumeInfo."""
    return VolumeInfo(
        header=header(stamp, world), uri=volume.uri, sha256=volume.sha256, modality=volume.modality,
        frame_id=frame_id, size=list(volume.grid.size), spacing=[s / MM for s in volume.grid.spacing_mm],
    )  # fmt: skip


# --- registration -------------------------------------------------------------------------------------------------


def estimate_to_msg(
    estimate: Estimate,
    stamp: Time | float,
    world: str,
    child: str,
    status: str,
    world_T_image: Tensor | None = None,
    age_s: float = math.nan,
    rank: int = 0,
) -> Registration:
    """Registration of an estimate; `status` is one of `data.bag_poses.STATUS`."""
    return Registration(
        header=header(stamp, world), child_frame_id=child, pivot=point_to_msg(estimate.pivot),
        pose=pose_with_covariance(estimate.world_T_ct, estimate.covariance, estimate.pivot), score=estimate.score,
        overlap=estimate.overlap, probability_tre_below_5mm=estimate.probability, status=STATUS.index(status),
        reason=estimate.reason, hypothesis_rank=rank, system=estimate.system, compute_time=estimate.compute_s,
        age=age_s, image_pose=Pose() if world_T_image is None else pose_to_msg(world_T_image),
    )  # fmt: skip


def refusal_to_msg(stamp: Time | float, world: str, child: str, status: str, reason: str, system: str) -> Registration:
    """Registration of a frame that gave no estimate: its status and reason, everything else not a number."""
    nan = math.nan
    nowhere = Point(x=nan, y=nan, z=nan)
    pose = PoseWithCovariance(pose=Pose(position=nowhere), covariance=[nan] * 36)
    return Registration(
        header=header(stamp, world), child_frame_id=child, pivot=nowhere, pose=pose, score=nan, overlap=nan,
        probability_tre_below_5mm=nan, status=STATUS.index(status), reason=reason, system=system, compute_time=nan,
        age=nan, image_pose=Pose(position=nowhere),
    )  # fmt: skip


def breathing_to_msg(breathing: Breathing, stamp: Time | float, world: str) -> BreathingMsg:
    """Breathing."""
    return BreathingMsg(
        header=header(stamp, world), phase=breathing.phase_rad, depth=breathing.depth_mm / MM,
        period=breathing.period_s,
    )  # fmt: skip


def breathing_from_msg(message: Any) -> Breathing:
    """The breath.

    Raises:
        GeometryError: not finite.
    """
    if not all(map(math.isfinite, (message.phase, message.depth, message.period))):
        raise GeometryError("a breath is not finite")
    return Breathing(float(message.phase), float(message.depth) * MM, float(message.period))


# --- pictures in 3D -----------------------------------------------------------------------------------------------


def plane_to_msg(texture: PlaneTexture, stamp: Time | float, world: str) -> OccupancyGrid:
    """OccupancyGrid whose int8 cells carry the bits of uint8 pixels: a Map with colour scheme "raw" shows them."""
    grid = OccupancyGrid(header=header(stamp, world))
    grid.info.map_load_time = grid.header.stamp
    grid.info.resolution = texture.cell_mm / MM
    grid.info.height, grid.info.width = texture.image.shape
    grid.info.origin = pose_to_msg(texture.world_T_corner)
    data = array.array("b")
    data.frombytes(np.ascontiguousarray(texture.image.numpy()).data.cast("B"))
    grid.data = data
    return grid


def markers_to_msg(
    shapes: Iterable[Line | Dot], stamp: Time | float, world: str, volume_frame: str, width_mm: float = 1.0
) -> list[Marker]:
    """LINE_LIST markers, one for each name, frame and colour, and spheres: few messages for many outlines."""
    groups: dict[tuple[Any, ...], list[Line | Dot]] = {}
    for shape in shapes:
        groups.setdefault((type(shape), shape.name, shape.where, shape.colour), []).append(shape)
    return [_marker(k, same, stamp, world, volume_frame, width_mm) for k, same in enumerate(groups.values())]


def _marker(
    number: int, same: Sequence[Line | Dot], stamp: Time | float, world: str, volume_frame: str, width_mm: float
) -> Marker:
    first = same[0]
    marker = Marker(header=header(stamp, world if first.where == "world" else volume_frame), ns=first.name, id=number)
    red, green, blue = (c / 255 for c in first.colour)
    marker.color = ColorRGBA(r=red, g=green, b=blue, a=1.0)
    marker.pose.orientation.w = 1.0
    marker.frame_locked = first.where == "ct"
    if isinstance(first, Dot):
        marker.type, size = Marker.SPHERE_LIST, 8 * width_mm / MM
        marker.points = [point_to_msg(dot.point) for dot in same if isinstance(dot, Dot)]
        marker.scale = Vector3(x=size, y=size, z=size)
        return marker
    marker.type, marker.scale = Marker.LINE_LIST, Vector3(x=width_mm / MM)
    marker.points = [p for line in same if isinstance(line, Line) for p in _segments(line)]
    return marker


def _segments(line: Line) -> list[Point]:
    points = [point_to_msg(p) for p in line.points]
    ends = points[1:] + points[:1] if line.closed else points[1:]
    return [p for pair in zip(points, ends, strict=False) for p in pair]
