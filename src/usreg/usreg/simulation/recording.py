# SPDX-License-Identifier: Apache-2.0
"""What a simulated scan gives, message by message, in the order in which a recorder would have received it."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..data.bag_messages import encode_geometry, encode_image, encode_joints, header, make
from ..data.bag_poses import StampedTransform, encode_transforms
from ..data.bags import BagWriter, qos_profile
from ..data.ros_time import to_s
from ..data.sessions import FrameNames, TopicNames
from ..geometry.sector import SectorGeometry
from ..kinematics import Arm
from .motion import Motion
from .scanner import Scanner

JOINT_LATENCY_NS = 500_000
AHEAD = 8  # frames that are made before they are asked for
FRAMES, TOPICS = FrameNames(), TopicNames()
FORCE = "/truth/force"
Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Mount:
    """An image geometry and where it lies in the probe, from a stamp on.

    Args:
        probe_T_image: (4, 4), true. calibrated: (4, 4), as the calibration says.
    """

    stamp_ns: int
    geometry: SectorGeometry
    probe_T_image: Tensor
    calibrated: Tensor


@dataclass(frozen=True, eq=False)
class Shot:
    """A frame before its image is made.

    Args:
        stamp_ns: acquisition. arrival_ns: when the recorder has it. t_s: of the body's motion.
        bed_T_image: (4, 4), true.
        seed: of the noise in this frame alone, so that frames may be made in any order.
    """

    stamp_ns: int
    arrival_ns: int
    t_s: float
    bed_T_image: Tensor
    mount: Mount
    indentation_mm: float
    force_n: float
    seed: tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Recording:
    """A scan before its images are made.

    Args:
        joint_ns: (N,) stamps. joints: (N, n) as measured, rad or mm.
        organs: whose true pose in the world is told beside that of the volume.
    """

    arm: Arm
    joint_ns: NDArray[np.int64]
    joints: Tensor
    mounts: tuple[Mount, ...]
    shots: tuple[Shot, ...]
    world_T_bed: Tensor
    motion: Motion
    organs: tuple[str, ...] = ()

    def world_T_ct(self, t_s: float) -> Tensor:
        """Where the volume truly lies, (4, 4): it moves with the liver."""
        return self.world_T_bed @ self.motion.bed_T_organ("liver", t_s)


class Entry(NamedTuple):
    """A message with the time at which the recorder received it."""

    log_ns: int
    stamp_ns: int
    topic: str
    message: Any


def entries(recording: Recording, exposed: Iterable[tuple[Shot, Tensor]]) -> Iterator[Entry]:
    """Every message, statics first, in the order of arrival.

    Args:
        exposed: shots with their images, in order.
    """
    streams = (static_entries(recording), joint_entries(recording), _frames(recording, exposed))
    yield from heapq.merge(*streams, key=lambda e: e.log_ns)


def images(recording: Recording, scanner: Scanner, workers: int = 2) -> Iterator[tuple[Shot, Tensor]]:
    """Shots with their images (h, w) uint8, in order, made on several threads; the result does not depend on those."""
    scanners = devices(recording, scanner)
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[tuple[Shot, Future[Tensor]]] = deque()
        try:
            for shot in recording.shots:
                waiting.append((shot, pool.submit(expose, scanners[shot.mount.stamp_ns], shot)))
                if len(waiting) > AHEAD:
                    yield _first(waiting)
            while waiting:
                yield _first(waiting)
        finally:
            for _, image in waiting:  # who stops half-way does not wait for what nobody will see
                image.cancel()


def _first(waiting: deque[tuple[Shot, Future[Tensor]]]) -> tuple[Shot, Tensor]:
    shot, image = waiting.popleft()
    return shot, image.result()


def devices(recording: Recording, scanner: Scanner) -> dict[int, Scanner]:
    """The scanner at every depth of a recording, by the stamp of its mount."""
    return {mount.stamp_ns: scanner.with_geometry(mount.geometry) for mount in recording.mounts}


def expose(scanner: Scanner, shot: Shot) -> Tensor:
    """The image (h, w) uint8 of a shot; it depends on nothing else."""
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(shot.seed)))
    return scanner.frame(shot.bed_T_image, shot.t_s, rng, shot.indentation_mm)


def write_recording(
    path: Path, recording: Recording, exposed: Iterable[tuple[Shot, Tensor]], progress: Progress | None = None
) -> None:
    """Write the bag; images may be made on the way (`images`)."""
    total, done = len(recording.shots), 0
    with BagWriter(path) as bag:
        _declare(bag)
        for entry in entries(recording, exposed):
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
        FORCE: ("geometry_msgs/msg/WrenchStamped", qos_profile(depth=100)),
    }
    for topic, (type_name, qos) in types.items():
        bag.add_topic(topic, type_name, [qos])


def static_entries(recording: Recording) -> Iterator[Entry]:
    """world to the arm's foot, flange to probe, probe to image: the rest follows from the joints. A change of depth
    moves the image's origin in the probe: told again then."""
    arm = recording.arm
    first = int(recording.joint_ns[0])
    for mount in recording.mounts:
        ns = max(first, mount.stamp_ns)
        links, stamp = arm.link_names, to_s(ns)
        poses = [StampedTransform(stamp, FRAMES.probe, FRAMES.image, mount.calibrated)]
        if mount is recording.mounts[0]:
            poses = [
                StampedTransform(stamp, FRAMES.world, links[0], arm.world_T_base),
                StampedTransform(stamp, links[-1], FRAMES.probe, arm.flange_T_probe),
                *poses,
            ]
        yield Entry(ns, ns, TOPICS.tf_static, encode_transforms(poses))


