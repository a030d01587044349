# SPDX-License-Identifier: Apache-2.0
"""Bags: what is written is read, by us and by rosbags; the same content gives the same bytes."""

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rosbags.rosbag2 import Reader

from usreg.data.bag_messages import encode_image, make
from usreg.data.bag_poses import StampedTransform, encode_transforms
from usreg.data.bags import BagReader, BagWriter, describe_bag, latched, qos_profile
from usreg.data.definitions import full_text, message_definitions, new_store, register, standard_store
from usreg.errors import ConfigError, FileFormatError, MissingFileError, UsregError, WriteError
from usreg.geometry import se3

STRING = "std_msgs/msg/String"


def text(value: str):
    return make(STRING, value)


def write_some(path: Path, count: int = 50, **options) -> Path:
    with BagWriter(path, **options) as bag:
        for i in range(count):
            bag.write("/a", i * 10_000_000, text(f"message {i} " + "x" * (i % 7)))
            bag.write("/b", i * 10_000_000, make("std_msgs/msg/Float64", float(i)))
    return path


@pytest.mark.parametrize("compression", ["zstd", "lz4", "none"])
@pytest.mark.parametrize("name", ["bag", "bag.mcap"])
def test_round_trip(tmp_path, compression, name):
    path = write_some(tmp_path / name, compression=compression, chunk_bytes=500)
    with BagReader(path) as bag:
        got = list(bag.messages())
        assert not bag.truncated and bag.problems == []
        assert {n: t.count for n, t in bag.topics.items()} == {"/a": 50, "/b": 50}
    assert [(t, s) for t, s, _ in got[:3]] == [("/a", 0), ("/b", 0), ("/a", 10_000_000)]
    assert got[20][2].data == "message 10 xxx" and got[21][2].data == 10.0


def test_rosbags_reads_the_folder(tmp_path):
    write_some(tmp_path / "bag", 20)
    with Reader(tmp_path / "bag") as bag:
        rows = list(bag.messages())
        hashes = {c.msgtype: c.digest for c in bag.connections}
        assert bag.message_count == 40 and bag.duration == 190_000_001
    assert hashes[STRING] == standard_store().hash_rihs01(STRING)
    assert standard_store().deserialize_cdr(rows[2][2], STRING).data == "message 1 x"


