# SPDX-License-Identifier: Apache-2.0
"""config/usreg.rviz fits what the nodes publish: topics, message types, QoS; only displays that come with RViz."""

import ast
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
WANTED = {"fusion/plane", "fusion/markers", "fusion/image", "us/image", "us/pose", "registration/smoothed"}


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
