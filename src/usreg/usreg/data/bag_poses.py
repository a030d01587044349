# SPDX-License-Identifier: Apache-2.0
"""Poses, transforms and registrations as ROS messages, without ROS: rosbags' classes, metres.

Covariances: in the library (v, w) in mm and rad about a pivot, world axes; in ROS (x, y, z, rotX, rotY, rotZ) in m and
rad about the origin of the child frame.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import GeometryError
from ..geometry import rotation, se3
from . import ros_time
from .bag_messages import header, make
from .types import Estimate, Rigid, Volume

STATUS = ("ACCEPTED", "REJECTED", "LOST", "NO_OVERLAP", "ERROR")
_SCALE = torch.tensor([1e-3] * 3 + [1.0] * 3, dtype=torch.float64)


@dataclass(frozen=True, eq=False)
class StampedTransform:
    """`parent_T_child` (4, 4), mm, at a stamp."""

    stamp_s: float
    parent: str
    child: str
    parent_T_child: Tensor


@dataclass(frozen=True, eq=False)
class RegistrationRecord:
    """One `registration/estimate` as it was published."""

    stamp_s: float
    estimate: Estimate
    status: str
    world_T_image: Tensor
    world: str = "world"
    child: str = "ct"
    age_s: float = math.nan
    rank: int = 0


def encode_pose(pose: Tensor) -> Any:
    """geometry_msgs/Pose of a (4, 4) in mm."""
    x, y, z = (pose[:3, 3] / 1000).tolist()
    quaternion = make("geometry_msgs/msg/Quaternion", *rotation.to_quat_xyzw(pose[:3, :3]).tolist())
    return make("geometry_msgs/msg/Pose", make("geometry_msgs/msg/Point", x, y, z), quaternion)


def decode_pose(message: Any) -> Tensor:
    """(4, 4) float64, mm.

    Raises:
        GeometryError: not finite, or a quaternion without length.
    """
    return _pose(message.position, message.orientation)


def decode_poses(messages: Sequence[Any]) -> Tensor:
    """(N, 4, 4) float64, mm, of Pose messages; raises as `decode_pose`."""
    return _poses([(m.position, m.orientation) for m in messages])


def _pose(position: Any, orientation: Any) -> Tensor:
    return _poses([(position, orientation)])[0]


def _poses(parts: Sequence[tuple[Any, Any]]) -> Tensor:
    """(N, 4, 4) of positions and orientations: together, because an arm's transforms come by the dozen."""
    numbers = [[p.x, p.y, p.z, q.x, q.y, q.z, q.w] for p, q in parts]
    values = torch.tensor(numbers, dtype=torch.float64).reshape(-1, 7)
    t = values[:, :3] * 1000
    if not bool(torch.isfinite(t).all()):
        raise GeometryError("a position is not finite: the source of this pose sends no valid measurement")
    return se3.from_parts(rotation.from_quat_xyzw(values[:, 3:]), t)


def covariance_to_ros(covariance: Tensor, pivot_to_origin: Tensor | None = None) -> np.ndarray:
    """36 numbers from (6, 6); the offset (3,), mm, leads from the pivot to the child's origin, world axes."""
    moved = covariance if pivot_to_origin is None else se3.move_pivot(covariance, pivot_to_origin)
    return (moved * _SCALE[:, None] * _SCALE).reshape(-1).numpy()


def covariance_from_ros(values: Any, origin_to_pivot: Tensor | None = None) -> Tensor:
    """(6, 6) mm and rad from 36 numbers, made symmetric.

    Raises:
        GeometryError: not 36 finite numbers.
    """
    c = torch.tensor(np.array(values, dtype=np.float64)).reshape(-1)
    if c.numel() != 36 or not bool(torch.isfinite(c).all()):
        raise GeometryError("a covariance must be 36 finite numbers")
    c = c.reshape(6, 6) / _SCALE[:, None] / _SCALE
    c = (c + c.T) / 2
    return c if origin_to_pivot is None else se3.move_pivot(c, origin_to_pivot)


def encode_stamped_pose(
    stamp_s: float, pose: Tensor, covariance: Tensor | None = None, frame_id: str = "world", pivot: Tensor | None = None
) -> Any:
    """geometry_msgs/PoseWithCovarianceStamped.

    Args:
        covariance: (6, 6) about the pivot; None writes zeros.
        pivot: (3,) in world, mm; None means the child's origin.
    """
    covariance = torch.zeros(6, 6, dtype=torch.float64) if covariance is None else covariance
    offset = None if pivot is None else pose[:3, 3] - pivot
    body = make("geometry_msgs/msg/PoseWithCovariance", encode_pose(pose), covariance_to_ros(covariance, offset))
    return make("geometry_msgs/msg/PoseWithCovarianceStamped", header(stamp_s, frame_id), body)


