# SPDX-License-Identifier: Apache-2.0
"""Node `simulator`: streams a simulated session in real time, as the drivers of a scanner and of an arm would.

Two terminals: `usreg simulate volunteer --live --out patient`, and once it waits for a listener `usreg run live
session:=patient image_topic:=raw/image geometry_topic:=raw/geometry`. The graph is the live one: it sees wall time, and
nothing tells it of the simulation.
"""

from __future__ import annotations

import os
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rclpy.serialization import deserialize_message
from tf2_msgs.msg import TFMessage

from ..config import check_range
from ..data.sessions import TopicNames
from ..errors import ConfigError, UsregError, WriteError
from . import graph, parameters, qos, tf
from .base import Stage, leave, run_node
from .lookahead import NS, Lookahead, LookaheadConfig, Slot, Source
from .player import QOS
from .stamps import serialised, shifted
from .topics import TOPICS, message_class, relative

NAMES = TopicNames()
DRIVERS = {NAMES.image: "raw/image", NAMES.geometry: "raw/geometry", NAMES.joints: "joint_states", NAMES.tf: "/tf"}
TELL_S = 2.0
SETTLE_S = 0.5  # so that the last messages come through
Say = Callable[[str], None]


@dataclass(frozen=True)
class SimulatorConfig:
    """What is streamed.

    Args:
        kind: phantom or volunteer. seed: of every draw. seconds: of the session.
        folder: to be made, with the volumes and the start that a live graph needs; empty: those that ship are used.
        wait_s: streaming begins when somebody listens to the images, or so much later; drivers do not wait.
        exit_at_end: end the process after the last message.
    """

    kind: Literal["phantom", "volunteer"] = "phantom"
    seed: int = 0
    seconds: float = 60.0
    folder: str = ""
    wait_s: float = 0.0
    exit_at_end: bool = True
    lookahead: LookaheadConfig = field(default_factory=LookaheadConfig)

    def __post_init__(self) -> None:
        check_range("seed", self.seed, 0, 2**31 - 1)
        check_range("seconds", self.seconds, 0.1, 3600.0)
        check_range("wait_s", self.wait_s, 0.0, 3600.0)


class SimulatorNode(Stage):
    """See the module.

    Args:
        source: what is streamed, in place of the session that the parameters describe.
        say: told of the progress, a line each.
    """

    def __init__(self, source: Source | None = None, say: Say | None = None, **options: Any) -> None:
        super().__init__("simulator", "simulator", **options)
        self.config = parameters.declare(self, SimulatorConfig)
        self.finished = self.failed = False
        self._source, self._say = source, say
        self._ending = threading.Event()
        self._doing = "making the session"
        self._lookahead: Lookahead | None = None
        self._geometries: dict[int, bytes] = {}
        self.statics = tf.StaticTransformBroadcaster(self)
        self.outputs = {name: self._output(name, driver) for name, driver in DRIVERS.items()}
        self._thread = threading.Thread(target=self._run, name="simulator", daemon=True)
        if say is not None:
            self.steady_timer(TELL_S, lambda: say(self.line()))
        self.ready()

    def _output(self, name: str, driver: str) -> Any:
        type_name = TOPICS[relative(name)].type_name
        return qos.publisher(self, message_class(type_name), driver, QOS[type_name])

    def start(self) -> None:
        """Begin to stream, in a thread."""
        self._thread.start()

    def line(self) -> str:
        """What it is doing: how many images went out, and how many were left out."""
        if self._doing:
            return self._doing
        dropped = self.diagnostics.drops.get("late image", 0)
        return f"{self.diagnostics.total} images streamed, {dropped} were not made in time"

    def _run(self) -> None:
        """Body of the thread."""
        try:
            self._stream()
        except UsregError as error:
            self._fail(str(error))
        except Exception:
            if not self._ending.is_set():
                self._fail(f"the simulator has failed: {traceback.format_exc()}")
        self.finished = self.finished or self.failed or self.config.exit_at_end

    def _fail(self, text: str) -> None:
        self.failed = True
        self.diagnostics.state("ERROR", text.splitlines()[0])
        self.get_logger().error(text)

    def _stream(self) -> None:
        config = self.config
        source = self._source or simulated(config.kind, config.seed, config.seconds, config.folder)
        self._lookahead = ahead = Lookahead(source, self.config.lookahead)
        self._wait_for_listener()
        first_ns = ahead.begin()
        self._doing = ""
        # a message goes out when a recorder would have received it; its stamp is as much older as it was there
        offset_ns = self.get_clock().now().nanoseconds - first_ns
        while (slot := ahead.next()) is not None:
            left_ns = slot.entry.log_ns - ahead.now_ns()
            if self._ending.wait(max(0, left_ns) / NS):
                return
            self._publish(slot, ahead, offset_ns)
        self._ending.wait(SETTLE_S)

    def _wait_for_listener(self) -> None:
        left_s, output = self.config.wait_s, self.outputs[NAMES.image]
        self._doing = f"waiting for somebody who listens to {output.topic_name}"
        while left_s > 0 and not output.get_subscription_count():
            if self._ending.wait(0.05):
                return
            left_s -= 0.05

    def _publish(self, slot: Slot, ahead: Lookahead, offset_ns: int) -> None:
        """Geometry and image together, as a scanner sends them; an image that is late is left out with its geometry."""
        topic, stamp_ns = slot.entry.topic, slot.entry.stamp_ns
        if topic == NAMES.image and not ahead.in_time(slot):
            self._geometries.pop(stamp_ns, None)
            self.diagnostics.drop("late image")
            return
        if topic != NAMES.tf_static and topic not in self.outputs:
            return  # the truth is never streamed
        data = serialised(shifted(slot.message, offset_ns))
        if topic == NAMES.tf_static:
            self.statics.sendTransform(list(deserialize_message(data, TFMessage).transforms))
        elif topic == NAMES.geometry:
            self._geometries[stamp_ns] = data
        else:
            self._send(topic, stamp_ns, data, offset_ns)

    def _send(self, topic: str, stamp_ns: int, data: bytes, offset_ns: int) -> None:
        if topic == NAMES.image:
            geometry = self._geometries.pop(stamp_ns, None)
            if geometry is not None:
                self.outputs[NAMES.geometry].publish(geometry)
            self.diagnostics.done((stamp_ns + offset_ns) / NS)
        self.outputs[topic].publish(data)

    def stop(self) -> None:
        """End the threads."""
        self._ending.set()
        if self._lookahead is not None:
            self._lookahead.stop()
        if self._thread.is_alive():
            self._thread.join(3.0)
        if self._say is not None:
            self._say(self.line())


