# SPDX-License-Identifier: Apache-2.0
"""Topics of the graph: type and quality of service, for the nodes that treat them all alike (player, recorder)."""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple

from ..errors import ConfigError


class Topic(NamedTuple):
    """Type name, and whether the last message is kept for late subscribers."""

    type_name: str
    latched: bool = False


POSE = "geometry_msgs/msg/PoseWithCovarianceStamped"
IMAGE = "sensor_msgs/msg/Image"
TRANSFORMS = "tf2_msgs/msg/TFMessage"
TOPICS = {
    "us/image": Topic(IMAGE),
    "us/geometry": Topic("usreg_msgs/msg/UltrasoundGeometry"),
    "us/pose": Topic(POSE),
    "joint_states": Topic("sensor_msgs/msg/JointState"),
    "registration/estimate": Topic("usreg_msgs/msg/Registration"),
    "registration/pose": Topic(POSE),
    "registration/smoothed": Topic(POSE),
    "registration/lagged": Topic(POSE),
    "registration/breathing": Topic("usreg_msgs/msg/Breathing"),
    "registration/hypotheses": Topic("usreg_msgs/msg/Hypotheses", True),
    "volume": Topic("usreg_msgs/msg/VolumeInfo", True),
    "target": Topic("geometry_msgs/msg/PointStamped"),
    "fusion/image": Topic(IMAGE),
    "fusion/slice": Topic(IMAGE),
    "fusion/plane": Topic("nav_msgs/msg/OccupancyGrid"),
    "fusion/markers": Topic("visualization_msgs/msg/MarkerArray"),
    "/tf": Topic(TRANSFORMS),
    "/tf_static": Topic(TRANSFORMS, True),
    "/diagnostics": Topic("diagnostic_msgs/msg/DiagnosticArray"),
}
ABSOLUTE = ("/tf", "/tf_static", "/clock", "/diagnostics")


def relative(name: str) -> str:
    """A bag's topic as the graph names it: relative, so that a namespace applies, but for those that ROS shares."""
    return name if name in ABSOLUTE else name.lstrip("/")


def message_class(type_name: str) -> Any:
    """Class of a message type, package/msg/Name.

    Raises:
        ConfigError: the package is not installed.
    """
    package, _, name = type_name.split("/")
    try:
        return getattr(importlib.import_module(f"{package}.msg"), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"message type {type_name} is not installed: build or source its package") from error
