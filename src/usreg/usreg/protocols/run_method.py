# SPDX-License-Identifier: Apache-2.0
"""A method over all pairs of a study; what has been run stays on the disk and is not run again."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from .. import __version__
from ..config import check_range
from ..data.atomic import write_text
from ..data.types import Problem
from ..errors import ConfigError, UsregError
from ..evaluation.metrics import tre_mm
from ..evaluation.result import dump_json
from ..evaluation.s2v import (
    MethodRun,
    PairRow,
    landmark_errors_mm,
    pair_error,
    pairs_json,
    pairs_of,
    seen_landmarks,
)
from ..study import variance_of
from .clips import Clip, Pair, evenly, pairs_of_clip
from .methods import METHODS, Made, Method, Registers, equal_factor, make, scaled_spread, weights_file
from .studies import Study

Progress = Callable[[int, int], None]
PROBES = 6  # pairs of the first clip that are timed to make two methods equally slow
SAVE_S = 30.0


@dataclass(frozen=True)
class RunConfig:
    """How methods are run.

    Args:
        seed: of the draws. slow_starts: pairs of each clip for a slow method; 0 = all.
        minutes: most time of a method in a study, shared equally by the clips; 0 = no limit.
        threads: of the processor; only told and part of what identifies a result.
        weights: folder of weights; none: those that ship.
        equal_s: time of the processor (all threads: what else runs does not count) that "equal time" means; 0: the
            median of the method that is the measure.
    """

    seed: int = 0
    slow_starts: int = 4
    minutes: float = 0.0
    threads: int = 0
    weights: Path | None = None
    equal_s: float = 0.0

    def __post_init__(self) -> None:
        check_range("seed", self.seed, 0, 2**31 - 1)
        check_range("slow_starts", self.slow_starts, 0, 100_000)
        check_range("minutes", self.minutes, 0.0, 1e5)
        check_range("equal_s", self.equal_s, 0.0, 1e5)


def run_method(
    name: str, study: Study, clips: Sequence[Clip], config: RunConfig, folder: Path, progress: Progress | None = None,
    equal_s: float = math.nan,
) -> MethodRun:  # fmt: skip
    """Run a method over a study, or go on where an earlier run was stopped.

    Args:
        folder: of partial results, one file for each method and study.
        equal_s: time of the processor to which a method is scaled that is given equal time.

    Raises:
        MissingFileError: weights that are not there. ConfigError: no such method, or nothing to be equally slow as.
    """
    method = METHODS[name]
    plan = [(clip, _share(pairs_of_clip(clip, study.draw, config.seed), method, config)) for clip in clips]
    total = sum(len(pairs) for _, pairs in plan)
    key = _key(name, study, clips, config, equal_s)
    file = folder / f"{study.name}_{name}.json"
    run = read_run(file, key) or MethodRun(name, threads=config.threads)
    run = replace(run, planned=study.draw.starts * len(clips))
    if run.complete:
        if progress:
            progress(total, total)
        return run
    made = _made(method, study, plan, config, equal_s, run)
    run = replace(
        run, build_s=made.build_s, options=made.options, undertrained=made.undertrained, training=made.training
    )  # fmt: skip
    for clip, pairs in plan:
        run = _run_clip(run, clip, pairs, made.registrar, study, config, len(plan), lambda r: write_run(r, file, key),
                        lambda r: progress(len(r.rows), total) if progress else None)  # fmt: skip
        write_run(run, file, key)
    run = replace(run, complete=True)
    write_run(run, file, key)
    return run


def _share(pairs: list[Pair], method: Method, config: RunConfig) -> list[Pair]:
    return [pairs[n] for n in evenly(len(pairs), config.slow_starts)] if method.slow else pairs


def _made(
    method: Method, study: Study, plan: Sequence[tuple[Clip, list[Pair]]], config: RunConfig, equal_s: float,
    run: MethodRun,
) -> Made:  # fmt: skip
    """The registrar; re-tries are scaled where the method gets the time of another."""
    if not method.equal_to:
        return make(method, config.weights)
    if "spread" in run.options:  # an earlier run has found out
        return make(method, config.weights, {"spread": run.options["spread"]})
    if not (math.isfinite(equal_s) and equal_s > 0):
        raise ConfigError(
            f"'{method.label}' gets the time of '{method.equal_to}': run that too, or say how long it takes"
        )
    clip, pairs = plan[0]

    def median_s(factor: float) -> float:
        registrar = make(method, config.weights, scaled_spread(factor, study.stated)).registrar
        registrar.prepare(clip.volume)
        rows = [run_pair(clip, p, registrar, variance_of(study.stated)) for p in pairs[: PROBES + 1]]
        return float(np.median([r.cpu_s for r in rows[1:] or rows]))

    return make(method, config.weights, scaled_spread(equal_factor(median_s, equal_s), study.stated))


def _run_clip(
    run: MethodRun, clip: Clip, pairs: Sequence[Pair], registrar: Registers, study: Study, config: RunConfig,
    clips: int, save: Callable[[MethodRun], None], told: Callable[[MethodRun], None],
) -> MethodRun:  # fmt: skip
    """The pairs of a clip that are not there yet, as far as the time allows."""
    done = {r.start for r in run.rows if r.case == clip.name}
    left = [p for p in pairs if p.start not in done]
    if not left:
        return run
    begin = time.perf_counter()
    registrar.prepare(clip.volume)
    run = replace(run, prepare_s=(*run.prepare_s, time.perf_counter() - begin))
    saved = begin = time.perf_counter()
    for pair in left:
        row = run_pair(clip, pair, registrar, variance_of(study.stated))
        run = replace(run, rows=(*run.rows, row))
        told(run)
        now = time.perf_counter()
        if config.minutes and now - begin > 60.0 * config.minutes / clips and pair is not left[-1]:
            return replace(run, note=f"stopped by its time of {config.minutes:g} minutes")
        if now - saved > SAVE_S:
            save(run)
            saved = now
    return run


def run_pair(clip: Clip, pair: Pair, registrar: Registers, variance: Tensor) -> PairRow:
    """Register one pair on its own: nothing is carried over from the pair before; errors of the system are rows too."""
    target = pair.target
    true, frame = target.true_ct_T_images[0], target.frames[0].frame
    start = target.started(pair.twist, clip.volume, variance)
    ct_T_start = target.placed(start.world_T_ct)[0]
    initial = pair_error(ct_T_start, true, frame.plane.centre_mm)
    initial_tre = tre_mm(ct_T_start, true, frame.geometry)
    registrar.reset()
    begin, cpu = time.perf_counter(), time.process_time()
    try:
        estimate = registrar(Problem(target.frames, clip.volume, start))
        found, accepted, reason, there = estimate.world_T_ct, estimate.accepted, estimate.reason, True
    except UsregError as error:
        found, accepted, reason, there = start.world_T_ct, False, str(error), False
    seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
    found = target.placed(found)[0]
    errors = landmark_errors_mm(clip.landmarks, found, true)
    seen = seen_landmarks(clip.landmarks, true, frame.geometry)
    return PairRow(
        clip.name, pair.frame, pair.start, initial, pair_error(found, true, frame.plane.centre_mm), initial_tre,
        tre_mm(found, true, frame.geometry), there, accepted, seconds, {n: errors[n] for n in seen},
        float(np.mean(list(errors.values()))) if errors else math.nan, reason, cpu,
    )  # fmt: skip


def _key(name: str, study: Study, clips: Sequence[Clip], config: RunConfig, equal_s: float) -> str:
    """What a result depends on, as a short text: another one means another run."""
    method = METHODS[name]
    file = weights_file(method.mode, config.weights) if method.mode else None
    content = {
        "version": __version__, "method": vars(method), "draw": vars(study.draw), "stated": study.stated,
        "seed": config.seed, "slow_starts": config.slow_starts if method.slow else 0, "minutes": config.minutes,
        "threads": config.threads, "clips": [(c.name, len(c.targets), c.volume.grid.size) for c in clips],
        "weights": hashlib.sha256(file.read_bytes()).hexdigest() if file is not None and file.is_file() else "",
        "equal_s": f"{equal_s:.3g}" if method.equal_to else "",
    }  # fmt: skip
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def write_run(run: MethodRun, file: Path, key: str) -> None:
    """Keep what has been run, whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    content: dict[str, Any] = vars(run) | {"rows": pairs_json(run.rows), "key": key}
    write_text(file, dump_json(content))


def read_run(file: Path, key: str) -> MethodRun | None:
    """What has been run under this key; None: nothing, or something else."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if content.pop("key") != key:
            return None
        rows = tuple(pairs_of(content.pop("rows")))
        content["build_s"] = math.nan if content["build_s"] is None else content["build_s"]
        return MethodRun(**content | {"rows": rows, "prepare_s": tuple(content["prepare_s"])})
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ConfigError):
        return None
