# SPDX-License-Identifier: Apache-2.0
"""Rest, constant velocity and breathing side by side, weighted by how well each foretold the estimates.

What is given out is the mean over the models with their spread in its covariance, so that a hold or a cough, which the
path does not know, is followed by the simpler models as soon as they foretell better. The interacting multiple models
of Blom and Bar-Shalom (1988), where only the model of rest takes in the others' states: a hold begins where the breath
ended. The others keep their own, since phase and rate of one mean nothing to the other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..agreement import Breathing
from ..config import FilterConfig
from ..state import Measurement, State, carry, difference, shifted
from .config import BreathingModelConfig
from .cycles import find_cycles
from .learn import learn_path
from .lock import Lock, find_phase
from .memory import Memory, coordinates, in_mm
from .path import BreathPath
from .phase import DEPTH, PHASE, RATE, PhaseMotion
from .velocity import ConstantVelocity
from .walk import RandomWalk

REST, VELOCITY, BREATH = range(3)  # places of the models in the bank; the last one is there while the phase is known
LOOK_S = 0.25  # between two looks for a new cycle
DOUBTED_S = 1.0  # so long may the breathing model foretell badly before its phase is searched anew
DOUBT = 0.05  # weight below which it does
LED = 0.3  # weight from which on it leads
FOUND_MM, FOUND_RAD = 2.0, 0.02  # spread about the path of a volume that is searched for
MOVED_MM = 15.0  # a volume that is found farther from its path has been moved


@dataclass(frozen=True, eq=False)
class Breaths:
    """What was learnt of breathing. A value in the state, so that rolling back takes it back as well.

    Args:
        memory: accepted estimates. path: None until a cycle was seen. looked_s: of the last look for cycles.
        doubted_s: since when the breathing model foretells badly; NaN while it does not.
        locked_s: when its phase was found.
    """

    memory: Memory
    path: BreathPath | None = None
    looked_s: float = -math.inf
    doubted_s: float = math.nan
    locked_s: float = math.nan


@dataclass(frozen=True, eq=False)
class BankState(State):
    """The mean over the models, and their states behind it.

    Args:
        members: states of random walk, constant velocity and, while the phase is known, breathing. weights: theirs.
    """

    members: tuple[State, ...] = ()
    weights: tuple[float, ...] = ()
    breaths: Breaths | None = None

    @property
    def learnt(self) -> BreathPath:
        """The path; only while the breathing model is in the bank."""
        assert self.breaths is not None and self.breaths.path is not None
        return self.breaths.path


class Bank:
    """The motion models in parallel. `rest` of the mean is empty: `lag.py` smooths the constant-velocity member."""

    def __init__(self, config: FilterConfig) -> None:
        self.config: BreathingModelConfig = config.breathing
        slow = replace(config, walk_mm=(self.config.rest_mm,) * 3, walk_rad=(self.config.rest_rad,) * 3)
        self.still, self.velocity = RandomWalk(slow), ConstantVelocity(config)

    def motion(self, state: BankState, member: int) -> RandomWalk | ConstantVelocity | PhaseMotion:
        """Model of a member."""
        if member == BREATH:
            return PhaseMotion(self.config, state.learnt)
        return self.still if member == REST else self.velocity

    def begin(self, measurement: Measurement) -> BankState:
        """Nothing is known of breathing yet."""
        members = (self.still.begin(measurement), self.velocity.begin(measurement))
        start = BankState(**vars(members[REST]), breaths=Breaths(Memory.begin(measurement)))
        return merged(start, members, (0.5, 0.5))

    def advance(self, state: State, stamp_s: float) -> BankState:
        """Each model by itself, and the mean over them."""
        assert isinstance(state, BankState)
        if stamp_s <= state.stamp_s:
            return state
        return merged(state, self.members(state, stamp_s), state.weights)

    def members(self, state: BankState, stamp_s: float) -> tuple[State, ...]:
        """States of the models at a later stamp."""
        return tuple(self.motion(state, k).advance(m, stamp_s) for k, m in enumerate(state.members))

    def held(self, state: State) -> BankState:
        """Anywhere on the path, if it is known: its mean, with the spread of the path; else at rest where it is."""
        assert isinstance(state, BankState)
        if state.breaths is None or state.breaths.path is None:
            calm = self.velocity.held(state.members[VELOCITY])
            calm = replace(calm, world_T_ct=state.world_T_ct, pivot=state.pivot)
            return merged(state, (state.members[REST], calm), (0.0, 1.0))
        memory, path = state.breaths.memory, state.breaths.path
        ways = path.at(np.linspace(0.0, 1.0, 24, endpoint=False)) + path.base
        pose, pivot = carry(memory.world_T_ct, memory.pivot, torch.from_numpy(ways.mean(0)))
        floor = torch.diag(torch.tensor([FOUND_MM**2] * 3 + [FOUND_RAD**2] * 3, dtype=torch.float64))
        spread = torch.from_numpy(np.cov(ways.T)) + floor
        still = replace(state.members[REST], world_T_ct=pose, pivot=pivot, covariance=spread)
        return merged(without_breath(state), (still, state.members[VELOCITY]), (1.0, 0.0))

    def remembered(self, state: BankState, before: BankState) -> BankState:
        """A new state with the breaths of an older one, unless the patient has moved."""
        old, new = before.breaths, state.breaths
        if old is None or new is None or old.path is None:
            return state
        way = coordinates(state.world_T_ct, state.pivot, old.memory.world_T_ct, old.memory.pivot) - old.path.base
        off = np.abs(old.path.at(np.linspace(0.0, 1.0, 24, endpoint=False)) - way)[:, :].min(0)
        if in_mm(off).max() > MOVED_MM:
            return state
        memory = old.memory
        for stamp, place in zip(new.memory.stamps, new.memory.places, strict=True):
            pose, pivot = carry(new.memory.world_T_ct, new.memory.pivot, torch.from_numpy(place))
            memory = memory.add(Measurement(float(stamp), pose, before.covariance, pivot), self.config.memory_s)
        return replace(state, breaths=Breaths(memory, old.path, old.looked_s))

    def transition(self, state: State, dt: float) -> Tensor:
        """Of the mean: identity."""
        return torch.eye(6, dtype=torch.float64)

    # --- after a measurement --------------------------------------------------------------------------------------

    def weighed(self, state: BankState, dt: float, likelihoods: Sequence[float]) -> tuple[float, ...]:
        """Weights after a measurement of log `likelihoods`, with the chance of a switch during dt."""
        before = self._switched(state, dt)
        best = max(likelihoods)
        after = [b * math.exp(max(-60.0, like - best)) for b, like in zip(before, likelihoods, strict=True)]
        return tuple(a / sum(after) for a in after)

    def _switched(self, state: BankState, dt: float) -> list[float]:
        """Weights after dt without a measurement."""
        stay = math.exp(-dt / self.config.switch_s)
        return [stay * w + (1.0 - stay) / len(state.members) for w in state.weights]

    def mixed(self, state: BankState, dt: float) -> BankState:
        """The state with what may have come to rest within dt put into the model of rest."""
        rest, count = state.members[REST], len(state.members)
        coming = (1.0 - math.exp(-dt / self.config.switch_s)) / count
        shares = [coming * w for w in state.weights]
        shares[REST] += math.exp(-dt / self.config.switch_s) * state.weights[REST]
        pose = merged(state, state.members, [s / sum(shares) for s in shares])
        rest = replace(rest, world_T_ct=pose.world_T_ct, pivot=pose.pivot, covariance=pose.covariance)
        return replace(state, members=(rest, *state.members[1:]))

    def learnt(self, state: BankState, measurement: Measurement) -> BankState:
        """The measurement remembered, the path learnt again if a cycle is over, the phase found if it is unknown."""
        assert state.breaths is not None
        breaths = replace(state.breaths, memory=state.breaths.memory.add(measurement, self.config.memory_s))
        if measurement.stamp_s - breaths.looked_s >= LOOK_S:
            breaths = replace(breaths, looked_s=measurement.stamp_s, path=self._path(breaths))
        state = replace(state, breaths=breaths)
        if len(state.members) > BREATH:
            state = self._doubted(state)
        if breaths.path is not None and len(state.members) == BREATH:
            state = self._locked(state, breaths.memory, breaths.path, measurement)
        return state

    def _path(self, breaths: Breaths) -> BreathPath | None:
        cycles = find_cycles(breaths.memory.stamps, breaths.memory.places, self.config)
        if not cycles or (breaths.path is not None and cycles[-1].end_s <= breaths.path.learnt_s):
            return breaths.path
        return learn_path(breaths.memory, cycles, self.config) or breaths.path

    def _doubted(self, state: BankState) -> BankState:
        """Without the breathing model where its phase is unknown, or it foretold badly for long."""
        assert state.breaths is not None
        now, since = state.stamp_s, state.breaths.doubted_s
        since = math.nan if state.weights[BREATH] > DOUBT else now if math.isnan(since) else since
        unknown = float(state.members[BREATH].covariance[6 + PHASE, 6 + PHASE]) > self.config.lost_phase**2
        state = replace(state, breaths=replace(state.breaths, doubted_s=since))
        return without_breath(state) if unknown or now - since > DOUBTED_S else state

    def _locked(self, state: BankState, memory: Memory, path: BreathPath, measurement: Measurement) -> BankState:
        """With the breathing model at the phase that the newest estimates agree with, if they agree with one."""
        sigma_mm = math.sqrt(float(measurement.covariance.diagonal()[:3].mean()))
        lock = find_phase(memory, path, self.config.window_s, sigma_mm)
        if lock is None:
            return state
        assert state.breaths is not None
        state = replace(state, breaths=replace(state.breaths, locked_s=state.stamp_s))
        member = self._member(state, path, lock)
        weights = (*(0.8 * w for w in state.weights), 0.2)
        return merged(state, (*state.members, member), weights)

    def _member(self, state: BankState, path: BreathPath, lock: Lock) -> State:
        motion = PhaseMotion(self.config, path)
        rate, depth = motion.spread()
        spread = torch.tensor([lock.sigma, 0.5 * rate, 0.5 * depth], dtype=torch.float64)
        return motion.begin(state.members[VELOCITY], lock.phase, lock.rate_hz, lock.depth, torch.diag(spread**2))


def breath_led(states: Sequence[BankState]) -> bool:
    """Whether the breathing model was the best or near it in all of these states, without losing its phase between."""
    locks = {s.breaths.locked_s for s in states if s.breaths is not None and len(s.members) > BREATH}
    return len(locks) == 1 and all(len(s.members) > BREATH and s.weights[BREATH] > LED for s in states)


def breathing_of(state: State) -> Breathing | None:
    """The breath of a state; None without a breathing model, or where it foretells badly (a hold, a cough)."""
    if not isinstance(state, BankState) or len(state.members) <= BREATH or state.weights[BREATH] <= DOUBT:
        return None
    rest = state.members[BREATH].rest
    ways = state.learnt.at(np.linspace(0.0, 1.0, 48, endpoint=False))[:, :3]
    depth_mm = float(rest[DEPTH]) * float(np.linalg.norm(ways, axis=1).max())
    return Breathing(2.0 * math.pi * (float(rest[PHASE]) % 1.0), depth_mm, 1.0 / float(rest[RATE]))


def without_breath(state: BankState) -> BankState:
    """The state with the two simple models alone; the path is kept."""
    assert state.breaths is not None
    total = state.weights[REST] + state.weights[VELOCITY]
    weights = (state.weights[REST] / total, state.weights[VELOCITY] / total) if total > 0 else (0.5, 0.5)
    breaths = replace(state.breaths, doubted_s=math.nan)
    return merged(replace(state, breaths=breaths), state.members[:BREATH], weights)


def merged(state: BankState, members: Sequence[State], weights: Sequence[float]) -> BankState:
    """The state with other members: mean and covariance of the mixture, about the heaviest member."""
    top = members[max(range(len(members)), key=lambda k: weights[k])]
    apart = difference(top.world_T_ct, torch.stack([m.world_T_ct for m in members]), top.pivot)
    share = torch.tensor(weights, dtype=torch.float64)
    mean = share @ apart
    off = apart - mean
    covariance = torch.stack([m.covariance[:6, :6] for m in members])
    covariance = (share[:, None, None] * (covariance + off[:, :, None] * off[:, None, :])).sum(0)
    none = torch.zeros(0, dtype=torch.float64)
    middle = shifted(replace(top, rest=none), mean, covariance)
    return replace(
        state, stamp_s=middle.stamp_s, world_T_ct=middle.world_T_ct, pivot=middle.pivot, rest=none,
        covariance=covariance, members=tuple(members), weights=tuple(weights),
    )  # fmt: skip
