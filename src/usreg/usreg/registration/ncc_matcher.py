# SPDX-License-Identifier: Apache-2.0
"""NCC over the whole frame by Levenberg-Marquardt: the foundation, compiled."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..data.types import Volume
from ..errors import ConfigError
from .kernel import common_ncc
from .levenberg import LevenbergConfig
from .matching import Prior
from .maximise import Climbed, climb_compiled, evaluate
from .noise import Noise, frame_noise
from .normal import Normal, View, plane_matrices
from .pyramid import VolumeLevel, volume_level


class NccMatcher:
    """A `Matcher` by NCC; see `climb`."""

    def level(self, volume: Volume, sigma_mm: float, channel: int) -> VolumeLevel:
        """One channel, smoothed."""
        return volume_level(volume, sigma_mm, channel)

    def evaluate(self, level: VolumeLevel, views: list[View], ct_T_ref: Tensor, full: bool = True) -> Normal:
        """See `Matcher`; always in full."""
        return evaluate(level, views, ct_T_ref)

    def climb(
        self, level: VolumeLevel, views: list[View], starts: Tensor, radius_mm: float, min_overlap: float,
        config: LevenbergConfig, prior: Prior | None = None,
    ) -> Climbed:  # fmt: skip
        """See `Matcher`; it has no prior."""
        if prior is not None:
            raise ConfigError("'prior' goes with the similarities lncc and lc2 and the optimizer lm, not with ncc")
        return climb_compiled(level, views, starts, radius_mm, min_overlap, config)

    def compare(self, level: VolumeLevel, views: list[View], ct_T_ref: Tensor) -> Tensor:
        """NCC (B,) over the samples that all poses see; over each one's own where these are too few.

        A pose that looks away from half of the frame finds it easy to score well on the rest.
        """
        total, seen = np.zeros(len(ct_T_ref)), 0
        for view in views:
            planes, axes = (t.numpy() for t in plane_matrices(level.index_T_ct, ct_T_ref @ view.ref_T_centre))
            samples = tuple(t.numpy() for t in (view.level.x_mm, view.level.y_mm, view.level.value))
            scores, count = common_ncc(level.data.numpy(), planes, axes, *samples)
            if 4 * count < len(samples[0]):
                return self.evaluate(level, views, ct_T_ref).score
            total += count * scores
            seen += count
        return torch.from_numpy(total / max(1, seen))

    def noises(self, level: VolumeLevel, views: list[View], ct_T_ref: Tensor) -> list[Noise]:
        """See `noise`."""
        return [frame_noise(level, view, ct_T_ref) for view in views]