def joint_entries(recording: Recording) -> Iterator[Entry]:
    """Joint states as measured."""
    names, sliding = recording.arm.joint_names, recording.arm.sliding
    for ns, q in zip(recording.joint_ns.tolist(), recording.joints.tolist(), strict=True):
        yield Entry(ns + JOINT_LATENCY_NS, ns, TOPICS.joints, encode_joints(to_s(ns), names, q, sliding=sliding))


def _frames(recording: Recording, exposed: Iterable[tuple[Shot, Tensor]]) -> Iterator[Entry]:
    """Geometry, image and truth of every frame, received together once the image has arrived."""
    for shot, image in exposed:
        stamp, ns, log_ns = to_s(shot.stamp_ns), shot.stamp_ns, shot.arrival_ns
        sequence = recording.mounts.index(shot.mount)
        yield Entry(log_ns, ns, TOPICS.geometry, encode_geometry(stamp, shot.mount.geometry, FRAMES.image, sequence))
        yield Entry(log_ns, ns, TOPICS.image, encode_image(stamp, image, FRAMES.image))
        yield Entry(log_ns, ns, TOPICS.truth, encode_transforms(_truth(recording, shot, stamp)))
        yield Entry(log_ns, ns, FORCE, _wrench(stamp, shot.force_n))


def _truth(recording: Recording, shot: Shot, stamp: float) -> list[StampedTransform]:
    bed = recording.world_T_bed
    organs = {f"true_{name}": bed @ recording.motion.bed_T_organ(name, shot.t_s) for name in recording.organs}
    poses = {FRAMES.volume: recording.world_T_ct(shot.t_s), FRAMES.image: bed @ shot.bed_T_image, **organs}
    return [StampedTransform(stamp, FRAMES.world, child, pose) for child, pose in poses.items()]


def _wrench(stamp: float, force_n: float) -> Any:
    """The probe presses along its z."""
    vector = "geometry_msgs/msg/Vector3"
    wrench = make("geometry_msgs/msg/Wrench", make(vector, 0.0, 0.0, force_n), make(vector, 0.0, 0.0, 0.0))
    return make("geometry_msgs/msg/WrenchStamped", header(stamp, FRAMES.probe), wrench)
