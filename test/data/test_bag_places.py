# SPDX-License-Identifier: Apache-2.0
"""Messages found again by their place: in any order, in any kind of bag."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from mcap.writer import Writer

from usreg.data.bag_messages import encode_image, encode_joints
from usreg.data.bag_types import RawMessage
from usreg.data.bags import BagReader, BagWriter
from usreg.errors import FileFormatError

COUNT = 40


def messages(rng: np.random.Generator) -> list[tuple[str, int, object]]:
    found: list[tuple[str, int, object]] = []
    for k in range(COUNT):
        image = torch.from_numpy(rng.integers(0, 256, (20, 30), dtype=np.uint8))
        found.append(("/us/image", 1_000_000_000 + k, encode_image(1.0 + k, image)))
        found.append(("/joint_states", 1_000_000_000 + k, encode_joints(1.0 + k, ["a"], [0.1 * k])))
    return found


@pytest.mark.parametrize("compression", ["zstd", "lz4", "none"])
def test_any_message_is_read_again(tmp_path: Path, rng: np.random.Generator, compression: str) -> None:
    with BagWriter(tmp_path / "bag", compression=compression, chunk_bytes=2000) as bag:  # type: ignore[arg-type]
        for topic, ns, message in messages(rng):
            bag.write(topic, ns, message)
    with BagReader(tmp_path / "bag") as reader:
        assert_found_again(reader, rng)


def assert_found_again(reader: BagReader, rng: np.random.Generator) -> None:
    whole = list(reader.raw_messages())
    assert len(whole) == 2 * COUNT and len({m.place for m in whole}) == len(whole)
    for k in rng.permutation(len(whole)):
        assert reader.read(whole[k].place) == whole[k]


def test_messages_outside_chunks_and_several_files(tmp_path: Path, rng: np.random.Generator) -> None:
    made = messages(rng)
    with BagWriter(tmp_path / "whole") as bag:
        for topic, ns, message in made:
            bag.write(topic, ns, message)
    folder = tmp_path / "split"
    folder.mkdir()
    with BagReader(tmp_path / "whole") as reader:
        raw = list(reader.raw_messages())
        loose(folder / "a_0.mcap", reader, raw[:30])
        loose(folder / "a_1.mcap", reader, raw[30:])
    with BagReader(folder) as reader:
        assert_found_again(reader, rng)


def loose(path: Path, reader: BagReader, raw: list[RawMessage]) -> None:
    """A file without chunks."""
    with path.open("wb") as file:
        writer = Writer(file, use_chunking=False)
        writer.start(profile="ros2")
        channels = {}
        for m in raw:
            if m.topic not in channels:
                schema = writer.register_schema(m.type_name, "ros2msg", reader.topics[m.topic].definition.encode())
                channels[m.topic] = writer.register_channel(m.topic, "cdr", schema)
            writer.add_message(channels[m.topic], m.log_ns, m.data, m.log_ns)
        writer.finish()


def test_a_sqlite3_bag(tmp_path: Path, rng: np.random.Generator) -> None:
    from rosbags.rosbag2 import StoragePlugin
    from rosbags.rosbag2 import Writer as Rosbag2Writer

    with BagWriter(tmp_path / "whole") as bag:
        for topic, ns, message in messages(rng):
            bag.write(topic, ns, message)
    with BagReader(tmp_path / "whole") as reader:
        store = reader._store(reader.topics["/us/image"])
        with Rosbag2Writer(tmp_path / "db3", version=9, storage_plugin=StoragePlugin.SQLITE3) as writer:
            names = reader.topics.values()
            connections = {t.name: writer.add_connection(t.name, t.type_name, typestore=store) for t in names}
            for raw in reader.raw_messages():
                writer.write(connections[raw.topic], raw.log_ns, raw.data)
    with BagReader(tmp_path / "db3") as reader:
        assert_found_again(reader, rng)


def test_a_place_where_nothing_lies_is_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    with BagWriter(tmp_path / "bag") as bag:
        for topic, ns, message in messages(rng):
            bag.write(topic, ns, message)
    with BagReader(tmp_path / "bag") as reader:
        part, order = next(iter(reader.raw_messages())).place
        for place in ((part + 1, order), (part, order + 10_000), (part, 1), (-1, order)):
            with pytest.raises(FileFormatError):
                reader.read(place)
