# SPDX-License-Identifier: Apache-2.0
"""A PLUS sequence into a bag: nothing is lost (see `plus_topics`)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import GeometryError, TimeError
from ..geometry import se3
from . import ros_time
from .bag_messages import encode_geometry, encode_image, header, make
from .bag_poses import StampedTransform, encode_pose, encode_transforms
from .bag_types import qos_profile
from .bag_writer import BagWriter
from .calibration import sector_for
from .plus_topics import (
    BAD,
    DIAGNOSTICS,
    FRAME,
    GOOD,
    HEADER,
    IMAGE,
    MATRIX,
    MISSING,
    OTHER,
    TIMESTAMP,
    UNSTAMPED,
    WHERE,
    array,
    entry,
    matrix_text,
    pose_topic,
)
from .sequences import Sequence
from .sessions import FrameNames, TopicNames
from .tracked import world_trajectory
from .types import Calibration, ImageGeometry, Trajectory

Progress = Callable[[int, int], None]
IMAGE_TYPE, TF_TYPE = "sensor_msgs/msg/Image", "tf2_msgs/msg/TFMessage"
POSE_TYPE, GEOMETRY_TYPE = "geometry_msgs/msg/PoseStamped", "usreg_msgs/msg/UltrasoundGeometry"


def sequence_to_bag(
    sequence: Sequence,
    path: str | Path,
    calibration: Calibration | None = None,
    frames: FrameNames | None = None,
    topics: TopicNames | None = None,
    progress: Progress | None = None,
) -> list[str]:
    """Write a sequence as a bag.

    Args:
        calibration: adds the image geometry and TF (`world -> us_probe` at the stamps, `us_probe -> us_image` static),
            and shifts the images' stamps by its `latency_s`. Without it the bag holds images and PLUS's own transforms.
        progress: called with (frames done, frames in all).

    Returns:
        Remarks: what the bag does not show to the stack, in words. `bag_to_sequence` gets everything back.

    Raises:
        TimeError: a stamp below zero. CalibrationError: for another image size. MissingTransformError: no chain from
            the probe to the world. WriteError: see `BagWriter`.
    """
    names, topics = frames or FrameNames(), topics or TopicNames()
    with BagWriter(path) as bag:
        bag.add_topic(HEADER, DIAGNOSTICS, [qos_profile(transient_local=True, depth=1)])
        bag.add_topic(FRAME, DIAGNOSTICS)
        writer = _Writer(bag, sequence, calibration, names, topics)
        writer.file_header()
        for i in range(sequence.count):
            writer.frame(i)
            if progress is not None:
                progress(i + 1, sequence.count)
        return [*sequence.problems, *writer.remarks()]


class _Writer:
    """Writes one frame after the other; log times never run backwards."""

    def __init__(
        self, bag: BagWriter, sequence: Sequence, calibration: Calibration | None, names: FrameNames, topics: TopicNames
    ) -> None:
        self._bag, self._sequence, self._names, self._topics = bag, sequence, names, topics
        self._latency_s = 0.0 if calibration is None else calibration.latency_s
        self._geometry: ImageGeometry | None = None
        self._world_T_probe: Trajectory | None = None
        self._calibration = calibration
        self._log_ns = 0
        self._unstamped = self._scaled = 0
        self._stamp_valid = (
            sequence.stamp_valid if sequence.stamp_valid is not None else torch.isfinite(sequence.stamps_s)
        )
        stamps = sequence.stamps_s[self._stamp_valid]
        if stamps.numel() and float(stamps.min()) - max(0.0, self._latency_s) < 0:
            raise TimeError(
                f"the first stamp is {float(stamps.min())} s, latency {self._latency_s} s: a bag needs positive stamps"
            )
        if stamps.numel():
            self._log_ns = ros_time.to_ns(float(stamps.min()) - max(0.0, self._latency_s))
        if calibration is not None:
            self._prepare(calibration)

    def _prepare(self, calibration: Calibration) -> None:
        sequence = self._sequence
        self._world_T_probe = world_trajectory(sequence, calibration)
        if sequence.size is not None:
            self._geometry = sector_for(calibration, *sequence.size)
        self._bag.add_topic(self._topics.tf_static, TF_TYPE, [qos_profile(transient_local=True, depth=1)])
        self._bag.add_topic(self._topics.tf, TF_TYPE, [qos_profile(depth=500)])

    def file_header(self) -> None:
        """Keys of the file, the names of its transforms, and the static transform of the calibration."""
        sequence, stamp_s = self._sequence, ros_time.to_s(self._log_ns)
        width, height = sequence.size or (0, 0)
        facts = {
            "Format": sequence.source_format, "Orientation": sequence.orientation, "Frames": str(sequence.count),
            "Size": f"{width} {height}", "LatencyApplied": repr(self._latency_s),
        }  # fmt: skip
        entries = [entry("Sequence", GOOD, None, facts | {OTHER + k: v for k, v in sequence.header.items()})]
        entries += [entry(name, GOOD, None, {}) for name in sequence.transforms]
        self._bag.write(HEADER, self._log_ns, array(stamp_s, entries))
        if self._calibration is not None:
            fixed = StampedTransform(stamp_s, self._names.probe, self._names.image, self._calibration.probe_T_image)
            self._bag.write(self._topics.tf_static, self._log_ns, encode_transforms([fixed]))

    def frame(self, i: int) -> None:
        """Everything of one frame."""
        sequence = self._sequence
        good = bool(self._stamp_valid[i])
        stamp_s = float(sequence.stamps_s[i]) if good else ros_time.to_s(self._log_ns)
        self._log_ns = max(self._log_ns, ros_time.to_ns(stamp_s))
        where = self._image(i, stamp_s - self._latency_s, good)
        entries = [self._image_entry(i, where)]
        for name, trajectory in sequence.transforms.items():
            entries.append(self._transform_entry(i, name, trajectory))
            if good and bool(trajectory.valid[i]):
                self._pose(name, trajectory.target, stamp_s, trajectory.poses[i])
        self._bag.write(FRAME, self._log_ns, array(stamp_s, entries))
        if good and self._world_T_probe is not None and bool(self._world_T_probe.valid[i]):
            self._transform(stamp_s, self._world_T_probe.poses[i])

    def remarks(self) -> list[str]:
        """What the stack will not see."""
        remarks = []
        if self._unstamped:
            remarks.append(
                f"{self._unstamped} images without a usable stamp are kept on {UNSTAMPED}, where nothing listens"
            )
        if self._scaled:
            remarks.append(f"{self._scaled} matrices are not rigid: they are kept as text on {FRAME}, not as poses")
        return remarks

    def _image(self, i: int, stamp_s: float, good: bool) -> str | None:
        if self._sequence.images is None or not bool(self._sequence.image_valid[i]):
            return None
        image = self._sequence.images[i]
        if not good:
            self._unstamped += 1
            self._bag.write(UNSTAMPED, self._log_ns, encode_image(stamp_s, image, self._names.image))
            return UNSTAMPED
        log_ns = ros_time.to_ns(stamp_s)
        self._bag.write(self._topics.image, log_ns, encode_image(stamp_s, image, self._names.image))
        if self._geometry is not None:
            self._bag.write(self._topics.geometry, log_ns, encode_geometry(stamp_s, self._geometry, self._names.image))
        return self._topics.image

    def _image_entry(self, i: int, where: str | None) -> Any:
        sequence = self._sequence
        status = sequence.image_status[i] if sequence.image_status else None
        values = {TIMESTAMP: repr(float(sequence.stamps_s[i]))} | ({WHERE: where} if where else {})
        values |= {OTHER + k: v for k, v in (sequence.fields[i] if sequence.fields else {}).items()}
        return entry(IMAGE, GOOD if where else MISSING if sequence.images is None else BAD, status, values)

    def _transform_entry(self, i: int, name: str, trajectory: Trajectory) -> Any:
        statuses = self._sequence.statuses.get(name, ())
        pose = trajectory.poses[i]
        missing = bool(torch.isnan(pose).all())
        level = GOOD if bool(trajectory.valid[i]) else MISSING if missing else BAD
        return entry(name, level, statuses[i] if statuses else None, {} if missing else {MATRIX: matrix_text(pose)})

    def _pose(self, name: str, target: str, stamp_s: float, matrix: Tensor) -> None:
        try:
            pose = se3.check_rigid(matrix, name)
        except GeometryError:
            self._scaled += 1
            return
        self._bag.add_topic(pose_topic(name), POSE_TYPE)
        self._bag.write(pose_topic(name), self._log_ns, make(POSE_TYPE, header(stamp_s, target), encode_pose(pose)))

    def _transform(self, stamp_s: float, matrix: Tensor) -> None:
        try:
            pose = se3.check_rigid(matrix, "ProbeToTracker")
        except GeometryError:
            return  # counted where the single transforms are written
        moving = StampedTransform(stamp_s, self._names.world, self._names.probe, pose)
        self._bag.write(self._topics.tf, self._log_ns, encode_transforms([moving]))
