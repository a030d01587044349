# SPDX-License-Identifier: Apache-2.0
"""Error-state Kalman filter of `world_T_ct` with gate, late results, prediction and loss."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ..data.types import Estimate, check_covariance, check_pose
from ..errors import GeometryError, LostError, TimeError
from .agreement import Breathing, FilterUpdate, Prediction, Status
from .config import FilterConfig
from .correct import Rules
from .lag import Node, smooth
from .motion.agreement import Motion, Transition
from .motion.bank import breathing_of
from .state import Measurement, State

INITIALISE = "call initialize (service registration/initialize) with a pose of the volume"


class StepRule(Protocol):
    """What a measurement does to the state: `Rules` (gate, correction, jumps) or `Hold`."""

    @property
    def motion(self) -> Motion:
        """How the state moves on."""
        ...

    def apply(self, state: State, measurement: Measurement) -> tuple[State, FilterUpdate]:
        """The state after a measurement that is not older than it."""
        ...

    def lag(self, states: Sequence[State]) -> list[tuple[Transition, State]]:
        """Models and states that the fixed-lag output is made from."""
        ...


@dataclass(frozen=True, eq=False)
class Entry:
    """A measurement in the history and the state behind it; `result` says whether it went in."""

    measurement: Measurement
    state: State
    result: FilterUpdate


class PoseFilter:
    """Where the patient lies in the room, from estimates of single frames.

    The state is `world_T_ct` with the error (v, w) in world axes about the volume's centre, after Sola, "Quaternion
    kinematics for the error-state Kalman filter" (2017), and Barfoot, "State Estimation for Robotics" (2017).

    Note: a registration starts from this filter's prediction, and neighbouring frames share tracking, calibration and
    content. Estimates are therefore not independent of the state, nor of each other, as a Kalman filter assumes. The
    floor on an estimate's covariance and the process noise keep the covariance from shrinking to what independent
    estimates would give; it is not a proof of accuracy.

    Late estimates are taken at their own stamp: the history is rolled back and replayed, so that the result is the same
    to the bit as if they had come in order.
    """

    def __init__(self, config: FilterConfig | None = None, rules: StepRule | None = None) -> None:
        self.config = config or FilterConfig()
        self._rules = rules or Rules.of(self.config)
        floor = [self.config.floor_mm**2] * 3 + [self.config.floor_rad**2] * 3
        self._floor = torch.diag(torch.tensor(floor, dtype=torch.float64))
        self._history: list[Entry] = []
        self._seen_s = -math.inf

    def reset(self) -> None:
        """Forget everything (a time jump, another patient)."""
        self._history = []
        self._seen_s = -math.inf

    @property
    def status(self) -> Status:
        """At the newest stamp that was asked for or came in."""
        if not self._history:
            return "UNINITIALISED"
        return "LOST" if self._problem(self._at(self._seen_s), self._seen_s) else "TRACKING"

    @property
    def newest_s(self) -> float:
        """Stamp of the newest measurement; NaN before `initialize`."""
        return self._history[-1].measurement.stamp_s if self._history else math.nan

    def initialize(self, stamp_s: float, world_T_ct: Tensor, covariance: Tensor, pivot: Tensor) -> None:
        """Begin, or begin again, from a given pose; counts as accepted at its stamp.

        Args:
            world_T_ct: (4, 4), mm. covariance: (6, 6) of (v, w), mm and rad, world axes, about pivot.
            pivot: (3,) world position of the volume's centre, mm.

        Raises:
            TimeError, GeometryError, ShapeError: not finite, not rigid, no covariance.
        """
        if not math.isfinite(stamp_s):
            raise TimeError(f"the stamp of the initial pose is {stamp_s}: a finite time in seconds is expected")
        check_pose(world_T_ct, "initial world_T_ct")
        check_covariance(covariance, "initial covariance")
        if pivot.shape != (3,) or not bool(torch.isfinite(pivot).all()):
            raise GeometryError(f"the pivot must be the volume's centre in world, 3 finite numbers, got {pivot}")
        first = Measurement(stamp_s, world_T_ct, covariance + self._floor, pivot.to(torch.float64))
        self._history = [Entry(first, self._rules.motion.begin(first), FilterUpdate(True, "initialised"))]
        self._seen_s = stamp_s

    def update(self, stamp_s: float, estimate: Estimate) -> FilterUpdate:
        """Take in the estimate of the frame at a stamp; it may be late by `max_late_s`.

        Returns:
            Whether it moved the state, and why not. Nothing is raised: a bad estimate is refused with its reason.
        """
        reason = self._refusal(stamp_s, estimate)
        if reason:
            return FilterUpdate(False, reason)
        self._seen_s = max(self._seen_s, stamp_s)
        covariance = estimate.covariance.to(torch.float64) + self._floor
        measurement = Measurement(stamp_s, estimate.world_T_ct, covariance, estimate.pivot.to(torch.float64))
        place = bisect_right(self._history, stamp_s, key=_stamp)
        later = [e.measurement for e in self._history[place:]]
        del self._history[place:]
        for m in (measurement, *later):
            self._history.append(Entry(m, *self._rules.apply(self._history[-1].state, m)))
        result = self._history[place].result
        del self._history[: -self.config.history]
        return result

    def predict(self, stamp_s: float) -> Prediction:
        """The pose at a stamp, at most `max_prediction_s` after the newest accepted estimate.

        Raises:
            LostError: not initialised, too long without an accepted estimate, or too uncertain.
        """
        state = self._ahead(stamp_s)
        problem = self._problem(state, stamp_s)
        if problem:
            raise LostError(f"{problem}: no pose is given out until an estimate is accepted, or {INITIALISE}")
        return _prediction(state, stamp_s)

    def search_start(self, stamp_s: float) -> Prediction:
        """Where a registration may begin to search, also when LOST: the last state with its covariance grown.

        A start, not a pose: it must never be shown or published as one.

        Raises:
            LostError: not initialised.
        """
        return _prediction(self._ahead(stamp_s), stamp_s)

    def breathing(self, stamp_s: float) -> Breathing | None:
        """The breath at a stamp; None without a breathing model, with an unknown phase, or where the pose is LOST."""
        try:
            state = self._ahead(stamp_s)
        except LostError:
            return None
        return None if self._problem(state, stamp_s) else breathing_of(state)

    def lagged(self, stamp_s: float) -> Prediction:
        """Fixed-lag output for reports: the pose at a past stamp with the estimates until `lag_s` after it.

        Rauch, Tung and Striebel (1965) over the history, in the error state.

        Raises:
            LostError: the history does not reach back to the stamp, or the pose was lost there.
        """
        self._check_stamp(stamp_s)
        until = bisect_right(self._history, stamp_s + self.config.lag_s, key=_stamp)
        entries = [e for e in self._history[:until] if e.result.accepted]
        if not entries or entries[0].measurement.stamp_s > stamp_s:
            raise LostError(f"the filter's history begins after {stamp_s:.3f} s: ask earlier, or raise 'history'")
        # estimates before the last one that is not after the stamp tell the smoother nothing more
        first = bisect_right(entries, stamp_s, key=_stamp) - 1
        lagged = self._rules.lag([e.state for e in entries[first:]])
        fresh = [e.result.reason != "" for e in entries[first:]]
        state = smooth([Node(s, f, m) for (m, s), f in zip(lagged, fresh, strict=True)], stamp_s)
        problem = self._problem(state, stamp_s)
        if problem:
            raise LostError(f"{problem}: no lagged pose")
        return _prediction(state, stamp_s)

    def _ahead(self, stamp_s: float) -> State:
        self._check_stamp(stamp_s)
        self._seen_s = max(self._seen_s, stamp_s)
        return self._at(stamp_s)

    def _check_stamp(self, stamp_s: float) -> None:
        if not math.isfinite(stamp_s):
            raise TimeError(f"a pose was asked for at {stamp_s}: a finite time in seconds is expected")
        if not self._history:
            raise LostError(f"the filter is not initialised: {INITIALISE}")
        if stamp_s < self._history[0].measurement.stamp_s:
            first = self._history[0].measurement.stamp_s
            raise LostError(f"{stamp_s:.3f} s is before the filter's history, which begins at {first:.3f} s")

    def _at(self, stamp_s: float) -> State:
        place = bisect_right(self._history, stamp_s, key=_stamp)
        state = self._history[place - 1].state
        # the motion is trusted no longer than a prediction may be; beyond, only the covariance grows
        limit, motion = state.accepted_s + self.config.max_prediction_s, self._rules.motion
        if stamp_s > limit:
            state = motion.held(motion.advance(state, max(limit, state.stamp_s)))
        return motion.advance(state, stamp_s)

    def _problem(self, state: State, stamp_s: float) -> str:
        age, limit = stamp_s - state.accepted_s, self.config.max_prediction_s
        if age > limit + 1e-9:
            return f"LOST: the newest accepted estimate is {age:.3f} s old, the limit is {limit} s"
        worst = torch.linalg.eigvalsh(torch.stack([state.covariance[:3, :3], state.covariance[3:6, 3:6]]))[:, -1]
        mm, rad = worst.clamp_min(0).sqrt().tolist()
        if mm > self.config.max_sigma_mm or rad > self.config.max_sigma_rad:
            limits = f"{self.config.max_sigma_mm} mm, {self.config.max_sigma_rad} rad"
            return f"LOST: the pose is uncertain by {mm:.2f} mm and {rad:.3f} rad, the limits are {limits}"
        return ""

    def _refusal(self, stamp_s: float, estimate: Estimate) -> str:
        if not self._history:
            return f"the filter is not initialised: {INITIALISE}"
        if not estimate.accepted:
            return f"not accepted by the registration: {estimate.reason or 'no reason given'}"
        if not math.isfinite(stamp_s):
            return f"the stamp is {stamp_s}"
        try:
            check_pose(estimate.world_T_ct, "world_T_ct")
        except ValueError as error:
            return str(error)
        if estimate.pivot.shape != (3,) or not bool(torch.isfinite(estimate.pivot).all()):
            return "the pivot is not 3 finite numbers"
        return self._late(stamp_s)

    def _late(self, stamp_s: float) -> str:
        late, limit = self.newest_s - stamp_s, self.config.max_late_s
        if late > limit:
            return f"late by {late:.3f} s, the limit is {limit} s; after a jump of the clock call reset()"
        if stamp_s < self._history[0].measurement.stamp_s:
            return "older than the filter's history"
        same = self._history[bisect_right(self._history, stamp_s, key=_stamp) - 1]
        if same.measurement.stamp_s == stamp_s and same.result.reason != "initialised":
            return f"an estimate of the frame at {stamp_s:.6f} s has come before"
        return ""


def _stamp(entry: Entry) -> float:
    return entry.measurement.stamp_s


def _prediction(state: State, stamp_s: float) -> Prediction:
    age = stamp_s - state.accepted_s
    return Prediction(state.world_T_ct, state.covariance[:6, :6].clone(), age, state.pivot, stamp_s)
