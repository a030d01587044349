# SPDX-License-Identifier: Apache-2.0
"""The player over the real middleware: clock, order, statics, pause, step, lock-step, loop, damaged bags."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("rclpy", reason="ROS 2 is not importable by this python: run through make test")
pytest.importorskip("usreg_msgs", reason="usreg_msgs is not built: run make build")
import rclpy  # noqa: E402
from diagnostic_msgs.msg import DiagnosticArray  # noqa: E402
from geometry_msgs.msg import PoseWithCovarianceStamped  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from rosgraph_msgs.msg import Clock  # noqa: E402
from sensor_msgs.msg import Image, JointState  # noqa: E402
from std_srvs.srv import SetBool, Trigger  # noqa: E402
from tf2_msgs.msg import TFMessage  # noqa: E402

from usreg.data import bag_messages, bag_poses  # noqa: E402
from usreg.data.bags import BagWriter, qos_profile  # noqa: E402
from usreg.errors import ConfigError, MissingFileError, UsregError  # noqa: E402
from usreg.geometry import se3  # noqa: E402
from usreg.nodes import convert, qos  # noqa: E402
from usreg.nodes.player import PlayerNode  # noqa: E402
from usreg.nodes.player_config import PlayerConfig, stamp_ns  # noqa: E402

START_S = 1000.0
FRAMES, STEP_S = 10, 0.02
JOINTS_PER_FRAME = 2
Record = tuple[float, str, int]


def static(child: str, parent: str = "world") -> bag_poses.StampedTransform:
    return bag_poses.StampedTransform(START_S, parent, child, se3.identity())


def write_bag(path: Path, compression: Any = "zstd", frames: int = FRAMES, chunk_bytes: int = 1024 * 1024) -> Path:
    """Frames of 16x8, joints twice as often, statics, moving transforms, and a truth that nobody may hear."""
    with BagWriter(path, compression=compression, chunk_bytes=chunk_bytes) as bag:
        bag.add_topic("/tf_static", "tf2_msgs/msg/TFMessage", [qos_profile(transient_local=True)])
        statics = bag_poses.encode_transforms([static("base"), static("us_probe", "flange")])
        bag.write("/tf_static", round(START_S * 1e9), statics)
        for k in range(frames):
            stamp_s = START_S + k * STEP_S
            image = torch.full((8, 16), k, dtype=torch.uint8)
            moving = bag_poses.encode_transforms([static("needle"), static("link_1", "base")])
            bag.write("/us/image", round(stamp_s * 1e9), bag_messages.encode_image(stamp_s, image))
            bag.write("/tf", round(stamp_s * 1e9), moving)
            bag.write("/truth", round(stamp_s * 1e9), moving)
            for j in range(JOINTS_PER_FRAME):
                at_s = stamp_s + (j + 0.5) * STEP_S / JOINTS_PER_FRAME
                bag.write("/joint_states", round(at_s * 1e9), bag_messages.encode_joints(at_s, ["a"], [0.1 * k]))
    return path


@pytest.fixture
def bag(tmp_path: Path) -> Path:
    return write_bag(tmp_path / "bag")


class Played:
    """What the test's own node hears of a player."""

    def __init__(self, bench: Any, bag: Path, remap: tuple[str, ...] = (), **parameters: Any) -> None:
        self.bench = bench
        self.order: list[tuple[str, float]] = []
        self.images = self._hear(Image, "us/image", "image", lambda m: convert.stamp_to_s(m.header.stamp))
        self.joints = self._hear(JointState, "joint_states", "joints", lambda m: convert.stamp_to_s(m.header.stamp))
        # a clock of its own: other tests' players are gone, other nodes of this process do not simulate time
        self.clock = self._hear(Clock, "clock", "clock", lambda m: convert.stamp_to_s(m.clock))
        self.moving = bench.hear(TFMessage, "tf", "tf")
        remap = (f"/clock:=/{bench.namespace}/clock", f"/tf:=/{bench.namespace}/tf", *remap)
        remap = (f"/tf_static:=/{bench.namespace}/tf_static", *remap)
        defaults = {"bag": str(bag), "wait_for": ["us/image=1", "joint_states=1"], "wait_s": 10.0, "settle_s": 0.0}
        self.node = bench.add(PlayerNode, remap, **(defaults | parameters))

    def _hear(self, kind: Any, topic: str, name: str, stamp: Callable[[Any], float]) -> list[Any]:
        found: list[Any] = []

        def on_message(message: Any) -> None:
            found.append(message)
            self.order.append((name, stamp(message)))

        self.bench.probe.create_subscription(kind, topic, on_message, qos.profile("recorder"))
        return found

    def to_the_end(self) -> "Played":
        self.bench.until(lambda: self.node.finished)
        self.bench.spin(0.2)
        return self

    def times(self, name: str) -> list[float]:
        return [at for kind, at in self.order if kind == name]


