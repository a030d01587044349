# SPDX-License-Identifier: Apache-2.0
"""From the messages of a graph to `Moment`s: what was known of a frame when it was shown."""

from __future__ import annotations

import math
import statistics
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

from rclpy.serialization import deserialize_message
from sensor_msgs.msg import Image
from torch import Tensor
from usreg_msgs.msg import Registration, UltrasoundGeometry

from ..data.bag_poses import STATUS
from ..data.types import Frame, ImageGeometry
from ..errors import MissingTransformError, StalePoseError
from ..smoothing import Breathing
from ..web.moment import Link, Moment
from . import convert, tf
from .parameters import FrameConfig
from .web_view_content import Content

PERIODS = 15  # frames whose distance in time is told as the period
STAMP_END = 12  # bytes of a message that end with the stamp of its header
BREATH_S = 0.3  # a breath is shown with frames at most so far from its stamp


@dataclass(frozen=True, eq=False)
class Shot:
    """Messages of one frame.

    Args:
        parts: image and geometry as bytes, and, where they came in time, pose and smoothed.
    """

    stamp_s: float
    parts: dict[str, Any]


class Moments:
    """The newest word of each topic, and the moment that follows. Written by the executor, read by the painter."""

    def __init__(self, frames: FrameConfig, content: Content) -> None:
        self._frames, self._content = frames, content
        self._transforms = tf.TransformBuffer()
        self._lock = threading.Lock()  # of the transforms and the arrivals: the rest are single references
        self.paused = False
        self._geometry: tuple[bytes, ImageGeometry] | None = None
        self._arrivals: deque[float] = deque(maxlen=PERIODS + 1)
        self.reset()

    def reset(self) -> None:
        """Time jumped back."""
        self.estimate: Registration | None = None
        self._accepted: Registration | None = None
        self._raw: tuple[Registration, float, Tensor] | None = None
        self._breath: tuple[float, Breathing] | None = None
        with self._lock:
            self._arrivals.clear()
            self._transforms.clear()

    # --- what came ------------------------------------------------------------------------------------------------

    def on_estimate(self, message: Registration) -> None:
        """The newest estimate; the newest accepted one is kept besides."""
        self.estimate = message
        if message.status == Registration.STATUS_ACCEPTED:
            self._accepted = message

    def on_breathing(self, message: Any) -> None:
        """The breath at a frame."""
        self._breath = (convert.stamp_to_s(message.header.stamp), convert.breathing_from_msg(message))

    def on_image(self) -> None:
        """An image arrived now."""
        with self._lock:
            self._arrivals.append(time.monotonic())

    def on_tf(self, message: Any, static: bool = False) -> None:
        """Where the links of the arm are."""
        with self._lock:
            for transform in message.transforms:
                if static:
                    self._transforms.set_transform_static(transform, "tf_static")
                else:
                    self._transforms.set_transform(transform, "tf")

    @property
    def period_s(self) -> float:
        """Of the frames as they arrive."""
        with self._lock:
            times = list(self._arrivals)
        steps = [b - a for a, b in zip(times, times[1:], strict=False)]
        return statistics.median(steps) if len(steps) > 1 else math.nan

    # --- what follows ---------------------------------------------------------------------------------------------

    def of(self, shot: Shot, now_s: float) -> Moment:
        """Everything known of a frame. Runs in the painter's thread.

        Raises:
            UsregError: a message is not usable.
        """
        geometry = self._geometry_of(shot.parts["geometry"])
        frame = Frame(convert.image_from_msg(deserialize_message(shot.parts["image"], Image)), geometry, shot.stamp_s)
        world_T_image, world_T_ct = _poses(shot)
        status, reason = self._status(shot)
        sigma_mm, sigma_rad = self._sigma(shot, world_T_ct)
        raw, truth = self._raw_pose(), self._content.truth
        return Moment(
            frame, world_T_image, world_T_ct, None if raw is None else raw[2], sigma_mm, sigma_rad, status, reason,
            age_s=now_s - shot.stamp_s, period_s=self.period_s,
            pose_age_s=math.nan if raw is None else shot.stamp_s - raw[1],
            tre_mm=truth.tre_mm(frame, world_T_image, world_T_ct) if truth else math.nan,
            breathing=self._breathing(shot.stamp_s), links=self._links(shot.stamp_s),
            target_ct=self._content.target_ct, paused=self.paused, **_told(self.estimate),
        )  # fmt: skip

    def _geometry_of(self, data: bytes) -> ImageGeometry:
        """Of a message as it travels; most are as the one before, but for the stamp."""
        if self._geometry is None or self._geometry[0] != data[STAMP_END:]:
            _, geometry = convert.decode_geometry(deserialize_message(data, UltrasoundGeometry))
            self._geometry = (data[STAMP_END:], geometry)
        return self._geometry[1]

    def _raw_pose(self) -> tuple[Registration, float, Tensor] | None:
        """The newest accepted estimate with its stamp and pose, decoded once."""
        accepted, raw = self._accepted, self._raw
        if accepted is None:
            return None
        if raw is None or raw[0] is not accepted:
            pose = convert.decode_pose(accepted.pose.pose)
            raw = self._raw = (accepted, convert.stamp_to_s(accepted.header.stamp), pose)
        return raw

    def _status(self, shot: Shot) -> tuple[Any, str]:
        """Why the volume is shown at its place, or why not."""
        estimate = self.estimate
        if "pose" not in shot.parts:
            return "NOT_TRACKED", "no pose of the probe at this frame (arm_tracking)"
        if self._content.volume is None:
            return "NO_VOLUME", "the volume is not loaded"
        if estimate is None:
            return "WAITING", "no estimate yet"
        known = estimate.status < len(STATUS)
        status = STATUS[estimate.status] if known else "ERROR"
        reason = estimate.reason if known else f"the estimate has the unknown status {estimate.status}"
        if "smoothed" not in shot.parts and status == "ACCEPTED":
            return "LOST", "no pose of the volume at this frame (pose_smoothing)"
        return status, reason

    def _sigma(self, shot: Shot, world_T_ct: Tensor | None) -> tuple[Any, Any]:
        """Standard deviations about the volume's centre, mm and rad."""
        volume = self._content.volume
        if world_T_ct is None or volume is None:
            return None, None
        origin_to_centre = world_T_ct[:3, :3] @ volume.grid.centre_ct
        covariance = convert.covariance_from_ros(shot.parts["smoothed"].pose.covariance, origin_to_centre)
        sigma = covariance.diagonal().clamp_min(0.0).sqrt().tolist()
        return tuple(sigma[:3]), tuple(sigma[3:])

    def _breathing(self, stamp_s: float) -> Breathing | None:
        found = self._breath
        return found[1] if found is not None and abs(found[0] - stamp_s) <= BREATH_S else None

    def _links(self, stamp_s: float) -> tuple[Link, ...]:
        """The arm from its base to the probe at the stamp; nothing where TF does not know it there."""
        frames = self._frames
        try:
            with self._lock:
                chain = self._transforms.chain(frames.world_frame, frames.probe_frame, stamp_s)
        except (MissingTransformError, StalePoseError):
            return ()
        return tuple(Link(name, pose) for name, pose in chain)


def _poses(shot: Shot) -> tuple[Tensor | None, Tensor | None]:
    """world_T_image and world_T_ct, where they came; turned into poses together."""
    names = [name for name in ("pose", "smoothed") if name in shot.parts]
    found = dict(zip(names, convert.decode_poses([shot.parts[n].pose.pose for n in names]), strict=True))
    return found.get("pose"), found.get("smoothed")


def _told(estimate: Registration | None) -> dict[str, Any]:
    """What an estimate says beside its pose."""
    if estimate is None:
        return {}
    return {
        "score": estimate.score, "overlap": estimate.overlap, "probability": estimate.probability_tre_below_5mm,
        "system": estimate.system, "compute_s": estimate.compute_time,
    }  # fmt: skip