def decode_stamped_pose(message: Any, pivot: Tensor | None = None) -> tuple[float, str, Tensor, Tensor]:
    """Stamp, frame, pose (4, 4) in mm and covariance (6, 6) about the pivot (None: the child's origin)."""
    pose = decode_pose(message.pose.pose)
    offset = None if pivot is None else pivot - pose[:3, 3]
    covariance = covariance_from_ros(message.pose.covariance, offset)
    return ros_time.of_header(message.header.stamp), str(message.header.frame_id), pose, covariance


def encode_transforms(transforms: Iterable[StampedTransform]) -> Any:
    """tf2_msgs/TFMessage."""
    return make("tf2_msgs/msg/TFMessage", [_transform(t) for t in transforms])


def _transform(t: StampedTransform) -> Any:
    x, y, z = (t.parent_T_child[:3, 3] / 1000).tolist()
    quaternion = make("geometry_msgs/msg/Quaternion", *rotation.to_quat_xyzw(t.parent_T_child[:3, :3]).tolist())
    body = make("geometry_msgs/msg/Transform", make("geometry_msgs/msg/Vector3", x, y, z), quaternion)
    return make("geometry_msgs/msg/TransformStamped", header(t.stamp_s, t.parent), t.child, body)


def decode_transforms(message: Any) -> list[StampedTransform]:
    """Every transform of a TFMessage; frame names without a leading slash."""
    poses = _poses([(t.transform.translation, t.transform.rotation) for t in message.transforms])
    return [
        StampedTransform(
            ros_time.of_header(t.header.stamp), str(t.header.frame_id).lstrip("/"), str(t.child_frame_id).lstrip("/"),
            pose,
        )
        for t, pose in zip(message.transforms, poses, strict=True)
    ]  # fmt: skip


def encode_registration(record: RegistrationRecord) -> Any:
    """usreg_msgs/Registration."""
    e = record.estimate
    offset = e.world_T_ct[:3, 3] - e.pivot
    body = make(
        "geometry_msgs/msg/PoseWithCovariance", encode_pose(e.world_T_ct), covariance_to_ros(e.covariance, offset)
    )
    pivot = make("geometry_msgs/msg/Point", *(e.pivot / 1000).tolist())
    return make(
        "usreg_msgs/msg/Registration", header(record.stamp_s, record.world), record.child, body, pivot, e.score,
        e.overlap, e.probability, STATUS.index(record.status), e.reason, record.rank, e.system, e.compute_s,
        record.age_s, encode_pose(record.world_T_image),
    )  # fmt: skip


def decode_registration(message: Any) -> RegistrationRecord:
    """The record; its covariance about its pivot."""
    pose = decode_pose(message.pose.pose)
    pivot = torch.tensor([message.pivot.x, message.pivot.y, message.pivot.z], dtype=torch.float64) * 1000
    status = int(message.status)
    if not 0 <= status < len(STATUS):
        raise GeometryError(f"registration status {status} is unknown; 0 to {len(STATUS) - 1}")
    covariance = covariance_from_ros(message.pose.covariance, pivot - pose[:3, 3])
    estimate = Estimate(
        Rigid(pose), covariance, pivot, float(message.score), float(message.overlap), status == 0, str(message.reason),
        system=str(message.system), compute_s=float(message.compute_time),
        probability=float(message.probability_tre_below_5mm),
    )  # fmt: skip
    return RegistrationRecord(
        ros_time.of_header(message.header.stamp), estimate, STATUS[status], decode_pose(message.image_pose),
        str(message.header.frame_id), str(message.child_frame_id), float(message.age), int(message.hypothesis_rank),
    )  # fmt: skip


def encode_volume_info(
    stamp_s: float, volume: Volume, frame_id: str = "ct", world: str = "world", uri: str | None = None
) -> Any:
    """usreg_msgs/VolumeInfo; `uri` replaces the volume's own (a path inside the session)."""
    spacing = np.array(volume.grid.spacing_mm) / 1000
    size = np.array(volume.grid.size, dtype=np.uint32)
    return make(
        "usreg_msgs/msg/VolumeInfo",
        header(stamp_s, world),
        volume.uri if uri is None else uri,
        volume.sha256,
        volume.modality,
        frame_id,
        size,
        spacing,
    )
