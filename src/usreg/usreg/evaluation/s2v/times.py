# SPDX-License-Identifier: Apache-2.0
"""Table 3: how long a pair takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .pairs import PairRow


@dataclass(frozen=True)
class MethodRun:
    """What a method did in a study.

    Args:
        method: its name. rows: of its pairs, in the order in which they were run.
        planned: pairs of the study; fewer rows are those of a slow method, spread evenly, or of a run that was stopped.
        build_s: to make it, with its weights. prepare_s: to prepare each volume (pyramids, features, compilation).
        threads: of the processor. options: with which it was built.
        undertrained: as the metadata of its weights say. note: what else is to be known.
        complete: whether it is at its end, by its pairs or its time.
        training: of its weights' metadata: parameters, bodies, steps, samples, wall_s, curve.
    """

    method: str
    rows: tuple[PairRow, ...] = ()
    planned: int = 0
    build_s: float = math.nan
    prepare_s: tuple[float, ...] = ()
    threads: int = 0
    options: dict[str, Any] = field(default_factory=dict)
    undertrained: bool = False
    note: str = ""
    complete: bool = False
    training: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TimeLine:
    """Times of a method, s.

    Args:
        prepare_s: a volume, the longest (it holds what is compiled). first_s: of the first pair.
        median_s, p95_s: of all further pairs (warm); of the first where there is no other.
        cpu_s: time of the processor, all threads, median of the warm pairs. total_s: wall time of all pairs.
    """

    method: str
    threads: int
    build_s: float
    prepare_s: float
    first_s: float
    median_s: float
    p95_s: float
    total_s: float
    count: int
    cpu_s: float = math.nan


def time_lines(runs: Sequence[MethodRun]) -> list[TimeLine]:
    """A line for each method that has pairs."""
    return [time_line(run) for run in runs if run.rows]


def time_line(run: MethodRun) -> TimeLine:
    """The line of one run with at least one pair."""
    every = [r.seconds for r in run.rows]
    warm = np.array(every[1:] or every)
    cpu = [r.cpu_s for r in run.rows]
    return TimeLine(
        run.method, run.threads, run.build_s, max(run.prepare_s, default=math.nan), every[0],
        float(np.median(warm)), float(np.percentile(warm, 95)), float(np.sum(every)), len(every),
        float(np.median(cpu[1:] or cpu)),
    )  # fmt: skip
