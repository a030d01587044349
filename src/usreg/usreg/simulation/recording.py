# SPDX-License-Identifier: Apache-2.0
"""Writes what a simulated scan gives as a bag, in the order in which a recorder would have received it."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..data.bag_messages import encode_geometry, encode_image, encode_joints
from ..data.bag_poses import StampedTransform, encode_transforms
from ..data.bags import BagWriter, qos_profile
from ..data.ros_time import to_s
from ..data.sessions import FrameNames, TopicNames
from ..geometry import se3
from ..geometry.sector import SectorGeometry
from ..kinematics import Arm
from .simple_scanner import Scanner

JOINT_LATENCY_NS = 500_000
FRAMES, TOPICS = FrameNames(), TopicNames()


@dataclass(frozen=True, eq=False)
class Statics:
    """What does not move: the arm's foot, how it holds the probe (4, 4), where the image lies in it."""

    arm: Arm
    probe_T_image: Tensor
    geometry: SectorGeometry


@dataclass(frozen=True, eq=False)
class Recording:
    """A scan before its images are made.

    Args:
        joint_ns: (N,) stamps. joints: (N, n) as measured, rad.
        frame_ns: (M,) stamps. world_T_image: (M, 4, 4) true poses.
        world_T_ct: (4, 4) true pose of the volume.
    """

    joint_ns: NDArray[np.int64]
    joints: Tensor
    frame_ns: NDArray[np.int64]
    world_T_image: Tensor
    world_T_ct: Tensor
    statics: Statics


class Entry(NamedTuple):
    """A message with the time at which the recorder received it."""

    log_ns: int
    stamp_ns: int
    topic: str
    message: Any


def write_recording(
    path: Path, recording: Recording, scanner: Scanner, latency_s: float, rng: np.random.Generator,
    progress: Callable[[int, int], None] | None = None,
) -> None:  # fmt: skip
    """Write the bag; images are made one by one on the way."""
    streams = (_joints(recording), _frames(recording, scanner, round(latency_s * 1e9), rng))
    total, done = len(recording.frame_ns), 0
    with BagWriter(path) as bag:
        _declare(bag)
        start = int(recording.joint_ns[0])
        bag.write(TOPICS.tf_static, start, _statics(recording.statics, start), start)
        for entry in heapq.merge(*streams, key=lambda e: e.log_ns):
            bag.write(entry.topic, entry.log_ns, entry.message, entry.stamp_ns)
            done += entry.topic == TOPICS.image
            if progress is not None and entry.topic == TOPICS.image:
                progress(done, total)


def _declare(bag: BagWriter) -> None:
    """Topics with the profiles that the live nodes offer."""
    types = {
        TOPICS.image: ("sensor_msgs/msg/Image", qos_profile(depth=5)),
        TOPICS.geometry: ("usreg_msgs/msg/UltrasoundGeometry", qos_profile(depth=5)),
        TOPICS.joints: ("sensor_msgs/msg/JointState", qos_profile(depth=500)),
        TOPICS.tf_static: ("tf2_msgs/msg/TFMessage", qos_profile(transient_local=True, depth=100)),
        TOPICS.truth: ("tf2_msgs/msg/TFMessage", qos_profile(depth=100)),
    }
    for topic, (type_name, qos) in types.items():
        bag.add_topic(topic, type_name, [qos])


def _statics(statics: Statics, stamp_ns: int) -> Any:
    """world to the arm's foot, flange to probe, probe to image: the rest follows from the joints."""
    links, stamp = statics.arm.link_names, to_s(stamp_ns)
    return encode_transforms([
        StampedTransform(stamp, FRAMES.world, links[0], statics.arm.world_T_base),
        StampedTransform(stamp, links[-1], FRAMES.probe, statics.arm.flange_T_probe),
        StampedTransform(stamp, FRAMES.probe, FRAMES.image, statics.probe_T_image),
    ])  # fmt: skip


def _joints(recording: Recording) -> Iterator[Entry]:
    names = recording.statics.arm.joint_names
    for ns, q in zip(recording.joint_ns.tolist(), recording.joints.tolist(), strict=True):
        yield Entry(ns + JOINT_LATENCY_NS, ns, TOPICS.joints, encode_joints(to_s(ns), names, q))


def _frames(recording: Recording, scanner: Scanner, latency_ns: int, rng: np.random.Generator) -> Iterator[Entry]:
    """Geometry, image and truth of every frame, received together once the image has arrived."""
    ct_T_world = se3.inverse(recording.world_T_ct)
    for ns, world_T_image in zip(recording.frame_ns.tolist(), recording.world_T_image, strict=True):
        stamp, log_ns = to_s(ns), ns + latency_ns
        image = scanner.frame(ct_T_world @ world_T_image, rng)
        truth = [
            StampedTransform(stamp, FRAMES.world, FRAMES.volume, recording.world_T_ct),
            StampedTransform(stamp, FRAMES.world, FRAMES.image, world_T_image),
        ]
        yield Entry(log_ns, ns, TOPICS.geometry, encode_geometry(stamp, recording.statics.geometry, FRAMES.image))
        yield Entry(log_ns, ns, TOPICS.image, encode_image(stamp, image, FRAMES.image))
        yield Entry(log_ns, ns, TOPICS.truth, encode_transforms(truth))
