# SPDX-License-Identifier: Apache-2.0
"""What every smoother offers, and the values it gives out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor

from ..data.types import Estimate

Status = Literal["UNINITIALISED", "TRACKING", "LOST"]


@dataclass(frozen=True)
class FilterUpdate:
    """What became of an estimate.

    Args:
        accepted: whether it moved the state. reason: why not, or what else happened ("re-initialised ...").
        nis: normalised innovation squared (6 degrees of freedom); NaN where the estimate was not compared.
    """

    accepted: bool
    reason: str = ""
    nis: float = math.nan


@dataclass(frozen=True, eq=False)
class Prediction:
    """Where the volume lies at a stamp.

    Args:
        world_T_ct: (4, 4), mm.
        covariance: (6, 6) of (v, w), mm and rad, world axes, left perturbation about `pivot`.
        age_s: stamp minus the stamp of the newest accepted estimate that went in; negative in a lagged output.
        pivot: (3,) world position of the volume's centre, mm.
        stamp_s: time for which it holds.
    """

    world_T_ct: Tensor
    covariance: Tensor
    age_s: float
    pivot: Tensor
    stamp_s: float


@dataclass(frozen=True)
class Breathing:
    """The breath that the breathing model follows.

    Args:
        phase_rad: in [0, 2 pi), 0 where the volume rises through its middle level; inspiration and expiration have
            phases of their own.
        depth_mm: largest distance of the volume's centre from where it rests. period_s: of a breath at this rate.
    """

    phase_rad: float
    depth_mm: float
    period_s: float


class Smoother(Protocol):
    """`PoseFilter` or `NoSmoothing`."""

    @property
    def status(self) -> Status:
        """UNINITIALISED, TRACKING or LOST, at the newest stamp that was seen."""
        ...

    def initialize(self, stamp_s: float, world_T_ct: Tensor, covariance: Tensor, pivot: Tensor) -> None:
        """Begin, or begin again, from a given pose."""
        ...

    def update(self, stamp_s: float, estimate: Estimate) -> FilterUpdate:
        """Take in the estimate of a frame; late ones too."""
        ...

    def predict(self, stamp_s: float) -> Prediction:
        """The pose at a stamp; raises LostError where none may be given out."""
        ...

    def search_start(self, stamp_s: float) -> Prediction:
        """Where a registration may begin to search, also when LOST. Never shown, never published as a pose."""
        ...

    def lagged(self, stamp_s: float) -> Prediction:
        """The pose at a past stamp with what was seen until `lag_s` after it; raises LostError."""
        ...

    def breathing(self, stamp_s: float) -> Breathing | None:
        """The breath at a stamp; None where no breathing model follows it."""
        ...

    def reset(self) -> None:
        """Forget everything."""
        ...