def test_same_content_same_bytes(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_some(tmp_path / name / "bag", 200, chunk_bytes=2000)
    for file in ("bag_0.mcap", "metadata.yaml"):
        assert (tmp_path / "one/bag" / file).read_bytes() == (tmp_path / "two/bag" / file).read_bytes()


@settings(max_examples=25)
@given(
    st.lists(st.tuples(st.sampled_from(["/a", "/b", "/c"]), st.integers(0, 10**6), st.text(max_size=40)), max_size=60),
    st.sampled_from([1, 100, 10**6]),
)
def test_any_order_of_stamps(tmp_path_factory, rows, chunk_bytes):
    path = tmp_path_factory.mktemp("bag") / "bag"
    rows = [(t, s, v.replace("\x00", "").encode("utf-8", "ignore").decode()) for t, s, v in rows]
    with BagWriter(path, chunk_bytes=chunk_bytes) as bag:
        for topic, stamp, value in rows:
            bag.write(topic, stamp, text(value))
    with BagReader(path) as bag:
        got = [(t, s, m.data) for t, s, m in bag.messages()]
        assert (bag.span_ns or (0, 0)) == (min((r[1] for r in rows), default=0), max((r[1] for r in rows), default=0))
    assert got == sorted(
        rows, key=lambda r: r[1]
    )  # a stable sort: equal stamps keep the order in which they were written


def test_selected_topics_and_unknown_ones(tmp_path):
    with BagReader(write_some(tmp_path / "bag", 5)) as bag:
        assert [m.data for _, _, m in bag.messages(["/b"])] == [0, 1, 2, 3, 4]
        with pytest.raises(MissingFileError, match="/nothing.*it has"):
            next(bag.raw_messages(["/nothing"]))


def test_raw_bytes_pass_through(tmp_path):
    payload = bytes(standard_store().serialize_cdr(text("raw"), STRING))
    with BagWriter(tmp_path / "bag") as bag:
        bag.add_topic("/a", STRING)
        bag.write_raw("/a", 5, payload)
        bag.write_raw("/a", 6, payload + b"\0" * 8)  # rclpy's serializer leaves up to 8 bytes behind the message
        bag.write_raw("/a", 7, payload + b"\0" * 4)
    with BagReader(tmp_path / "bag") as bag:
        assert [r.data for r in bag.raw_messages()][0] == payload
        assert [m.data for _, _, m in bag.messages()] == ["raw"] * 3


def test_quality_of_service_is_kept(tmp_path):
    with BagWriter(tmp_path / "bag") as bag:
        bag.add_topic("/tf_static", "tf2_msgs/msg/TFMessage", [qos_profile(transient_local=True, depth=1)])
        bag.add_topic("/a", STRING, [qos_profile(reliable=False, depth=5)])
    with BagReader(tmp_path / "bag") as bag:
        assert latched(bag.topics["/tf_static"]) and not latched(bag.topics["/a"])
        assert bag.topics["/a"].qos == (qos_profile(reliable=False, depth=5),)
        assert bag.span_ns is None and list(bag.messages()) == []
    with Reader(tmp_path / "bag") as bag:
        assert bag.connections[0].ext.offered_qos_profiles == [qos_profile(transient_local=True, depth=1)]


def test_own_messages_carry_their_text():
    definitions = message_definitions()
    assert set(definitions) >= {
        f"usreg_msgs/msg/{n}" for n in ("UltrasoundGeometry", "Registration", "Hypotheses", "VolumeInfo")
    }
    whole = full_text(standard_store(), "usreg_msgs/msg/Registration")
    assert definitions["usreg_msgs/msg/Registration"].rstrip() in whole and "MSG: geometry_msgs/Point" in whole
    assert full_text(standard_store(), STRING) == "string data\n"


def test_unknown_types_are_read_by_the_schema_in_the_bag(tmp_path):
    definition = "float64[2] pair\nother_msgs/Inner inner\n" + "=" * 80 + "\nMSG: other_msgs/Inner\nstring name\n"
    store = new_store()
    register(store, "other_msgs/msg/Outer", definition)
    inner = store.types["other_msgs/msg/Inner"]("hello")
    message = store.types["other_msgs/msg/Outer"](np.array([1.0, 2.0]), inner)
    with BagWriter(tmp_path / "bag") as bag:
        bag.add_topic("/o", "other_msgs/msg/Outer", definition=definition)
        bag.write("/o", 1, message)
    with BagReader(tmp_path / "bag") as bag:
        ((_, _, got),) = bag.messages()
    assert got.inner.name == "hello" and got.pair.tolist() == [1.0, 2.0]


def test_an_older_definition_of_our_message_is_read_as_it_was(tmp_path):
    """The bag's schema decides, not the one that is built today."""
    name, definition = "usreg_msgs/msg/VolumeInfo", "string uri\nfloat64 old_field\n"
    store = standard_store().__class__()
    register(store, name, definition)
    payload = bytes(store.serialize_cdr(store.types[name]("u", 2.5), name))
    from mcap.writer import Writer

    with open(tmp_path / "bag.mcap", "wb") as file:
        writer = Writer(file)
        writer.start("ros2", "test")
        schema = writer.register_schema(name, "ros2msg", definition.encode())
        writer.add_message(writer.register_channel("/v", "cdr", schema), 1, payload, 1)
        writer.finish()
    with BagReader(tmp_path / "bag.mcap") as bag:
        ((_, _, got),) = bag.messages()
    assert got.old_field == 2.5


def test_bag_appears_only_when_closed(tmp_path):
    bag = BagWriter(tmp_path / "bag")
    bag.write("/a", 1, text("x"))
    assert not (tmp_path / "bag").exists()
    bag.close()
    assert (tmp_path / "bag/metadata.yaml").is_file() and [p.name for p in tmp_path.iterdir()] == ["bag"]
    with pytest.raises(WriteError, match="exists already: .*; nothing was changed$"):
        BagWriter(tmp_path / "bag")


def test_an_error_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), BagWriter(tmp_path / "bag") as bag:
        bag.write("/a", 1, text("x"))
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_wrong_use(tmp_path):
    with BagWriter(tmp_path / "bag") as bag:
        with pytest.raises(ConfigError, match="not declared"):
            bag.write_raw("/a", 1, b"")
        bag.write("/a", 1, text("x"))
        with pytest.raises(ConfigError, match="declared as std_msgs/msg/String"):
            bag.write("/a", 1, make("std_msgs/msg/Float64", 1.0))
        with pytest.raises(FileFormatError, match="rosbags' classes"):
            bag.write("/a", 1, "text")
        with pytest.raises(FileFormatError, match="does not fit std_msgs/msg/String"):
            bag.write("/a", 1, text(5))
        with pytest.raises(ConfigError, match="2\\^63"):
            bag.write("/a", -1, text("x"))
        with pytest.raises(MissingFileError, match="nowhere_msgs"):
            bag.add_topic("/n", "nowhere_msgs/msg/Nothing")
    with pytest.raises(WriteError, match="closed"):
        bag.write("/a", 2, text("x"))
    with BagReader(tmp_path / "bag") as reader:
        assert [m.data for _, _, m in reader.messages()] == ["x"]


def test_describe(tmp_path):
    path = write_some(tmp_path / "bag", 11)
    summary = describe_bag(path)
    assert summary["messages"] == 22 and summary["duration_s"] == pytest.approx(0.1) and summary["problems"] == []
    assert summary["topics"][0] == {
        "name": "/a", "type": STRING, "count": 11, "latched": False, "rate_hz": pytest.approx(100), "gaps": 0,
    }  # fmt: skip


