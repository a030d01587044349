# SPDX-License-Identifier: Apache-2.0
"""The source: a scanner's driver and an arm's driver in one process, stamping by the system clock.

Usage: source.py FOLDER. It says that it is ready, waits for a line `START_NS SECONDS` on standard input, sends frames
at 30 Hz and joint states at 100 Hz from then on, and says how late it was itself. Images lie ready in memory.
"""

from __future__ import annotations

import array
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from builtin_interfaces.msg import Time
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image, JointState

FRAME_HZ, JOINT_HZ = 30, 100
JOINT_NAMES = [f"lbr_A{i}" for i in range(1, 8)]
NS = 10**9


def main() -> None:
    folder = Path(sys.argv[1])
    rclpy.init()
    node = Node("live_source")
    images, joints = _images(folder / "frames.npy"), _joints(folder / "joints.npy")
    outputs = (
        node.create_publisher(Image, "driver/image_raw", QoSProfile(depth=5)),
        node.create_publisher(JointState, "joint_states", QoSProfile(depth=100)),
    )
    _say({"ready": True})
    start_ns, seconds = (int(word) for word in sys.stdin.readline().split())
    late = [_send(event, outputs, (images, joints)) for event in events(start_ns, seconds)]
    frames = np.array([ms for kind, ms in late if kind == 0])
    _say({"frames": len(frames), "late_p99_ms": float(np.percentile(frames, 99)), "late_max_ms": float(frames.max())})
    try:
        sys.stdin.readline()  # the middleware delivers until then
    except KeyboardInterrupt:
        pass  # asked to end
    node.destroy_node()
    rclpy.try_shutdown()


def events(start_ns: int, seconds: int) -> Iterator[tuple[int, int, int]]:
    """(stamp in ns, 0 image or 1 joints, index) in the order of their stamps; joints last half a second longer."""
    frames = ((start_ns + k * NS // FRAME_HZ, 0, k) for k in range(seconds * FRAME_HZ))
    joints = ((start_ns + k * NS // JOINT_HZ, 1, k) for k in range(-JOINT_HZ // 2, (2 * seconds + 1) * JOINT_HZ // 2))
    return iter(sorted([*frames, *joints]))


def _send(event: tuple[int, int, int], outputs: Any, messages: Any) -> tuple[int, float]:
    """Wait until the stamp, then send; returns the kind and the milliseconds that sending ended after the stamp."""
    stamp_ns, kind, index = event
    message = messages[kind][index % len(messages[kind])]
    message.header.stamp = Time(sec=stamp_ns // NS, nanosec=stamp_ns % NS)
    while (wait_ns := stamp_ns - time.time_ns()) > 0:
        time.sleep(wait_ns * 1e-9)
    outputs[kind].publish(message)
    return kind, (time.time_ns() - stamp_ns) * 1e-6


def _images(path: Path) -> list[Image]:
    made = []
    for picture in np.load(path):
        height, width = picture.shape
        data = array.array("B", picture.tobytes())
        made.append(Image(height=height, width=width, step=width, encoding="mono8", data=data))
        made[-1].header.frame_id = "us_image"
    return made


def _joints(path: Path) -> list[JointState]:
    return [JointState(name=JOINT_NAMES, position=row.tolist()) for row in np.load(path)]


def _say(what: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
