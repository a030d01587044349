# SPDX-License-Identifier: Apache-2.0
"""Bags against ROS's own messages, where the client library is installed: same types, same bytes, both ways."""

import importlib
import json
from pathlib import Path

import pytest

from usreg.data import bag_messages, bag_poses
from usreg.data.bags import BagReader, BagWriter, RawMessage
from usreg.data.definitions import definition_folder, message_definitions, standard_store

serialization = pytest.importorskip(
    "rclpy.serialization", reason="no rclpy: run 'make build', or source a distribution"
)
DECODERS = {
    "/us/image": bag_messages.decode_image,
    "/us/geometry": bag_messages.decode_geometry,
    "/joint_states": bag_messages.decode_joints,
    "/tf_static": bag_poses.decode_transforms,
    "/truth/tf": bag_poses.decode_transforms,
}


def ros_class(type_name: str):
    package, _, name = type_name.split("/")
    return getattr(pytest.importorskip(f"{package}.msg"), name)


def first_messages(top: Path) -> dict[str, RawMessage]:
    first: dict[str, RawMessage] = {}
    with BagReader(top / "bags" / "phantom" / "bag") as bag:
        for raw in bag.raw_messages():
            first.setdefault(raw.topic, raw)
    return first


def test_type_hashes_are_those_of_the_built_packages():
    folder = definition_folder()
    built = sorted(folder.glob("*.json"))
    if not built:
        pytest.skip("usreg_msgs is not built: its hashes are unknown")
    for name in message_definitions():
        described = json.loads((folder / f"{name.split('/')[-1]}.json").read_text())
        hashes = {row["type_name"]: row["hash_string"] for row in described["type_hashes"]}
        assert hashes[name] == standard_store().hash_rihs01(name)


@pytest.mark.parametrize("topic", sorted(DECODERS))
def test_rclpy_reads_our_bytes_and_we_read_its(top, topic):
    raw = first_messages(top)[topic]
    message = serialization.deserialize_message(raw.data, ros_class(raw.type_name))
    ours = standard_store().deserialize_cdr(raw.data, raw.type_name)
    decode = DECODERS[topic]
    assert repr(decode(message)) == repr(decode(ours))  # one decoder for both kinds of objects


@pytest.mark.parametrize("topic", sorted(DECODERS))
def test_bytes_of_rclpy_are_read_from_a_bag(top, tmp_path, topic):
    """Its serializer leaves bytes behind the message."""
    raw = first_messages(top)[topic]
    data = serialization.serialize_message(serialization.deserialize_message(raw.data, ros_class(raw.type_name)))
    with BagWriter(tmp_path / "bag") as bag:
        bag.add_topic(topic, raw.type_name)
        bag.write_raw(topic, 1, data)
    with BagReader(tmp_path / "bag") as bag:
        ((_, _, got),) = bag.messages()
    assert repr(DECODERS[topic](got)) == repr(
        DECODERS[topic](standard_store().deserialize_cdr(raw.data, raw.type_name))
    )


def test_any_type_of_a_built_package_can_be_recorded(tmp_path):
    """What the standard types lack is found in the packages' share folders."""
    importlib.import_module("rcl_interfaces.msg")
    with BagWriter(tmp_path / "bag") as bag:
        for name in ("diagnostic_msgs/msg/DiagnosticArray", "usreg_msgs/msg/Hypotheses", "rcl_interfaces/msg/Log"):
            bag.add_topic(f"/{name.split('/')[-1]}", name)
    with BagReader(tmp_path / "bag") as bag:
        assert len(bag.topics) == 3 and all(t.type_hash.startswith("RIHS01_") for t in bag.topics.values())
