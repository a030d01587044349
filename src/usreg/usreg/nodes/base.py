# SPDX-License-Identifier: Apache-2.0
"""What every node shares: frames, diagnostics, errors caught at the callback, reset on a backward jump, spinning."""

from __future__ import annotations

import functools
import gc
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import rclpy
import torch
from rclpy.clock import Clock, ClockType, JumpThreshold
from rclpy.duration import Duration
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from ..errors import UsregError
from . import graph, parameters
from .diagnostics import Diagnostics

THROTTLE_S = 2.0
SPIN_S = 0.1
EXIT_CONFIG = 2


class Stage(Node):
    """A node of the graph. A child declares its parameters, builds its part, subscribes, and ends with `ready()`."""

    def __init__(self, name: str, stage: str, **options: Any) -> None:
        super().__init__(name, **options)
        self._set_up(stage)

    def _set_up(self, stage: str) -> None:
        self.frames = parameters.declare(self, parameters.FrameConfig)
        self.diagnostics = Diagnostics(self, stage)
        self._told: dict[str, float] = {}
        back = JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=False)
        self._jump = self.get_clock().create_jump_callback(back, post_callback=self._on_jump)
        forward_log(self)

    def ready(self) -> None:
        """Every parameter is declared: refuse the unknown ones."""
        parameters.check_known(self)

    def start(self) -> None:
        """Called once the node is in an executor; lifecycle nodes configure and activate themselves here."""

    def reset(self) -> None:
        """Forget everything that belongs to the time before a jump."""

    def stop(self) -> None:
        """End threads and close files; the node is destroyed next."""

    def now_s(self) -> float:
        """The node's clock (simulated where `use_sim_time` is set), seconds."""
        return self.get_clock().now().nanoseconds * 1e-9

    def steady_timer(self, period_s: float, callback: Callable[[], None]) -> Any:
        """A timer that also runs while simulated time stands still."""
        return self.create_timer(period_s, self.guarded(callback), clock=Clock(clock_type=ClockType.STEADY_TIME))

    def guarded(self, callback: Callable[..., Any]) -> Callable[..., Any]:
        """The callback with every UsregError caught, told and counted; the node goes on."""

        @functools.wraps(callback)
        def call(*arguments: Any) -> Any:
            try:
                return callback(*arguments)
            except UsregError as error:
                self.refuse(error)
                return None

        return call

    def refuse(self, error: UsregError) -> None:
        """Count and tell why an input was not used."""
        self.diagnostics.drop(type(error).__name__)
        self.tell(type(error).__name__, str(error))

    def tell(self, kind: str, text: str, severity: str = "warning") -> None:
        """Log, at most once in two seconds for each kind."""
        now = time.monotonic()
        if now - self._told.get(kind, -THROTTLE_S) >= THROTTLE_S:
            self._told[kind] = now
            say(self.get_logger(), severity == "error", text)

    def _on_jump(self, jump: Any) -> None:
        self.get_logger().info(f"time jumped back by {-jump.delta.nanoseconds * 1e-9:.3f} s: everything begins again")
        self.reset()


class LifecycleStage(LifecycleNode, Stage):
    """A heavy node: `configure` loads and compiles, `activate` starts output.

    A child implements `configure`, `activate`, `deactivate`, `cleanup`; an error in them is logged and the
    transition fails.
    """

    def __init__(self, name: str, stage: str, **options: Any) -> None:
        LifecycleNode.__init__(self, name, **options)
        self._set_up(stage)
        self._autostart: bool = self.declare_parameter("autostart", True).value

    def start(self) -> None:
        """Configure and activate, unless `autostart` leaves that to a manager."""
        if self._autostart and self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._transition("configure", self.configure)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        super().on_activate(state)
        return self._transition("activate", self.activate)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        result = self._transition("deactivate", self.deactivate)
        super().on_deactivate(state)
        return result

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._transition("clean up", self.cleanup)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._transition("shut down", self.stop)

    def configure(self) -> None:
        """Load and compile."""

    def activate(self) -> None:
        """Start output."""

    def deactivate(self) -> None:
        """Stop output."""

    def cleanup(self) -> None:
        """Give back what `configure` took."""

    def _transition(self, what: str, action: Callable[[], None]) -> TransitionCallbackReturn:
        try:
            action()
        except UsregError as error:
            self.diagnostics.state("ERROR", f"cannot {what}: {error}")
            self.get_logger().error(f"cannot {what}: {error}")
            return TransitionCallbackReturn.FAILURE
        self.diagnostics.state("OK")
        return TransitionCallbackReturn.SUCCESS


