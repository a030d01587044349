# SPDX-License-Identifier: Apache-2.0
"""What a similarity offers to the refinement, whatever it is and however it climbs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ..data.types import Volume
from ..geometry import rotation, se3
from .levenberg import LevenbergConfig
from .maximise import Climbed
from .noise import Noise
from .normal import Normal, View
from .pyramid import VolumeLevel


@dataclass(frozen=True, eq=False)
class Prior:
    """What was known of the pose before the images: it takes half of twist' information twist off the score.

    Args:
        ct_T_ref: (4, 4) from which the twist (v, w) leads, in its own axes. information: (6, 6), in units of the score.
    """

    ct_T_ref: Tensor
    information: Tensor

    def cost(self, ct_T_ref: Tensor) -> Tensor:
        """What it takes off the scores of poses (B, 4, 4)."""
        step = se3.inverse(self.ct_T_ref) @ ct_T_ref
        twist = torch.cat([step[:, :3, 3], rotation.log(step[:, :3, :3])], -1)
        return 0.5 * torch.einsum("bi,ij,bj->b", twist, self.information, twist)


class Matcher(Protocol):
    """One similarity with one optimiser. Poses are ct_T_ref (B, 4, 4), as in `Scene`."""

    def level(self, volume: Volume, sigma_mm: float, channel: int) -> VolumeLevel:
        """What is sampled of a volume, smoothed: data (D, H, W), or (D, H, W, K) for K channels."""
        ...

    def evaluate(self, level: VolumeLevel, views: list[View], ct_T_ref: Tensor, full: bool = True) -> Normal:
        """Score (higher is better) and overlap (B,); gradient and matrix where it has a least-squares form, else 0.

        Without `full` only score and overlap need to be right, which can be had much faster.
        """
        ...

    def climb(
        self,
        level: VolumeLevel,
        views: list[View],
        starts: Tensor,
        radius_mm: float,
        min_overlap: float,
        config: LevenbergConfig,
        prior: Prior | None = None,
    ) -> Climbed:
        """Poses that no step improves any more; never worse than their starts, never NaN.

        Raises:
            ConfigError: a prior is given and the matcher has no way to use it.
        """
        ...

    def compare(self, level: VolumeLevel, views: list[View], ct_T_ref: Tensor) -> Tensor:
        """Scores (B,) by which different optima of one problem are ranked: equal questions to all of them."""
        ...

    def noises(self, level: VolumeLevel, views: list[View], ct_T_ref: Tensor) -> list[Noise]:
        """For each frame its normal matrix at an optimum (4, 4) and how far noise spreads its gradient."""
        ...
