# SPDX-License-Identifier: Apache-2.0
"""The recorder over the real middleware: bytes as they came, services, a full disk, a killed process."""

import errno
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("rclpy", reason="ROS 2 is not importable by this python: run through make test")
pytest.importorskip("usreg_msgs", reason="usreg_msgs is not built: run make build")
from diagnostic_msgs.msg import DiagnosticArray  # noqa: E402
from geometry_msgs.msg import PoseWithCovarianceStamped  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from rclpy.serialization import deserialize_message, serialize_message  # noqa: E402
from rosgraph_msgs.msg import Clock  # noqa: E402
from sensor_msgs.msg import Image, Imu  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402
from usreg_msgs.msg import Registration, VolumeInfo  # noqa: E402

from usreg.data import bag_writer  # noqa: E402
from usreg.data.bags import BagReader  # noqa: E402
from usreg.errors import ConfigError, UsregError, WriteError  # noqa: E402
from usreg.nodes import convert, qos  # noqa: E402
from usreg.nodes.recorder import RecorderConfig, RecorderNode  # noqa: E402
from usreg.nodes.recording import Recording  # noqa: E402


def image(k: int, side: int = 16) -> Image:
    return convert.image_to_msg(torch.full((side, side), k % 256, dtype=torch.uint8), 5.0 + 0.1 * k, "us_image")


def recorded(path: Path, topic: str) -> list[Any]:
    with BagReader(path) as bag:
        return [message for _, _, message in bag.messages([topic])]


def test_messages_are_recorded_as_they_came(bench: Any, tmp_path: Path) -> None:
    node = bench.add(RecorderNode, bag=str(tmp_path / "bag"))
    sent = [image(k) for k in range(5)]
    for message in sent:
        bench.say("us/image", message)
    estimate = Registration(system="intensity", reason="äöü", score=0.5)
    bench.say("registration/estimate", estimate)
    bench.until(lambda: node.diagnostics.total >= 6)
    node.stop()
    with BagReader(tmp_path / "bag") as bag:
        raw = [m for m in bag.raw_messages() if m.topic.endswith("us/image")]
        # serialized twice a message is not the same to the byte: gaps between its fields hold what lay in memory
        assert [deserialize_message(m.data, Image) for m in raw] == sent
        assert all(0 <= len(m.data) - len(serialize_message(sent[0])) + 4 <= 8 for m in raw), "nothing but padding"
        assert all(abs(m.log_ns * 1e-9 - time.time()) < 60 for m in raw), "log time is the time of reception"
        assert bag.topics[f"/{bench.namespace}/us/image"].type_name == "sensor_msgs/msg/Image"
        assert not bag.truncated and not bag.problems
    assert recorded(tmp_path / "bag", f"/{bench.namespace}/registration/estimate")[0].reason == "äöü"


def test_what_was_latched_before_it_began_is_recorded_with_its_durability(bench: Any, tmp_path: Path) -> None:
    from usreg.data.bags import latched

    volume = bench.probe.create_publisher(VolumeInfo, "volume", qos.profile("latched"))
    volume.publish(VolumeInfo(modality="CT"))
    node = bench.add(RecorderNode, bag=str(tmp_path / "bag"), topics=["volume"])
    bench.until(lambda: node.diagnostics.total == 1)
    node.stop()
    with BagReader(tmp_path / "bag") as bag:
        assert [latched(t) for t in bag.topics.values()] == [True]


