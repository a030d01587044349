# SPDX-License-Identifier: Apache-2.0
"""Node `recorder`: writes topics into a bag as they are, byte for byte; a full disk ends the bag, not the graph.

It listens only while it records: a recorder that waits for recorder/start costs nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from std_srvs.srv import Trigger

from ..config import check_range
from ..errors import ConfigError, UsregError
from . import parameters, qos
from .base import Stage, leave, run_node
from .recording import Recording
from .topics import ABSOLUTE, TOPICS, Topic, message_class

LISTEN_S = 0.5


def _recorded() -> tuple[str, ...]:
    return tuple(t for t in TOPICS if not t.startswith("fusion/"))


@dataclass(frozen=True)
class RecorderConfig:
    """What is recorded.

    Args:
        bag: folder to be made; refused where it exists. A second recorder/start makes bag_2, and so on.
        dated: date and time of each start are added to the name, bag_20261122_003000.
        topics: names as in the graph; a type that is not known here is taken from the publisher. The pictures of
            fusion are off by default: they are large, and made again from the rest.
        autostart: begin at once, else with recorder/start.
        queue: messages that wait for the disk; beyond it new ones are dropped and counted.
    """

    bag: str = "recording"
    dated: bool = False
    topics: tuple[str, ...] = field(default_factory=_recorded)
    autostart: bool = True
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
        self.recording: Recording | None = None
        self._begun = 0
        self._heard: dict[str, Topic] = {}
        self._inputs: list[Any] = []
        self.create_service(Trigger, "recorder/start", self.on_start)
        self.create_service(Trigger, "recorder/stop", self.on_stop)
        self.steady_timer(LISTEN_S, self.listen)
        self.ready()

    def start(self) -> None:
        """Begin where the parameters say so.

        Raises:
            WriteError: the bag exists or cannot be made.
        """
        self._tell()
        if self.config.autostart:
            self.begin()

    def listen(self) -> None:
        """While recording: subscribe to topics whose type is known by now."""
        for name in self.config.topics if self.recording is not None else ():
            topic = None if name in self._heard else self._topic(name)
            if topic is not None:
                self._hear(name, topic)

    def _hear(self, name: str, topic: Topic) -> None:
        self._heard[name] = topic  # before anything can fail: an unknown type is told once
        kind = message_class(topic.type_name)
        if self.recording is not None:
            self.recording.add_topic(self.resolve_topic_name(name), *topic)
        profile = "recorder_latched" if topic.latched else "recorder"
        take = self._taker(self.resolve_topic_name(name))
        self._inputs.append(qos.subscription(self, kind, name, take, profile, raw=True))

    def _topic(self, name: str) -> Topic | None:
        known = TOPICS.get(name if name in ABSOLUTE else name.lstrip("/"))
        if known is not None:
            return known
        types = dict(self.get_topic_names_and_types()).get(self.resolve_topic_name(name), [])
        return Topic(types[0]) if types else None

    def _taker(self, full: str) -> Callable[[bytes], None]:
        def take(data: bytes) -> None:
            if self.recording is not None and not self.recording.take(full, self.get_clock().now().nanoseconds, data):
                self.diagnostics.drop("the disk is too slow")

        return take

    def on_start(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        """Begin a bag."""
        try:
            self.begin()
            response.success, response.message = True, f"recording into {self._path()}"
        except UsregError as error:
            response.success, response.message = False, str(error)
        return response

    def on_stop(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        """End the bag."""
        recording = self.recording
        self.end()
        if recording is None:
            response.success, response.message = False, "nothing is being recorded"
        elif recording.failed:
            response.success, response.message = False, f"{recording.path} had ended before: see /diagnostics"
        else:
            response.success, response.message = True, f"{recording.path} is closed"
        return response

    def begin(self) -> None:
        """Open a new bag.

        Raises:
            ConfigError: one is open. WriteError: it exists or cannot be made.
        """
        if self.recording is not None and not self.recording.failed:
            raise ConfigError(f"already recording into '{self._path()}': stop first")
        self.end()
        path = self._next_path()
        self.recording = Recording(path, self.config.queue, self._written, self._failed)
        self._begun += 1
        self.guarded(self.listen)()
        self.diagnostics.state("OK", f"recording into {path}")
        self._tell()
        self.get_logger().info(f"recording into {path}")

    def _next_path(self) -> Path:
        base = Path(self.config.bag)
        if self.config.dated:
            return base.with_name(f"{base.stem}_{time.strftime('%Y%m%d_%H%M%S')}{base.suffix}")
        return base if self._begun == 0 else base.with_name(f"{base.stem}_{self._begun + 1}{base.suffix}")

    def _tell(self) -> None:
        """Facts on /diagnostics, at once."""
        self.diagnostics.fact("recording", self.recording is not None and not self.recording.failed)
        self.diagnostics.fact("path", self._path())
        self.diagnostics.publish_now()

    def _path(self) -> str:
        return "" if self.recording is None else str(self.recording.path)

    def _written(self, stamp_ns: int) -> None:
        self.diagnostics.done(stamp_ns * 1e-9)

    def _failed(self, error: UsregError) -> None:
        """Called by the writing thread: recording has ended, the node lives on."""
        self.diagnostics.state("ERROR", f"recording has ended: {error}")
        self.diagnostics.fact("recording", False)
        self.get_logger().error(f"recording has ended: {error}")

    def end(self) -> None:
        """Stop listening, write what waits, and close the bag."""
        for subscription in self._inputs:
            self.destroy_subscription(subscription)
        self._inputs, self._heard = [], {}
        recording, self.recording = self.recording, None
        if recording is None:
            return
        recording.close()
        if not recording.failed:
            self.diagnostics.state("OK", f"{recording.path} is closed")
        self._tell()

    def stop(self) -> None:
        """Close the bag."""
        self.end()


def main(args: list[str] | None = None) -> None:
    """Entry point."""
    leave(run_node(RecorderNode, args))
