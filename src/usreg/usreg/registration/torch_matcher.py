# SPDX-License-Identifier: Apache-2.0
"""The generic matcher: any similarity, with any optimiser that needs values or first derivatives alone."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ..config import check_range
from ..data.types import Volume
from ..errors import ConfigError
from ..similarity import SIMILARITIES, Similarity, lncc
from .curvature import frame_noises
from .image_objective import ImageObjective, has_contrast
from .levenberg import LevenbergConfig
from .local import gradient_magnitude
from .matching import Prior
from .maximise import Climbed
from .noise import Noise
from .normal import Normal, View
from .optimisers import Found, HalvingConfig, OptimiserConfig, build_optimiser, successive_halving
from .pyramid import VolumeLevel, volume_level

TWO_CHANNELS = ("lc2",)  # similarities whose moving image is intensity and magnitude of the 3D gradient


@dataclass(frozen=True)
class TorchConfig:
    """What is compared, and how the poses climb.

    Args:
        window: grey values of the volume (HU in a CT) are clipped to it first; equal ends: not at all.
        lncc_mm: side of LNCC's windows (51 pixels of 0.5 mm were published with it).
        double: images are compared in float64 instead of float32.
    """

    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    window: tuple[float, float] = (0.0, 0.0)
    lncc_mm: float = 25.0
    double: bool = False

    def __post_init__(self) -> None:
        check_range("lncc_mm", self.lncc_mm, 0.1, 1000.0)
        check_range("window", self.window[0], -1e9, self.window[1])


class TorchMatcher:
    """A `Matcher` by any similarity.

    Args:
        similarity: a name of `similarity.SIMILARITIES`, or the function itself.
        config: of the optimiser, or of all.
        clock: monotonic, s, for the time budget.

    Raises:
        ConfigError: there is no such similarity.
    """

    def __init__(
        self, similarity: str | Similarity, config: OptimiserConfig | TorchConfig | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        if isinstance(similarity, str) and similarity not in SIMILARITIES:
            raise ConfigError(f"there is no similarity '{similarity}'; choose one of {sorted(SIMILARITIES)}")
        self.name = similarity if isinstance(similarity, str) else ""
        self.similarity: Similarity = SIMILARITIES[similarity] if isinstance(similarity, str) else similarity
        self.config = TorchConfig(config) if isinstance(config, OptimiserConfig) else config or TorchConfig()
        self.clock = clock

    def with_evaluations(self, evaluations: int) -> TorchMatcher:
        """The same with another budget for each start."""
        config = replace(self.config, optimiser=replace(self.config.optimiser, evaluations=evaluations))
        return TorchMatcher(self.name or self.similarity, config, self.clock)

    def level(self, volume: Volume, sigma_mm: float, channel: int) -> VolumeLevel:
        """One channel, smoothed (D, H, W); with the magnitude of its 3D gradient per mm (D, H, W, 2) for LC2."""
        low, high = self.config.window
        if high > low:
            kept = volume.data[channel : channel + 1].to(torch.float32).clamp(low, high)
            volume, channel = replace(volume, data=kept), 0
        smooth = volume_level(volume, sigma_mm, channel)
        if not has_contrast(smooth.data):
            smooth = replace(smooth, data=0.0 * smooth.data)
        if self.name not in TWO_CHANNELS:
            return smooth
        return replace(smooth, data=torch.stack([smooth.data, gradient_magnitude(smooth)], -1).contiguous())

    def evaluate(self, level: VolumeLevel, views: list[View], ct_T_ref: Tensor, full: bool = True) -> Normal:
        """Score, overlap and, in full, the gradient; the matrix is zero."""
        looked = self.objective(level, views)(ct_T_ref, full)
        matrix = torch.zeros(len(ct_T_ref), 6, 6, dtype=torch.float64)
        gradient = looked.gradient if full else torch.zeros(len(ct_T_ref), 6, dtype=torch.float64)
        return Normal(looked.score, gradient, matrix, looked.overlap)

    def climb(
        self, level: VolumeLevel, views: list[View], starts: Tensor, radius_mm: float, min_overlap: float,
        config: LevenbergConfig, prior: Prior | None = None,
    ) -> Climbed:  # fmt: skip
        """Climb from poses (B, 4, 4); of `config` only the tolerance counts, the budget is the optimiser's own.

        Raises:
            GeometryError: a start holds NaN. ConfigError: a prior, for which these optimisers have no place.
        """
        if prior is not None:
            raise ConfigError("'prior' goes with the similarities lncc and lc2 and the optimizer lm: set prior to 0")
        own = self.config.optimiser
        terms = own.terms(level.sigma_mm, radius_mm, min_overlap, config.tolerance_mm)
        found = build_optimiser(own)(self.objective(level, views), starts, terms, own.budget(self.clock))
        zeros = torch.zeros(len(found.poses), 6, 6, dtype=torch.float64)
        return found.poses, Normal(found.score, zeros[..., 0], zeros, found.overlap), found.evaluations

    def compare(self, level: VolumeLevel, views: list[View], ct_T_ref: Tensor) -> Tensor:
        """The scores as they are, of values alone."""
        return self.objective(level, views)(ct_T_ref, False).score

    def noises(self, level: VolumeLevel, views: list[View], ct_T_ref: Tensor) -> list[Noise]:
        """Curvature at an optimum (4, 4), by differences, and the spread of the gradient between tiles."""
        return frame_noises(self.objective(level, views), views, ct_T_ref)

    def objective(self, level: VolumeLevel, views: list[View]) -> ImageObjective:
        """The similarity as a function of the pose."""
        similarity = self.similarity
        if self.name == "lncc":
            window = 2 * max(1, round(0.5 * self.config.lncc_mm / max(views[0].level.spacing_mm))) + 1
            similarity = functools.partial(lncc, window=window)
        return ImageObjective(level, views, similarity, torch.float64 if self.config.double else torch.float32)


def climb_many(
    climb: Callable[[Tensor, int], Climbed], starts: Tensor, config: HalvingConfig, min_overlap: float
) -> Found:
    """`successive_halving` of a matcher's climb, given as (poses, evaluations) -> Climbed."""

    def found(poses: Tensor, evaluations: int) -> Found:
        ends, normal, spent = climb(poses, evaluations)
        return Found(ends, normal.score, normal.overlap, spent)

    return successive_halving(found, starts, config, min_overlap)
