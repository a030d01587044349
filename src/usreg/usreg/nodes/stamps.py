# SPDX-License-Identifier: Apache-2.0
"""Messages of rosbags' classes with their stamps moved to another clock, as bytes. Imports nothing of ROS."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..data.bag_messages import make
from ..data.definitions import standard_store

NS = 10**9


def shifted(message: Any, offset_ns: int) -> Any:
    """The message with its header's stamp, or those of its transforms, moved by nanoseconds."""
    if hasattr(message, "transforms"):
        return replace(message, transforms=[_moved(t, offset_ns) for t in message.transforms])
    return _moved(message, offset_ns)


def _moved(message: Any, offset_ns: int) -> Any:
    stamp = message.header.stamp
    moved = divmod(stamp.sec * NS + stamp.nanosec + offset_ns, NS)
    return replace(message, header=replace(message.header, stamp=make("builtin_interfaces/msg/Time", *moved)))


def serialised(message: Any) -> bytes:
    """CDR bytes, as rclpy publishes them."""
    return bytes(standard_store().serialize_cdr(message, message.__msgtype__))
