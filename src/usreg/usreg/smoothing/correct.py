# SPDX-License-Identifier: Apache-2.0
"""One measurement against the state: innovation, gate, correction, and the rule for jumps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from scipy.stats import chi2
from torch import Tensor

from ..geometry import se3
from .agreement import FilterUpdate
from .config import FilterConfig
from .motion.agreement import Motion, Transition
from .motion.bank import BREATH, VELOCITY, Bank, BankState, breath_led, merged
from .motion.phase import PhaseMotion
from .motion.velocity import ConstantVelocity
from .motion.walk import RandomWalk
from .state import Measurement, State, difference, shifted


@dataclass(frozen=True)
class Rules:
    """Gate and jump rule with their numbers worked out once, for one motion model."""

    motion: Motion
    nis_limit: float
    jump_count: int
    jump_gap_s: float
    regain_count: int
    regain_after_s: float

    @staticmethod
    def of(config: FilterConfig) -> Rules:
        """From the configuration."""
        limit = float(chi2.ppf(config.gate_probability, 6))
        numbers = (limit, config.jump_count, config.jump_gap_s, config.regain_count, config.regain_after_s)
        if config.model == "breathing":
            return BankRules(Bank(config), *numbers)
        model = ConstantVelocity if config.model == "constant_velocity" else RandomWalk
        return Rules(model(config), *numbers)

    def apply(self, state: State, measurement: Measurement) -> tuple[State, FilterUpdate]:
        """The state after a measurement that is not older than it, and what became of the measurement."""
        if self.regain_count > 1 and measurement.stamp_s - state.accepted_s > self.regain_after_s:
            return _regained(self, state, measurement)
        after, nis = self.taken(self.ahead(state, measurement.stamp_s), state, measurement)
        if nis <= self.nis_limit:
            return replace(after, accepted_s=measurement.stamp_s, strays=()), FilterUpdate(True, "", nis)
        return _stray(self, state, measurement, nis)

    @property
    def between(self) -> Motion:
        """How the volume may move from one measurement to the next in a run of those that agree."""
        return self.motion

    def ahead(self, state: State, stamp_s: float) -> State:
        """The state that a measurement is compared with."""
        return self.motion.advance(state, stamp_s)

    def taken(self, ahead: State, before: State, measurement: Measurement) -> tuple[State, float]:
        """The state corrected by the measurement (not where that is too far off), and the squared innovation."""
        innovation, noise = compare(ahead.world_T_ct, ahead.pivot, measurement)
        spread = ahead.covariance[:6, :6] + noise
        nis = squared(innovation, spread)
        return (correct(ahead, innovation, noise, spread) if nis <= self.nis_limit else ahead), nis

    def begun(self, run: Sequence[Measurement], before: State) -> State:
        """A state from measurements that agree; `before`: where it was lost."""
        state: State = self.motion.begin(run[0])
        for m in run[1:]:
            ahead = self.ahead(state, m.stamp_s)
            state = replace(self.taken(ahead, state, m)[0], accepted_s=m.stamp_s)
        return replace(state, stamp_s=run[-1].stamp_s)

    def lag(self, states: Sequence[State]) -> list[tuple[Transition, State]]:
        """Models and states that the fixed-lag output is made from."""
        return [(self.motion, s) for s in states]


class BankRules(Rules):
    """The same for a bank of models: what one of them could have foretold is let in."""

    motion: Bank

    @property
    def between(self) -> Motion:
        """At any velocity: nothing is known of the phase yet."""
        return self.motion.velocity

    def begun(self, run: Sequence[Measurement], before: State) -> State:
        """The same, with the breath that was learnt where the volume is still in the same place."""
        state = super().begun(run, before)
        assert isinstance(state, BankState) and isinstance(before, BankState)
        return self.motion.remembered(state, before)

    def ahead(self, state: State, stamp_s: float) -> State:
        """The models' states alone; their mean is made after the measurement."""
        assert isinstance(state, BankState)
        state = self.motion.mixed(state, stamp_s - state.stamp_s)
        return replace(state, stamp_s=stamp_s, members=self.motion.members(state, stamp_s))

    def taken(self, ahead: State, before: State, measurement: Measurement) -> tuple[State, float]:
        """Every model corrected by itself; the squared innovation is that of the model that foretold best.

        A breathing model that is far off keeps its phase: one measurement that it cannot explain says nothing of it.
        """
        assert isinstance(ahead, BankState)
        poses, pivots = (torch.stack([getattr(m, n) for m in ahead.members]) for n in ("world_T_ct", "pivot"))
        innovation, noise = compare(poses, pivots, measurement)
        spread = torch.stack([m.covariance[:6, :6] for m in ahead.members]) + noise
        nis, likelihoods = fits(innovation, spread)
        best = min(nis)
        if best > self.nis_limit:
            return ahead, best
        members = list(ahead.members)
        for k, member in enumerate(ahead.members):
            if k != BREATH or nis[k] <= self.nis_limit:
                members[k] = correct(member, innovation[k], noise[k], spread[k])
        if len(members) > BREATH:
            members[BREATH] = PhaseMotion(self.motion.config, ahead.learnt).clipped(members[BREATH])
        weights = self.motion.weighed(ahead, measurement.stamp_s - before.stamp_s, likelihoods)
        return self.motion.learnt(merged(ahead, members, weights), measurement), best

    def lag(self, states: Sequence[State]) -> list[tuple[Transition, State]]:
        """Breathing where it led all the time, else constant velocity."""
        found: list[tuple[Transition, State]] = []
        banks = [s for s in states if isinstance(s, BankState)]
        member = BREATH if breath_led(banks) else VELOCITY
        for bank in banks:
            found.append((self.motion.motion(bank, member), replace(bank.members[member], accepted_s=bank.accepted_s)))
        return found


