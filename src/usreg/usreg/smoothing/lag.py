# SPDX-License-Identifier: Apache-2.0
"""Fixed-interval smoothing of the filter's history (Rauch, Tung, Striebel 1965) in the error state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from .motion.agreement import Transition
from .state import State, difference, shifted


@dataclass(frozen=True, eq=False)
class Node:
    """A filtered state and how it moves on; `fresh` where the filter began: nothing later bears on what was before."""

    state: State
    fresh: bool
    motion: Transition


def smooth(nodes: Sequence[Node], stamp_s: float) -> State:
    """The state at a stamp, given all nodes (in order of stamps; the first not after the stamp).

    `accepted_s` of the result is the newest stamp that went in.
    """
    before = [n for n in nodes if n.state.stamp_s <= stamp_s]
    last = before[-1]
    chain = [replace(last, state=last.motion.advance(last.state, stamp_s))]
    for node in nodes[len(before) :]:
        if node.fresh:
            break
        chain.append(node)
    if len(chain) == 1:
        return chain[0].state
    smoothed = chain[-1].state
    for node in reversed(chain[:-1]):
        smoothed = _back(node.motion, node.state, smoothed)
    return replace(smoothed, accepted_s=chain[-1].state.accepted_s)


def _back(motion: Transition, filtered: State, smoothed: State) -> State:
    """One step back: what the later, smoothed state says of the earlier one."""
    dt = smoothed.stamp_s - filtered.stamp_s
    ahead = motion.advance(filtered, smoothed.stamp_s)
    scale = ahead.covariance.diagonal().sqrt()
    crossed = motion.transition(filtered, dt) @ filtered.covariance
    gain = (torch.linalg.solve(ahead.covariance / scale[:, None] / scale, crossed / scale[:, None]) / scale[:, None]).T
    moved = difference(ahead.world_T_ct, smoothed.world_T_ct, ahead.pivot)
    error = torch.cat([moved, smoothed.rest - ahead.rest])
    covariance = filtered.covariance + gain @ (smoothed.covariance - ahead.covariance) @ gain.T
    return shifted(filtered, gain @ error, 0.5 * (covariance + covariance.T))
