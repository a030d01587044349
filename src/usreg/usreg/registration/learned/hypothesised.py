# SPDX-License-Identifier: Apache-2.0
"""The network's hypotheses and the start itself, each refined by the engine; the best of what they reach is judged."""

from __future__ import annotations

from dataclasses import replace

import torch

from ...data.types import Estimate, Problem, Volume
from ...errors import NoOverlapError
from ..refine import Refine
from .correspond import Correspond


class Hypothesised:
    """A stage: network and refinement."""

    def __init__(self, correspond: Correspond, refine: Refine) -> None:
        self.correspond, self.refine = correspond, refine

    def prepare(self, volume: Volume) -> None:
        """Of both parts."""
        self.correspond.prepare(volume)
        self.refine.prepare(volume)

    def __call__(self, problem: Problem, estimate: Estimate) -> Estimate:
        """The best refined pose, or the reason why none may be used.

        Raises:
            NoOverlapError: neither the start nor any hypothesis puts enough of the frame into the volume.
            ShapeError, GeometryError: see `Correspond`.
        """
        votes = self.correspond.hypotheses(problem, estimate)
        poses = torch.stack([estimate.world_T_ct, *(v.world_T_ct for v in votes)])
        try:
            found = self.refine.best_of(problem, poses)
        except NoOverlapError as error:
            raise NoOverlapError(f"the network looked for the frame elsewhere, too: {error}") from error
        return replace(found, evidence={**found.evidence, **votes[0].evidence})
