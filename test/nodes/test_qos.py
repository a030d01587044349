# SPDX-License-Identifier: Apache-2.0
"""QoS by name: the profiles of the design, overrides by parameters, and what cannot be heard is told."""

from typing import Any

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not importable by this python: run through make test")
import rclpy  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy  # noqa: E402
from std_msgs.msg import String  # noqa: E402

from usreg.errors import ConfigError  # noqa: E402
from usreg.nodes import qos  # noqa: E402


@pytest.mark.parametrize(
    ("name", "depth", "reliable", "latched"),
    [
        ("image_out", 5, True, False),
        ("newest", 1, False, False),
        ("fusion_in", 10, True, False),
        ("recorder", 200, True, False),
        ("joint_states", 500, True, False),
        ("tf", 500, True, False),
        ("tf_static_in", 100, True, True),
        ("latched", 1, True, True),
    ],
)
def test_profiles_are_those_of_the_design(name: str, depth: int, reliable: bool, latched: bool) -> None:
    profile = qos.profile(name)
    assert profile.depth == depth
    assert (profile.reliability == ReliabilityPolicy.RELIABLE) == reliable
    assert (profile.durability == DurabilityPolicy.TRANSIENT_LOCAL) == latched


def test_an_unknown_profile_is_refused() -> None:
    with pytest.raises(ConfigError, match="image_out"):
        qos.profile("image")


def test_profiles_can_be_overridden(ros: None) -> None:
    over = {"qos_overrides./talk.subscription.depth": 7, "qos_overrides./talk.subscription.reliability": "reliable"}
    node = rclpy.create_node("overridden", parameter_overrides=[Parameter(k, value=v) for k, v in over.items()])
    try:
        profile = qos.subscription(node, String, "talk", lambda message: None, "newest").qos_profile
        assert profile.depth == 7
        assert profile.reliability == ReliabilityPolicy.RELIABLE
    finally:
        node.destroy_node()


def test_a_publisher_that_cannot_be_heard_is_told(bench: Any, capfd: pytest.CaptureFixture[str]) -> None:
    """A best-effort driver and a reliable subscription do not meet: the log says so."""
    heard = bench.hear(String, "talk", "fusion_in")
    mute = bench.probe.create_publisher(String, "talk", QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT))
    told: list[str] = []

    def listen() -> bool:
        mute.publish(String(data="hello"))
        told.append(capfd.readouterr().err)
        return "incompatible QoS" in "".join(told)

    bench.until(listen)
    assert not heard
