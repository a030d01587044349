# SPDX-License-Identifier: Apache-2.0
"""A registrar: a list of stages, run in order."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..data.types import Estimate, Problem, Volume
from ..errors import ConfigError, UsregError
from .agreement import Stage


@dataclass(frozen=True)
class RegistrarConfig:
    """Name under which results are reported, and whether a refused stage ends the run."""

    system: str = "intensity"
    stop_when_refused: bool = False


class Registrar:
    """Runs stages in order; knows nothing of what they do and changes nothing that it is given."""

    def __init__(self, stages: Sequence[Stage], config: RegistrarConfig | None = None) -> None:
        if not stages:
            raise ConfigError("a registrar needs at least one stage")
        self.stages = tuple(stages)
        self.config = config or RegistrarConfig()

    def prepare(self, volume: Volume) -> None:
        """Pyramids and compilation for a volume, so that the first frame is not slow."""
        for stage in self.stages:
            stage.prepare(volume)

    def reset(self) -> None:
        """Forget what was kept of earlier problems: nothing here."""

    def __call__(self, problem: Problem, start: Estimate | None = None) -> Estimate:
        """Register; `compute_s` of the result is the wall time of all stages.

        Args:
            start: where to begin; the problem's own start if not given.

        Raises:
            UsregError: what a stage raises (no overlap, wrong input).
        """
        begin = time.perf_counter()
        estimate = problem.start if start is None else start
        for stage in self.stages:
            estimate = stage(problem, estimate)
            if self.config.stop_when_refused and not estimate.accepted:
                break
        if not isinstance(estimate, Estimate):
            raise UsregError(f"a stage returned {type(estimate).__name__}, expected an Estimate")
        return replace(estimate, system=self.config.system, compute_s=time.perf_counter() - begin)
