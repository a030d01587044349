# SPDX-License-Identifier: Apache-2.0
"""`usreg run`: the nodes of a session in one process or in several, without the launch system."""

from __future__ import annotations

import importlib
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..data.sessions import Session
from ..errors import ConfigError, WriteError
from ..web.access import choose_token
from . import graph
from .terminal import Display, display

log = logging.getLogger("usreg.run")
RESTARTS, RESTART_PAUSE_S, PATIENCE_S, LOOK_S = 3, 1.0, 10.0, 0.1
EXIT_CONFIG = 2
Say = Callable[[str], None]
Report = Callable[[Path, Session], None]
CLASSES = {
    "us_acquisition": "AcquisitionNode",
    "arm_tracking": "ArmTrackingNode",
    "registration": "RegistrationNode",
    "pose_smoothing": "PoseSmoothingNode",
    "fusion": "FusionNode",
    "player": "PlayerNode",
    "recorder": "RecorderNode",
    "simulator": "SimulatorNode",
    "web_view": "WebViewNode",
}


def run_session(
    kind: str,
    bag: Path | str | None = None,
    rate: float = 1.0,
    record: Path | str | None = None,
    report: Report | None = None,
    processes: str = "one",
    network: bool = False,
    arguments: Sequence[str] = (),
    say: Say = lambda text: None,
    live: bool = False,
    **more: Any,
) -> int:
    """Run a session until it ends or Ctrl-C.

    Args:
        kind: phantom, volunteer, replay or live. bag: session to play.
        report: called at the end with what was recorded and the session that was played.
        processes: "one" (a thread for registration, the rest in turn) or "many" (one for each node).
        arguments: further options as NAME:=VALUE, as `ros2 launch` takes them. more: the same as values.
        say: told of the progress, a line each. live: show a table instead, where standard output is a terminal.

    Returns:
        0; 1 where a node failed; 2 where one refused its parameters.

    Raises:
        UsregError: the session is not usable.
    """
    if processes not in ("one", "many"):
        raise ConfigError(f"processes is '{processes}'; choose one or many")
    if report is not None and kind == "live":
        raise ConfigError("a live session has no truth to report on; record it and replay the recording")
    with tempfile.TemporaryDirectory(prefix="usreg-") as folder:
        recording = str(record or (Path(folder) / "recording" if report else ""))
        options = graph.Options(bag=str(bag or ""), rate=rate, record=recording, **more)
        options = graph.with_text(options, _texts(kind, arguments))
        if options.record and Path(options.record).exists():  # known at once, and not when the recorder has started
            raise WriteError(
                f"'{options.record}' exists already: choose another name or remove it; nothing was changed"
            )
        if options.view:
            options = replace(options, view_token=choose_token(options.view_host, options.view_token))
        specs = graph.nodes(kind, options)
        os.environ.update(graph.environment(network))
        with display(say, live) as shown:
            code = (run_in_one if processes == "one" else run_in_many)(specs, shown, options.view_token)
        if report is not None and code == 0:
            report(Path(recording), graph.played_session(graph.session_name(kind, options), options))
    return code


def _texts(kind: str, arguments: Sequence[str]) -> dict[str, str]:
    known, found = graph.arguments(kind), {}
    for text in arguments:
        name, sign, value = text.partition(":=")
        if not sign or name not in known:
            raise ConfigError(f"'{text}' is no argument of {kind}; write NAME:=VALUE with one of {list(known)}")
        found[name] = value
    return found


def make_node(spec: graph.NodeSpec) -> Any:
    """The node of a description, in this process."""
    module = importlib.import_module(spec.module)
    return getattr(module, CLASSES[spec.name])(cli_args=spec.arguments(), use_global_arguments=False)


def run_in_one(specs: list[graph.NodeSpec], shown: Display, token: str = "") -> int:
    """All nodes in this process, on one executor; but those that stand aside, which have their own."""
    from .base import make_executor, ros_until_asked, spin
    from .monitor import Monitor

    torch.set_num_threads(1)
    aside = Family([spec for spec in specs if spec.name in graph.ASIDE])
    with ros_until_asked([]) as asked:
        executor, made = make_executor(), list[Any]()
        try:
            aside.start()
            inside: list[Callable[[], Any]] = [partial(make_node, s) for s in specs if s.name not in graph.ASIDE]
            for make in (*inside, lambda: Monitor(shown, specs[0].namespace, token)):
                made.append(make())
                executor.add_node(made[-1])
            for node in made:
                node.start()
            finished = lambda: any(getattr(node, "finished", False) for node in made)  # noqa: E731
            spin(executor, lambda: asked() or finished() or aside.look() is not None)
        finally:
            aside.ask()
            for node in reversed(made):
                node.stop()
                executor.remove_node(node)
                node.destroy_node()
            aside.stop()
    return int(any(getattr(node, "failed", False) for node in made))


