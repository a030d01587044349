# SPDX-License-Identifier: Apache-2.0
"""Node `player`: plays the measurements of a session's bag with its clock, so that the graph runs as it did live."""

from __future__ import annotations

import math
import threading
import time
import traceback
from collections import Counter
from typing import Any

import rclpy
from rclpy.node import NodeNameNonExistentError
from rclpy.serialization import deserialize_message
from rclpy.time import Time
from rosgraph_msgs.msg import Clock
from std_srvs.srv import SetBool, Trigger
from tf2_msgs.msg import TFMessage

from ..data.bags import BagReader, RawMessage, latched
from ..errors import ConfigError, FileFormatError, UsregError
from . import parameters, qos, tf
from .base import Stage, leave, run_node
from .player_config import PlayerConfig, check_type, stamp_ns
from .topics import TOPICS, message_class, relative

QOS = {
    "sensor_msgs/msg/Image": "image_out",
    "usreg_msgs/msg/UltrasoundGeometry": "image_out",
    "sensor_msgs/msg/JointState": "joint_states",
    "tf2_msgs/msg/TFMessage": "tf",
}
TF = "tf2_msgs/msg/TFMessage"
TICK_S = 0.01
TELL_WAIT_S = 5.0
JUMP_PAUSE_S = 0.3  # between the last message before a jump of the clock and the first one after it
SAME_NS = 1000  # a stamp that went through seconds as a float moves by some 100 ns
ONLOOKERS = ("web_view", "usreg_run")  # who looks on comes and goes: nobody waits for them
MATCH_PAUSE_S = 0.3  # subscribers that the graph shows have then matched on both sides


