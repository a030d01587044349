# SPDX-License-Identifier: Apache-2.0
"""One sqlite3 file of a rosbag2 bag, read through rosbags."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw
from rosbags.interfaces import Connection, ConnectionExtRosbag2, MessageDefinitionFormat
from rosbags.rosbag2 import Reader, ReaderError

from ..errors import FileFormatError
from .bag_types import RawMessage, Topic

TOPIC_BITS = 16  # of a message's place: its topic, below its time


class Db3File:
    """An open sqlite3 file: topics and messages in order of log time."""

    truncated = False

    def __init__(self, path: Path, number: int = 0) -> None:
        self.path, self.number = path, number
        self.problems: list[str] = []
        with self._readable():
            self._reader = Reader(path)
            self._reader.open()
        self.topics = [_topic(c) for c in self._reader.connections]

    def close(self) -> None:
        """Close the file."""
        self._reader.close()

    @property
    def span_ns(self) -> tuple[int, int] | None:
        """First and last log time; None where there is no message."""
        return (self._reader.start_time, self._reader.end_time - 1) if self._reader.message_count else None

    def raw(self, wanted: set[str] | None = None) -> Iterator[RawMessage]:
        """Messages of the wanted topics."""
        connections = [c for c in self._reader.connections if wanted is None or c.topic in wanted]
        with self._readable():
            for connection, stamp, data in self._reader.messages(connections) if connections else ():
                place = (self.number, (stamp << TOPIC_BITS) + connection.id)
                yield RawMessage(connection.topic, connection.msgtype, stamp, data, place)

    def read(self, order: int) -> RawMessage:
        """One message again: by its time and its topic."""
        stamp, topic = order >> TOPIC_BITS, order & ((1 << TOPIC_BITS) - 1)
        connections = [c for c in self._reader.connections if c.id == topic]
        with self._readable():
            for connection, found, data in self._reader.messages(connections, stamp, stamp + 1) if connections else ():
                return RawMessage(connection.topic, connection.msgtype, found, data, (self.number, order))
        raise FileFormatError(f"'{self.path.name}' has no such message at {stamp} ns: has it changed?")

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except (apsw.Error, ReaderError, ValueError, TypeError, KeyError) as error:
            raise FileFormatError(f"'{self.path.name}' is not a readable rosbag2 sqlite3 file: {error}") from error


def _topic(connection: Connection) -> Topic:
    definition, ext = connection.msgdef, connection.ext
    if not isinstance(ext, ConnectionExtRosbag2):
        raise FileFormatError(f"topic '{connection.topic}' is of ROS 1; convert the bag with 'rosbags-convert'")
    encoding = "ros2idl" if definition.format == MessageDefinitionFormat.IDL else "ros2msg"
    return Topic(
        connection.topic, connection.msgtype, tuple(ext.offered_qos_profiles), definition.data, encoding,
        connection.digest, connection.msgcount, ext.serialization_format,
    )  # fmt: skip
