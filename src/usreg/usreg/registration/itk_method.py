# SPDX-License-Identifier: Apache-2.0
"""SimpleITK's `ImageRegistrationMethod`: which metric, which optimiser, which settings.

`preset("deep_s2v")` is the published baseline: global NCC of all pixels inside both masks, regular-step gradient
descent, one level at the images' own resolution (DeepRS2V, "ITK-based approach", 10 to 20 s a frame). Step lengths are
not stated there: 1 mm, by physical-shift scales. "multiresolution" gives metric and optimiser a pyramid; "multimodal"
has Mattes' mutual information, customary for CT and MR (no setting of ITK was published for ultrasound and CT).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import SimpleITK as sitk

from ..config import check_range
from ..errors import ConfigError, NoOverlapError
from .refine import RefineConfig

Metric = Literal["correlation", "mattes", "ants_neighborhood"]
Optimizer = Literal["regular_step", "gradient_descent", "lbfgsb", "powell"]
CHOICES = {
    "metric": ("correlation", "mattes", "ants_neighborhood"),
    "optimizer": ("regular_step", "gradient_descent", "lbfgsb", "powell"),
}


@dataclass(frozen=True)
class ItkConfig:
    """Metric, optimiser and levels.

    Args:
        metric: correlation (global NCC), mattes (mutual information) or ants_neighborhood (local correlation within
            `radius` pixels; of all pixels, ITK does not sample it).
        optimizer: regular_step or gradient_descent (the length estimated once, at most `step_mm`), lbfgsb (without
            bounds) or powell (without derivatives).
        bins: of the joint histogram (mattes). radius: in pixels (ants_neighborhood).
        sampling: share of the frame's pixels; below 1 they are drawn at random once per level.
        shrink, smoothing_mm: per level, coarse to fine. Both images are smoothed outside ITK, because ITK's pyramid
            refuses images of one slice and smears what is unknown into what is known; for the volume it is done once.
        step_mm, min_step_mm: first and last length of a step (physical-shift scales: in shifts of about 1 mm).
        seed: of the random sampling (0 would be the clock).
        judge: score, covariance and gate of the result are those of the own refinement, so that both can be compared.
    """

    metric: Metric = "correlation"
    optimizer: Optimizer = "regular_step"
    bins: int = 50
    radius: int = 4
    sampling: float = 1.0
    iterations: int = 200
    shrink: tuple[int, ...] = (4, 2, 1)
    smoothing_mm: tuple[float, ...] = (4.0, 2.0, 0.4)
    step_mm: float = 2.0
    min_step_mm: float = 1e-3
    gradient_tolerance: float = 1e-6
    seed: int = 1
    judge: RefineConfig = field(default_factory=RefineConfig)

    def __post_init__(self) -> None:
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise ConfigError(f"there is no ITK {name} '{getattr(self, name)}'; choose one of {known}")
        check_range("bins", self.bins, 5, 1000)
        check_range("radius", self.radius, 1, 100)
        check_range("sampling", self.sampling, 1e-4, 1.0)
        check_range("iterations", self.iterations, 1, 100_000)
        check_range("step_mm", self.step_mm, 1e-6, 100.0)
        check_range("min_step_mm", self.min_step_mm, 0.0, self.step_mm)
        check_range("seed", self.seed, 1, 2**31 - 1)
        if not self.shrink or len(self.shrink) != len(self.smoothing_mm) or min(self.shrink) < 1:
            raise ConfigError(f"'shrink' and 'smoothing_mm' need the same number of levels, got {self}")


def preset(name: str) -> ItkConfig:
    """A configuration by its name, see above.

    Raises:
        ConfigError: there is no such preset.
    """
    base = ItkConfig()
    presets = {
        "multiresolution": base,
        "deep_s2v": replace(base, shrink=(1,), smoothing_mm=(0.0,), step_mm=1.0),
        "multimodal": replace(base, metric="mattes"),
    }
    if name not in presets:
        raise ConfigError(f"there is no ITK preset '{name}'; choose one of {sorted(presets)}")
    return presets[name]


@dataclass(frozen=True, eq=False)
class Pair:
    """An image and where it is known, uint8."""

    image: sitk.Image
    mask: sitk.Image


def run_level(fixed: Pair, moving: Pair, transform: sitk.Euler3DTransform, config: ItkConfig) -> None:
    """One level of ITK's registration; the transform is changed in place.

    Raises:
        NoOverlapError: ITK finds no valid sample.
    """
    method = sitk.ImageRegistrationMethod()
    _set_metric(method, config)
    method.SetMetricFixedMask(fixed.mask)
    method.SetMetricMovingMask(moving.mask)
    if config.sampling < 1.0 and config.metric != "ants_neighborhood":
        method.SetMetricSamplingStrategy(method.RANDOM)
        method.SetMetricSamplingPercentage(config.sampling, config.seed)
    method.SetInterpolator(sitk.sitkLinear)
    _set_optimizer(method, config)
    if config.optimizer != "lbfgsb":  # which takes no scales
        method.SetOptimizerScalesFromPhysicalShift()
    method.SetInitialTransform(transform, inPlace=True)
    try:
        method.Execute(fixed.image, moving.image)
    except RuntimeError as error:
        cause = str(error).strip().splitlines()[-1]
        raise NoOverlapError(f"ITK found no valid samples: do the frame and the volume overlap? ({cause})") from error


def _set_metric(method: sitk.ImageRegistrationMethod, config: ItkConfig) -> None:
    if config.metric == "correlation":
        method.SetMetricAsCorrelation()
    elif config.metric == "mattes":
        method.SetMetricAsMattesMutualInformation(config.bins)
    else:
        method.SetMetricAsANTSNeighborhoodCorrelation(config.radius)


def _set_optimizer(method: sitk.ImageRegistrationMethod, config: ItkConfig) -> None:
    c = config
    if c.optimizer == "regular_step":
        method.SetOptimizerAsRegularStepGradientDescent(
            c.step_mm, c.min_step_mm, c.iterations, gradientMagnitudeTolerance=c.gradient_tolerance
        )
    elif c.optimizer == "gradient_descent":
        method.SetOptimizerAsGradientDescent(
            1.0, c.iterations, convergenceMinimumValue=c.gradient_tolerance, estimateLearningRate=method.Once,
            maximumStepSizeInPhysicalUnits=c.step_mm,
        )  # fmt: skip
    elif c.optimizer == "lbfgsb":
        method.SetOptimizerAsLBFGSB(gradientConvergenceTolerance=c.gradient_tolerance, numberOfIterations=c.iterations)
    else:
        method.SetOptimizerAsPowell(c.iterations, stepLength=c.step_mm, stepTolerance=c.min_step_mm)
