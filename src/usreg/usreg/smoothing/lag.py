# SPDX-License-Identifier: Apache-2.0
"""Fixed-interval smoothing of the filter's history (Rauch, Tung, Striebel 1965) in the error state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from .state import Motion, State, difference, shifted


@dataclass(frozen=True, eq=False)
class Node:
    """A filtered state; `fresh` where the filter began here, so that nothing behind it bears on what was before."""

    state: State
    fresh: bool


def smooth(motion: Motion, nodes: Sequence[Node], stamp_s: float) -> State:
    """The state at a stamp, given all nodes (in order of stamps; the first not after the stamp).

    `accepted_s` of the result is the newest stamp that went in.
    """
    before = [n for n in nodes if n.state.stamp_s <= stamp_s]
    at = motion.advance(before[-1].state, stamp_s)
    after: list[State] = []
    for node in nodes[len(before) :]:
        if node.fresh:
            break
        after.append(node.state)
    if not after:
        return at
    smoothed = after[-1]
    for state in reversed([at, *after[:-1]]):
        smoothed = _back(motion, state, smoothed)
    return replace(smoothed, accepted_s=after[-1].accepted_s)


def _back(motion: Motion, filtered: State, smoothed: State) -> State:
    """One step back: what the later, smoothed state says of the earlier one."""
    dt = smoothed.stamp_s - filtered.stamp_s
    ahead = motion.advance(filtered, smoothed.stamp_s)
    scale = ahead.covariance.diagonal().sqrt()
    crossed = motion.transition(dt) @ filtered.covariance
    gain = (torch.linalg.solve(ahead.covariance / scale[:, None] / scale, crossed / scale[:, None]) / scale[:, None]).T
    error = difference(ahead.world_T_ct, smoothed.world_T_ct, ahead.pivot)
    if motion.moving:
        error = torch.cat([error, smoothed.rate - ahead.rate])
    covariance = filtered.covariance + gain @ (smoothed.covariance - ahead.covariance) @ gain.T
    return shifted(filtered, gain @ error, 0.5 * (covariance + covariance.T))
