# SPDX-License-Identifier: Apache-2.0
"""Hypotheses from several sides, refined by the engine; the best of what they reach is judged.

The start itself, what the network's pixels agree on, and a grid of poses as wide as the start is uncertain: all climb
the correlation of smoothed local contrast, which is quick; the best different ones climb the refinement's similarity.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ...config import check_range
from ...data.types import Estimate, Problem, Volume
from ...errors import NoOverlapError
from ..confidence import probability
from ..covariance import point_sigma_mm
from ..evidence import in_ref_axes
from ..pose_grid import PoseGrid, PoseGridConfig
from ..refine import LevelConfig, Refine
from ..scene import image_points
from .correspond import Correspond

KIND = "correspond_frame"  # of the confidence: see `config/confidence`


@dataclass(frozen=True)
class HypothesisedConfig:
    """How many hypotheses go how far.

    Args:
        grid: see `PoseGrid`. step_mm: of the samples of the quick climb.
        likelihood: what a unit of the network's log-likelihood, the mean over its pixels, counts beside the score,
            where the start states that it is turned by at most `trusted_deg` (standard deviation about each axis).
        followed_mm: a start that is known as well (standard deviation of the image's worst point), as a filter that
            follows gives it, is refined alone first; only what is then refused is looked for elsewhere.
        keep, apart_mm: so many different hypotheses go on to the refinement.
    """

    grid: PoseGridConfig = field(default_factory=PoseGridConfig)
    step_mm: float = 4.0
    likelihood: float = 0.04
    trusted_deg: float = 12.0
    followed_mm: float = 5.0
    keep: int = 8
    apart_mm: float = 4.0

    def __post_init__(self) -> None:
        check_range("step_mm", self.step_mm, 0.5, 50.0)
        check_range("followed_mm", self.followed_mm, 0.0, 1e4)
        check_range("trusted_deg", self.trusted_deg, 0.0, 180.0)
        check_range("likelihood", self.likelihood, 0.0, 10.0)
        check_range("keep", self.keep, 1, 1000)
        check_range("apart_mm", self.apart_mm, 0.0, 100.0)


class Hypothesised:
    """A stage: network, grid and refinement."""

    def __init__(self, correspond: Correspond, refine: Refine, config: HypothesisedConfig | None = None) -> None:
        self.correspond, self.refine, self.config = correspond, refine, config or HypothesisedConfig()
        c = self.config
        level = LevelConfig(c.grid.sigma_mm, c.step_mm, 0.3)
        quick = replace(
            refine.config, similarity="ncc", optimizer="lm", contrast_mm=c.grid.contrast_mm, levels=(level,),
            structure_level=0, prior=0.0,
        )  # fmt: skip
        self.grid, self.quick = PoseGrid(c.grid, refine.config.channel), Refine(quick)

    def prepare(self, volume: Volume) -> None:
        """Of all parts."""
        self.correspond.prepare(volume)
        self.grid.prepare(volume)
        self.quick.prepare(volume)
        self.refine.prepare(volume)

    def __call__(self, problem: Problem, estimate: Estimate) -> Estimate:
        """The best refined pose, or the reason why none may be used.

        Raises:
            NoOverlapError: neither the start nor any hypothesis puts enough of the frame into the volume.
            ShapeError, GeometryError: see `Correspond`.
        """
        if self._start_mm(problem, estimate) <= self.config.followed_mm:
            followed = self._from_start(problem, estimate)
            if followed is not None:
                return followed
        ballot = self.correspond.asked(problem, estimate)
        votes = self.correspond.voted(problem, estimate, ballot)

        weight = self._weight(problem, estimate)

        def favour(world_T_cts: Tensor) -> Tensor:
            return weight * self.correspond.likely(problem, ballot, world_T_cts)

        try:
            found = self.refine.best_of(problem, self._candidates(problem, estimate, votes), favour)
        except NoOverlapError as error:
            raise NoOverlapError(f"the network looked for the frame elsewhere, too: {error}") from error
        likely = float(self.correspond.likely(problem, ballot, found.world_T_ct[None]))
        return self._judged(replace(found, evidence={**found.evidence, **votes[0].evidence, "likely": likely}))

    def _from_start(self, problem: Problem, estimate: Estimate) -> Estimate | None:
        """The start refined, where that is accepted."""
        try:
            found = self.refine.best_of(problem, estimate.world_T_ct[None])
        except NoOverlapError:
            return None
        return found if found.accepted else None

    def _start_mm(self, problem: Problem, estimate: Estimate) -> float:
        """Standard deviation of the worst point of the image at the start, mm; infinite where it states none."""
        if not bool((estimate.covariance.diagonal() > 0).any()):
            return math.inf
        tracked = self.correspond.newest(problem)
        return point_sigma_mm(in_ref_axes(estimate, tracked.world_T_image), image_points(tracked.frame.geometry))

    def _candidates(self, problem: Problem, estimate: Estimate, votes: list[Estimate]) -> Tensor:
        """The start, and the best different hypotheses (K, 4, 4)."""
        start = estimate.world_T_ct[None]
        grid = self.grid.best(problem.moving, self.correspond.newest(problem), estimate)
        poses = torch.cat([start, torch.stack([v.world_T_ct for v in votes]), grid])
        return torch.cat([start, self.quick.coarse(problem, poses, self.config.keep, self.config.apart_mm)])

    def _weight(self, problem: Problem, estimate: Estimate) -> float:
        """Of the likelihood: the network was trained on views that are turned little against the frame."""
        covariance = in_ref_axes(estimate, self.correspond.newest(problem).world_T_image)
        turn_deg = math.degrees(math.sqrt(max(0.0, float(covariance.diagonal()[3:].max()))))
        return self.config.likelihood if 0.0 < turn_deg <= self.config.trusted_deg else 0.0

    def _judged(self, found: Estimate) -> Estimate:
        """The gate goes by the probability where coefficients for it are at hand."""
        sure, gate = probability(found.evidence, KIND), self.refine.config.gate
        if not sure == sure:
            return found
        enough = sure >= gate.min_probability and found.overlap >= gate.min_overlap
        reason = "" if enough else f"only {sure:.0%} sure that the pose is right to 5 mm, overlap {found.overlap:.0%}"
        return replace(found, probability=sure, accepted=enough, reason=reason)