def compare(world_T_ct: Tensor, pivot: Tensor, measurement: Measurement) -> tuple[Tensor, Tensor]:
    """Innovation (..., 6) of a measurement against poses (..., 4, 4), and its covariance moved to their pivots."""
    innovation = difference(world_T_ct, measurement.world_T_ct, pivot)
    return innovation, se3.move_pivot(measurement.covariance, pivot - measurement.pivot)


def squared(error: Tensor, covariance: Tensor) -> float:
    """error' covariance^-1 error; infinite where the covariance is singular."""
    scale = covariance.diagonal().sqrt()  # mm and rad differ by orders of magnitude
    factor, info = torch.linalg.cholesky_ex(covariance / scale[:, None] / scale)
    if int(info) or not bool(torch.isfinite(factor).all()):
        return float("inf")
    white = torch.linalg.solve_triangular(factor, (error / scale)[:, None], upper=False)
    return float((white * white).sum())


def fits(error: Tensor, covariance: Tensor) -> tuple[list[float], list[float]]:
    """`squared` of errors (n, 6) with covariances (n, 6, 6), and logarithms of their normal densities, but for 2 pi."""
    scale = covariance.diagonal(dim1=-2, dim2=-1).sqrt()
    factor, info = torch.linalg.cholesky_ex(covariance / scale[:, :, None] / scale[:, None])
    white = torch.linalg.solve_triangular(factor, (error / scale)[..., None], upper=False)
    good = (info == 0) & factor.isfinite().flatten(1).all(1)
    nis = torch.where(good, (white * white).sum((1, 2)), torch.inf)
    spread = (factor.diagonal(dim1=-2, dim2=-1) * scale).log().sum(1)
    return nis.tolist(), (-0.5 * nis - spread).nan_to_num(-torch.inf).tolist()


def correct(state: State, innovation: Tensor, noise: Tensor, spread: Tensor) -> State:
    """Kalman's correction in Joseph's form, which stays symmetric and positive."""
    n = len(state.covariance)
    gain = torch.linalg.solve(spread, state.covariance[:6]).T
    keep = torch.eye(n, dtype=torch.float64)
    keep[:, :6] -= gain
    covariance = keep @ state.covariance @ keep.T + gain @ noise @ gain.T
    return shifted(state, gain @ innovation, 0.5 * (covariance + covariance.T))


def _stray(rules: Rules, state: State, measurement: Measurement, nis: float) -> tuple[State, FilterUpdate]:
    """Count gated-out measurements that agree; enough of them are a jump of the patient, not outliers."""
    run = state.strays if _agrees(rules, state.strays, measurement) else ()
    run = (*run, measurement)
    if rules.jump_count and len(run) >= rules.jump_count:
        text = f"re-initialised: {len(run)} estimates in a row agree with each other and not with the filter"
        return rules.begun(run, state), FilterUpdate(True, text, nis)
    text = f"gated out: squared innovation {nis:.1f} above {rules.nis_limit:.1f}"
    return replace(state, strays=run[-max(1, rules.jump_count) :]), FilterUpdate(False, text, nis)


def _regained(rules: Rules, state: State, measurement: Measurement) -> tuple[State, FilterUpdate]:
    """After the pose was lost a single estimate is not believed: nothing says that the search found the right place."""
    run = state.strays if _agrees(rules, state.strays, measurement) else ()
    run = (*run, measurement)
    if len(run) >= rules.regain_count:
        return rules.begun(run, state), FilterUpdate(True, f"found again: {len(run)} estimates in a row agree")
    text = f"LOST: estimate {len(run)} of {rules.regain_count} that must agree to begin anew"
    return replace(state, strays=run), FilterUpdate(False, text)


def _agrees(rules: Rules, run: tuple[Measurement, ...], measurement: Measurement) -> bool:
    if not run or measurement.stamp_s - run[-1].stamp_s > rules.jump_gap_s:
        return False
    ahead = rules.between.advance(rules.between.begin(run[-1]), measurement.stamp_s)
    innovation, noise = compare(ahead.world_T_ct, ahead.pivot, measurement)
    return squared(innovation, ahead.covariance[:6, :6] + noise) <= rules.nis_limit
