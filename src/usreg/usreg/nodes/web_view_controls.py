# SPDX-License-Identifier: Apache-2.0
"""The page's buttons as ROS clients: the services and topics that any other client of the graph would use."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch
from geometry_msgs.msg import Point, PointStamped
from rclpy.node import Node
from std_srvs.srv import SetBool, Trigger
from torch import Tensor
from usreg_msgs.msg import Hypotheses, Registration
from usreg_msgs.srv import Initialize

from ..errors import ConfigError, SourceError
from ..web import commands
from ..web.pairs import initial_pose
from . import convert, qos
from .parameters import FrameConfig

SERVICES = {
    "registration/initialize": Initialize,
    "registration/reset": Trigger,
    "registration/accept": SetBool,
    "recorder/start": Trigger,
    "recorder/stop": Trigger,
    "player/pause": SetBool,
    "player/step": Trigger,
    "player/restart": Trigger,
}
# commands by the service that they need
NEEDS = {
    "initialize_hypothesis": "registration/initialize",
    "initialize_pairs": "registration/initialize",
    "reset": "registration/reset",
    "accept": "registration/accept",
    "record": "recorder/start",
    "pause": "player/pause",
    "step": "player/step",
    "seek": "player/restart",
}
FIND_S, ANSWER_S = 1.0, 6.0


class LiveControls:
    """What the page may do with a running graph. `call` runs in a thread of the server; the executor answers it.

    Args:
        pivot: the volume's centre in `ct`, where a volume is there: covariances of a start are about it.
    """

    kind = "live"

    def __init__(self, node: Node, frames: FrameConfig, pivot: Callable[[], Tensor | None]) -> None:
        self._node, self._frames, self._pivot = node, frames, pivot
        self._clients: dict[str, Any] = {name: node.create_client(kind, name) for name, kind in SERVICES.items()}
        self._target_out = qos.publisher(node, PointStamped, "target", "result")
        self.hypotheses: tuple[Registration, ...] = ()
        self.names: tuple[str, ...] = ("target",)
        self._do: dict[type, Callable[[Any], dict[str, Any]]] = {
            commands.InitializeHypothesis: self._hypothesis,
            commands.InitializePairs: self._pairs,
            commands.Reset: lambda _: self._ask("registration/reset", Trigger.Request()),
            commands.Accept: lambda c: self._ask("registration/accept", SetBool.Request(data=c.on)),
            commands.Target: self._target,
            commands.Record: lambda c: self._ask(f"recorder/{'start' if c.on else 'stop'}", Trigger.Request()),
            commands.Pause: lambda c: self._ask("player/pause", SetBool.Request(data=c.on)),
            commands.Step: lambda _: self._ask("player/step", Trigger.Request()),
            commands.Seek: self._seek,
        }

    def look(self) -> None:
        """Look which services are there now. Called by the executor."""
        there = {name for name, client in self._clients.items() if client.service_is_ready()}
        self.names = ("target", *(name for name, service in NEEDS.items() if service in there))

    def on_hypotheses(self, message: Hypotheses) -> None:
        """The starts that are known."""
        self.hypotheses = tuple(sorted(message.hypotheses, key=lambda h: h.hypothesis_rank))

    def call(self, command: commands.Command) -> dict[str, Any]:
        """Do it; what the service says comes back as `text`.

        Raises:
            UsregError: it cannot be done; the message says why.
        """
        act = self._do.get(type(command))
        if act is None:
            raise ConfigError("this is for recordings: a running graph does not take it")
        return act(command)

    def _ask(self, name: str, request: Any) -> dict[str, Any]:
        """The answer of a service."""
        client, node = self._clients[name], name.partition("/")[0]
        if not client.wait_for_service(timeout_sec=FIND_S):
            raise SourceError(f"nobody serves '{name}': the node {node} does not run in this session")
        answered = threading.Event()
        future = client.call_async(request)
        future.add_done_callback(lambda _: answered.set())
        if not answered.wait(ANSWER_S):
            client.remove_pending_request(future)
            raise SourceError(f"'{name}' has not answered within {ANSWER_S:g} s: see the log of {node}")
        answer: Any = future.result()
        if not answer.success:
            raise ConfigError(answer.message or f"'{name}' refused without a reason")
        return {"text": answer.message}

    def _initialize(self, world_T_ct: Tensor, covariance: Tensor, pivot: Tensor | None) -> dict[str, Any]:
        pose = convert.stamped_pose_to_msg(world_T_ct, covariance, 0.0, self._frames.world_frame, pivot)
        return self._ask("registration/initialize", Initialize.Request(pose=pose))

    def _hypothesis(self, command: commands.InitializeHypothesis) -> dict[str, Any]:
        found = [h for h in self.hypotheses if h.hypothesis_rank == command.rank]
        if not found:
            ranks = [h.hypothesis_rank for h in self.hypotheses]
            raise ConfigError(f"there is no hypothesis of rank {command.rank}; there are {ranks or 'none'}")
        record = convert.decode_registration(found[0])
        return self._initialize(record.estimate.world_T_ct, record.estimate.covariance, record.estimate.pivot)

    def _pairs(self, command: commands.InitializePairs) -> dict[str, Any]:
        world, ct = (
            torch.tensor([getattr(pair, side) for pair in command.pairs], dtype=torch.float64)
            for side in ("world", "ct")
        )
        start = initial_pose(world, ct, self._pivot())
        answer = self._initialize(start.world_T_ct, start.covariance, start.pivot)
        return {**answer, "residual_mm": start.residual_mm}

    def _target(self, command: commands.Target) -> dict[str, Any]:
        nan = float("nan")
        x, y, z = (nan, nan, nan) if command.ct is None else (v / 1000.0 for v in command.ct)
        message = PointStamped(point=Point(x=x, y=y, z=z))
        message.header = convert.header(self._node.get_clock().now().to_msg(), self._frames.volume_frame)
        self._target_out.publish(message)
        return {}

    def _seek(self, command: commands.Seek) -> dict[str, Any]:
        if command.index:
            raise ConfigError(
                "a running session begins again (index 0), or goes on; `usreg view BAG` goes to any frame"
            )
        return self._ask("player/restart", Trigger.Request())
