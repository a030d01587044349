# SPDX-License-Identifier: Apache-2.0
"""Action `register_sweep` of the registration node: collects tracked frames, registers them together in its thread.

One goal at a time. The executor only collects and tells how far it is; the heavy work is an item of the node's worker.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from builtin_interfaces.msg import Time
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.task import Future
from usreg_msgs.action import RegisterSweep

from ..config import check_range
from ..data.types import Estimate, TrackedFrame
from ..errors import UsregError
from . import start

log = logging.getLogger(__name__)
CANCELLED = "cancelled"
NO_LIMIT = "a sweep needs a number of frames or a duration in seconds, finite and not negative"


@dataclass(frozen=True)
class SweepGoalConfig:
    """Bounds of a goal.

    Args:
        max_frames: of one sweep; collecting ends there.
        patience_s: without a tracked frame for so long the goal is given up.
        feedback_s: time between feedbacks.
    """

    max_frames: int = 600
    patience_s: float = 5.0
    feedback_s: float = 0.2

    def __post_init__(self) -> None:
        check_range("max_frames", self.max_frames, 1, 100_000)
        check_range("patience_s", self.patience_s, 0.1, 3600.0)
        check_range("feedback_s", self.feedback_s, 0.02, 0.5)


@dataclass(frozen=True, eq=False)
class Outcome:
    """What became of a sweep; `estimate` is None where an error came first. Status and reason as in Registration."""

    estimate: Estimate | None
    status: str
    reason: str = ""
    hypotheses: tuple[Estimate, ...] = ()


@dataclass(eq=False)
class SweepRun:
    """A goal on its way; the worker writes stage, keyframes and score, the executor the rest."""

    goal: RegisterSweep.Goal
    wanted: int
    started_s: float
    begin: start.Start | None = None
    frames: list[TrackedFrame] = field(default_factory=list)
    stamp: Time | None = None
    heard_s: float = 0.0
    stage: int = RegisterSweep.Feedback.STAGE_COLLECTING
    keyframes: int = 0
    score: float = math.nan
    stopped: str = ""

    def complete(self) -> bool:
        """Whether enough frames have come."""
        if not self.frames:
            return False
        spent = self.frames[-1].frame.stamp_s - self.frames[0].frame.stamp_s
        return len(self.frames) >= self.wanted or 0 < self.goal.duration <= spent

    def note(self, stage: int, keyframes: int = 0, score: float = math.nan) -> None:
        """Called by the worker between steps.

        Raises:
            SweepStopped: nobody waits for the result any more.
        """
        self.stage, self.keyframes = stage, keyframes or self.keyframes
        self.score = self.score if math.isnan(score) else score
        if self.stopped:
            raise SweepStopped(self.stopped)


class SweepStopped(UsregError):
    """The goal was cancelled, or the node began again."""


Compute = Callable[[SweepRun], Outcome]
Answer = Callable[[SweepRun, Outcome], RegisterSweep.Result]


class SweepAction:
    """The action's server.

    Args:
        node: has `guarded`, `steady_timer`, `tell`.
        check: why no goal can be taken at present, or an empty text. world: name of the world's frame.
        submit: hands a function to the worker's thread.
        compute: body of the worker: registers what was collected. answer: uses the outcome and makes the result.
    """

    def __init__(
        self,
        node: Any,
        config: SweepGoalConfig,
        world: str,
        check: Callable[[], str],
        submit: Callable[[Callable[[], None]], None],
        compute: Compute,
        answer: Answer,
    ) -> None:
        self.node, self.config, self.world = node, config, world
        self._check, self._submit, self._compute, self._answer = check, submit, compute, answer
        self._lock = threading.Lock()
        self._run: SweepRun | None = None
        self._next: SweepRun | None = None
        self._wake: Future | None = None
        self._handle: Any = None
        self._timer = node.steady_timer(config.feedback_s, self._tell)
        self._timer.cancel()
        self._server = ActionServer(
            node, RegisterSweep, "register_sweep", execute_callback=self._execute, goal_callback=self._on_goal,
            cancel_callback=self._on_cancel,
        )  # fmt: skip

    @property
    def computing(self) -> bool:
        """Whether the worker is wanted for a sweep: single frames wait."""
        return self._run is not None and self._run.stage != RegisterSweep.Feedback.STAGE_COLLECTING

    def offer(self, tracked: TrackedFrame, stamp: Time) -> None:
        """A tracked frame has come."""
        run = self._run
        if run is None or self.computing or run.stopped:
            return
        run.frames.append(tracked)
        run.stamp, run.heard_s = stamp, time.monotonic()
        if run.complete():
            run.stage = RegisterSweep.Feedback.STAGE_REGISTERING
            self._resolve(None)

    def stop(self, reason: str) -> None:
        """End the goal that is on its way."""
        if self._run is not None and not self._run.stopped:
            self._run.stopped = reason
            self._resolve(None)

    def destroy(self) -> None:
        """Give the server back."""
        self.stop("the node ends")
        self._server.destroy()

    def _on_goal(self, goal: RegisterSweep.Goal) -> GoalResponse:
        try:
            reason = self._refusal(goal)
            begin = start.from_msg(goal.initial_pose, self.world) if goal.use_initial_pose and not reason else None
        except UsregError as error:
            reason = str(error)
        if reason:
            self.node.tell("register_sweep", f"a goal of register_sweep is rejected: {reason}")
            return GoalResponse.REJECT
        now, wanted = time.monotonic(), min(goal.frames or self.config.max_frames, self.config.max_frames)
        self._next = SweepRun(goal, wanted, now, begin, heard_s=now)
        return GoalResponse.ACCEPT

    def _refusal(self, goal: RegisterSweep.Goal) -> str:
        if self._run is not None or self._next is not None:
            return "another sweep is on its way: wait for it, or cancel it"
        if not (math.isfinite(goal.duration) and goal.duration >= 0 and (goal.frames > 0 or goal.duration > 0)):
            return f"{NO_LIMIT}; got {goal.frames} frames and {goal.duration} s"
        if goal.use_initial_pose and goal.use_global_start:
            return "an initial pose and a global search exclude each other"
        return self._check()

    def _on_cancel(self, handle: Any) -> CancelResponse:
        self.stop(CANCELLED)
        return CancelResponse.ACCEPT

    async def _execute(self, handle: Any) -> RegisterSweep.Result:
        """Body of a goal; it waits twice, for the frames and for the worker."""
        run, self._next = self._next, None
        assert run is not None
        run.stopped = CANCELLED if handle.is_cancel_requested else ""
        self._run, self._handle = run, handle
        self._timer.reset()
        try:
            if not run.stopped:
                await self._waiting()
            outcome = None if run.stopped else await self._computed(run)
        finally:
            self._run, self._handle = None, None
            self._timer.cancel()
        return self._finish(handle, run, outcome)

    def _waiting(self) -> Future:
        self._wake = Future(executor=self.node.executor)
        return self._wake

    def _resolve(self, outcome: Outcome | None, future: Future | None = None) -> None:
        """End a wait, once; called by the executor and by the worker."""
        with self._lock:
            future = future or self._wake
            if future is not None and not future.done():
                future.set_result(outcome)

    def _computed(self, run: SweepRun) -> Future:
        """Hand the sweep to the worker; the future also ends when the goal is stopped, its result is then not used."""
        future = self._waiting()
        self._submit(lambda: self._resolve(self._safely(run), future))
        return future

    def _safely(self, run: SweepRun) -> Outcome:
        try:
            return self._compute(run)
        except SweepStopped as error:
            return Outcome(None, "ERROR", str(error))
        except Exception as error:  # a goal must end, whatever happens
            log.exception("unexpected error in a sweep")
            return Outcome(None, "ERROR", f"internal error: {type(error).__name__}: {error}")

    def _finish(self, handle: Any, run: SweepRun, outcome: Outcome | None) -> RegisterSweep.Result:
        if outcome is None or run.stopped:
            result = RegisterSweep.Result(message=run.stopped)
            (handle.canceled if handle.is_cancel_requested else handle.abort)()
        else:
            result = self._answer(run, outcome)
            (handle.succeed if outcome.estimate is not None else handle.abort)()
        result.frames, result.keyframes = len(run.frames), run.keyframes
        return result

    def _tell(self) -> None:
        """Feedback, and the end of patience."""
        run, handle = self._run, self._handle
        if run is None or handle is None:
            return
        now = time.monotonic()
        if not self.computing and now - run.heard_s > self.config.patience_s:
            self.stop(f"no tracked frame came for {self.config.patience_s} s after {len(run.frames)} of them")
            return
        handle.publish_feedback(
            RegisterSweep.Feedback(
                stage=run.stage, frames=len(run.frames), keyframes=run.keyframes, elapsed=now - run.started_s,
                score=run.score,
            )
        )  # fmt: skip
