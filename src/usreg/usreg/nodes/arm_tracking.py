# SPDX-License-Identifier: Apache-2.0
"""Node `arm_tracking`: the pose of every frame at its stamp, from joints or from TF, and the arm's links in TF."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

import torch
from builtin_interfaces.msg import Time
from geometry_msgs.msg import PoseWithCovarianceStamped
from sensor_msgs.msg import JointState
from tf2_msgs.msg import TFMessage
from torch import Tensor
from usreg_msgs.msg import UltrasoundGeometry

from ..config import check_range
from ..data.calibration import read_calibration
from ..data.types import Calibration, ImageGeometry
from ..errors import CalibrationError, MissingTransformError, StalePoseError
from ..geometry import se3
from ..kinematics.arm import Arm, PoseConfig, load_arm
from ..tracking import JointBuffer, JointBufferConfig, PoseBuffer, PoseBufferConfig, Tracker, image_in_probe
from . import convert, parameters, qos, tf
from .base import Stage, leave, run_node

LINKS_PERIOD_S = 0.1


@dataclass(frozen=True)
class TrackingNodeConfig:
    """Where poses come from.

    Args:
        pose_source: joints (kinematics here; this node publishes the arm's links) or tf (a robot's driver
            publishes them).
        arm: name in config/arms or a YAML file. joint_names: those of the driver, in place of the file's.
        calibration: YAML or PLUS device set with probe_T_image; empty: TF statics say it.
        flange_frame: with tf, the frame that carries the probe; empty: the probe's own frame is in TF.
        holder: flange_T_probe, used with flange_frame.
        hold_s: a frame waits at most this long for a pose at or after its stamp.
        sample_period_s: with tf, poses are taken at most this often.
    """

    pose_source: Literal["joints", "tf"] = "joints"
    arm: str = "iiwa7"
    joint_names: tuple[str, ...] = ()
    calibration: str = ""
    flange_frame: str = ""
    holder: PoseConfig = field(default_factory=PoseConfig)
    hold_s: float = 0.25
    sample_period_s: float = 0.01

    def __post_init__(self) -> None:
        check_range("hold_s", self.hold_s, 0.0, 10.0)
        check_range("sample_period_s", self.sample_period_s, 0.0, 1.0)


class Waiting(NamedTuple):
    """A frame whose pose is due, and since when (steady clock)."""

    stamp_s: float
    stamp: Time
    geometry: ImageGeometry
    since: float


class ArmTrackingNode(Stage):
    """See the module."""

    def __init__(self, **options: Any) -> None:
        super().__init__("arm_tracking", "tracking", **options)
        self.config = parameters.declare(self, TrackingNodeConfig)
        self.arm = self._arm()
        self.buffer = self._buffer()
        self.tracker: Tracker | None = None
        self.transforms = tf.make_buffer(self)
        self.waiting: deque[Waiting] = deque(maxlen=64)
        self.pose_out = qos.publisher(self, PoseWithCovarianceStamped, "us/pose", "result")
        self.broadcaster, self.statics = tf.TransformBroadcaster(self), tf.StaticTransformBroadcaster(self)
        self._links_s = 0.0
        self._direct = False  # whether the image's place in the probe was told in one step
        self._shown: Tensor | None = None  # what this node has told of it
        self._set_calibration()
        self._subscribe()
        self.steady_timer(0.05, self.flush)
        self.ready()

    def _arm(self) -> Arm | None:
        return load_arm(self.config.arm, self.config.joint_names) if self.config.pose_source == "joints" else None

    def _buffer(self) -> JointBuffer | PoseBuffer:
        if self.arm is None:
            return PoseBuffer(parameters.declare(self, PoseBufferConfig, "buffer"))
        stream = parameters.declare(self, JointBufferConfig, "buffer")
        limit = self.arm.max_frozen_s if stream.max_frozen_s is None else stream.max_frozen_s
        return JointBuffer(self.arm, replace(stream, max_frozen_s=limit))

    def _subscribe(self) -> None:
        qos.subscription(self, UltrasoundGeometry, "us/geometry", self.guarded(self.on_geometry), "tracking_in")
        qos.subscription(self, TFMessage, "/tf_static", self.guarded(self.on_tf_static), "tf_static_in")
        if self.arm is not None:
            qos.subscription(self, JointState, "joint_states", self.guarded(self.on_joints), "joint_states")
        else:
            qos.subscription(self, TFMessage, "/tf", self.guarded(self.on_tf), "tf")

    def _set_calibration(self) -> None:
        """Statics from files: what this node owns."""
        frames, now = self.frames, self.get_clock().now().to_msg()
        rows = []
        if self.arm is not None:
            links = self.arm.link_names
            rows.append((self.arm.world_T_base, frames.world_frame, links[0]))
            rows.append((self.arm.flange_T_probe, links[-1], frames.probe_frame))
        elif self.config.flange_frame:
            rows.append((self.config.holder.pose(), self.config.flange_frame, frames.probe_frame))
        if self.config.calibration:
            calibration = read_calibration(self.config.calibration)
            rows.append((calibration.probe_T_image, frames.probe_frame, frames.image_frame))
            self.tracker, self._shown = Tracker(calibration, self.buffer), calibration.probe_T_image
        messages = [convert.transform_to_msg(pose, now, parent, child) for pose, parent, child in rows]
        for message in messages:
            self.transforms.set_transform_static(message, "arm_tracking")
        if messages:
            self.statics.sendTransform(messages)

    def on_tf_static(self, message: TFMessage) -> None:
        """Statics of others; where the calibration is not given by a file, it is here."""
        for transform in message.transforms:
            self.transforms.set_transform_static(transform, "tf_static")
        if self.config.calibration or not message.transforms:
            return
        edge = (self.frames.probe_frame, self.frames.image_frame)
        told = [t for t in message.transforms if (_name(t.header.frame_id), _name(t.child_frame_id)) == edge]
        self._direct = self._direct or bool(told)
        for transform in told:
            self._calibrate(convert.stamp_to_s(transform.header.stamp), convert.transform_from_msg(transform))
        if not self._direct:
            self._calibrate_by_chain(max(convert.stamp_to_s(t.header.stamp) for t in message.transforms))

    def _calibrate_by_chain(self, stamp_s: float) -> None:
        try:
            probe_T_image, _ = tf.pose(self.transforms, self.frames.probe_frame, self.frames.image_frame)
        except MissingTransformError:
            return  # another node's statics; frames that come before the calibration are refused with this reason
        self._calibrate(stamp_s, probe_T_image)

    def _calibrate(self, stamp_s: float, probe_T_image: Tensor) -> None:
        """What holds for frames from a stamp on: a change of depth moves the image in the probe."""
        clean = se3.check_rigid(probe_T_image, "probe_T_image")
        since_s, calibration = stamp_s or self.now_s(), Calibration(clean, ((1.0, 0.0), (0.0, 1.0)))
        if self.tracker is None:
            self.tracker = Tracker(calibration, self.buffer, since_s)
        elif not torch.equal(clean, self.tracker.calibration_at(since_s).probe_T_image):
            self.tracker.recalibrate(since_s, calibration)

    def on_joints(self, message: JointState) -> None:
        """A joint state of the arm."""
        assert isinstance(self.buffer, JointBuffer)
        stamp_s, names, positions = convert.decode_joints(message)
        try:
            self.buffer.add(stamp_s, names, convert.joints_in_mm(names, positions, self.buffer.arm.sliding))
        finally:
            self.flush()
        if stamp_s - self._links_s >= LINKS_PERIOD_S:
            self._send_links(stamp_s, message.header.stamp)

    def on_tf(self, message: TFMessage) -> None:
        """Transforms of the robot's driver or of a tracker."""
        for transform in message.transforms:
            self.transforms.set_transform(transform, "tf")
        stamps = [convert.stamp_to_s(t.header.stamp) for t in message.transforms]
        if stamps and not max(stamps) < self.buffer.newest_s + self.config.sample_period_s:
            self._sample()
        self.flush()

    def _sample(self) -> None:
        """The newest pose of the probe, where it is newer than the last."""
        assert isinstance(self.buffer, PoseBuffer)
        try:
            pose, stamp_s = tf.pose(self.transforms, self.frames.world_frame, self.frames.probe_frame)
        except MissingTransformError as error:
            self.diagnostics.state("WARN", str(error))
            return
        self.diagnostics.state("OK")
        newest_s = self.buffer.newest_s
        if not stamp_s <= newest_s:
            self.buffer.add(stamp_s, pose)

    def on_geometry(self, message: UltrasoundGeometry) -> None:
        """A frame was taken: its pose is due."""
        stamp_s, geometry = convert.decode_geometry(message)
        self.waiting.append(Waiting(stamp_s, message.header.stamp, geometry, time.monotonic()))
        self.flush()

    def flush(self) -> None:
        """Publish what has a pose at or after its stamp; refuse what waited too long."""
        while self.waiting:
            frame = self.waiting[0]
            reached = self.buffer.newest_s >= frame.stamp_s and self.tracker is not None
            if not reached and time.monotonic() - frame.since < self.config.hold_s:
                return
            self.waiting.popleft()
            self.guarded(self._track)(frame.stamp_s, frame.stamp, frame.geometry)

    def _track(self, stamp_s: float, stamp: Time, geometry: ImageGeometry) -> None:
        begin = time.perf_counter()
        pose, covariance = self._pose_at(stamp_s, geometry)
        self.pose_out.publish(convert.stamped_pose_to_msg(pose, covariance, stamp, self.frames.world_frame))
        self.diagnostics.state("OK")
        self.diagnostics.done(stamp_s, time.perf_counter() - begin)
        self._send_links(stamp_s, stamp)
        if self._shown is not None and self.tracker is not None:
            self._show(image_in_probe(self.tracker.calibration_at(stamp_s), geometry), stamp)

    def _show(self, probe_T_image: Tensor, stamp: Time) -> None:
        """Tell TF where the image lies in the probe, where the depth and so the first pixel has changed."""
        if self._shown is None or torch.equal(probe_T_image, self._shown):
            return
        self._shown, frames = probe_T_image, self.frames
        message = convert.transform_to_msg(probe_T_image, stamp, frames.probe_frame, frames.image_frame)
        self.transforms.set_transform_static(message, "arm_tracking")
        self.statics.sendTransform([message])

    def _pose_at(self, stamp_s: float, geometry: ImageGeometry) -> tuple[Tensor, Tensor]:
        if self.tracker is None:
            frames = self.frames
            raise MissingTransformError(
                f"no static transform from '{frames.image_frame}' to '{frames.probe_frame}': set 'calibration', or "
                "publish it on /tf_static"
            )
        try:
            return self.tracker.pose_at(stamp_s, geometry)
        except (StalePoseError, CalibrationError) as error:
            self.diagnostics.state("ERROR", str(error))
            raise

    def _send_links(self, stamp_s: float, stamp: Time) -> None:
        if self.arm is None or not isinstance(self.buffer, JointBuffer):
            return
        try:
            world_T_links = self.buffer.links_at(stamp_s)
        except StalePoseError:
            return  # the frame that needs this pose says so
        self._links_s = max(self._links_s, stamp_s)
        names = self.arm.link_names
        steps = se3.inverse(world_T_links[:-1]) @ world_T_links[1:]
        self.broadcaster.sendTransform(convert.transforms_to_msgs(steps, stamp, names[:-1], names[1:]))

    def reset(self) -> None:
        """Time jumped back."""
        self.buffer.reset()
        self.waiting.clear()
        self.transforms.clear()
        self._links_s = 0.0


def _name(frame: str) -> str:
    return frame.lstrip("/")


def main(args: list[str] | None = None) -> None:
    """Entry point."""
    leave(run_node(ArmTrackingNode, args))
