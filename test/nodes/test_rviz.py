# SPDX-License-Identifier: Apache-2.0
"""config/usreg.rviz fits what the nodes publish: topics, message types, QoS; only displays that come with RViz.

Once by the sources, and once by the phantom's graph while it runs: its nodes are asked what they publish, and a node
that subscribes as RViz would hears every topic, in frames that TF knows.
"""

import ast
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

# displays, views and tools of rviz_default_plugins (Humble to Rolling)
DISPLAYS = set(
    """AccelStamped Axes Camera DepthCloud Effort FluidPressure Grid GridCells Illuminance Image InteractiveMarkers
    LaserScan Map Marker MarkerArray Odometry Path PointCloud PointCloud2 PointStamped Polygon Pose PoseArray
    PoseWithCovariance Range RelativeHumidity RobotModel TF Temperature TwistStamped Wrench""".split()
)
VIEWS = set("Orbit XYOrbit FPS ThirdPersonFollower TopDownOrtho".split())
TOOLS = set("FocusCamera Interact Measure MoveCamera PublishPoint Select SetGoal SetInitialPose".split())
SHOWS = {
    "Map": "OccupancyGrid",
    "MarkerArray": "MarkerArray",
    "PoseWithCovariance": "PoseWithCovarianceStamped",
    "Image": "Image",
}
WANTED = {
    "fusion/plane", "fusion/markers", "fusion/image", "fusion/slice", "us/image", "us/pose", "registration/smoothed",
    "registration/pose",
}  # fmt: skip
PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def manager(top: Path) -> dict[str, Any]:
    return yaml.safe_load((top / "config" / "usreg.rviz").read_text(encoding="utf-8"))["Visualization Manager"]


@pytest.fixture(scope="module")
def published(top: Path) -> dict[str, tuple[str, str]]:
    """Message type and QoS profile by topic, from the sources: qos.publisher(self, Type, "topic", "profile")."""
    found = {}
    for path in sorted((top / "src" / "usreg" / "usreg" / "nodes").glob("*.py")):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and ast.unparse(call.func) == "qos.publisher":
                _, kind, topic, profile = call.args
                if isinstance(topic, ast.Constant) and isinstance(profile, ast.Constant):
                    found[topic.value] = (ast.unparse(kind), profile.value)
    return found


def shown(manager: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """(display class, its topic with QoS) of every display of a topic."""
    return [(short(display), display["Topic"]) for display in manager["Displays"] if "Topic" in display]


def short(item: dict[str, Any]) -> str:
    package, _, name = item["Class"].partition("/")
    assert package == "rviz_default_plugins", f"{item['Class']} does not come with RViz"
    return name


def test_everything_is_stock(manager: dict[str, Any]) -> None:
    assert {short(display) for display in manager["Displays"]} <= DISPLAYS
    assert {short(tool) for tool in manager["Tools"]} <= TOOLS
    assert short(manager["Views"]["Current"]) in VIEWS


def test_the_fixed_frame_is_the_world(manager: dict[str, Any]) -> None:
    from usreg.nodes.parameters import FrameConfig

    assert manager["Global Options"]["Fixed Frame"] == FrameConfig().world_frame


def test_topics_are_published_with_the_type_that_is_shown(manager: dict[str, Any], published: dict[str, Any]) -> None:
    topics = {topic["Value"]: SHOWS[name] for name, topic in shown(manager)}
    assert set(topics) == WANTED
    assert topics == {topic: published[topic][0] for topic in topics}


def test_quality_of_service_fits_the_publisher(manager: dict[str, Any], published: dict[str, Any]) -> None:
    from usreg.nodes.qos import PROFILES

    for _, topic in shown(manager):
        _, reliable, latched = PROFILES[published[topic["Value"]][1]]
        assert topic["History Policy"] == "Keep Last" and topic["Depth"] >= 1
        assert topic["Reliability Policy"] == ("Reliable" if reliable else "Best Effort"), topic["Value"]
        assert topic["Durability Policy"] == ("Transient Local" if latched else "Volatile"), topic["Value"]


def test_the_plane_is_shown_as_it_is(manager: dict[str, Any]) -> None:
    (plane,) = [display for display in manager["Displays"] if short(display) == "Map"]
    assert plane["Color Scheme"] == "raw" and plane["Alpha"] == 1
    assert plane["Use Timestamp"] is False  # with it RViz would wait for TF at the frame's stamp
    assert plane["Update Topic"]["Value"] == plane["Topic"]["Value"] + "_updates"


# --- the running graph ---


class Rviz:
    """A node that subscribes to what the file shows, as RViz does, in the namespace of a running phantom session."""

    def __init__(self, manager: dict[str, Any], namespace: str) -> None:
        import rclpy

        self.node = rclpy.create_node("rviz", namespace=namespace)
        self.heard: dict[str, Any] = {}
        self.frames: dict[str, str] = {}
        self.topics = {topic["Value"]: (SHOWS[name], topic) for name, topic in shown(manager)}
        for name, (kind, topic) in self.topics.items():
            self.node.create_subscription(message_class(kind), name, self._taker(name), quality(topic))
        self._hear_tf()

    def _taker(self, name: str) -> Any:
        def take(message: Any) -> None:
            if getattr(message, "markers", True):
                self.heard.setdefault(name, []).append(message)

        return take

    def _hear_tf(self) -> None:
        from tf2_msgs.msg import TFMessage

        from usreg.nodes import qos

        def take(message: Any) -> None:
            self.frames.update({t.child_frame_id: t.header.frame_id for t in message.transforms})

        for name, profile in (("/tf", "tf"), ("/tf_static", "tf_static_in")):
            self.node.create_subscription(TFMessage, name, take, qos.profile(profile))

    def known(self, frame: str) -> bool:
        """Whether TF leads from a frame to the fixed one."""
        while frame in self.frames and frame != "world":
            frame = self.frames[frame]
        return frame == "world"


def message_class(kind: str) -> Any:
    import geometry_msgs.msg
    import nav_msgs.msg
    import sensor_msgs.msg
    import visualization_msgs.msg

    packages = (geometry_msgs, nav_msgs, sensor_msgs, visualization_msgs)
    return next(getattr(p.msg, kind) for p in packages if hasattr(p.msg, kind))


def quality(topic: dict[str, Any]) -> Any:
    """Quality of service as the file asks for it."""
    from rclpy.qos import DurabilityPolicy, HistoryPolicy, LivelinessPolicy, QoSProfile, ReliabilityPolicy

    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=topic["Depth"],
        reliability=ReliabilityPolicy[topic["Reliability Policy"].upper().replace(" ", "_")],
        durability=DurabilityPolicy[topic["Durability Policy"].upper().replace(" ", "_")],
        liveliness=LivelinessPolicy.AUTOMATIC,
    )


