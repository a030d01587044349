# SPDX-License-Identifier: Apache-2.0
"""Writing MCAP bags that `ros2 bag` reads: a folder with metadata.yaml, or a single `.mcap` file.

The same content gives the same bytes. A recorder writes in place and flushes, so that whatever ends it leaves a
readable bag.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Sequence
from io import StringIO
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from mcap.exceptions import McapError
from mcap.writer import CompressionType, Writer
from rosbags.interfaces import Qos
from rosbags.rosbag2.metadata import dump_qos_v9
from ruamel.yaml import YAML

from ..errors import ConfigError, FileFormatError, WriteError
from .bag_types import qos_profile
from .definitions import add_package, full_text, new_store, register

Compression = Literal["zstd", "lz4", "none"]
_COMPRESSION = {"zstd": CompressionType.ZSTD, "lz4": CompressionType.LZ4, "none": CompressionType.NONE}
METADATA_VERSION = 9
MAX_STAMP_NS = 2**63 - 1


class _Output:
    """A file that takes a block whole or not at all: after a failed write it ends where the last whole block ended."""

    def __init__(self, path: Path) -> None:
        self._file = open(path, "xb", buffering=0)  # noqa: SIM115  closed by close()
        self._end = 0

    def write(self, data: bytes) -> int:
        view = memoryview(data)
        try:
            while view:
                view = view[self._file.write(view) or 0 :]
        except OSError:
            self._file.truncate(self._end)
            self._file.seek(self._end)
            raise
        self._end += len(data)
        return len(data)

    def tell(self) -> int:
        return self._end

    def flush(self) -> None:
        """Nothing is held back here."""

    def sync(self) -> None:
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


class BagWriter:
    """Write a bag; close it (or leave its `with` block) to finish it.

    Args:
        path: a new folder, or a new file when it ends in `.mcap`.
        live: for recorders: written in place under its final name and flushed at least every `flush_after_s` of log
            time, so that a crash or a full disk leaves what was recorded before. Otherwise it appears under its name
            only when it is closed.
        compression: of chunks.
        chunk_bytes: size at which a chunk is written.

    Raises:
        WriteError: the path exists, cannot be made, or the disk is full. After a full disk nothing more is taken.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        live: bool = False,
        compression: Compression = "zstd",
        chunk_bytes: int = 1024 * 1024,
        flush_after_s: float = 0.5,
    ) -> None:
        if compression not in _COMPRESSION:
            raise ConfigError(f"compression is {compression!r}; choose one of {list(_COMPRESSION)}")
        self.path = Path(path)
        self._single = self.path.suffix == ".mcap"
        self._live, self._flush_ns = live, int(flush_after_s * 1e9)
        self._target = self.path if live else self.path.with_name(f".{self.path.name}.partial")
        self._store = new_store()
        self._schemas: dict[str, int] = {}
        self._channels: dict[str, int] = {}
        self._topics: dict[str, tuple[str, Sequence[Qos], str]] = {}
        self._counts: dict[str, int] = {}
        self._span: tuple[int, int] | None = None
        self._flushed_ns: int | None = None
        self._failed = self._closed = False
        self._lock = threading.RLock()
        if self.path.exists():
            raise WriteError(
                f"'{self.path.name}' exists already: choose another name or remove it; nothing was changed"
            )
        self._output = self._guard(self._open)
        self._mcap = Writer(self._output, chunk_bytes, _COMPRESSION[compression])
        try:
            self._guard(lambda: self._mcap.start(profile="ros2", library="usreg"))
        except WriteError:
            self._output.close()
            raise

    def _open(self) -> _Output:
        if not self._live:
            _remove(self._target)
        self._file.parent.mkdir(parents=True, exist_ok=True)
        return _Output(self._file)

    @property
    def _file(self) -> Path:
        return self._target if self._single else self._target / f"{self.path.name}_0.mcap"

    @property
    def message_count(self) -> int:
        """Messages taken so far."""
        return sum(self._counts.values())

    def add_topic(
        self,
        topic: str,
        type_name: str,
        qos: Sequence[Qos] = (),
        definition: str | None = None,
        encoding: str = "ros2msg",
    ) -> None:
        """Declare a topic with the profiles that its publishers offer; `write` declares topics with a default profile.

        Args:
            definition: text of a type that is neither standard nor in a built package.

        Raises:
            ConfigError: declared before with another type.
        """
        with self._lock:
            self._add_topic(topic, type_name, qos, definition, encoding)

    def _add_topic(self, topic: str, type_name: str, qos: Sequence[Qos], definition: str | None, encoding: str) -> None:
        if topic in self._topics:
            if self._topics[topic][0] != type_name:
                raise ConfigError(f"topic '{topic}' was declared as {self._topics[topic][0]}, now as {type_name}")
            return
        if type_name not in self._store.fielddefs:
            if definition is not None:
                register(self._store, type_name, definition, encoding)
            else:
                add_package(self._store, type_name)
        profiles, type_hash = tuple(qos) or (qos_profile(),), self._store.hash_rihs01(type_name)
        if type_name not in self._schemas:
            text = full_text(self._store, type_name).encode()
            self._schemas[type_name] = self._guard(lambda: self._mcap.register_schema(type_name, "ros2msg", text))
        metadata = {"offered_qos_profiles": _yaml(dump_qos_v9(list(profiles))).strip(), "topic_type_hash": type_hash}
        self._channels[topic] = self._guard(
            lambda: self._mcap.register_channel(topic, "cdr", self._schemas[type_name], metadata)
        )
        self._topics[topic], self._counts[topic] = (type_name, profiles, type_hash), 0

    def write(self, topic: str, stamp_ns: int, message: Any, publish_ns: int | None = None) -> None:
        """Add a message object of rosbags' classes (not rclpy's: hand those over as bytes).

        Raises:
            FileFormatError: the object does not fit its type. WriteError: the disk is full.
        """
        type_name = getattr(message, "__msgtype__", None)
        if type_name is None:
            raise FileFormatError(
                f"{type(message).__name__} is not a message of rosbags' classes; hand rclpy messages over as bytes"
            )
        self.add_topic(topic, type_name)
        try:
            data = bytes(self._store.serialize_cdr(message, type_name, little_endian=True))
        except Exception as error:  # generated code raises whatever a wrong field leads to
            raise FileFormatError(
                f"a message for '{topic}' does not fit {type_name}: {type(error).__name__}: {error}"
            ) from error
        self.write_raw(topic, stamp_ns, data, publish_ns)

    def write_raw(self, topic: str, stamp_ns: int, data: bytes, publish_ns: int | None = None) -> None:
        """Add CDR bytes, as a raw subscription gives them, to a topic that was declared. Threads may take turns."""
        with self._lock:
            self._write_raw(topic, stamp_ns, data, stamp_ns if publish_ns is None else publish_ns)

    def _write_raw(self, topic: str, stamp_ns: int, data: bytes, publish_ns: int) -> None:
        if topic not in self._channels:
            raise ConfigError(f"topic '{topic}' is not declared; call add_topic with its type first")
        if not 0 <= stamp_ns <= MAX_STAMP_NS:
            raise ConfigError(f"a bag's stamp must lie in 0 to 2^63 - 1 ns, got {stamp_ns}")
        if self._failed or self._closed:
            raise WriteError(
                f"'{self.path.name}' takes no more messages: "
                + ("an earlier write failed" if self._failed else "it is closed")
            )
        channel, number = self._channels[topic], self._counts[topic]
        self._guard(lambda: self._mcap.add_message(channel, stamp_ns, bytes(data), publish_ns, number))
        self._counts[topic] += 1
        self._span = (
            (min(self._span[0], stamp_ns), max(self._span[1], stamp_ns)) if self._span else (stamp_ns, stamp_ns)
        )
        if self._live:
            self._flush_when_due(stamp_ns)

    def _flush_when_due(self, stamp_ns: int) -> None:
        if self._flushed_ns is None:
            self._flushed_ns = stamp_ns
        elif not 0 <= stamp_ns - self._flushed_ns < self._flush_ns:
            self.flush()
            self._flushed_ns = stamp_ns

    def flush(self) -> None:
        """Write the chunk in hand: what was taken so far survives the end of this process."""
        with self._lock:
            if not (self._failed or self._closed):
                self._guard(self._mcap.flush)

    def close(self) -> None:
        """Finish the bag.

        Raises:
            WriteError: the end could not be written; what was written before stays readable (live), or nothing appears.
        """
        with self._lock:
            if not self._closed:
                self._close()

    def _close(self) -> None:
        self._closed = True
        try:
            if not self._failed:
                self._guard(self._finish)
        finally:
            self._output.close()
        if not self._failed and not self._live:
            self._guard(lambda: os.replace(self._target, self.path))
        if self._failed and not self._live:
            _remove(self._target)

    def abort(self) -> None:
        """Give up: a live bag keeps what it has, another leaves nothing."""
        if self._closed:
            return
        if self._live:
            self.close()
            return
        self._closed = True
        self._output.close()
        _remove(self._target)

    def __enter__(self) -> BagWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def _finish(self) -> None:
        information = self._information()
        self._mcap.flush()
        self._mcap.add_metadata("rosbag2", {"serialized_metadata": _yaml(information).strip()})
        self._mcap.finish()
        self._output.sync()
        if not self._single:
            _write_whole(self._target / "metadata.yaml", _yaml({"rosbag2_bagfile_information": information}))

    def _information(self) -> dict[str, Any]:
        start, end = self._span or (0, 0)
        times = {
            "starting_time": {"nanoseconds_since_epoch": start},
            "duration": {"nanoseconds": end - start},
            "message_count": self.message_count,
        }
        topics = [
            {
                "topic_metadata": {
                    "name": name, "type": type_name, "serialization_format": "cdr",
                    "offered_qos_profiles": dump_qos_v9(list(profiles)), "type_description_hash": type_hash,
                },
                "message_count": self._counts[name],
            }
            for name, (type_name, profiles, type_hash) in self._topics.items()
        ]  # fmt: skip
        return {
            "version": METADATA_VERSION, "storage_identifier": "mcap", "relative_file_paths": [self._file.name],
            **times, "topics_with_message_count": topics, "compression_format": "", "compression_mode": "",
            "files": [{"path": self._file.name, **times}], "custom_data": None, "ros_distro": "usreg",
        }  # fmt: skip

    def _guard(self, action: Callable[[], Any]) -> Any:
        """Turn failures of the disk into WriteError, and take nothing more after one."""
        try:
            return action()
        except (OSError, McapError) as error:
            self._failed = True
            what = error.strerror if isinstance(error, OSError) else str(error)
            kept = "what was written before stays readable" if self._live else "nothing was left behind"
            raise WriteError(f"cannot write the bag '{self.path.name}': {what}; {kept}") from error


def _write_whole(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _yaml(value: Any) -> str:
    """Block style, as rosbag2 writes it."""
    yaml, stream = YAML(), StringIO()
    yaml.default_flow_style = False
    yaml.width = 4096
    yaml.representer.ignore_aliases = lambda *_: True
    yaml.dump(value, stream)
    return stream.getvalue()
