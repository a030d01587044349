# SPDX-License-Identifier: Apache-2.0
"""Whether a refined pose may be used: overlap, score, structure or contrast, and what cannot be seen."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..config import check_range


@dataclass(frozen=True)
class GateConfig:
    """Limits of an accepted estimate.

    A score alone says little: noise lowers it at the right pose, likeness of neighbouring anatomy raises it at wrong
    ones. Two ways lead through the gate. Either the structure is explained: with speckle smoothed away next to nothing
    is left over, in most of the sector. Or nothing else comes close: among the optima around, the best leaves much less
    unexplained than the second. Where a probability is stated (`confidence.probability`) it must be high besides;
    across modalities, where no score explains next to everything, it takes the place of both ways.

    Args:
        min_overlap: share of the sector inside known voxels.
        min_score: NCC at the finest level, speckle included.
        min_structure, clear_overlap: NCC at the middle level and overlap that let a pose through without a search.
        min_contrast: (1 - score of the best other optimum) / (1 - score) times overlap, for poses that are not clear.
        max_sigma_mm: standard deviation of the worst point of the sector in its worst direction.
        min_probability: that the TRE is below 5 mm; 0: scores decide alone.
        clear_probability: that lets a pose through without a search.
        structure_too: whether structure or contrast must pass beside a probability that is stated. Without, images that
            belong nowhere in the volume are left to a regression that has never seen any.
    """

    min_overlap: float = 0.4
    min_score: float = 0.4
    min_structure: float = 0.97
    clear_overlap: float = 0.7
    min_contrast: float = 1.5
    max_sigma_mm: float = 2.0
    min_probability: float = 0.9
    clear_probability: float = 0.95
    structure_too: bool = True

    def __post_init__(self) -> None:
        check_range("min_overlap", self.min_overlap, 0.0, 1.0)
        check_range("min_score", self.min_score, -1.0, 1.0)
        check_range("min_structure", self.min_structure, -1.0, 1.0)
        check_range("clear_overlap", self.clear_overlap, 0.0, 1.0)
        check_range("min_contrast", self.min_contrast, 0.0, 1e6)
        check_range("max_sigma_mm", self.max_sigma_mm, 0.0, 1e6)
        check_range("min_probability", self.min_probability, 0.0, 1.0)
        check_range("clear_probability", self.clear_probability, self.min_probability, 1.0)


def contrast(score: float, other: float) -> float:
    """How much more the other optimum leaves unexplained; infinite for a perfect score."""
    return (1.0 - other) / (1.0 - score) if score < 1.0 else math.inf


def refusal(
    config: GateConfig,
    score: float,
    structure: float,
    overlap: float,
    sigma_mm: float,
    rival: float | None = None,
    probability: float = math.nan,
) -> str:
    """Reason to refuse, or an empty text.

    Args:
        structure: similarity at the middle level.
        rival: score of the best other optimum around; -1 when there is none, None before anybody has looked.
        probability: that the TRE is below 5 mm; NaN where nobody has said.
    """
    if overlap < config.min_overlap:
        return f"overlap {overlap:.2f} below {config.min_overlap:.2f}"
    if score < config.min_score:
        return f"score {score:.3f} below {config.min_score:.3f}"
    if not sigma_mm <= config.max_sigma_mm:
        return f"not observable: sigma {sigma_mm:.2f} mm above {config.max_sigma_mm:.2f} mm"
    stated = config.min_probability > 0 and math.isfinite(probability)
    improbable = _improbable(config, probability, rival is not None) if stated else ""
    if improbable or (stated and not config.structure_too):
        return improbable
    return _by_structure(config, score, structure, overlap, rival)


def _improbable(config: GateConfig, probability: float, searched: bool) -> str:
    limit = config.min_probability if searched else config.clear_probability
    if probability >= limit:
        return ""
    why = "" if searched else "not clear without a search: "
    return f"{why}probability {probability:.3f} of a TRE below 5 mm is less than {limit:.2f}"


def _by_structure(config: GateConfig, score: float, structure: float, overlap: float, rival: float | None) -> str:
    if structure >= config.min_structure and overlap >= config.clear_overlap:
        return ""
    if rival is None:
        return f"not clear without a search: structure score {structure:.3f}, overlap {overlap:.2f}"
    found = overlap * contrast(score, rival)
    if found < config.min_contrast:
        return f"ambiguous: contrast {found:.2f} below {config.min_contrast:.2f} (score {score:.3f}, rival {rival:.3f})"
    return ""
