# SPDX-License-Identifier: Apache-2.0
"""TF through tf2_ros where it is installed, else through a small buffer with the same calls.

`pose(buffer, target, source, stamp_s)` gives `target_T_source` in mm from either.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Iterable
from operator import itemgetter
from typing import Any

from geometry_msgs.msg import TransformStamped
from rclpy.node import Node
from rclpy.time import Time
from tf2_msgs.msg import TFMessage
from torch import Tensor

from ..errors import GeometryError, MissingTransformError, StalePoseError
from ..geometry import rotation, se3
from . import convert, qos

CACHE_NS = 10 * 10**9
_stamp = itemgetter(0)


class TransformBuffer:
    """Transforms by time: the calls of tf2_ros.Buffer that usreg needs, with tf2's rules.

    Between two samples the translation is interpolated linearly and the rotation along the shortest turn; nothing is
    extrapolated. Time zero asks for the newest time at which the whole path is known.
    """

    def __init__(self, cache_ns: int = CACHE_NS) -> None:
        self._cache_ns = cache_ns
        self._parents: dict[str, str] = {}
        self._static: dict[str, Tensor] = {}
        self._moving: dict[str, list[tuple[int, TransformStamped]]] = {}

    def clear(self) -> None:
        """Forget everything that moves; statics stay, as tf2 keeps them."""
        self._parents = {child: parent for child, parent in self._parents.items() if child in self._static}
        self._moving.clear()

    def set_transform(self, transform: TransformStamped, authority: str) -> None:
        """Add a sample; one that is older than the cache is dropped.

        Raises:
            GeometryError: not finite, or a quaternion without length.
        """
        child, ns = self._attach(transform), _ns(transform.header.stamp)
        samples = self._moving.setdefault(child, [])
        _check_numbers(transform)
        if samples and ns < samples[-1][0] - self._cache_ns:
            return
        place = bisect_left(samples, ns, key=_stamp)
        if place < len(samples) and samples[place][0] == ns:
            samples[place] = (ns, transform)
        else:
            insort(samples, (ns, transform), key=_stamp)
        while samples[0][0] < samples[-1][0] - self._cache_ns:
            samples.pop(0)

    def set_transform_static(self, transform: TransformStamped, authority: str) -> None:
        """Add or replace a static transform."""
        self._static[self._attach(transform)] = convert.transform_from_msg(transform)

    def _attach(self, transform: TransformStamped) -> str:
        child, parent = transform.child_frame_id.lstrip("/"), transform.header.frame_id.lstrip("/")
        if not child or not parent or child == parent:
            raise MissingTransformError(f"a transform from '{child}' to '{parent}' needs two different frames")
        self._parents[child] = parent
        return child

    def lookup_transform(
        self, target_frame: str, source_frame: str, time: Time, timeout: Any = None
    ) -> TransformStamped:
        """target_T_source at a time.

        Raises:
            MissingTransformError: a frame is unknown or no path joins the two. StalePoseError: before the first or
            after the last sample of an edge.
        """
        up, down = self._path(target_frame, source_frame)
        ns = time.nanoseconds or self._newest([*up, *down])
        target_T_top = se3.inverse(self._chain(up, ns))
        pose = target_T_top @ self._chain(down, ns)
        return convert.transform_to_msg(pose, Time(nanoseconds=ns).to_msg(), target_frame, source_frame)

    def chain(self, top: str, bottom: str, stamp_s: float) -> list[tuple[str, Tensor]]:
        """(frame, top_T_frame) for every frame on the way from below `top` down to `bottom`, at a stamp.

        Raises:
            MissingTransformError, StalePoseError: as `lookup_transform` does.
        """
        up, down = self._path(top, bottom)
        if up:
            raise MissingTransformError(f"'{bottom}' does not hang below '{top}'")
        ns, top_T_frame, found = Time.from_msg(convert.s_to_stamp(stamp_s)).nanoseconds, se3.identity(), list[Any]()
        steps = self._steps(down, ns)
        for edge in reversed(down):
            top_T_frame = top_T_frame @ steps[edge]
            found.append((edge, top_T_frame))
        return found

    def _steps(self, edges: list[str], ns: int) -> dict[str, Tensor]:
        """parent_T_child of edges at a time; samples of just this time are turned into poses together."""
        moving = {edge: self._sample(edge, ns) for edge in edges if edge not in self._static}
        exact = {edge: sample for edge, sample in moving.items() if sample is not None}
        poses = convert.decode_transforms(TFMessage(transforms=list(exact.values())))
        steps = {edge: pose.parent_T_child for edge, pose in zip(exact, poses, strict=True)}
        return steps | {edge: self._at(edge, ns) for edge in edges if edge not in steps}

    def _sample(self, edge: str, ns: int) -> TransformStamped | None:
        """The sample of just this time."""
        samples = self._moving[edge]
        place = bisect_left(samples, ns, key=_stamp)
        return samples[place][1] if place < len(samples) and samples[place][0] == ns else None

    def _path(self, target: str, source: str) -> tuple[list[str], list[str]]:
        """Edges from the target and from the source up to the first frame they share."""
        ups, downs = self._line(target), self._line(source)
        shared = next((frame for frame in downs if frame in ups), None)
        if shared is None:
            known = sorted({*self._parents, *self._parents.values()})
            raise MissingTransformError(
                f"no transforms lead from '{source}' to '{target}'; known frames: "
                f"{known or 'none'}: is its publisher running?"
            )
        return ups[: ups.index(shared)], downs[: downs.index(shared)]

    def _line(self, frame: str) -> list[str]:
        line = [frame]
        while line[-1] in self._parents and self._parents[line[-1]] not in line:
            line.append(self._parents[line[-1]])
        return line

    def _newest(self, edges: list[str]) -> int:
        return min((self._moving[e][-1][0] for e in edges if e not in self._static), default=0)

    def _chain(self, edges: Iterable[str], ns: int) -> Tensor:
        """top_T_bottom along edges, given from the bottom."""
        pose = se3.identity()
        for edge in edges:
            pose = self._at(edge, ns) @ pose
        return pose

    def _at(self, edge: str, ns: int) -> Tensor:
        if edge in self._static:
            return self._static[edge]
        samples = self._moving[edge]
        place = bisect_left(samples, ns, key=_stamp)
        if place < len(samples) and samples[place][0] == ns:
            return convert.transform_from_msg(samples[place][1])
        if place in (0, len(samples)):
            first, last = samples[0][0], samples[-1][0]
            raise StalePoseError(
                f"the transform to '{edge}' is known from {first * 1e-9:.3f} to {last * 1e-9:.3f} s, asked for "
                f"{ns * 1e-9:.3f} s: TF is never extrapolated"
            )
        (t0, a), (t1, b) = samples[place - 1], samples[place]
        poses = (convert.transform_from_msg(a), convert.transform_from_msg(b))
        return _between(*poses, (ns - t0) / (t1 - t0))


def _between(a: Tensor, b: Tensor, u: float) -> Tensor:
    turn = rotation.log(a[:3, :3].T @ b[:3, :3])
    return se3.from_parts(a[:3, :3] @ rotation.exp(u * turn), (1 - u) * a[:3, 3] + u * b[:3, 3])


def _check_numbers(transform: TransformStamped) -> None:
    """Cheap, because it runs for every sample; poses are made of those that are asked for."""
    t, q = transform.transform.translation, transform.transform.rotation
    if (
        not all(map(math.isfinite, (t.x, t.y, t.z, q.x, q.y, q.z, q.w)))
        or q.x * q.x + q.y * q.y + q.z * q.z + q.w * q.w < 1e-12
    ):
        raise GeometryError(f"the transform to '{transform.child_frame_id}' is not finite or has no rotation: dropped")


def _ns(stamp: Any) -> int:
    return int(stamp.sec) * 10**9 + int(stamp.nanosec)


def make_buffer(node: Node) -> Any:
    """tf2_ros.Buffer where it is installed, else `TransformBuffer`. Fill it with `listen`."""
    try:
        from tf2_ros import Buffer
    except ImportError:
        return TransformBuffer()
    return Buffer(node=node)


def pose(buffer: Any, target: str, source: str, stamp_s: float = 0.0) -> tuple[Tensor, float]:
    """target_T_source (4, 4) in mm and its stamp; stamp 0 = the newest.

    Raises:
        MissingTransformError: no path. StalePoseError: not known at this stamp.
    """
    time = Time(nanoseconds=0) if stamp_s == 0 else Time.from_msg(convert.s_to_stamp(stamp_s))
    try:
        found = buffer.lookup_transform(target, source, time)
    except (MissingTransformError, StalePoseError):
        raise
    except Exception as error:  # tf2's own classes, which exist only where tf2 does
        kind = StalePoseError if "Extrapolation" in type(error).__name__ else MissingTransformError
        raise kind(f"no transform from '{source}' to '{target}': {error}") from error
    return convert.transform_from_msg(found), convert.stamp_to_s(found.header.stamp)


class TransformBroadcaster:
    """Publishes moving transforms on /tf, as tf2_ros.TransformBroadcaster does."""

    def __init__(self, node: Node) -> None:
        self._publisher = node.create_publisher(TFMessage, "/tf", qos.profile("tf"))

    def sendTransform(self, transform: TransformStamped | list[TransformStamped]) -> None:  # noqa: N802  tf2's name
        """Publish one or several."""
        transforms = transform if isinstance(transform, list) else [transform]
        self._publisher.publish(TFMessage(transforms=transforms))


class StaticTransformBroadcaster:
    """Publishes static transforms on /tf_static; later ones are added to those sent before."""

    def __init__(self, node: Node) -> None:
        self._publisher = node.create_publisher(TFMessage, "/tf_static", qos.profile("tf_static"))
        self._sent: dict[str, TransformStamped] = {}

    def sendTransform(self, transform: TransformStamped | list[TransformStamped]) -> None:  # noqa: N802  tf2's name
        """Publish these and all sent before, in one latched message."""
        transforms = transform if isinstance(transform, list) else [transform]
        self._sent.update({t.child_frame_id: t for t in transforms})
        self._publisher.publish(TFMessage(transforms=list(self._sent.values())))
