# SPDX-License-Identifier: Apache-2.0
"""Plays an opened recording into a hub: the thread that paints what is due, and what the page may ask for."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from ...errors import ConfigError, UsregError
from ...web.commands import (
    ClearLandmarks,
    Command,
    Landmark,
    Pause,
    Seek,
    Speed,
    Step,
    Target,
    allowed,
)  # fmt: skip
from ...web.files import VolumeFiles
from ...web.hub import Hub
from ...web.painter import Painter
from ...web.status import Stage, Status, hello_message, status_message
from ...web.wire import pack
from .background import Background
from .content import Content
from .events import events_of
from .frames import Frames
from .known import Result
from .moments import moment_at, pair_error_mm
from .playback import Playback

log = logging.getLogger(__name__)
PREPARING, UNWATCHED = "nothing is registered yet", "nobody watches"
HELLO_S, STATUS_S = 0.5, 0.5  # at most so often
MAX_PAIRS = 200


@dataclass(frozen=True)
class ReplayViewConfig:
    """How a recording is played.

    Args:
        speed: times its own. loop: begin again at the end. read_only: nothing but the playback can be moved.
    """

    speed: float = 1.0
    loop: bool = False
    read_only: bool = False


class Viewer:
    """A source of the live page; see the module. `start` and `stop` are called from the program's own thread."""

    kind = "replay"
    names = ("pause", "step", "seek", "speed", "target", "landmark", "clear_landmarks")

    def __init__(
        self, content: Content, hub: Hub, painter: Painter | None = None, config: ReplayViewConfig | None = None
    ) -> None:
        self.content, self.hub, self.painter = content, hub, painter or Painter()
        self.config = config or ReplayViewConfig()
        self.playback = Playback(content.stamps_s, self.config.speed, self.config.loop)
        self.target_ct = content.target_ct
        self.pairs: list[dict[str, Any]] = []
        self.shown = -1  # index of the frame that was painted last
        self._frames = Frames(content.bag, content.frames)
        self._changed = threading.Condition()
        self._ending = self._jumped = False
        self._asked = 0  # changes of what a picture depends on, beside the frame
        self._seq, self._painted = 0, tuple[Any, ...]()
        self._work_ms = math.nan
        self._told, self._helloed_s = dict[str, Any](), -math.inf
        self._threads = [
            threading.Thread(target=work, name=f"view-{name}", daemon=True)
            for name, work in (("play", self._play), ("tell", self._tell), ("organs", self._organs))
        ]
        self._background = None if content.session is None else Background(content.session, {}, self._take, self._ended)
        self.playback.hold(UNWATCHED, True)
        self.playback.hold(PREPARING, content.session is not None)

    def start(self) -> None:
        """Show the scene, register, and play as soon as somebody watches."""
        self.hub.keep("hello", self._hello())
        self._show_scene()
        self.hub.on_watch(self._watched)
        if self.hub.watched:  # since before
            self._watched(True)
        if self._background is not None:
            self._background.start()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End the threads and the registration."""
        with self._changing():
            self._ending = True
        if self._background is not None:
            self._background.stop()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(3.0)
        self._frames.close()

    def files(self) -> dict[str, Callable[[], tuple[str, bytes]]]:
        """Files that the page may ask the server for."""
        return VolumeFiles(lambda: self.content.volume).routes()

    # --- what the page asks for -----------------------------------------------------------------------------------

    def call(self, command: Command) -> dict[str, Any]:
        """Do it; raises ConfigError for what a recording cannot do."""
        actions: Mapping[type, Callable[[Any], None]] = {
            Pause: self._pause, Step: lambda c: self.playback.step(), Seek: self._seek,
            Speed: lambda c: self.playback.set_speed(c.factor), Target: self._aim, Landmark: self._pair,
            ClearLandmarks: lambda c: self.pairs.clear(),
        }  # fmt: skip
        action = actions.get(type(command))
        if action is None:
            raise ConfigError(f"a recording does not take {type(command).__name__}; it takes {', '.join(self.names)}")
        with self._changing():
            action(command)
            return {"index": self.playback.index, "state": self.playback.state}

    def _pause(self, command: Pause) -> None:
        self.playback.hold(PREPARING, False)
        self.playback.pause(command.on)

    def _aim(self, command: Target) -> None:
        self.target_ct = None if command.ct is None else torch.tensor(command.ct, dtype=torch.float64)
        self._asked += 1
        self._show_scene()

    def _seek(self, command: Seek) -> None:
        self.playback.seek(command.index)
        self._jumped = True

    def _show_scene(self) -> None:
        for key, message in self.painter.use(self.content.volume, self.content.landmarks, self.target_ct):
            self.hub.keep(key, message)

    def _pair(self, command: Landmark) -> None:
        if len(self.pairs) >= MAX_PAIRS:
            raise ConfigError(f"{MAX_PAIRS} landmarks are placed: clear them first")
        index = self.shown if self.shown >= 0 else self.playback.index  # what was clicked at is what is seen
        world, ct = (torch.tensor(p, dtype=torch.float64) for p in (command.world, command.ct))
        error_mm = pair_error_mm(self.content, index, world, ct)
        if math.isnan(error_mm):
            raise ConfigError("no pose of the volume is shown with this frame: choose another frame")
        name = command.name or f"landmark {len(self.pairs) + 1}"
        pair = {"name": name, "world": list(command.world), "ct": list(command.ct), "error_mm": error_mm}
        self.pairs.append(pair | {"index": index})

    # --- what comes from elsewhere --------------------------------------------------------------------------------

    def _take(self, stamp_s: float, result: Result) -> None:
        self.content.put(stamp_s, result)
        with self._changing():
            self.playback.hold(PREPARING, False)

    def _ended(self, why: str) -> None:
        if why:
            log.warning("not all frames are registered: %s", why)
        with self._changing():
            self.content.ended(why)
            self.playback.hold(PREPARING, False)

    def _watched(self, watched: bool) -> None:
        with self._changing():
            self.playback.hold(UNWATCHED, not watched)
            self._painted = ()

    @contextmanager
    def _changing(self) -> Iterator[None]:
        with self._changed:
            yield
            self._changed.notify_all()

    # --- threads --------------------------------------------------------------------------------------------------

    def _play(self) -> None:
        """Paint the newest frame that is due, whenever that has changed and a client can take it."""
        while not self._ending:
            with self._changed:
                if self._wanted() == self._painted or not self.hub.watched:
                    self._changed.wait(min(self.playback.wait_s, 0.5))
                    continue
            if self.hub.wait_hungry(0.05):
                self._paint()

    def _wanted(self) -> tuple[Any, ...]:
        """What a picture depends on."""
        index = self.playback.index
        return index, self.playback.state, self.playback.speed, self.content.results[index], self._asked

    def _paint(self) -> None:
        with self._changed:
            wanted = self._wanted()
            index, speed, state = wanted[0], self.playback.speed, self.playback.state
            jumped, self._jumped = self._jumped, False
        if jumped:
            self.painter.reset()  # the sweep's trail does not lead from one place to the other
        begun = time.perf_counter()
        try:
            frame = self._frames[index]
            with self._changed:
                age_s = self.playback.age_s(index)
            period_s, paused = self.playback.period_s / speed, state != "running"
            moment = moment_at(self.content, frame, age_s, period_s, paused, self.target_ct)
            message = self.painter.frame(moment, self._seq + 1)
        except Exception:  # the page goes on, and says that its picture is old
            log.exception("frame %d cannot be shown", index)
            self._painted = wanted
            return
        self._seq, self._painted, self.shown = self._seq + 1, wanted, index
        self.hub.show(self._seq, message)
        self._work_ms = 1e3 * (time.perf_counter() - begun)

    def _tell(self) -> None:
        """Keep hello and status up to date, not more often than a person can read."""
        while not self._ending:
            if self.hub.watched:
                if time.monotonic() > self._hello_due_s:
                    state = self.content.done, self.content.registering, self.playback.speed
                    self._keep("hello", state, self._hello)
                status = self._status()
                self._keep("status", status, partial(status_message, status))
            with self._changed:
                self._changed.wait_for(lambda: self._ending, STATUS_S)

    def _keep(self, key: str, state: Any, message: Callable[[], bytes]) -> None:
        if self._told.get(key) != state:
            self._told[key] = state
            self.hub.keep(key, message())

    @property
    def _hello_due_s(self) -> float:
        """A long recording's series are large: they are told again the less often the longer it is."""
        return self._helloed_s + HELLO_S * max(1.0, len(self.content.frames) / 20_000)

    def _organs(self) -> None:
        """The organs' surfaces, once somebody watches: the first time they take a while."""
        with self._changed:
            self._changed.wait_for(lambda: self._ending or self.hub.watched)
        volume = self.content.volume
        if volume is None or self._ending:
            return
        try:
            for key, message in self.painter.organs(volume):
                if self._ending:
                    return
                self.hub.keep(key, message)
        except UsregError as error:
            log.warning("no surfaces of organs: %s", error)

    # --- messages -------------------------------------------------------------------------------------------------

    def _hello(self) -> bytes:
        c, self._helloed_s = self.content, time.monotonic()
        replay = {
            "count": len(c.frames), "begin_s": c.frames[0].stamp_s, "end_s": c.frames[-1].stamp_s,
            "speed": self.playback.speed, "events": events_of(c.frames, c.results, c.skipped), "has_truth": c.has_truth,
            "landmarks": bool(c.landmarks),
            "registering": {"done": c.done, "total": len(c.frames)} if c.registering else None,
        }  # fmt: skip
        series = {f"series_{name}": values for name, values in c.known_series().items()}
        commands, read_only = allowed(self, self.config.read_only), self.config.read_only
        header = hello_message(c.title, self.kind, commands, read_only, c.system, replay)
        return pack(header, {"stamps": np.array(c.stamps_s), **series})

    def _status(self) -> Status:
        with self._changed:
            index, state, pairs = self.playback.index, self.playback.state, tuple(self.pairs)
        stamp_s = self.content.frames[index].stamp_s
        past = [h.rows for h in self.content.hypotheses if h.stamp_s <= stamp_s]
        return Status(
            state, stages=self._stages(index), hypotheses=past[-1] if past else (), landmark_pairs=pairs,
            clients=len(self.hub.figures()["clients"]),
        )  # fmt: skip

    def _stages(self, index: int) -> tuple[Stage, ...]:
        """As recorded, or of what registers now; and of this view."""
        c, work_ms = self.content, self._work_ms
        told = {stage.name: stage for stage in c.stages.at(c.frames[index].stamp_s)}
        if not told:
            told["registration"] = self._registration(c.results[index])
        told["web_view"] = Stage("web_view", latency_ms=work_ms, work_ms=work_ms)
        return tuple(told.values())

    def _registration(self, result: Result | None) -> Stage:
        c = self.content
        compute_ms = math.nan if result is None else 1e3 * result.compute_s
        text = f"{c.done} of {len(c.frames)} frames" if c.registering else c.no_register
        level = "WARN" if c.no_register and not c.registering else "OK"
        return Stage("registration", level, text, latency_ms=compute_ms, work_ms=compute_ms)