@pytest.fixture(scope="module")
def running(ros: None, manager: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rviz]:
    """The phantom's graph with a node that listens as RViz does, once everything was heard."""
    from usreg.nodes.base import make_executor

    folder = tmp_path_factory.mktemp("rviz")
    code = "from usreg.cli import main; main()"
    command = [sys.executable, "-c", code, "run", "phantom", "namespace:=rviz_test", "loop:=true", "view:=false"]
    environment = os.environ | {"XDG_CACHE_HOME": str(folder)}
    said = (folder / "said").open("w+")
    process = subprocess.Popen(
        command, env=environment, stdout=said, stderr=subprocess.STDOUT, cwd=folder, start_new_session=True
    )
    executor, rviz = make_executor(), Rviz(manager, "rviz_test")
    executor.add_node(rviz.node)
    try:
        end = time.monotonic() + PATIENCE_S
        while not (
            rviz.topics.keys() <= rviz.heard.keys() and {"ct", "us_image"} <= rviz.frames.keys() and organs(rviz)
        ):
            if process.poll() is not None or time.monotonic() > end:
                said.seek(0)
                pytest.fail(f"heard {sorted(rviz.heard)}, frames {sorted(rviz.frames)}:\n{said.read()}")
            executor.spin_once(timeout_sec=0.05)
        yield rviz
    finally:
        executor.remove_node(rviz.node)
        rviz.node.destroy_node()
        process.send_signal(signal.SIGINT)
        process.wait(30)


def organs(rviz: Rviz) -> list[Any]:
    """Markers that name a file."""
    return [m for array in rviz.heard.get("fusion/markers", []) for m in array.markers if m.mesh_resource]


def test_the_running_graph_publishes_every_topic_of_the_file(running: Rviz) -> None:
    from rclpy.qos import QoSCompatibility, qos_check_compatible

    for name, (kind, topic) in running.topics.items():
        publishers = running.node.get_publishers_info_by_topic(name)
        assert publishers, f"nobody publishes {name}"
        for publisher in publishers:
            assert publisher.topic_type.rpartition("/")[2] == kind, name
            fits, why = qos_check_compatible(publisher.qos_profile, quality(topic))
            assert fits == QoSCompatibility.OK, f"{name}: {why}"


def test_what_the_running_graph_sends_is_in_frames_that_tf_knows(running: Rviz) -> None:
    for name, messages in running.heard.items():
        parts = [part for message in messages for part in getattr(message, "markers", [message])]
        assert all(running.known(part.header.frame_id) for part in parts), name
    markers = {m.ns for array in running.heard["fusion/markers"] for m in array.markers}
    assert {"sector", "sweep", "liver"} <= markers
    assert all(Path(m.mesh_resource.removeprefix("file://")).is_file() for m in organs(running))


def test_every_frame_that_the_file_names_is_known(manager: dict[str, Any], running: Rviz) -> None:
    text = yaml.safe_dump(manager)
    named = {line.partition(":")[2].strip() for line in text.splitlines() if "Frame:" in line}
    named -= {"Local", "<Fixed Frame>"}  # RViz's own words
    assert named == {"world"} and all(map(running.known, named))
