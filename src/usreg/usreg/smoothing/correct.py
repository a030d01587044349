# SPDX-License-Identifier: Apache-2.0
"""One measurement against the state: innovation, gate, correction, and the rule for jumps."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from scipy.stats import chi2
from torch import Tensor

from ..geometry import se3
from .agreement import FilterUpdate
from .config import FilterConfig
from .state import Measurement, Motion, State, difference, shifted


@dataclass(frozen=True)
class Rules:
    """Gate and jump rule with their numbers worked out once."""

    motion: Motion
    nis_limit: float
    jump_count: int
    jump_gap_s: float

    @staticmethod
    def of(config: FilterConfig) -> Rules:
        """From the configuration."""
        limit = float(chi2.ppf(config.gate_probability, 6))
        return Rules(Motion(config), limit, config.jump_count, config.jump_gap_s)

    def apply(self, state: State, measurement: Measurement) -> tuple[State, FilterUpdate]:
        """The state after a measurement that is not older than it, and what became of the measurement."""
        ahead = self.motion.advance(state, measurement.stamp_s)
        innovation, noise = compare(ahead.world_T_ct, ahead.pivot, measurement)
        spread = ahead.covariance[:6, :6] + noise
        nis = squared(innovation, spread)
        if nis <= self.nis_limit:
            after = correct(ahead, innovation, noise, spread)
            return replace(after, accepted_s=measurement.stamp_s, strays=()), FilterUpdate(True, "", nis)
        return _stray(self, state, measurement, nis)


def compare(world_T_ct: Tensor, pivot: Tensor, measurement: Measurement) -> tuple[Tensor, Tensor]:
    """Innovation (6,) of a measurement against a pose, and its covariance moved to the pose's pivot."""
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
        return rules.motion.begin(measurement), FilterUpdate(True, text, nis)
    text = f"gated out: squared innovation {nis:.1f} above {rules.nis_limit:.1f}"
    return replace(state, strays=run[-max(1, rules.jump_count) :]), FilterUpdate(False, text, nis)


def _agrees(rules: Rules, run: tuple[Measurement, ...], measurement: Measurement) -> bool:
    if not run or measurement.stamp_s - run[-1].stamp_s > rules.jump_gap_s:
        return False
    last = rules.motion.begin(run[-1])
    ahead = rules.motion.advance(last, measurement.stamp_s)
    innovation, noise = compare(ahead.world_T_ct, ahead.pivot, measurement)
    return squared(innovation, ahead.covariance[:6, :6] + noise) <= rules.nis_limit