def simulated(kind: str, seed: int, seconds: float, folder: str = "") -> Source:
    """The session that `usreg simulate` would write; see `simulation.live.stream_session`.

    Raises:
        ConfigError: a kind that cannot be streamed.
    """
    if kind not in graph.SHIPPED:
        raise ConfigError(f"a session of kind '{kind}' cannot be streamed; choose one of {list(graph.SHIPPED)}")
    from ..simulation.live import stream_session

    return stream_session(kind, seed, seconds, folder or None)  # type: ignore[arg-type]


def stream(
    kind: str, seed: int = 0, seconds: float = 60.0, folder: str | Path | None = None, wait_s: float = 600.0,
    namespace: str = "", network: bool = False, say: Say = lambda text: None, source: Source | None = None,
) -> int:  # fmt: skip
    """Stream a simulated session until its end or Ctrl-C: `usreg simulate KIND --live`.

    Args:
        kind: phantom or volunteer. folder: to be made for `usreg run live session:=FOLDER`; None: a session that ships
            has the volumes and the start, where kind and seed are the same.
        wait_s: it begins when somebody listens to the images, or so much later.
        namespace: of the graph that listens. network: talk to other machines too.
        say: told of the progress, a line each. source: in place of the session of that kind.

    Returns:
        0; 1 where it failed; 2 where a value was refused.

    Raises:
        WriteError: the folder exists.
    """
    if folder is not None and Path(folder).exists():
        raise WriteError(f"'{Path(folder).name}' exists already: choose another name or remove it; nothing was changed")
    os.environ.update(graph.environment(network))
    values = {"kind": kind, "seed": seed, "seconds": float(seconds), "wait_s": float(wait_s)}
    values |= {"folder": str(folder)} if folder is not None else {}
    spec = graph.NodeSpec("simulator", values, namespace=namespace)
    made: list[SimulatorNode] = []

    def make() -> SimulatorNode:
        made.append(SimulatorNode(source, say, cli_args=spec.arguments(), use_global_arguments=False))
        return made[-1]

    return run_node(make, []) or int(any(node.failed for node in made))


def main(args: list[str] | None = None) -> None:
    """Entry point."""
    leave(run_node(SimulatorNode, args))
