# SPDX-License-Identifier: Apache-2.0
"""What every registration stage agrees to."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from ..data.types import Estimate, Problem, Volume


@runtime_checkable
class Stage(Protocol):
    """One step of a registration: it improves an estimate and changes neither problem nor estimate."""

    def __call__(self, problem: Problem, estimate: Estimate) -> Estimate:
        """Return a new estimate; `accepted` and `reason` say whether it may be used."""
        ...

    def prepare(self, volume: Volume) -> None:
        """Do once per volume what is slow (pyramids, compilation); the first call does it otherwise."""
        ...
