# SPDX-License-Identifier: Apache-2.0
"""Node `web_view`: the session on a page in the browser, and its buttons.

It costs nothing while nobody watches: images and poses are heard from the first page that opens until some seconds
after the last one has closed. The executor collects, a thread paints the newest frame, the server has a thread of its
own; a page that is slow gets fewer frames and holds up nobody.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PointStamped, PoseWithCovarianceStamped
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image
from tf2_msgs.msg import TFMessage
from usreg_msgs.msg import Breathing, Hypotheses, Registration, UltrasoundGeometry, VolumeInfo

from ..config import check_range
from ..data.bag_poses import STATUS
from ..data.ros_time import to_s
from ..errors import PortInUseError, UsregError
from ..fusion import OverlayConfig
from ..web.commands import allowed
from ..web.hub import Hub
from ..web.painter import Painter
from ..web.server import Server, ViewConfig
from ..web.status import Board, Recorder, Status, hello_message, status_message
from ..web.wire import pack
from . import convert, graph, parameters, qos
from .base import Stage, leave, run_node
from .diagnostics import level_name
from .pairs import StampPairs
from .player_config import stamp_ns
from .volume import VolumeConfig
from .web_view_content import Content
from .web_view_controls import LiveControls
from .web_view_moments import Moments, Shot
from .web_view_painting import Painting

PARTS = ("image", "geometry", "pose", "smoothed")
TEND_S, OVERDUE_S, STATUS_S = 0.1, 0.02, 0.5
NICENESS = 10


@dataclass(frozen=True)
class WebViewConfig:
    """What the page shows, beside the volume, and when.

    Args:
        title: of the session, never a patient's name.
        session: folder of the recording that is played, for errors against its truth; empty: nobody knows the truth.
        wait_s: a frame whose pose of the volume has not come by then is shown alone, with the reason.
        leave_s: after the last page was closed it goes on to listen for so long.
        retry_s: pause between attempts where the port is taken.
    """

    title: str = "live"
    session: str = ""
    wait_s: float = 0.1
    leave_s: float = 5.0
    retry_s: float = 3.0

    def __post_init__(self) -> None:
        check_range("wait_s", self.wait_s, 0.01, 10.0)
        check_range("leave_s", self.leave_s, 0.0, 600.0)
        check_range("retry_s", self.retry_s, 0.1, 600.0)


class WebViewNode(Stage):
    """See the module.

    Args:
        say: told the address of the page. attach: to a running graph: follow its clock where it has one.
    """

    def __init__(self, say: Callable[[str], None] | None = None, attach: bool = False, **options: Any) -> None:
        super().__init__("web_view", "view", **options)
        self.config = parameters.declare(self, WebViewConfig)
        served = parameters.declare(self, ViewConfig)
        self.served = replace(served, token=served.token or os.environ.get(graph.TOKEN, ""))
        self.hub, self.painter = Hub(), Painter(parameters.declare(self, OverlayConfig, "overlay"))
        volume = parameters.declare(self, VolumeConfig)
        self.content = Content(self.hub, self.painter, volume, self.config.session, self._cannot_show)
        self.moments, self.board = Moments(self.frames, self.content), Board(self.get_namespace())
        self.controls = LiveControls(self, self.frames, self._centre)
        self.pairs = StampPairs(PARTS, limit=8, on_drop=lambda *_: self.diagnostics.drop("unpaired"))
        self.painting = Painting(self.hub, self._paint)
        self.server: Server | None = None
        self.url = ""
        self._say, self._attach, self._accept = say, attach, True
        self._inputs: list[Any] = []
        self._beat: Any = None
        self._newest: Shot | None = None
        self._hello: Any = None
        self._watched_s, self._tried_s, self._told_s = -1e9, -1e9, -1e9
        qos.subscription(self, PointStamped, "target", self.guarded(self.on_target), "result")
        self.steady_timer(TEND_S, self.tend)
        self.ready()

    def start(self) -> None:
        """Serve the page; where the port is taken, again and again."""
        self._keep_hello()
        self._serve()

    def stop(self) -> None:
        """End the server and the threads."""
        if self.server is not None:
            self.server.stop()
        self.painting.stop()
        self.content.stop()

    # --- the server -----------------------------------------------------------------------------------------------

    def _serve(self) -> None:
        self._tried_s = time.monotonic()
        server = Server(self.hub, self.controls, self.served, self.content.files())
        try:
            self.url = server.start()
        except PortInUseError as error:
            text = f"the page is not served: {error} (argument view_port); the session goes on"
            self.diagnostics.state("ERROR", text)
            self.tell("port", f"{text}, tried again every {self.config.retry_s:g} s", "error")
            return
        self.server = server
        self.diagnostics.state("OK")
        self.diagnostics.fact("url", self.url.partition("?")[0])  # diagnostics are recorded: not the token
        self.get_logger().info(f"view: {self.url}")
        if self._say is not None:
            self._say(f"view: {self.url}")
        self.diagnostics.publish()

    def tend(self) -> None:
        """Ten times a second: listen while somebody watches, tell how the graph does, try the port again."""
        now = time.monotonic()
        if self.server is None and now - self._tried_s > self.config.retry_s:
            self._serve()
        self._follow_clock()
        if self.hub.watched:
            self._watched_s = now
            self._listen()
        elif self._inputs and now - self._watched_s > self.config.leave_s:
            self._leave()
        if self._inputs and now - self._told_s > STATUS_S:
            self._tell()

    def _follow_clock(self) -> None:
        if self._attach and not self.get_parameter("use_sim_time").value and self.count_publishers("/clock"):
            self.set_parameters([Parameter("use_sim_time", value=True)])

    # --- listening ------------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        if self._inputs:
            return
        self.content.want()
        small: list[tuple[Any, str, Callable[..., None], str]] = [
            (VolumeInfo, "volume", self.on_volume, "latched"),
            (Hypotheses, "registration/hypotheses", self.on_hypotheses, "latched"),
            (Registration, "registration/estimate", self.moments.on_estimate, "result"),
            (Breathing, "registration/breathing", self.moments.on_breathing, "result"),
            (DiagnosticArray, "/diagnostics", self.on_diagnostics, "diagnostics"),
            (TFMessage, "/tf_static", partial(self.moments.on_tf, static=True), "tf_static_in"),
            (TFMessage, "/tf", self.moments.on_tf, "tf"),
        ]
        self._inputs = [qos.subscription(self, kind, name, self.guarded(on), how) for kind, name, on, how in small]
        self._inputs += [
            self._part(PoseWithCovarianceStamped, "registration/smoothed", "smoothed"),
            self._part(PoseWithCovarianceStamped, "us/pose", "pose"),
            qos.subscription(
                self, UltrasoundGeometry, "us/geometry", self.guarded(self.on_geometry), "result", raw=True
            ),
            qos.subscription(self, Image, "us/image", self.guarded(self.on_image), "newest", raw=True),
        ]
        self._beat = self.steady_timer(OVERDUE_S, self.show_overdue)

    def _part(self, kind: Any, topic: str, part: str) -> Any:
        def on_message(message: Any) -> None:
            self._add(part, convert.stamp_to_s(message.header.stamp), message)

        return qos.subscription(self, kind, topic, self.guarded(on_message), "result")

    def _leave(self) -> None:
        for subscription in self._inputs:
            self.destroy_subscription(subscription)
        self.destroy_timer(self._beat)
        self._inputs, self._newest = [], None
        self.pairs.reset()
        self.moments.reset()
        self.painting.clear()
        self.board.clear()

    def on_image(self, data: bytes) -> None:
        """An image, as it travels: only what is painted is unpacked."""
        self.moments.on_image()
        self._add("image", to_s(stamp_ns(data)), data)

    def on_geometry(self, data: bytes) -> None:
        """Its geometry, likewise."""
        self._add("geometry", to_s(stamp_ns(data)), data)

    def _add(self, part: str, stamp_s: float, message: Any) -> None:
        found = self.pairs.add(part, stamp_s, message)
        if found is not None:
            self._show(Shot(stamp_s, found))

    def show_overdue(self) -> None:
        """Frames that have waited too long are shown without what is missing."""
        for stamp_s, found in self.pairs.overdue(self.config.wait_s):
            if {"image", "geometry"} <= found.keys():
                self._show(Shot(stamp_s, found))

    def _show(self, shot: Shot) -> None:
        if self._newest is None or shot.stamp_s >= self._newest.stamp_s:
            self._newest = shot
            self.painting.put(shot)

    def _paint(self, shot: Shot, seq: int) -> bytes | None:
        """Body of the painter's thread."""
        begin = time.perf_counter()
        try:
            message = self.painter.frame(self.moments.of(shot, self.now_s()), seq)
        except UsregError as error:
            self.refuse(error)
            return None
        self.diagnostics.done(shot.stamp_s, time.perf_counter() - begin)
        return message

    # --- what else is heard ---------------------------------------------------------------------------------------

    def on_volume(self, message: VolumeInfo) -> None:
        """Registration tells which volume it uses: follow it."""
        self.content.follow(message.uri, message.sha256, message.modality)

    def on_hypotheses(self, message: Hypotheses) -> None:
        """Starts that are known."""
        self.controls.on_hypotheses(message)
        self._tell()

    def on_target(self, message: PointStamped) -> None:
        """A target in the volume, or none."""
        self.content.aim(convert.target_from_msg(message, self.frames.volume_frame))

    def on_diagnostics(self, message: DiagnosticArray) -> None:
        """How the stages do; a pause is shown at once."""
        for status in message.status:
            values = {pair.key: pair.value for pair in status.values}
            self.board.take(status.name, level_name(status.level), status.message, values)
        paused = self.board.fact("player", "paused") == "True"
        if paused != self.moments.paused:
            self.moments.paused = paused
            if self._newest is not None:
                self.painting.put(self._newest)
            self._tell()

    # --- what is told ---------------------------------------------------------------------------------------------

    def _tell(self) -> None:
        """The message "status", and "hello" where the buttons have changed."""
        self._told_s = time.monotonic()
        self.controls.look()
        self._keep_hello()
        self.hub.keep("status", status_message(self.status()))

    def status(self) -> Status:
        """What the page shows beside the frames."""
        recorder = self.board.get("recorder")
        writes = recorder is not None and recorder.facts.get("recording") == "True"
        return Status(
            self._state(), self.board.fact("registration", "accepting") != "False",
            None if recorder is None else Recorder(writes, recorder.facts.get("path", "")),
            tuple(self.board.stages()), tuple(map(_hypothesis, self.controls.hypotheses)),
            clients=len(self.hub.figures()["clients"]),
        )  # fmt: skip

    def _state(self) -> str:
        if self.board.fact("player", "ended") == "True":
            return "ended"
        if self.moments.paused:
            return "paused"
        return "waiting" if self._newest is None else "running"

    def _keep_hello(self) -> None:
        """Whom the page shows and what it may ask for; again where that has changed."""
        names = allowed(self.controls, self.served.read_only)
        system = "" if self.moments.estimate is None else self.moments.estimate.system
        if (names, system) != self._hello:
            self._hello = (names, system)
            hello = hello_message(self.config.title, "live", names, self.served.read_only, system)
            self.hub.keep("hello", pack(hello))

    def _centre(self) -> Any:
        return None if self.content.volume is None else self.content.volume.grid.centre_ct

    def _cannot_show(self, error: UsregError) -> None:
        self.refuse(error)
        self.diagnostics.state("WARN", str(error))

    def reset(self) -> None:
        """Time jumped back."""
        self._newest = None
        self.painting.clear()
        self.pairs.reset()
        self.moments.reset()


