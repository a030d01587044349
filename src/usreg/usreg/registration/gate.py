# SPDX-License-Identifier: Apache-2.0
"""Whether a refined pose may be used: overlap, score, agreement of the coarse structure, and what cannot be seen."""

from __future__ import annotations

from dataclasses import dataclass

from ..config import check_range


@dataclass(frozen=True)
class GateConfig:
    """Limits of an accepted estimate.

    Args:
        min_overlap: share of the sector inside known voxels.
        min_score: NCC at the finest level (speckle included).
        min_coarse_score: NCC at the coarsest level, where speckle is averaged out and only wrong anatomy lowers it.
        max_sigma_mm: standard deviation of the worst point of the sector in its worst direction.
    """

    min_overlap: float = 0.4
    min_score: float = 0.6
    min_coarse_score: float = 0.95
    max_sigma_mm: float = 2.0

    def __post_init__(self) -> None:
        check_range("min_overlap", self.min_overlap, 0.0, 1.0)
        check_range("min_score", self.min_score, -1.0, 1.0)
        check_range("min_coarse_score", self.min_coarse_score, -1.0, 1.0)
        check_range("max_sigma_mm", self.max_sigma_mm, 0.0, 1e6)


def refusal(config: GateConfig, score: float, coarse_score: float, overlap: float, sigma_mm: float) -> str:
    """Reason to refuse, or an empty text."""
    if overlap < config.min_overlap:
        return f"overlap {overlap:.2f} below {config.min_overlap:.2f}"
    if score < config.min_score:
        return f"score {score:.3f} below {config.min_score:.3f}"
    if coarse_score < config.min_coarse_score:
        return f"coarse score {coarse_score:.3f} below {config.min_coarse_score:.3f}"
    if not sigma_mm <= config.max_sigma_mm:
        return f"not observable: sigma {sigma_mm:.2f} mm above {config.max_sigma_mm:.2f} mm"
    return ""
