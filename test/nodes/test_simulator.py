# SPDX-License-Identifier: Apache-2.0
"""The simulator streams as drivers do: wall time, geometry with each image, no truth; a late image is left out."""

import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch

pytest.importorskip("rclpy", reason="ROS 2 is not importable by this python: run through make test")
pytest.importorskip("usreg_msgs", reason="usreg_msgs is not built: run make build")
from sensor_msgs.msg import Image, JointState  # noqa: E402
from tf2_msgs.msg import TFMessage  # noqa: E402
from usreg_msgs.msg import UltrasoundGeometry  # noqa: E402

from usreg.data import bag_messages, bag_poses  # noqa: E402
from usreg.errors import ConfigError  # noqa: E402
from usreg.geometry import se3  # noqa: E402
from usreg.geometry.plane import PlaneGrid  # noqa: E402
from usreg.geometry.sector import full_rectangle  # noqa: E402
from usreg.nodes import convert  # noqa: E402
from usreg.nodes.simulator import SimulatorNode, simulated  # noqa: E402
from usreg.nodes.stamps import shifted  # noqa: E402

START_S, STEP_S, LATENCY_NS = 1000.0, 0.04, 20_000_000
FRAMES, JOINTS = 6, 24
GEOMETRY = full_rectangle(PlaneGrid(8, 16, ((0.5, 0.0), (0.0, 0.5))))
TRUTH = "/truth/tf"


class Entry(NamedTuple):
    """As a simulation gives them."""

    log_ns: int
    stamp_ns: int
    topic: str
    message: Any


class Scan:
    """Frames of 16x8 whose pixels count them, joints four times as often, and the truth."""

    def __init__(self, exposed: Callable[[int], Any] = lambda k: None, error: Exception | None = None) -> None:
        self.exposed, self.error = exposed, error

    def entries(self) -> Any:
        return iter(sorted([*self._statics(), *self._joints(), *self._frames()], key=lambda e: e.log_ns))

    def _statics(self) -> list[Entry]:
        poses = [bag_poses.StampedTransform(START_S, "us_probe", "us_image", se3.identity())]
        return [Entry(round(START_S * 1e9), round(START_S * 1e9), "/tf_static", bag_poses.encode_transforms(poses))]

    def _joints(self) -> list[Entry]:
        made = []
        for k in range(JOINTS):
            t = START_S + k * STEP_S / 4
            ns = round(t * 1e9)
            made.append(Entry(ns, ns, "/joint_states", bag_messages.encode_joints(t, ["a"], [t])))
        return made

    def _frames(self) -> list[Entry]:
        found = []
        for k in range(FRAMES):
            t = START_S + k * STEP_S
            ns = round(t * 1e9)
            poses = [bag_poses.StampedTransform(t, "world", "ct", se3.identity())]
            found.append(Entry(ns + LATENCY_NS, ns, "/us/geometry", bag_messages.encode_geometry(t, GEOMETRY)))
            found.append(Entry(ns + LATENCY_NS, ns, "/us/image", lambda k=k, t=t: self._image(k, t)))
            found.append(Entry(ns + LATENCY_NS, ns, TRUTH, bag_poses.encode_transforms(poses)))
        return found

    def _image(self, k: int, t: float) -> Any:
        self.exposed(k)
        if self.error is not None:
            raise self.error
        return bag_messages.encode_image(t, torch.full((8, 16), k, dtype=torch.uint8))


class Streamed:
    """What the test's own node hears of a simulator."""

    def __init__(self, bench: Any, source: Any, **parameters: Any) -> None:
        self.images = bench.hear(Image, "raw/image")
        self.geometries = bench.hear(UltrasoundGeometry, "raw/geometry")
        self.joints = bench.hear(JointState, "joint_states")
        remap = (f"/tf_static:=/{bench.namespace}/tf_static", f"/tf:=/{bench.namespace}/tf")
        self.statics = bench.hear(TFMessage, "tf_static", "tf_static_in")
        self.said: list[str] = []

        def make(**options: Any) -> SimulatorNode:
            return SimulatorNode(source, self.said.append, **options)

        self.begun_s = bench.probe.get_clock().now().nanoseconds * 1e-9
        self.node = bench.add(make, remap, wait_s=10.0, lookahead__ahead_s=0.5, **parameters)
        bench.until(lambda: self.node.finished)
        bench.spin(0.2)
        self.ended_s = bench.probe.get_clock().now().nanoseconds * 1e-9


def stamps(messages: list[Any]) -> list[float]:
    return [convert.stamp_to_s(m.header.stamp) for m in messages]


def test_drivers_topics_in_wall_time_with_the_latency_of_the_session(bench: Any) -> None:
    heard = Streamed(bench, Scan())
    assert not heard.node.failed and heard.node.diagnostics.drops == {}
    assert [m.data[0] for m in heard.images] == list(range(FRAMES)) and len(heard.joints) == JOINTS
    assert stamps(heard.images) == stamps(heard.geometries)
    assert convert.decode_geometry(heard.geometries[0])[1] == GEOMETRY
    assert [m.position[0] for m in heard.joints] == pytest.approx([START_S + k * STEP_S / 4 for k in range(JOINTS)])
    at = stamps(heard.joints)
    assert heard.begun_s <= at[0] and at[-1] <= heard.ended_s
    assert at == pytest.approx([at[0] + k * STEP_S / 4 for k in range(JOINTS)], abs=1e-6)
    assert stamps(heard.images) == pytest.approx([at[0] + k * STEP_S for k in range(FRAMES)], abs=1e-6)
    assert [[t.child_frame_id for t in m.transforms] for m in heard.statics] == [["us_image"]]
    assert not any("truth" in name for name, _ in bench.probe.get_topic_names_and_types())


def test_an_image_that_is_not_made_in_time_is_left_out_with_its_geometry(bench: Any) -> None:
    gate = threading.Event()
    try:
        heard = Streamed(bench, Scan(lambda k: gate.wait(30.0) if k == 3 else None), lookahead__workers=2)
    finally:
        gate.set()
    assert [m.data[0] for m in heard.images] == [0, 1, 2, 4, 5]
    assert stamps(heard.geometries) == stamps(heard.images) and len(heard.joints) == JOINTS
    assert heard.node.diagnostics.drops == {"late image": 1}
    assert heard.node.line() == "5 images streamed, 1 were not made in time"


def test_what_the_simulation_cannot_do_ends_the_stream_with_the_reason(bench: Any) -> None:
    heard = Streamed(bench, Scan(error=ConfigError("the arm cannot reach the path")))
    assert heard.node.failed and not heard.images
    level, text = heard.node.diagnostics.condition
    assert level == "ERROR" and "cannot reach" in text


def test_a_kind_that_is_not_simulated_is_refused() -> None:
    with pytest.raises(ConfigError, match="'replay' cannot be streamed"):
        simulated("replay", 0, 10.0)


def test_stamps_move_to_the_nanosecond() -> None:
    joints = shifted(bag_messages.encode_joints(1.25, ["a"], [0.5]), 7_900_000_001)
    assert (joints.header.stamp.sec, joints.header.stamp.nanosec) == (9, 150_000_001)
    poses = [bag_poses.StampedTransform(t, "a", f"b{t}", se3.identity()) for t in (1.0, 2.5)]
    moved = shifted(bag_poses.encode_transforms(poses), -500_000_000)
    assert [(t.header.stamp.sec, t.header.stamp.nanosec) for t in moved.transforms] == [(0, 500_000_000), (2, 0)]