def test_everything_is_played_once_in_order_as_it_was_recorded(bench: Any, bag: Path) -> None:
    played = Played(bench, bag).to_the_end()
    assert [m.data[0] for m in played.images] == list(range(FRAMES))
    assert len(played.joints) == FRAMES * JOINTS_PER_FRAME
    assert [m.position[0] for m in played.joints] == pytest.approx([0.1 * (k // 2) for k in range(2 * FRAMES)])
    assert not played.node.failed
    assert not any("truth" in name for name, _ in bench.probe.get_topic_names_and_types())


def test_the_clock_never_runs_backwards_and_shows_every_stamp_first(bench: Any, bag: Path) -> None:
    played = Played(bench, bag, rate=0.5).to_the_end()
    clock = played.times("clock")
    assert clock == sorted(clock)
    # at half speed a message comes each 20 ms: the clock ticks between them too, each 10 ms
    assert len(set(clock)) > FRAMES * 3
    assert {round(at, 6) for at in played.times("image")} <= {round(at, 6) for at in clock}


def test_rate_is_kept(bench: Any, bag: Path) -> None:
    played = Played(bench, bag, rate=0.25)
    bench.until(lambda: bool(played.images))
    begin = time.monotonic()
    played.to_the_end()
    recorded = (FRAMES - 0.25) * STEP_S  # from the first frame to the last joint
    assert recorded / 0.25 - 0.1 < time.monotonic() - begin - 0.2 < recorded / 0.25 + 0.6


def test_statics_come_once_without_the_edges_that_a_node_owns(bench: Any, bag: Path) -> None:
    played = Played(bench, bag, owned_frames=["us_probe", "link_1"])
    statics = bench.hear(TFMessage, "tf_static", "tf_static_in")  # a late listener: they are latched
    played.to_the_end()
    assert [[t.child_frame_id for t in m.transforms] for m in statics] == [["base"]]
    assert {t.child_frame_id for m in played.moving for t in m.transforms} == {"needle"}


def moved_static(x_mm: float, stamp_s: float) -> Any:
    place = se3.translation(torch.tensor([x_mm, 0.0, 0.0], dtype=torch.float64))
    return bag_poses.encode_transforms([bag_poses.StampedTransform(stamp_s, "us_probe", "us_image", place)])


def write_change(path: Path) -> Path:
    """Ten frames; the image's place in the probe changes between the fifth and the sixth."""
    with BagWriter(path) as bag:
        for at_s, x_mm in ((START_S, 1.0), (START_S + 4.5 * STEP_S, 2.0)):
            bag.write("/tf_static", round(at_s * 1e9), moved_static(x_mm, at_s))
        for k in range(FRAMES):
            stamp_s = START_S + k * STEP_S
            image = bag_messages.encode_image(stamp_s, torch.full((8, 16), k, dtype=torch.uint8))
            bag.write("/us/image", round(stamp_s * 1e9), image)
    return path


def test_a_static_that_changes_is_told_at_its_time(bench: Any, tmp_path: Path) -> None:
    order: list[str] = []

    def on_static(message: TFMessage) -> None:
        order.extend(str(round(1000 * t.transform.translation.x)) for t in message.transforms)

    bench.probe.create_subscription(TFMessage, "tf_static", on_static, qos.profile("tf_static_in"))
    bench.probe.create_subscription(Image, "us/image", lambda m: order.append("image"), qos.profile("recorder"))
    Played(bench, write_change(tmp_path / "change"), wait_for=["us/image=2"], rate=0.2).to_the_end()
    assert order == ["1", *["image"] * 5, "2", *["image"] * 5]


def test_statics_begin_again_with_the_bag(bench: Any, tmp_path: Path) -> None:
    statics = bench.hear(TFMessage, "tf_static", "tf_static_in")
    played = Played(bench, write_change(tmp_path / "change"), wait_for=["us/image=1"], exit_at_end=False)
    bench.until(lambda: len(played.images) == FRAMES)
    bench.call(Trigger, "player/restart", Trigger.Request())
    bench.until(lambda: len(played.images) == 2 * FRAMES)
    assert [round(1000 * m.transforms[0].transform.translation.x) for m in statics] == [1, 2, 1, 2]


def test_all_transforms_are_played_where_no_node_owns_them(bench: Any, bag: Path) -> None:
    played = Played(bench, bag).to_the_end()
    assert [len(m.transforms) for m in played.moving] == [2] * FRAMES


def test_nothing_is_played_before_the_subscribers_are_there(bench: Any, bag: Path) -> None:
    played = Played(bench, bag, wait_for=["us/image=2"])
    bench.spin(0.5)
    assert not played.images and not played.node.finished
    second = bench.hear(Image, "us/image")
    played.to_the_end()
    assert len(second) == FRAMES


def test_nobody_waits_for_who_only_looks_on(bench: Any, bag: Path) -> None:
    page = rclpy.create_node("web_view", namespace=bench.namespace)
    try:
        for topic in ("us/image", "registration/estimate"):
            page.create_subscription(Image, topic, lambda message: None, qos.profile("newest"))
        bench.until(lambda: bench.probe.count_subscribers("registration/estimate") == 1)
        played = Played(bench, bag, wait_for=["us/image=1", "registration/estimate=1"], wait_s=0.5).to_the_end()
    finally:
        page.destroy_node()
    assert played.node.failed and "['registration/estimate']" in played.node.diagnostics.condition[1]


def test_a_listener_that_never_comes_is_told_by_name(bench: Any, bag: Path) -> None:
    played = Played(bench, bag, wait_for=["registration/estimate=3"], wait_s=0.3).to_the_end()
    assert played.node.failed and not played.images
    assert "registration/estimate" in played.node.diagnostics._state[1]


def test_pause_and_go_on(bench: Any, bag: Path) -> None:
    played = Played(bench, bag, rate=0.4)
    bench.until(lambda: len(played.images) == 2)
    assert played.node.diagnostics.facts["paused"] == "False"
    told = bench.hear(DiagnosticArray, "/diagnostics", "diagnostics")
    bench.until(lambda: bool(told))  # the next one by the second comes later
    told.clear()
    assert bench.call(SetBool, "player/pause", SetBool.Request(data=True)).success
    bench.until(
        lambda: any(p.key == "paused" and p.value == "True" for p in told[0].status[0].values) if told else False
    )
    heard, clock = len(played.images), len(played.clock)
    bench.spin(0.4)
    assert len(played.images) <= heard + 1 and len(played.clock) <= clock + 15
    still = len(played.clock)
    bench.spin(0.2)
    assert len(played.clock) == still, "simulated time stands still in a pause"
    bench.call(SetBool, "player/pause", SetBool.Request(data=False))
    played.to_the_end()
    assert len(played.images) == FRAMES
    assert (played.node.diagnostics.facts["paused"], played.node.diagnostics.facts["ended"]) == ("False", "True")


def test_a_step_is_one_frame_and_what_lies_before_the_next(bench: Any, bag: Path) -> None:
    played = Played(bench, bag, paused=True)
    bench.spin(0.6)
    assert not played.images
    for k in range(1, 4):
        bench.call(Trigger, "player/step", Trigger.Request())
        bench.until(lambda k=k: len(played.images) == k and len(played.joints) == k * JOINTS_PER_FRAME)
        bench.spin(0.15)
        assert len(played.images) == k and len(played.joints) == k * JOINTS_PER_FRAME


def test_lockstep_waits_for_the_answer_to_each_frame(bench: Any, bag: Path) -> None:
    played = Played(bench, bag, lockstep=["registration/pose"], lockstep_s=10.0, rate=10.0)
    answers = bench.probe.create_publisher(PoseWithCovarianceStamped, "registration/pose", 10)
    for k in range(FRAMES):
        bench.until(lambda k=k: len(played.images) == k + 1)
        bench.spin(0.05)
        assert len(played.images) == k + 1
        wrong = convert.header(START_S - 1.0, "world")  # a late answer to another frame
        answers.publish(PoseWithCovarianceStamped(header=wrong))
        bench.spin(0.05)
        assert len(played.images) == k + 1
        stamp_s = convert.stamp_to_s(played.images[-1].header.stamp)
        answers.publish(PoseWithCovarianceStamped(header=convert.header(stamp_s, "world")))
    played.to_the_end()
    assert played.node.diagnostics.drops == {}


def test_lockstep_goes_on_without_an_answer_and_counts_it(bench: Any, tmp_path: Path) -> None:
    played = Played(bench, write_bag(tmp_path / "b", frames=4), lockstep=["registration/pose"], lockstep_s=0.1)
    played.to_the_end()
    assert len(played.images) == 4 and played.node.diagnostics.drops == {"no answer": 3}


def test_a_loop_tells_the_jump_of_the_clock_before_any_message(bench: Any, bag: Path) -> None:
    played = Played(bench, bag, loop=True)
    bench.until(lambda: len(played.images) > FRAMES + 2, 15.0)
    second = next(i for i, (a, b) in enumerate(zip(played.order, played.order[1:], strict=False)) if b[1] < a[1] - 0.1)
    assert played.order[second + 1][0] == "clock"
    assert [m.data[0] for m in played.images[: FRAMES + 1]] == [*range(FRAMES), 0]


def test_restart_begins_again_also_after_the_end(bench: Any, bag: Path) -> None:
    played = Played(bench, bag, exit_at_end=False)
    bench.until(lambda: len(played.joints) == FRAMES * JOINTS_PER_FRAME)
    bench.spin(0.2)
    assert not played.node.finished
    assert bench.call(Trigger, "player/restart", Trigger.Request()).success
    bench.until(lambda: len(played.images) == 2 * FRAMES)
    assert [m.data[0] for m in played.images] == [*range(FRAMES), *range(FRAMES)]


def test_restart_in_the_middle(bench: Any, bag: Path) -> None:
    played = Played(bench, bag, rate=0.2)
    bench.until(lambda: len(played.images) == 3)
    bench.call(Trigger, "player/restart", Trigger.Request())
    bench.until(lambda: len(played.images) >= 5)
    seen = [m.data[0] for m in played.images]
    back = seen.index(0, 1)
    assert 3 <= back < FRAMES and seen[back : back + 2] in ([0], [0, 1])


def test_topics_follow_the_namespace_and_remappings(bench: Any, bag: Path) -> None:
    images = bench.hear(Image, "raw/image")
    played = Played(bench, bag, ("us/image:=raw/image",), wait_for=["raw/image=1"]).to_the_end()
    assert len(images) == FRAMES and not played.images


# --- bags that are damaged, and what is refused ---


def test_a_bag_that_is_cut_off_is_played_as_far_as_it_goes(bench: Any, tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "cut", "none", chunk_bytes=1500)
    file = next(bag.glob("*.mcap"))
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    played = Played(bench, bag).to_the_end()
    assert 1 <= len(played.images) < FRAMES and not played.node.failed
    level, text = played.node.diagnostics._state
    assert level == "WARN" and text


def test_a_damaged_chunk_is_left_out(bench: Any, tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "broken", "none", chunk_bytes=1500)
    file = next(bag.glob("*.mcap"))
    data = bytearray(file.read_bytes())
    place = data.find(bytes([4]) * 128)  # pixels of the fifth frame
    assert place > 0
    data[place] ^= 0xFF
    file.write_bytes(bytes(data))
    played = Played(bench, bag).to_the_end()
    seen = [m.data[0] for m in played.images]
    assert 4 not in seen and {0, FRAMES - 1} <= set(seen) and played.node.diagnostics._state[0] == "WARN"


def test_a_message_with_transforms_that_makes_no_sense_is_left_out(bench: Any, tmp_path: Path) -> None:
    path = tmp_path / "bad_tf"
    with BagWriter(path) as bag:
        bag.write("/us/image", 10**9, bag_messages.encode_image(1.0, torch.zeros(8, 16, dtype=torch.uint8)))
        bag.add_topic("/tf", "tf2_msgs/msg/TFMessage")
        bag.write_raw("/tf", 10**9, b"\x00\x01\x00\x00\xff\xff\xff\x0f")
    played = Played(bench, path, wait_for=["us/image=1"], owned_frames=["x"]).to_the_end()
    assert len(played.images) == 1 and played.node.diagnostics.drops == {"damaged": 1}


def make(**parameters: Any) -> PlayerNode:
    return PlayerNode(parameter_overrides=[Parameter(k, value=v) for k, v in parameters.items()])


def test_an_empty_bag_is_said_to_be_empty(bench: Any, tmp_path: Path) -> None:
    with BagWriter(tmp_path / "empty") as bag:
        bag.add_topic("/us/image", "sensor_msgs/msg/Image")
    played = Played(bench, tmp_path / "empty", loop=True, wait_for=[]).to_the_end()
    assert played.node.failed and "nothing to play" in played.node.diagnostics._state[1]


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({}, "no bag is named"),
        ({"bag": "nowhere"}, "no bag 'nowhere'"),
        ({"topics": ["/us/image", "/truth"]}, "truth"),
        ({"topics": ["/us/image", "/truth/tf"]}, "truth"),
        ({"topics": ["/joint_states"]}, "no images on '/us/image'"),
        ({"image_topic": "/camera"}, "no images on '/camera'"),
        ({"rate": 0.0}, "rate"),
        ({"wait_for": ["us/image"]}, "topic=count"),
        ({"lockstep": ["nothing"]}, "lockstep"),
        ({"speed": 2.0}, r"no parameter \['speed'\]"),
    ],
)
def test_what_cannot_be_played_is_refused(ros: None, bag: Path, parameters: dict[str, Any], said: str) -> None:
    named = parameters if not parameters or "bag" in parameters else {"bag": str(bag), **parameters}
    with pytest.raises((ConfigError, MissingFileError), match=said):
        make(**named)


def test_a_type_that_has_changed_since_the_recording_is_refused(ros: None, tmp_path: Path) -> None:
    with BagWriter(tmp_path / "old") as bag:
        image = bag_messages.encode_image(1.0, torch.zeros(8, 16, dtype=torch.uint8))
        bag.write("/us/image", 10**9, image)
    file = next((tmp_path / "old").glob("*.mcap"))
    data = file.read_bytes()
    place = data.index(b"RIHS01_")
    file.write_bytes(data.replace(data[place : place + 71], b"RIHS01_" + b"0" * 64))
    with pytest.raises(UsregError, match="is not the type that is installed"):
        make(bag=str(tmp_path / "old"))


@pytest.mark.parametrize("data", [b"", b"\x00\x01\x00\x00", b"\x00\x01\x00\x00" + b"\x01" * 7])
def test_the_stamp_of_too_few_bytes_is_zero(data: bytes) -> None:
    assert stamp_ns(data) == 0


def test_stamps_are_read_in_either_byte_order() -> None:
    assert stamp_ns(b"\x00\x01\x00\x00" + (7).to_bytes(4, "little") + (5).to_bytes(4, "little")) == 7 * 10**9 + 5
    assert stamp_ns(b"\x00\x00\x00\x00" + (7).to_bytes(4, "big") + (5).to_bytes(4, "big")) == 7 * 10**9 + 5


def test_the_truth_is_not_among_what_is_played_by_default() -> None:
    assert not any("truth" in topic for topic in PlayerConfig(bag="x").topics)
