# SPDX-License-Identifier: Apache-2.0
"""Node `recorder`: writes topics into a bag as they are, byte for byte; a full disk ends the bag, not the graph."""

from __future__ import annotations

import queue
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from std_srvs.srv import Trigger

from ..config import check_range
from ..data.bags import BagWriter, qos_profile
from ..errors import ConfigError, UsregError
from . import parameters, qos
from .base import Stage, run_node
from .topics import TOPICS, Topic, message_class

MEASUREMENTS = ("us/image", "us/geometry", "joint_states", "/tf", "/tf_static")
RESULTS = (
    "us/pose", "registration/estimate", "registration/pose", "registration/smoothed", "registration/lagged",
    "registration/hypotheses", "volume", "/diagnostics",
)  # fmt: skip


MAX_LATCHED = 200


class Entry(NamedTuple):
    """A message on its way into the bag."""

    name: str
    topic: Topic
    log_ns: int
    data: bytes


@dataclass(frozen=True)
class RecorderConfig:
    """What is recorded.

    Args:
        bag: folder to be made; where it exists, a number is added.
        topics: names as in the graph; a type that is not known here is taken from the publisher.
        start: begin at once, else with recorder/start.
        queue: messages that wait for the disk; beyond it new ones are dropped and counted.
    """

    bag: str = "recording"
    topics: tuple[str, ...] = MEASUREMENTS + RESULTS
    start: bool = True
    queue: int = 500

    def __post_init__(self) -> None:
        check_range("queue", self.queue, 10, 100_000)
        if not self.bag or not self.topics:
            raise ConfigError("a recorder needs the name of a bag and at least one topic")


class RecorderNode(Stage):
    """See the module."""

    def __init__(self, **options: Any) -> None:
        super().__init__("recorder", "recorder", **options)
        self.config = parameters.declare(self, RecorderConfig)
        self.path: Path | None = None
        self._writer: BagWriter | None = None
        self._waiting: queue.Queue[Entry | None] = queue.Queue(self.config.queue)
        self._thread: threading.Thread | None = None
        self._heard: set[str] = set()
        self._latched: dict[bytes, Entry] = {}  # by content: what every later bag begins with
        self.create_service(Trigger, "recorder/start", self.on_start)
        self.create_service(Trigger, "recorder/stop", self.on_stop)
        self.steady_timer(0.5, self.listen)
        self.ready()

    def start(self) -> None:
        """Begin, where the parameters say so."""
        self.listen()
        if self.config.start:
            self.guarded(self.begin)()

    def listen(self) -> None:
        """Subscribe to topics whose type is known by now."""
        for name in self.config.topics:
            topic = None if name in self._heard else self._topic(name)
            if topic is not None:
                self._heard.add(name)
                profile, take = "recorder_latched" if topic.latched else "recorder", self._taker(name, topic)
                qos.subscription(self, message_class(topic.type_name), name, take, profile, raw=True)

    def _topic(self, name: str) -> Topic | None:
        if name in TOPICS:
            return TOPICS[name]
        types = dict(self.get_topic_names_and_types()).get(self.resolve_topic_name(name), [])
        return Topic(types[0]) if types else None

    def _taker(self, name: str, topic: Topic) -> Any:
        full = self.resolve_topic_name(name)

        def take(data: bytes) -> None:
            entry = Entry(full, topic, self.get_clock().now().nanoseconds, bytes(data))
            if topic.latched and len(self._latched) < MAX_LATCHED:
                self._latched[entry.data] = entry
            if self._writer is not None:
                self._put(entry)

        return take

    def _put(self, entry: Entry) -> None:
        try:
            self._waiting.put_nowait(entry)
        except queue.Full:
            self.diagnostics.drop("the disk is too slow")

    def on_start(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        """Begin a bag."""
        try:
            self.begin()
            response.success, response.message = True, f"recording into {self.path}"
        except UsregError as error:
            response.success, response.message = False, str(error)
        return response

    def on_stop(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        """End the bag."""
        response.success = self._writer is not None
        response.message = f"{self.path} is closed" if response.success else "nothing is being recorded"
        self.end()
        return response

    def begin(self) -> None:
        """Open a new bag.

        Raises:
            ConfigError: one is open. WriteError: it cannot be made.
        """
        if self._writer is not None:
            raise ConfigError(f"already recording into '{self.path}': stop first")
        self.path = _free(Path(self.config.bag))
        self._writer = BagWriter(self.path, live=True)
        now_ns = self.get_clock().now().nanoseconds
        for entry in self._latched.values():
            self._put(entry._replace(log_ns=now_ns))
        self.diagnostics.state("OK", f"recording into {self.path}")
        self._thread = threading.Thread(target=self._write, name="recorder", daemon=True)
        self._thread.start()

    def _write(self) -> None:
        """Body of the writing thread."""
        writer = self._writer
        assert writer is not None
        try:
            while (entry := self._waiting.get()) is not None:
                begin = time.perf_counter()
                offered = qos_profile(transient_local=entry.topic.latched, depth=100)
                writer.add_topic(entry.name, entry.topic.type_name, [offered])
                writer.write_raw(entry.name, entry.log_ns, entry.data)
                self.diagnostics.done(entry.log_ns * 1e-9, time.perf_counter() - begin)
            writer.close()
        except UsregError as error:
            self._writer = None
            self.diagnostics.state("ERROR", str(error))
            self.get_logger().error(f"recording has ended: {error}")
            self.guarded(writer.abort)()

    def end(self) -> None:
        """Write what waits, and close the bag."""
        thread, self._thread = self._thread, None
        open_bag, self._writer = self._writer, None
        if thread is None:
            return
        if open_bag is not None:
            self._waiting.put(None)
        thread.join(30.0)
        while not self._waiting.empty():
            self._waiting.get_nowait()
        if open_bag is not None:
            self.diagnostics.state("OK", f"{self.path} is closed")

    def stop(self) -> None:
        """Close the bag."""
        self.end()


def _free(path: Path) -> Path:
    """The path, or the first of path_1, path_2 ... that does not exist."""
    if not path.exists():
        return path
    number = 1
    while (found := path.with_name(f"{path.stem}_{number}{path.suffix}")).exists():
        number += 1
    return found


def main(args: list[str] | None = None) -> None:
    """Entry point."""
    sys.exit(run_node(RecorderNode, args))
