# SPDX-License-Identifier: Apache-2.0
"""Reading bags: a rosbag2 folder (MCAP or sqlite3, split or not, with or without metadata.yaml) or a single file."""

from __future__ import annotations

import heapq
import logging
import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from rosbags.rosbag2.metadata import parse_qos
from rosbags.serde import SerdeError
from rosbags.typesys import TypesysError
from rosbags.typesys.store import Typestore

from ..config import load_yaml
from ..errors import ConfigError, FileFormatError, MissingFileError
from .bag_types import BagLimits, Place, RawMessage, Topic
from .db3_file import Db3File
from .definitions import check_type_name, full_text, register, standard_store
from .mcap_file import Entry, McapFile
from .share import inside

log = logging.getLogger(__name__)
SUFFIXES = (".mcap", ".db3")


class _McapPart:
    """An MCAP file as topics and raw messages."""

    def __init__(self, path: Path, limits: BagLimits, skip_damaged: bool, number: int = 0) -> None:
        self.file, self.number = McapFile(path, limits, skip_damaged), number
        self._topics = {i: self._topic(i) for i in self.file.channels}
        self.topics = list(self._topics.values())
        self.span_ns = self.file.span_ns

    def _topic(self, number: int) -> Topic:
        channel, schema = self.file.channels[number], self.file.schemas.get(self.file.channels[number].schema_id)
        try:
            qos = tuple(parse_qos(channel.metadata.get("offered_qos_profiles", "")))
            text = schema.data.decode("utf-8") if schema else ""
        except Exception as error:  # rosbags raises what its YAML reader and enumerations raise
            raise FileFormatError(
                f"topic '{channel.topic}' of '{self.file.path.name}' is not described readably: {error}"
            ) from error
        return Topic(
            channel.topic, schema.name if schema else "", qos, text, schema.encoding if schema else "",
            channel.metadata.get("topic_type_hash", ""), self.file.counts[number], channel.message_encoding,
        )  # fmt: skip

    def raw(self, wanted: set[str] | None = None) -> Iterator[RawMessage]:
        numbers = {i for i, t in self._topics.items() if wanted is None or t.name in wanted}
        return map(self._message, self.file.entries(numbers))

    def read(self, order: int) -> RawMessage:
        return self._message(self.file.entry(order))

    def _message(self, entry: Entry) -> RawMessage:
        log_ns, order, channel, data = entry
        topic = self._topics[channel]
        return RawMessage(topic.name, topic.type_name, log_ns, data, (self.number, order))

    @property
    def truncated(self) -> bool:
        return self.file.truncated

    @property
    def problems(self) -> list[str]:
        return self.file.problems

    def close(self) -> None:
        self.file.close()


class BagReader:
    """A bag, read without ROS. Use it as a context manager, or call `close`.

    Args:
        path: a rosbag2 folder, an `.mcap` or a `.db3` file.
        skip_damaged: leave out damaged chunks and say so in `problems`, instead of raising.

    Attributes:
        topics: `Topic` by name, in the order of the bag.
        truncated: the recording was cut off; what came before the cut is read.
        problems: what could not be read, in words.

    Raises:
        MissingFileError: nothing there. FileFormatError: no bag, or one beyond the limits.
    """

    def __init__(self, path: str | Path, limits: BagLimits | None = None, skip_damaged: bool = False) -> None:
        self.path = Path(path)
        self._limits = limits or BagLimits()
        self._stores: dict[str, Typestore] = {}
        with ExitStack() as stack:
            self._parts: list[_McapPart | Db3File] = []
            for number, file in enumerate(bag_files(self.path, self._limits)):
                mcap = file.suffix != ".db3"
                part = _McapPart(file, self._limits, skip_damaged, number) if mcap else Db3File(file, number)
                stack.callback(part.close)
                self._parts.append(part)
            self.topics = self._merged_topics()
            self._stack = stack.pop_all()
        for problem in self.problems:
            log.warning("%s", problem)

    def __enter__(self) -> BagReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close its files."""
        self._stack.close()

    @property
    def truncated(self) -> bool:
        """Whether a file of the bag has no proper end."""
        return any(part.truncated for part in self._parts)

    @property
    def problems(self) -> list[str]:
        """What could not be read; grows while reading with `skip_damaged`."""
        return [problem for part in self._parts for problem in part.problems]

    @property
    def span_ns(self) -> tuple[int, int] | None:
        """First and last log time, ns; None for a bag without messages."""
        spans = [part.span_ns for part in self._parts if part.span_ns]
        return (min(s[0] for s in spans), max(s[1] for s in spans)) if spans else None

    def raw_messages(self, topics: Iterable[str] | None = None) -> Iterator[RawMessage]:
        """Messages as bytes in order of log time (equal times: order of the bag).

        Raises:
            MissingFileError: a topic that was asked for is not in the bag.
        """
        wanted = None if topics is None else self._check_topics(topics)
        return heapq.merge(*(part.raw(wanted) for part in self._parts), key=lambda m: m.log_ns)

    def read(self, place: Place) -> RawMessage:
        """One message again, by the `place` that it came with: what was opened for it is kept for its neighbours.

        Raises:
            FileFormatError: no message lies there.
        """
        part, order = place
        if not 0 <= part < len(self._parts):
            raise FileFormatError(
                f"'{self.path.name}' has {len(self._parts)} files; a message of number {part} was asked for"
            )
        return self._parts[part].read(order)

    def messages(self, topics: Iterable[str] | None = None) -> Iterator[tuple[str, int, Any]]:
        """(topic, log time ns, message object) in order of log time, decoded by the schema in the bag.

        Raises:
            FileFormatError: a message does not fit its schema.
        """
        for raw in self.raw_messages(topics):
            yield raw.topic, raw.log_ns, self.decode(raw)

    def decode(self, raw: RawMessage) -> Any:
        """The message object of rosbags' generated class."""
        topic = self.topics[raw.topic]
        if topic.serialization != "cdr":
            raise FileFormatError(f"topic '{raw.topic}' is written as '{topic.serialization}'; only cdr is read")
        store = self._store(topic)
        try:
            return _deserialize(store, raw)
        except (SerdeError, IndexError, RecursionError, MemoryError, OverflowError) as error:
            raise FileFormatError(
                f"a message on '{raw.topic}' does not fit its type {raw.type_name}: {error}"
            ) from error

    def _store(self, topic: Topic) -> Typestore:
        """The shared store where the bag's schema is the one we know, else one made from the bag's text alone."""
        if topic.type_name not in self._stores:
            known = standard_store()
            if not topic.definition and topic.type_name not in known.fielddefs:
                raise FileFormatError(
                    f"the bag does not define '{topic.type_name}' (topic '{topic.name}'), nor is it a standard type"
                )
            if not topic.definition or (
                topic.type_name in known.fielddefs and full_text(known, topic.type_name) == topic.definition
            ):
                self._stores[topic.type_name] = known
            else:
                self._stores[topic.type_name] = _store_of(topic)
        return self._stores[topic.type_name]

    def _check_topics(self, topics: Iterable[str]) -> set[str]:
        wanted = set(topics)
        missing = sorted(wanted - set(self.topics))
        if missing:
            raise MissingFileError(f"no topic {missing} in '{self.path.name}'; it has {sorted(self.topics)}")
        return wanted

    def _merged_topics(self) -> dict[str, Topic]:
        merged: dict[str, Topic] = {}
        for topic in (t for part in self._parts for t in part.topics):
            before = merged.get(topic.name, replace(topic, count=0))
            if before.type_name != topic.type_name:
                raise FileFormatError(
                    f"topic '{topic.name}' has two types, {before.type_name} and {topic.type_name}: split the bag"
                )
            merged[topic.name] = replace(
                before, count=before.count + topic.count, definition=before.definition or topic.definition
            )
        return merged


