# SPDX-License-Identifier: Apache-2.0
"""What every motion model offers to the filter, to the gate and to the fixed-lag smoother."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from ..state import Measurement, State


class Transition(Protocol):
    """How a state moves on. Stateless: what is learnt stands in the state."""

    def advance(self, state: State, stamp_s: float) -> State:
        """The state at a later stamp; an earlier one changes nothing."""
        ...

    def transition(self, state: State, dt: float) -> Tensor:
        """F (n, n) of the error over dt seconds from a state: x' = F x."""
        ...


class Motion(Transition, Protocol):
    """A model that a filter can begin with."""

    def begin(self, measurement: Measurement) -> State:
        """A state at rest with the covariance of a measurement."""
        ...

    def held(self, state: State) -> State:
        """The state with its motion ended: from here on only the covariance grows."""
        ...