def test_before_simulated_time_begins_messages_wait_for_its_first_stamp(bench: Any, tmp_path: Path) -> None:
    remap = (f"/clock:=/{bench.namespace}/clock",)
    node = bench.add(RecorderNode, remap, bag=str(tmp_path / "bag"), topics=["us/image", "volume"], use_sim_time=True)
    bench.say("volume", VolumeInfo(modality="CT"), "latched")
    bench.spin(0.3)
    assert node.diagnostics.total == 0
    for k in range(3):
        bench.say("clock", Clock(clock=convert.s_to_stamp(100.0 + k)))
        bench.until(lambda k=k: node.now_s() == 100.0 + k)
        bench.say("us/image", image(k))
        bench.until(lambda k=k: node.diagnostics.total == k + 2)
    node.stop()
    with BagReader(tmp_path / "bag") as bag:
        assert [(m.topic.rpartition("/")[2], m.log_ns // 10**9) for m in bag.raw_messages()] == [
            ("volume", 100), ("image", 100), ("image", 101), ("image", 102),
        ]  # fmt: skip


def test_start_and_stop_by_service(bench: Any, tmp_path: Path) -> None:
    target = tmp_path / "take"
    node = bench.add(RecorderNode, bag=str(target), topics=["us/image"], autostart=False)
    assert not bench.call(Trigger, "recorder/stop", Trigger.Request()).success
    out = bench.probe.create_publisher(Image, "us/image", qos.profile("recorder"))
    bench.spin(0.3)
    assert not target.exists() and not list(node.subscriptions), "one that waits costs nothing"
    assert bench.call(Trigger, "recorder/start", Trigger.Request()).message == f"recording into {target}"
    again = bench.call(Trigger, "recorder/start", Trigger.Request())
    assert not again.success and "stop first" in again.message
    bench.say("us/image", image(1))
    bench.until(lambda: node.diagnostics.total == 1)
    assert bench.call(Trigger, "recorder/stop", Trigger.Request()).success
    bench.until(lambda: out.get_subscription_count() == 0)
    out.publish(image(2))
    bench.spin(0.1)
    assert [m.data[0] for m in recorded(target, f"/{bench.namespace}/us/image")] == [1]
    assert str(tmp_path / "take_2") in bench.call(Trigger, "recorder/start", Trigger.Request()).message
    bench.say("us/image", image(3))
    bench.until(lambda: node.diagnostics.total == 2)
    node.stop()
    assert [m.data[0] for m in recorded(tmp_path / "take_2", f"/{bench.namespace}/us/image")] == [3]


def test_a_dated_recorder_names_each_bag_by_its_start(bench: Any, tmp_path: Path) -> None:
    target = tmp_path / "recordings" / "usreg"
    node = bench.add(RecorderNode, bag=str(target), topics=["us/image"], autostart=False, dated=True)
    assert node.diagnostics.facts == {"recording": "False", "path": ""}
    assert bench.call(Trigger, "recorder/start", Trigger.Request()).success
    (made,) = target.parent.iterdir()
    assert re.fullmatch(r"usreg_\d{8}_\d{6}", made.name)
    assert node.diagnostics.facts == {"recording": "True", "path": str(made)}
    assert bench.call(Trigger, "recorder/stop", Trigger.Request()).success
    assert node.diagnostics.facts["recording"] == "False" and not list(node.subscriptions)


def test_a_topic_of_an_unknown_name_is_taken_from_its_publisher(bench: Any, tmp_path: Path) -> None:
    node = bench.add(RecorderNode, bag=str(tmp_path / "bag"), topics=["imu", "us/image"])
    out = bench.probe.create_publisher(Imu, "imu", 10)
    bench.until(lambda: out.get_subscription_count() == 1)
    bench.spin(0.1)
    out.publish(Imu())
    bench.until(lambda: node.diagnostics.total == 1)
    node.stop()
    assert len(recorded(tmp_path / "bag", f"/{bench.namespace}/imu")) == 1


def test_an_existing_bag_is_never_touched(ros: None, tmp_path: Path) -> None:
    (tmp_path / "bag").mkdir()
    (tmp_path / "bag" / "precious").write_text("x")
    node = RecorderNode(parameter_overrides=[Parameter("bag", value=str(tmp_path / "bag"))])
    try:
        with pytest.raises(WriteError, match="'.*' exists already: choose another name.*nothing was changed"):
            node.start()
        assert not node.on_start(Trigger.Request(), Trigger.Response()).success
        assert [p.name for p in (tmp_path / "bag").iterdir()] == ["precious"]
    finally:
        node.stop()
        node.destroy_node()


@pytest.mark.parametrize("values", [{"bag": ""}, {"topics": ()}, {"queue": 1}])
def test_a_recorder_without_a_bag_or_topics_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        RecorderConfig(**values)


def test_pictures_of_fusion_and_the_truth_are_off_by_default() -> None:
    topics = RecorderConfig().topics
    assert {"us/image", "us/geometry", "joint_states", "registration/estimate", "/tf", "/tf_static"} <= set(topics)
    assert not any("fusion" in t or "truth" in t for t in topics)


# --- a full disk ---


class FullDisk:
    """A file whose disk is full after some bytes."""

    def __init__(self, file: Any, room: int) -> None:
        self._file, self._room = file, room

    def write(self, data: Any) -> int:
        if self._file.tell() + len(data) > self._room:
            written = self._file.write(data[: max(0, self._room - self._file.tell())])
            if written:
                return written
            raise OSError(errno.ENOSPC, "No space left on device")
        return self._file.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@pytest.fixture
def small_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    before = bag_writer._Output.__init__

    def make(self: Any, path: Path) -> None:
        before(self, path)
        self._file = FullDisk(self._file, 120_000)

    monkeypatch.setattr(bag_writer._Output, "__init__", make)


def noise(k: int) -> Image:
    """An image that cannot be compressed."""
    pixels = torch.randint(0, 256, (64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(k))
    return convert.image_to_msg(pixels, 5.0 + k, "us_image")


def test_a_full_disk_ends_the_recording_and_nothing_else(bench: Any, tmp_path: Path, small_disk: None) -> None:
    heard = bench.hear(DiagnosticArray, "/diagnostics", "diagnostics")
    node = bench.add(RecorderNode, bag=str(tmp_path / "bag"), topics=["us/image"])
    for k in range(60):
        bench.say("us/image", noise(k))
        bench.spin(0.03)
        if node.recording.failed:
            break
    assert node.recording.failed
    statuses: list[Any] = []

    def told() -> bool:
        statuses[:] = [s for m in heard for s in m.status if s.name.startswith(f"/{bench.namespace}/recorder")]
        return bool(statuses) and statuses[-1].level == b"\x02"

    bench.until(told, 5.0)
    assert "No space left on device" in statuses[-1].message and "stays readable" in statuses[-1].message
    bench.say("us/image", noise(0))  # the node lives on and serves
    assert not bench.call(Trigger, "recorder/stop", Trigger.Request()).success
    with BagReader(tmp_path / "bag") as bag:
        kept = [bag.decode(m).header.stamp.sec for m in bag.raw_messages()]
    assert kept == [5 + k for k in range(len(kept))] and 1 <= len(kept) < 30


def test_after_a_full_disk_a_new_bag_can_be_begun(
    bench: Any, tmp_path: Path, small_disk: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = bench.add(RecorderNode, bag=str(tmp_path / "bag"), topics=["us/image"])
    for k in range(60):
        node.recording.take(f"/{bench.namespace}/us/image", (1 + k) * 10**9, bytes(serialize_message(noise(k))))
    bench.until(lambda: node.recording.failed)
    monkeypatch.undo()
    assert bench.call(Trigger, "recorder/start", Trigger.Request()).success
    bench.say("us/image", image(7))
    bench.until(lambda: (tmp_path / "bag_2").exists() and node.diagnostics.total > 0)
    bench.spin(0.2)
    node.stop()
    assert [m.data[0] for m in recorded(tmp_path / "bag_2", f"/{bench.namespace}/us/image")] == [7]


LIMITED = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, resource.RLIM_INFINITY))
from usreg.nodes.recorder import main
main(["--ros-args", "-p", f"bag:={sys.argv[1]}", "-p", "topics:=['us/image']", "-r", f"__ns:=/{sys.argv[2]}"])
"""
PLAIN = "\n".join(line for line in LIMITED.splitlines() if "SIGXFSZ" not in line and "setrlimit" not in line)


class Process:
    """A recorder in a process of its own; the middleware runs in it as it does in a session."""

    def __init__(self, code: str, folder: Path, name: str) -> None:
        import usreg

        self.bag, self.name = folder / name, f"recorder_{name}"
        root = str(Path(usreg.__file__).parents[1])
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
        words = [sys.executable, "-c", code, str(self.bag), self.name]
        self.process = subprocess.Popen(words, stderr=subprocess.PIPE, env=environment)

    def connect(self, bench: Any) -> None:
        """Wait until its subscription is matched."""
        self.bench = bench
        self.out = bench.probe.create_publisher(Image, f"/{self.name}/us/image", qos.profile("recorder"))
        bench.until(lambda: self.out.get_subscription_count() == 1, 60.0)
        bench.spin(0.5)  # the other side has matched, too

    def say(self, count: int, make: Callable[[int], Image], pause_s: float) -> None:
        for k in range(count):
            self.out.publish(make(k))
            self.bench.spin(pause_s)

    def end(self, how: int) -> tuple[int, str]:
        self.process.send_signal(how)
        _, errors = self.process.communicate(timeout=20)
        return self.process.returncode, errors.decode()


@pytest.fixture(scope="module", autouse=True)
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Process]]:
    """All started with the first test of this file: most of their time goes into imports, meanwhile others run."""
    folder = tmp_path_factory.mktemp("recordings")
    codes = {"limited": LIMITED, "killed": PLAIN, "asked": PLAIN}
    made = {name: Process(code, folder, name) for name, code in codes.items()}
    yield made
    for running in made.values():
        if running.process.poll() is None:
            running.process.kill()
            running.process.communicate()


def test_a_recorder_at_a_limit_of_the_system_lives_on(bench: Any, processes: dict[str, Process]) -> None:
    """The same with a real failure of the system's write: the limit of a file's size."""
    running = processes["limited"]
    running.connect(bench)
    running.say(40, noise, 0.05)
    assert running.process.poll() is None
    code, errors = running.end(signal.SIGTERM)
    assert code == 0 and "recording has ended" in errors and "File too large" in errors and "Traceback" not in errors
    with BagReader(running.bag) as bag:
        assert 1 <= sum(1 for _ in bag.raw_messages()) < 40


def test_a_killed_recorder_leaves_what_it_recorded(
    bench: Any, processes: dict[str, Process], clean_leftovers: Callable[[float], list[str]]
) -> None:
    since = time.time() - 120.0
    running = processes["killed"]
    running.connect(bench)
    running.say(10, image, 0.1)
    bench.spin(0.8)  # nothing comes any more: what waits is written
    assert running.end(signal.SIGKILL)[0] == -signal.SIGKILL
    with BagReader(running.bag) as bag:
        assert bag.truncated
        assert len(list(bag.raw_messages())) == 10
    heard = bench.hear(PoseWithCovarianceStamped, "us/pose")  # the rest of the graph goes on
    bench.say("us/pose", PoseWithCovarianceStamped())
    bench.until(lambda: len(heard) == 1)
    clean_leftovers(since)


def test_a_recorder_that_is_asked_to_end_closes_its_bag(bench: Any, processes: dict[str, Process]) -> None:
    running = processes["asked"]
    running.connect(bench)
    running.say(3, image, 0.03)
    bench.spin(0.2)
    code, errors = running.end(signal.SIGINT)
    assert code == 0 and "Traceback" not in errors
    with BagReader(running.bag) as bag:
        assert not bag.truncated and len(list(bag.raw_messages())) == 3
    assert (running.bag / "metadata.yaml").is_file()


# --- the writing thread alone ---


def begin(path: Path, failures: list[UsregError], waiting: int = 50) -> Recording:
    made = Recording(path, waiting, lambda stamp_ns: None, failures.append)
    made.add_topic("/us/image", "sensor_msgs/msg/Image", latched=False)
    return made


def test_a_slow_disk_is_told_and_never_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, before = threading.Event(), bag_writer.BagWriter.write_raw

    def slow(self: Any, *arguments: Any) -> None:
        gate.wait(10.0)
        before(self, *arguments)

    monkeypatch.setattr(bag_writer.BagWriter, "write_raw", slow)
    recording = begin(tmp_path / "bag", [])
    data = bytes(serialize_message(image(0)))
    began = time.monotonic()
    taken = [recording.take("/us/image", 10**9 + k, data) for k in range(80)]
    assert time.monotonic() - began < 1.0
    assert 50 <= sum(taken) <= 51 and not taken[-1]
    gate.set()
    recording.close()
    assert len(recorded(tmp_path / "bag", "/us/image")) == sum(taken)


def test_closing_never_hangs_on_a_full_queue_and_a_dead_disk(tmp_path: Path, small_disk: None) -> None:
    failures: list[UsregError] = []
    recording = begin(tmp_path / "bag", failures, waiting=10)
    for k in range(200):
        recording.take("/us/image", (1 + k) * 10**9, bytes(serialize_message(noise(k % 7))))
    began = time.monotonic()
    recording.close()
    assert time.monotonic() - began < 5.0
    while recording.take("/us/image", 10**12, b"") is False:
        pytest.fail("a recording that has ended asks for nothing")
    assert recording.failed == bool(failures)


def test_a_message_of_a_topic_that_was_not_declared_ends_it_with_a_reason(tmp_path: Path) -> None:
    failures: list[UsregError] = []
    recording = begin(tmp_path / "bag", failures)
    recording.take("/us/image", 10**9, bytes(serialize_message(image(1))))
    recording.take("/other", 2 * 10**9, b"\x00\x01\x00\x00")
    recording.close()
    assert len(failures) == 1 and "/other" in str(failures[0])
    assert len(recorded(tmp_path / "bag", "/us/image")) == 1