def _hypothesis(message: Registration) -> dict[str, Any]:
    pose = convert.decode_pose(message.pose.pose)
    status = STATUS[message.status] if message.status < len(STATUS) else "unknown"
    return {
        "rank": message.hypothesis_rank, "score": message.score, "reason": message.reason or status,
        "world_T_ct": pose.flatten().tolist(),
    }  # fmt: skip


def run_view(
    config: ViewConfig, namespace: str = "", network: bool = False, say: Callable[[str], None] = lambda text: None
) -> int:
    """Show a graph that runs already, until Ctrl-C: `usreg view` without a recording.

    Args:
        namespace: of the graph. network: it may run on another machine. say: told the address of the page.

    Returns:
        0; 2 where a value was refused.
    """
    os.environ.update(graph.environment(network))
    values = {"host": config.host, "port": config.port, "read_only": config.read_only}
    os.environ[graph.TOKEN] = config.token
    spec = graph.NodeSpec("web_view", values, namespace=namespace)

    def make() -> WebViewNode:
        return WebViewNode(say, attach=True, cli_args=spec.arguments(), use_global_arguments=False)

    return run_node(make, [])


def step_back(niceness: int = NICENESS) -> None:
    """Let the graph's processes go first: who watches must not slow what is watched.

    A process in a session of its own is weighed by its group (Linux's autogroup), where that is on, not by itself.
    """
    os.nice(niceness)
    try:
        Path("/proc/self/autogroup").write_text(str(niceness), encoding="ascii")
    except OSError:
        pass  # no such groups here


def main(args: list[str] | None = None) -> None:
    """Entry point."""
    step_back()
    leave(run_node(WebViewNode, args))