def say(log: Any, is_error: bool, text: str) -> None:
    """Log an error or a warning; on lines of their own, because rclpy ties a line of code to one severity."""
    if is_error:
        log.error(text)
    else:
        log.warning(text)


class _RosHandler(logging.Handler):
    """Passes the library's warnings on to ROS's log."""

    def __init__(self, node: Node) -> None:
        super().__init__(logging.WARNING)
        self._log = node.get_logger()

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.exc_info:
            text += "\n" + "".join(traceback.format_exception(*record.exc_info))
        say(self._log, record.levelno >= logging.ERROR, text)


def forward_log(node: Node) -> None:
    """Send warnings of the library to ROS's log, once for each process."""
    logger = logging.getLogger("usreg")
    if not any(isinstance(handler, _RosHandler) for handler in logger.handlers):
        logger.addHandler(_RosHandler(node))


def make_executor() -> Any:
    """The events executor where rclpy has it (a third of the latency), else the single-threaded one."""
    try:
        from rclpy.experimental import EventsExecutor
    except ImportError:
        return SingleThreadedExecutor()
    return EventsExecutor()


def spin(executor: Any, until: Callable[[], bool]) -> None:
    """Run callbacks until told; short waits, because the events executor hears no signal in a long one."""
    while rclpy.ok() and not until():
        executor.spin_once(timeout_sec=SPIN_S)


@contextmanager
def ros_until_asked(args: list[str] | None = None) -> Iterator[Callable[[], bool]]:
    """ROS from here to the end of the block, which asks whether SIGINT or SIGTERM has come.

    rclpy's own handlers are left out: they end the context under the feet of the other threads, and Ctrl-C on a
    terminal reaches a node twice (from the terminal and from its launcher), the second time while it cleans up.
    """
    came: list[int] = []
    before = {s: signal.signal(s, lambda number, frame: came.append(number)) for s in (signal.SIGINT, signal.SIGTERM)}
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    try:
        yield lambda: bool(came)
    finally:
        rclpy.try_shutdown()
        for number, handler in before.items():
            signal.signal(number, handler)


def orphaned() -> bool:
    """Whether the process that started this one for a session (`graph.PARENT` says which) has ended, however."""
    parent = os.environ.get(graph.PARENT, "")
    return bool(parent) and str(os.getppid()) != parent


def run_node(make: Callable[..., Stage], args: list[str] | None = None) -> int:
    """Body of a node's `main`: make, spin, end cleanly on SIGINT and SIGTERM. Returns the exit code."""
    torch.set_num_threads(1)  # images are small: more threads only fight with the other processes
    with ros_until_asked(args) as asked:
        node, executor = None, make_executor()
        try:
            node = make()
            executor.add_node(node)
            node.start()
            spin(executor, lambda: asked() or orphaned() or bool(getattr(node, "finished", False)))
        except UsregError as error:
            rclpy.logging.get_logger("usreg").fatal(str(error))
            return EXIT_CONFIG
        except ExternalShutdownException:
            return 0  # asked to end through ROS
        finally:
            if node is not None:
                node.stop()
                executor.remove_node(node)
                node.destroy_node()
    return 0


def leave(code: int) -> NoReturn:
    """End the process: objects of the middleware are given back, so that nothing stays in shared memory.

    The rest is not searched for garbage again: with torch loaded that takes a second, times five when a graph ends.
    """
    gc.collect()
    gc.freeze()
    sys.exit(code)
