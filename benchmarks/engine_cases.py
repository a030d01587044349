# SPDX-License-Identifier: Apache-2.0
"""What the engine is measured on: simulated bodies by seed, and the real liver sweep."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from usreg.data.types import Volume
from usreg.errors import ConfigError
from usreg.geometry import se3
from usreg.simulation.case_files import CASE, read_case, write_cases
from usreg.simulation.cases import Case, Sweep
from usreg.study import Target

Named = tuple[str, Target]


def seeds_of(text: str) -> range:
    """Seeds A:B as a Python slice.

    Raises:
        ConfigError: not two whole numbers, the first below the second.
    """
    first, _, last = text.partition(":")
    if not (first.isdecimal() and last.isdecimal() and int(first) < int(last)):
        raise ConfigError(f"seeds are {text!r}; write A:B with whole numbers, A below B, for example 2000:2020")
    return range(int(first), int(last))


def make_missing(seeds: range, folder: Path) -> None:
    """Make the cases that are not there, and say so on the way."""
    missing = [s for s in seeds if not (folder / str(s) / CASE).is_file()]
    if missing:
        print(f"making {len(missing)} cases in {folder}, about half a minute each", file=sys.stderr)
        write_cases(missing, folder, progress=lambda d, n: print(f"  {d} of {n}", file=sys.stderr, flush=True))


def cases(seeds: range | list[int], folder: Path) -> Iterator[Case]:
    """One after the other: the memory holds one."""
    for seed in seeds:
        yield read_case(folder / str(seed))


def frame_targets(case: Case, count: int) -> list[Named]:
    """Single frames evenly over all sweeps of a case, with the true poses of their images."""
    every = [(s, i) for s in case.sweeps for i in range(len(s.frames))]
    count = min(count, len(every))
    chosen = [every[int((k + 0.5) * len(every) / count)] for k in range(count)]
    return [(f"{case.seed} {s.name} {i}", _part(s, [i])) for s, i in chosen]


def sweep_targets(case: Case, frames: int) -> list[Named]:
    """Every sweep of a case, with so many of its frames, evenly."""
    found = []
    for sweep in case.sweeps:
        count = min(frames, len(sweep.frames))
        rows = [int((k + 0.5) * len(sweep.frames) / count) for k in range(count)]
        found.append((f"{case.seed} {sweep.name}", _part(sweep, rows)))
    return found


def _part(sweep: Sweep, rows: list[int]) -> Target:
    return Target(tuple(sweep.frames[i] for i in rows), sweep.world_T_ct, sweep.ct_T_images[rows])


def liver_targets(folder: Path, spacing_mm: float, count: int) -> tuple[Volume, list[Named]] | None:
    """The real sweep: volume of its even frames, some of the odd ones; None where the recording is not there."""
    from bench_refine import liver

    if not (folder / "liver_sweep").is_dir():
        return None
    volume, frames = liver(folder / "liver_sweep", spacing_mm)
    frames = frames[:-1]  # the last one lies outside the volume for two thirds of its area
    count = min(count, len(frames))
    chosen = [frames[int((k + 0.5) * len(frames) / count)] for k in range(count)]
    return volume, [(f"liver {f.frame.index}", Target((f,), se3.identity())) for f in chosen]