def test_describe_images_transforms_gaps_and_damage(tmp_path):
    with BagWriter(tmp_path / "bag.mcap", chunk_bytes=1) as bag:
        for i in [0, 1, 2, 3, 9, 10]:
            bag.write("/us/image", i * 10**8, encode_image(i / 10, torch.zeros(6, 8, dtype=torch.uint8)))
            t = StampedTransform(i / 10, "world", "us_probe", se3.identity())
            bag.write("/tf", i * 10**8, encode_transforms([t]))
        bag.add_topic("/bad", STRING)
        bag.write_raw("/bad", 5, b"nonsense")
    summary = describe_bag(tmp_path / "bag.mcap")
    image = summary["topics"][0]
    assert image["sizes"] == ["8x6 mono8"] and image["gaps"] == 1 and image["rate_hz"] == pytest.approx(10)
    assert summary["transforms"] == {"us_probe in world": 6} and summary["problems"] == []
    data = bytearray((tmp_path / "bag.mcap").read_bytes())
    data[data.index(b"zstd") + 30] ^= 0xFF
    (tmp_path / "bag.mcap").write_bytes(data)
    assert "damaged" in describe_bag(tmp_path / "bag.mcap")["problems"][0]


def test_describe_session(top):
    """What `usreg info` says of the session that ships."""
    from usreg.data.describe import describe

    summary = describe(top / "bags" / "phantom")
    assert summary["kind"] == "session" and summary["bag"]["truncated"] is False
    assert {t["name"] for t in summary["bag"]["topics"]} >= {"/us/image", "/us/geometry", "/joint_states", "/truth/tf"}


@pytest.mark.parametrize(
    ("relative", "count", "topics"),
    [
        ("mcap/talker", 20, 3), ("mcap/wbag", 6074, 8), ("mcap/reindex_test_bags/multiple_files", 3177, 1),
        ("sqlite3/talker", 20, 3), ("sqlite3/wbag", 6074, 8), ("sqlite3/reindex_test_bags/multiple_files", 3177, 1),
        ("mcap/talker/talker.mcap", 20, 3), ("sqlite3/wbag/wbag_2.db3", 1240, 8),
    ],
)  # fmt: skip
def test_rosbag2s_own_bags(data_dir, relative, count, topics):
    with BagReader(data_dir / "rosbag2" / relative) as bag:
        stamps = [raw.log_ns for raw in bag.raw_messages()]
        assert len(stamps) == count == sum(t.count for t in bag.topics.values()) and len(bag.topics) == topics
        decoded = [m for t, _, m in bag.messages([t for t in bag.topics if t not in ("/rosout", "/parameter_events")])]
        assert decoded and all(isinstance(m.data, str) for m in decoded)
    assert stamps == sorted(stamps)


def test_a_schema_that_does_not_fit_its_messages(data_dir):
    """This bag declares rcl_interfaces/Log as 'uint8 level': the schema in the bag decides, and the message says so."""
    with BagReader(data_dir / "rosbag2/sqlite3/talker") as bag:
        with pytest.raises(FileFormatError, match="'/rosout' does not fit its type rcl_interfaces/msg/Log"):
            list(bag.messages(["/rosout"]))


@pytest.mark.parametrize(
    "content",
    [b"", b"not a bag", b"\x89MCAP0\r\n", b"\x89MCAP0\r\n" + b"\x06" + struct.pack("<Q", 2**62)],
    ids=["empty", "text", "magic", "huge"],
)
def test_no_mcap(tmp_path, content):
    path = tmp_path / "bag.mcap"
    path.write_bytes(content)
    if content.startswith(b"\x89MCAP"):
        with BagReader(path) as bag:
            assert bag.truncated and bag.topics == {} and list(bag.messages()) == []
    else:
        with pytest.raises(FileFormatError, match="does not begin as an MCAP"):
            BagReader(path)


@pytest.mark.parametrize("content", [b"", b"SQLite format 3\0" + b"\xff" * 500], ids=["empty", "damaged"])
def test_no_sqlite(tmp_path, content):
    path = tmp_path / "bag.db3"
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match="sqlite3"):
        BagReader(path)


def test_no_bag(tmp_path):
    with pytest.raises(MissingFileError, match="no bag 'nothing'"):
        BagReader(tmp_path / "nothing")
    with pytest.raises(FileFormatError, match="holds 0"):
        BagReader(tmp_path)
    (tmp_path / "image.png").write_bytes(b"x")
    with pytest.raises(FileFormatError, match="is not a bag"):
        BagReader(tmp_path / "image.png")


@pytest.mark.parametrize(
    "metadata",
    [
        "x: 1",
        "rosbag2_bagfile_information: [1]",
        "rosbag2_bagfile_information: {relative_file_paths: [../outside.mcap]}",
        "rosbag2_bagfile_information: {relative_file_paths: [/etc/passwd]}",
        "rosbag2_bagfile_information: {relative_file_paths: [gone.mcap]}",
        "rosbag2_bagfile_information: {relative_file_paths: [a.mcap], compression_mode: FILE}",
        "{",
    ],
)
def test_bad_metadata(tmp_path, metadata):
    write_some(tmp_path / "outside.mcap", 1)
    (tmp_path / "bag").mkdir()
    (tmp_path / "bag/metadata.yaml").write_text(metadata)
    with pytest.raises(UsregError):
        BagReader(tmp_path / "bag")
