# SPDX-License-Identifier: Apache-2.0
"""The probability that the TRE of an estimate is below 5 mm, from what the registration saw of itself.

A logistic regression on `Estimate.evidence`, one for each kind of registration, with coefficients in
`config/confidence/<kind>.yaml` that `usreg bench confidence -- --fit` makes from simulated bodies. Evidence is cut to
the range that was fitted, so that nothing unheard-of makes an estimate surer than the best of those that were tried.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ..config import check_range, from_mapping, load_yaml
from ..data.share import find_named
from ..errors import ConfigError, MissingFileError

FOLDER = "config/confidence"
BELOW_MM = 5.0  # the TRE that the probability speaks of
Scale = Literal["linear", "log", "logit"]
TINY = 1e-6  # logarithms begin here


@dataclass(frozen=True)
class Term:
    """One kind of evidence in the regression: weight * (clip(scaled value, low, high) - mean) / deviation.

    Args:
        name: key in `Estimate.evidence`. scale: what is done to the value first.
        low, high: range of the scaled values that were fitted.
    """

    name: str
    weight: float
    mean: float
    deviation: float
    low: float
    high: float
    scale: Scale = "linear"

    def __post_init__(self) -> None:
        for name in ("weight", "mean", "low", "high"):
            check_range(name, getattr(self, name), -1e9, 1e9)
        check_range("deviation", self.deviation, 1e-12, 1e9)
        check_range("high", self.high, self.low, 1e9)

    def __call__(self, value: float) -> float:
        """Its part of the logit."""
        return self.weight * (min(max(scaled(value, self.scale), self.low), self.high) - self.mean) / self.deviation


@dataclass(frozen=True)
class Model:
    """A regression: bias and terms."""

    bias: float
    terms: tuple[Term, ...]

    def __post_init__(self) -> None:
        check_range("bias", self.bias, -1e9, 1e9)
        if len({t.name for t in self.terms}) < len(self.terms):
            raise ConfigError(f"each kind of evidence counts once, got {[t.name for t in self.terms]}")

    def knows(self, evidence: Mapping[str, float]) -> bool:
        """Whether all of its evidence is there."""
        return all(math.isfinite(evidence.get(t.name, math.nan)) for t in self.terms)

    def __call__(self, evidence: Mapping[str, float]) -> float:
        """The probability."""
        logit = self.bias + sum(t(evidence[t.name]) for t in self.terms)
        return 1.0 / (1.0 + math.exp(-min(max(logit, -30.0), 30.0)))


@dataclass(frozen=True)
class Confidence:
    """What a file of coefficients holds.

    Args:
        models: of a kind of registration; the first whose evidence is all there speaks (after a search more is known).
        inflation: factor on the covariance that the residuals give, by which it fits the errors of good estimates: what
            is wrong in the model (speed of sound, refraction, another breath) the residuals of one frame do not show.
        command: that made it. fitted_on: bodies, estimates and settings.
    """

    models: tuple[Model, ...]
    inflation: float = 1.0
    command: str = ""
    fitted_on: str = ""

    def __post_init__(self) -> None:
        check_range("inflation", self.inflation, 1e-3, 1e6)

    def __call__(self, evidence: Mapping[str, float]) -> float:
        """The probability; NaN where the evidence does not suffice."""
        return next((m(evidence) for m in self.models if m.knows(evidence)), math.nan)


def scaled(value: float, scale: Scale) -> float:
    """A value on the scale on which it counts."""
    if scale == "log":
        return math.log(max(value, TINY))
    if scale == "logit":
        share = min(max(value, TINY), 1.0 - TINY)
        return math.log(share / (1.0 - share))
    return value


def kind_of(similarity: str, same_modality: bool, frames: int, shown: str = "") -> str:
    """Name of a kind of registration: what was compared how, and whether one frame or a sweep.

    Args:
        shown: what was made of the images first, since scores then mean something else: "flat" (brightness and contrast
            made alike, `RefineConfig.contrast_mm`), "echo" (vessels predicted from a CT, `RefineConfig.echo`).
    """
    parts = (similarity, "same" if same_modality else "across", shown, "frame" if frames == 1 else "sweep")
    return "_".join(filter(None, parts))


def probability(evidence: Mapping[str, float], kind: str) -> float:
    """Probability that the TRE is below 5 mm; NaN for a kind without coefficients or where evidence is missing.

    Args:
        evidence: by name, see `evidence.gather`. kind: see `kind_of`.
    """
    model = coefficients(kind)
    return math.nan if model is None else model(evidence)


def inflation(kind: str) -> float:
    """Factor on the covariance of a kind; 1 without coefficients."""
    model = coefficients(kind)
    return 1.0 if model is None else model.inflation


def asked(kind: str) -> frozenset[str]:
    """Names of the evidence that counts for a kind."""
    model = coefficients(kind)
    return frozenset() if model is None else frozenset(t.name for m in model.models for t in m.terms)


@functools.lru_cache(maxsize=32)
def coefficients(kind: str) -> Confidence | None:
    """The coefficients that ship for a kind, or None.

    Raises:
        ConfigError: the file holds something else.
    """
    try:
        path = find_named(FOLDER, kind)
    except MissingFileError:
        return None
    return from_mapping(Confidence, load_yaml(path), kind)
