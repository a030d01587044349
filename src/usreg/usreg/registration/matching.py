# SPDX-License-Identifier: Apache-2.0
"""What a similarity offers to the refinement, whatever it is and however it climbs."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from ..data.types import Volume
from .levenberg import LevenbergConfig
from .maximise import Climbed
from .noise import Noise
from .normal import Normal, View
from .pyramid import VolumeLevel


class Matcher(Protocol):
    """One similarity with one optimiser. Poses are ct_T_ref (B, 4, 4), as in `Scene`."""

    def level(self, volume: Volume, sigma_mm: float, channel: int) -> VolumeLevel:
        """What is sampled of a volume, smoothed: data (D, H, W), or (D, H, W, K) for K channels."""
        ...

    def evaluate(self, level: VolumeLevel, views: list[View], ct_T_ref: Tensor) -> Normal:
        """Score (higher is better) and overlap (B,); gradient and matrix where it has a least-squares form, else 0."""
        ...

    def climb(
        self,
        level: VolumeLevel,
        views: list[View],
        starts: Tensor,
        radius_mm: float,
        min_overlap: float,
        config: LevenbergConfig,
    ) -> Climbed:
        """Poses that no step improves any more; never worse than their starts, never NaN."""
        ...

    def compare(self, level: VolumeLevel, views: list[View], ct_T_ref: Tensor) -> Tensor:
        """Scores (B,) by which different optima of one problem are ranked: equal questions to all of them."""
        ...

    def noises(self, level: VolumeLevel, views: list[View], ct_T_ref: Tensor) -> list[Noise]:
        """For each frame its normal matrix at an optimum (4, 4) and how far noise spreads its gradient."""
        ...
