# SPDX-License-Identifier: Apache-2.0
"""What the registration node does with a sweep: keyframes, starts, the joint registration, and who is told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from usreg_msgs.action import RegisterSweep
from usreg_msgs.msg import Hypotheses, Registration

from ..data.types import Estimate, Problem, TrackedFrame, Volume, start_estimate
from ..errors import LostError, NoOverlapError, UsregError
from ..registration.sweep import Sweep, SweepConfig, sweep_frames
from . import convert, parameters
from .sweep_action import Outcome, SweepAction, SweepGoalConfig, SweepRun, SweepStopped

if TYPE_CHECKING:
    from .registration import RegistrationNode

Stage = RegisterSweep.Feedback


def find_starts(
    frames: tuple[TrackedFrame, ...], volume: Volume, progress: Callable[[int, int], None]
) -> Sequence[Estimate]:
    """See `global_start.find_starts`; imported when it is needed."""
    from ..registration import global_start

    return global_start.find_starts(frames, volume, progress=progress)


class SweepRegistration:
    """The sweeps of a registration node.

    Args:
        node: gives volume, registrar, start and worker, and begins again from what is found.
    """

    def __init__(self, node: RegistrationNode) -> None:
        self.node = node
        self.config = parameters.declare(node, SweepConfig, "sweep")
        goal = parameters.declare(node, SweepGoalConfig, "sweep.goal")
        self.action = SweepAction(
            node, goal, node.frames.world_frame, self._refusal, self._submit, self._compute, self._answer
        )

    def _refusal(self) -> str:
        """Why no goal can be taken."""
        if self.node.worker is None:
            return "the node is not active"
        return "no volume is loaded: call the service load_volume" if self.node.volume is None else ""

    def _submit(self, work: Callable[[], None]) -> None:
        if self.node.worker is not None:
            self.node.worker.put(work)

    def _compute(self, run: SweepRun) -> Outcome:
        """Body of the worker."""
        try:
            return self._register(run)
        except SweepStopped:
            raise
        except UsregError as error:
            kinds = ((NoOverlapError, "NO_OVERLAP"), (LostError, "LOST"))
            status = next((name for kind, name in kinds if isinstance(error, kind)), "ERROR")
            return Outcome(None, status, str(error))

    def _register(self, run: SweepRun) -> Outcome:
        volume, registrar = self.node.loaded()
        sweep, goal = Sweep(registrar, self._settings(run)), run.goal
        if goal.use_global_start:
            run.note(Stage.STAGE_SEARCHING)
            return self._from_nowhere(run, sweep, volume)
        begin = self._begin(run, volume)
        problem = sweep.choose(Problem(tuple(run.frames), volume, begin))
        run.note(Stage.STAGE_REGISTERING, len(sweep_frames(problem)))
        found = self.node.allowed(sweep.register(problem))
        run.note(Stage.STAGE_REGISTERING, score=found.score)
        return Outcome(found, "ACCEPTED" if found.accepted else "REJECTED", found.reason)

    def _settings(self, run: SweepRun) -> SweepConfig:
        """The node's, with what the goal asks for."""
        c = self.config
        keyframes = replace(c.keyframes, count=run.goal.max_keyframes or c.keyframes.count)
        return replace(c, keyframes=keyframes, correct=c.correct or run.goal.correct_calibration)

    def _begin(self, run: SweepRun, volume: Volume) -> Estimate:
        if run.begin is None:
            return self.node.search_start(run.frames[-1].frame.stamp_s, volume)
        pose, covariance, _ = run.begin.about(volume)
        return start_estimate(pose, volume, covariance)

    def _from_nowhere(self, run: SweepRun, sweep: Sweep, volume: Volume) -> Outcome:
        """A global search, then a registration from each of its starts; the best one counts."""
        unknown = start_estimate(torch.eye(4, dtype=torch.float64), volume)
        problem = Problem(tuple(run.frames), volume, unknown)
        starts = tuple(
            find_starts(sweep.searched(problem), volume, lambda done, total: run.note(Stage.STAGE_SEARCHING))
        )
        self._tell(run, starts)
        best = self.node.allowed(
            sweep.best(problem, starts, lambda count, score: run.note(Stage.STAGE_REGISTERING, count, score))
        )
        run.note(Stage.STAGE_REGISTERING, score=best.score)
        return Outcome(best, "ACCEPTED" if best.accepted else "REJECTED", best.reason, starts)

    def _answer(self, run: SweepRun, outcome: Outcome) -> RegisterSweep.Result:
        """Begin again from an accepted pose, tell pose_smoothing, and make the action's result."""
        message = self._message(run, outcome)
        accepted = outcome.status == "ACCEPTED" and outcome.estimate is not None
        if accepted and outcome.estimate is not None:
            self.node.adopt(outcome.estimate, run.frames[-1].frame.stamp_s)
            others = self._starts(run, outcome.hypotheses, first=1)
            self.node.hypotheses_out.publish(Hypotheses(header=message.header, hypotheses=[message, *others]))
        self.node.diagnostics.fact("sweep", f"{outcome.status}: {len(run.frames)} frames, {run.keyframes} keyframes")
        starts = self._starts(run, outcome.hypotheses)
        return RegisterSweep.Result(
            success=accepted, message=outcome.reason, registration=message, hypotheses=starts
        )  # fmt: skip

    def _message(self, run: SweepRun, outcome: Outcome) -> Registration:
        world, child = self.node.frames.world_frame, self.node.frames.volume_frame
        if outcome.estimate is None:
            system = self.node.config.system
            return convert.refusal_to_msg(run.stamp, world, child, outcome.status, outcome.reason, system)
        last = run.frames[-1]
        age_s = self.node.now_s() - last.frame.stamp_s
        return convert.estimate_to_msg(
            outcome.estimate, run.stamp, world, child, outcome.status, last.world_T_image, age_s
        )

    def _starts(self, run: SweepRun, starts: tuple[Estimate, ...], first: int = 0) -> list[Registration]:
        """Starts as ranked messages: looked at, never to be used as they are."""
        world, child = self.node.frames.world_frame, self.node.frames.volume_frame
        return [
            convert.estimate_to_msg(e, run.stamp, world, child, "REJECTED", rank=first + k)
            for k, e in enumerate(starts)
        ]  # fmt: skip

    def _tell(self, run: SweepRun, starts: tuple[Estimate, ...]) -> None:
        messages = self._starts(run, starts)
        if messages:
            self.node.hypotheses_out.publish(Hypotheses(header=messages[0].header, hypotheses=messages))
