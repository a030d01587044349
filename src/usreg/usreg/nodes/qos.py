# SPDX-License-Identifier: Apache-2.0
"""Quality of service by name. Every profile may be overridden by the parameters `qos_overrides.<topic>...`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSPolicyKind, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription

from ..errors import ConfigError

# name: (depth, reliable, transient local)
PROFILES = {
    "image_out": (5, True, False),  # images and their geometry, from acquisition and the player
    "newest": (1, False, False),  # registration: the newest frame wins
    "tracking_in": (30, True, False),  # geometry into arm_tracking: small, none may be missed
    "fusion_in": (10, True, False),
    "result": (10, True, False),  # poses, estimates, fused pictures
    "joint_states": (500, True, False),
    "tf": (500, True, False),
    "tf_static": (1, True, True),  # a broadcaster keeps all its statics in one message
    "tf_static_in": (100, True, True),
    "latched": (1, True, True),  # volume, hypotheses
    "recorder": (200, True, False),
    "recorder_latched": (200, True, True),
    "clock": (10, True, False),
    "diagnostics": (10, True, False),
}
OVERRIDABLE = (QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH, QoSPolicyKind.RELIABILITY, QoSPolicyKind.DURABILITY)


def profile(name: str) -> QoSProfile:
    """A profile by its name.

    Raises:
        ConfigError: there is none of this name.
    """
    if name not in PROFILES:
        raise ConfigError(f"there is no QoS profile '{name}'; known: {sorted(PROFILES)}")
    depth, reliable, latched = PROFILES[name]
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=depth,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )


def publisher(node: Node, kind: Any, topic: str, name: str) -> Publisher:
    """Publisher with a named profile; on a lifecycle node it stays silent until the node is active."""
    options = QoSOverridingOptions(OVERRIDABLE)
    make = getattr(node, "create_lifecycle_publisher", node.create_publisher)
    return make(kind, topic, profile(name), qos_overriding_options=options)


def subscription(
    node: Node, kind: Any, topic: str, callback: Callable[..., None], name: str, raw: bool = False
) -> Subscription:
    """Subscription with a named profile. A publisher that cannot be heard (incompatible QoS) is logged by rclpy."""
    options = QoSOverridingOptions(OVERRIDABLE)
    return node.create_subscription(kind, topic, callback, profile(name), qos_overriding_options=options, raw=raw)