def _deserialize(store: Typestore, raw: RawMessage) -> Any:
    """rclpy's own serializer leaves up to 8 bytes behind the message, which rosbags does not expect."""
    for surplus in (0, 4):
        try:
            return store.deserialize_cdr(raw.data[: len(raw.data) - surplus], raw.type_name)
        except SerdeError as error:
            if "size mismatch" not in str(error):
                raise
    return store.deserialize_cdr(raw.data[:-8], raw.type_name)


def _store_of(topic: Topic) -> Typestore:
    store = Typestore()
    check_type_name(topic.type_name)
    register(store, topic.type_name, topic.definition, topic.encoding)
    try:
        store.get_msgdef(topic.type_name)
    except (KeyError, RecursionError, TypesysError, SyntaxError) as error:
        raise FileFormatError(
            f"the definition of '{topic.type_name}' in the bag is not complete: {error!r:.200}"
        ) from error
    return store


def bag_files(path: Path, limits: BagLimits | None = None) -> list[Path]:
    """The data files of a bag in their order: as metadata.yaml lists them, else by the numbers in their names.

    Raises:
        MissingFileError: nothing there, or a listed file is missing. FileFormatError: not a bag.
    """
    limits = limits or BagLimits()
    if path.is_file() and path.suffix in SUFFIXES:
        return [path]
    if not path.is_dir():
        if path.exists():
            raise FileFormatError(f"'{path.name}' is not a bag: give a folder, an .mcap or a .db3 file")
        raise MissingFileError(f"no bag '{path.name}' in '{path.parent}': check the name")
    files = (
        _listed(path)
        if (path / "metadata.yaml").is_file()
        else sorted((p for p in path.iterdir() if p.suffix in SUFFIXES), key=_natural)
    )
    if not files or len(files) > limits.max_files:
        raise FileFormatError(
            f"'{path.name}' holds {len(files)} .mcap or .db3 files; a bag has 1 to {limits.max_files}"
        )
    return files


def _listed(folder: Path) -> list[Path]:
    information = load_yaml(folder / "metadata.yaml").get("rosbag2_bagfile_information")
    names = information.get("relative_file_paths") if isinstance(information, dict) else None
    if not isinstance(information, dict) or not isinstance(names, list) or not all(isinstance(n, str) for n in names):
        raise FileFormatError(
            f"metadata.yaml of '{folder.name}' lists no files; remove it to read the files by their names"
        )
    if information.get("compression_mode") not in (None, "", "none", "NONE"):
        raise FileFormatError(
            f"'{folder.name}' is compressed by rosbag2 ({information['compression_mode']}): 'ros2 bag convert' it first"
        )
    try:
        files = [inside(folder, n, "relative_file_paths") for n in names]
    except ConfigError as error:
        raise FileFormatError(f"metadata.yaml of '{folder.name}': {error}") from error
    for file in files:
        if not file.is_file() or file.suffix not in SUFFIXES:
            raise MissingFileError(f"'{folder.name}' lists '{file.name}', which is not there or neither .mcap nor .db3")
    return files


def _natural(path: Path) -> tuple[Any, ...]:
    return tuple((int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.name))