class PlayerNode(Stage):
    """See the module."""

    def __init__(self, **options: Any) -> None:
        super().__init__("player", "player", **options)
        self.config = parameters.declare(self, PlayerConfig)
        self.finished = self.failed = False
        self._condition = threading.Condition()
        self._paused, self._steps, self._stepping = self.config.paused, 0, False
        self._tell_state(ended=False)
        self._again = self._ending = False
        self._sent, self._sent_stamp, self._unanswered = 0, 0, set[str]()
        self.clock_out = self.create_publisher(Clock, "/clock", qos.profile("clock"))
        self.statics = tf.StaticTransformBroadcaster(self)
        self.bag = BagReader(self.config.bag, skip_damaged=True)
        self.outputs = self._make_outputs()
        self._static_topics = [n for n in self.config.topics if n in self.bag.topics and n not in self.outputs]
        self._told: dict[str, Any] = {}
        for topic in self.config.lockstep:
            self._listen(topic)
        self.create_service(SetBool, "player/pause", self.on_pause)
        self.create_service(Trigger, "player/step", self.on_step)
        self.create_service(Trigger, "player/restart", self.on_restart)
        self._thread = threading.Thread(target=self._run, name="player", daemon=True)
        self.ready()

    def _make_outputs(self) -> dict[str, Any]:
        made = {}
        for name in self.config.topics:
            topic = self.bag.topics.get(name)
            if topic is None or (topic.type_name == TF and (latched(topic) or name.endswith("/tf_static"))):
                continue
            profile = QOS.get(topic.type_name, "latched" if latched(topic) else "result")
            check_type(topic)
            made[name] = qos.publisher(self, message_class(topic.type_name), relative(name), profile)
        if self.config.image_topic not in made:
            raise ConfigError(f"the bag has no images on '{self.config.image_topic}'; it has {sorted(self.bag.topics)}")
        return made

    def _listen(self, topic: str) -> None:
        def on_answer(data: bytes) -> None:
            with self._condition:
                if abs(stamp_ns(data) - self._sent_stamp) < SAME_NS:
                    self._unanswered.discard(topic)
                    self._condition.notify_all()

        if topic not in TOPICS:
            raise ConfigError(f"lockstep has '{topic}'; choose from {sorted(TOPICS)}")
        qos.subscription(self, message_class(TOPICS[topic].type_name), topic, on_answer, "result", raw=True)

    def start(self) -> None:
        """Begin to play, in a thread."""
        self._thread.start()

    # --- services -------------------------------------------------------------------------------------------------

    def on_pause(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        """Pause, or go on."""
        self._change(paused=bool(request.data))
        response.success, response.message = True, "paused" if request.data else "playing"
        return response

    def on_step(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        """Pause, and play until the next frame is out."""
        self._change(paused=True, steps=1)
        response.success, response.message = True, "one frame"
        return response

    def on_restart(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        """Begin again with the first message; the clock jumps back."""
        self._change(again=True)
        response.success, response.message = True, "from the beginning"
        return response

    def _change(self, paused: bool | None = None, steps: int = 0, again: bool = False) -> None:
        with self._condition:
            self._paused = self._paused if paused is None else paused
            self._steps = self._steps + steps if self._paused else 0
            self._stepping = self._steps > 0
            self._again = self._again or again
            self._condition.notify_all()
        self._tell_state()

    def _tell_state(self, ended: bool | None = None) -> None:
        """Facts on /diagnostics, at once: a viewer must not take a pause for a failure."""
        if ended is not None:
            self.diagnostics.fact("ended", ended)
        self.diagnostics.fact("paused", self._paused)
        self.diagnostics.publish_now()

    # --- playing --------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        """Body of the thread."""
        try:
            self._session()
        except UsregError as error:
            self.failed = True
            self.diagnostics.state("ERROR", str(error))
            self.get_logger().error(str(error))
        except Exception:
            if rclpy.ok(context=self.context) and not self._ending:
                self.failed = True
                self.diagnostics.state("ERROR", "the player has failed; its log says why")
                self.get_logger().error(f"the player has failed: {traceback.format_exc()}")
        self.finished = self.finished or self.config.exit_at_end

    def _session(self) -> None:
        self._send_statics()
        self._wait_for_subscribers()
        while not self._ending:
            if self._play():
                self._wait(JUMP_PAUSE_S)
                self._jump_back()
                continue
            self._tell_end()
            self._wait(self.config.settle_s)
            if self.config.exit_at_end or not self._wait_for_restart():
                return

    def _play(self) -> bool:
        """Play the bag once; whether it is to be played again."""
        begin, first_ns = time.monotonic(), None
        with self._condition:
            self._sent, self._unanswered = 0, set()
        for raw in self.bag.raw_messages([*self.outputs, *self._static_topics]):
            if first_ns is None and raw.topic in self._static_topics:
                self._tell_statics(self._kept(self._transforms(raw.data)))
                continue
            first_ns = raw.log_ns if first_ns is None else first_ns
            begin += self._hold(raw)
            self._tick_until(raw.log_ns, first_ns, begin)
            with self._condition:
                if self._broken():
                    again, self._again = self._again, False
                    return again and not self._ending
            self._publish(raw)
        if first_ns is None:
            raise FileFormatError(f"'{self.bag.path.name}' has no messages on {sorted(self.outputs)}: nothing to play")
        return self.config.loop

    def _broken(self) -> bool:
        return self._ending or self._again

    def _hold(self, raw: RawMessage) -> float:
        """Wait while paused, or for the answer to the frame before; the seconds that it took."""
        begin = time.monotonic()
        is_frame = raw.topic == self.config.image_topic
        with self._condition:
            self._stepping = self._stepping and not (is_frame and self._steps == 0)
            self._condition.wait_for(lambda: not self._paused or self._free(is_frame) or self._broken())
            self._steps -= 1 if is_frame and self._steps else 0
            if is_frame and not self._condition.wait_for(self._answered, self.config.lockstep_s):
                missing = sorted(self._unanswered)
                self.tell("lockstep", f"no answer on {missing} to frame {self._sent} in {self.config.lockstep_s} s")
                self.diagnostics.drop("no answer")
        return time.monotonic() - begin

    def _free(self, is_frame: bool) -> bool:
        """Whether a step lets a message pass: a frame each, and all that lies between it and the next."""
        return self._steps > 0 or (self._stepping and not is_frame)

    def _answered(self) -> bool:
        return self._broken() or not self._unanswered

    def _tick_until(self, log_ns: int, first_ns: int, begin: float) -> None:
        """Publish the clock until the time of a message has come."""
        due = begin + (log_ns - first_ns) * 1e-9 / self.config.rate
        while (left := due - time.monotonic()) > 0 and not self._broken():
            self._tick(log_ns - int(left * self.config.rate * 1e9))
            self._wait(min(left, TICK_S))
        if not self._broken():
            self._tick(log_ns)

    def _tick(self, ns: int) -> None:
        self.clock_out.publish(Clock(clock=Time(nanoseconds=max(0, ns)).to_msg()))

    def _publish(self, raw: RawMessage) -> None:
        if raw.topic in self._static_topics:
            self._tell_statics(self._kept(self._transforms(raw.data)))
            return
        is_frame = raw.topic == self.config.image_topic
        if is_frame:
            with self._condition:  # before it is out: an answer may be quick
                self._sent, self._sent_stamp = self._sent + 1, stamp_ns(raw.data)
                self._unanswered = set(self.config.lockstep)
        data = raw.data if raw.type_name != TF else self._unowned(raw.data)
        if data is not None:
            self.outputs[raw.topic].publish(data)
        if is_frame:
            self.diagnostics.done(math.nan)  # recorded stamps have nothing to do with this node's clock

    def _unowned(self, data: bytes) -> Any:
        """A TF message without the transforms that a running node publishes; None when nothing is left."""
        if not self.config.owned_frames:
            return data
        message = self._transforms(data)
        kept = self._kept(message)
        return data if len(kept) == len(message.transforms) else TFMessage(transforms=kept) if kept else None

    def _transforms(self, data: bytes) -> TFMessage:
        try:
            return deserialize_message(data, TFMessage)
        except Exception as error:  # a class of rclpy's C part
            self.tell("damaged", f"a message with transforms in the bag is damaged and left out: {error}")
            self.diagnostics.drop("damaged")
            return TFMessage()

    def _kept(self, message: TFMessage) -> list[Any]:
        return [t for t in message.transforms if t.child_frame_id.lstrip("/") not in self.config.owned_frames]

    def _send_statics(self) -> None:
        """The first static transform of each child at once, for who comes later too; changes follow at their time."""
        first: dict[str, Any] = {}
        for raw in self.bag.raw_messages(self._static_topics) if self._static_topics else ():
            for transform in self._kept(self._transforms(raw.data)):
                first.setdefault(transform.child_frame_id, transform)
        self._tell_statics(list(first.values()))

    def _tell_statics(self, transforms: list[Any]) -> None:
        """Publish static transforms that differ from what was told last."""
        new = [t for t in transforms if self._told.get(t.child_frame_id) != t]
        self._told.update({t.child_frame_id: t for t in new})
        if new:
            self.statics.sendTransform(new)

    def _wait_for_subscribers(self) -> None:
        end = time.monotonic() + self.config.wait_s
        while (missing := self._missing()) and not self._ending:
            if time.monotonic() > end:
                raise ConfigError(f"within {self.config.wait_s} s nobody listened to {missing}: is a node not active?")
            if time.monotonic() > end - self.config.wait_s + TELL_WAIT_S:
                self.tell("waiting", f"waiting for subscribers of {missing}")
            time.sleep(0.05)
        time.sleep(MATCH_PAUSE_S)

    def _wait_for_restart(self) -> bool:
        """At the end of a bag that stays open: whether it begins again."""
        with self._condition:
            self._condition.wait_for(self._broken)
            self._again = False
        self._jump_back()
        return not self._ending

    def _tell_end(self) -> None:
        self._tell_state(ended=True)
        for problem in self.bag.problems:
            self.get_logger().warning(problem)
        if self.bag.problems:
            self.diagnostics.state("WARN", "; ".join(self.bag.problems[:3]))
        if not self._ending:
            self.get_logger().info("the bag is at its end")

    def _missing(self) -> list[str]:
        wanted, aside = [entry.partition("=") for entry in self.config.wait_for], self._onlookers()
        return [t for t, _, count in wanted if self._listeners(t, aside) < int(count)]

    def _onlookers(self) -> Counter[str]:
        """By topic, how many listen that only look on."""
        found: Counter[str] = Counter()
        for name, space in self.get_node_names_and_namespaces():
            if name in ONLOOKERS:
                try:
                    found.update(t for t, _ in self.get_subscriber_names_and_types_by_node(name, space))
                except NodeNameNonExistentError:
                    continue  # it has just left
        return found

    def _listeners(self, topic: str, aside: Counter[str]) -> int:
        """Subscribers of a topic by the graph's name: the player's own remappings of what it plays do not count."""
        name = self.resolve_topic_name(topic, only_expand=True)
        return self.count_subscribers(name) - aside[name]

    def _jump_back(self) -> None:
        """Tell the clock's new beginning before any message, so that every node forgets first."""
        self._tell_state(ended=False)
        first = next(iter(self.bag.raw_messages(list(self.outputs))))
        for _ in range(3):
            if not self._ending:
                self._tick(first.log_ns)
                self._wait(JUMP_PAUSE_S / 3)
        self._send_statics()

    def _wait(self, seconds: float) -> None:
        """Sleep, unless the node ends or begins again."""
        with self._condition:
            self._condition.wait_for(self._broken, seconds)

    def stop(self) -> None:
        """End the thread."""
        with self._condition:
            self._ending = True
            self._condition.notify_all()
        if self._thread.is_alive():
            self._thread.join(3.0)
        self.bag.close()


def main(args: list[str] | None = None) -> None:
    """Entry point."""
    leave(run_node(PlayerNode, args))