def run_in_many(specs: list[graph.NodeSpec], shown: Display, token: str = "") -> int:
    """Each node in a process of its own; one that dies is started again, the rest go on."""
    from .base import make_executor, ros_until_asked
    from .monitor import Monitor

    family = Family(specs)
    with ros_until_asked([]) as asked:
        executor, monitor = make_executor(), Monitor(shown, specs[0].namespace, token)
        executor.add_node(monitor)
        try:
            family.start()
            while not asked():
                code = family.look()
                if code is not None:
                    return code
                executor.spin_once(timeout_sec=0.05)
            return 0
        finally:
            monitor.stop()
            family.stop()
            executor.remove_node(monitor)
            monitor.destroy_node()


class Family:
    """The processes of a session. What stands aside (`graph.ASIDE`) never ends it."""

    def __init__(self, specs: list[graph.NodeSpec]) -> None:
        self.specs = {spec.name: spec for spec in specs}
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.restarts = dict.fromkeys(self.specs, 0)
        self._due: dict[str, float] = {}  # when a node that has ended is started again
        self._looked_s = 0.0

    def start(self) -> None:
        """Start every node; the player last, so that nobody waits for it."""
        for name in self.specs:
            self._start(name)

    def _start(self, name: str) -> None:
        spec = self.specs[name]
        code = f"from {spec.module} import main; main()"
        environment = os.environ | graph.threads() | dict(spec.environment) | {graph.PARENT: str(os.getpid())}
        # a session of its own: Ctrl-C reaches the children through us, once, in order
        command = [sys.executable, "-c", code, *spec.arguments()]
        self.running[name] = subprocess.Popen(command, env=environment, start_new_session=True)

    def look(self) -> int | None:
        """Start again what has died; the exit code where the session is over: the player has ended, a node refuses its
        parameters or cannot be kept alive. Returns at once; called often, it looks a few times a second."""
        now = time.monotonic()
        if now - self._looked_s < LOOK_S:
            return None
        self._looked_s = now
        for name in [name for name, due in self._due.items() if due <= now]:
            del self._due[name]
            self._start(name)
        for name, process in list(self.running.items()):
            code = process.poll()
            if code is None:
                continue
            del self.running[name]
            if name == "player" or (code == EXIT_CONFIG and name not in graph.ASIDE):
                return abs(code) if code <= 0 else code
            if not self._again(name, code) and name not in graph.ASIDE:
                return 1
        return None

    def _again(self, name: str, code: int) -> bool:
        """Have a node that died started again, a few times."""
        self.restarts[name] += 1
        goes_on = "the session goes on without it" if name in graph.ASIDE else "the session ends"
        if code == EXIT_CONFIG:
            log.error("%s refuses its parameters: %s", name, goes_on)
            return False
        if self.restarts[name] > RESTARTS:
            log.error("%s has ended %d times, the last time with %d: %s", name, RESTARTS + 1, code, goes_on)
            return False
        log.warning("%s has ended with %d: it is started again, the other nodes go on", name, code)
        self._due[name] = time.monotonic() + RESTART_PAUSE_S
        return True

    def ask(self) -> None:
        """Ask all to end."""
        self._due.clear()
        self._send(signal.SIGINT)

    def stop(self) -> None:
        """Ask all to end, and more firmly those that do not."""
        self.ask()
        for number in (signal.SIGTERM, signal.SIGKILL, None):
            self._wait([p for p in self.running.values() if p.poll() is None])
            if number is not None:
                self._send(number)

    def _send(self, number: int) -> None:
        for process in self.running.values():
            if process.poll() is None:
                process.send_signal(number)

    def _wait(self, alive: list[subprocess.Popen[bytes]]) -> None:
        end = time.monotonic() + PATIENCE_S
        for process in alive:
            try:
                process.wait(max(0.0, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                log.warning("a node does not end; it is asked more firmly")
