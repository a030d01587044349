# SPDX-License-Identifier: Apache-2.0
"""Where the volume lies without any prior: is one of the first hypotheses near the truth?

A hypothesis is near where the centre of the sweep is off by at most 15 mm and its orientation by at most 15 degrees.
A body counts by one sweep, another window from body to body; --global-sweeps asks for more.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from engine_cases import Named, cases, seeds_of, sweep_targets
from engine_tables import Check, report

from usreg.config import from_mapping
from usreg.data.types import Volume
from usreg.errors import NoOverlapError
from usreg.registration.global_start import GlobalStartConfig, find_starts

NEAR_MM, NEAR_DEG, FIRST = 15.0, 15.0, 3
REACH = {"bodies": 0.8, "seconds": 60.0}


@dataclass(frozen=True)
class Search:
    """One search.

    Args:
        errors: of each hypothesis, best first: shift of the sweep's centre, mm, and turn, degrees.
    """

    target: str
    errors: tuple[tuple[float, float], ...]
    seconds: float
    reason: str = ""

    @property
    def rank(self) -> int:
        """Of the first hypothesis that is near, from 1; 0: none is."""
        near = [mm <= NEAR_MM and deg <= NEAR_DEG for mm, deg in self.errors]
        return near.index(True) + 1 if True in near else 0


def global_starts(options: argparse.Namespace) -> dict[str, Any]:
    """Search every body and say how often the truth is among the first three."""
    config = from_mapping(GlobalStartConfig, json.loads(options.global_set), "global start")
    found: dict[int, list[Search]] = {}
    for case in cases(seeds_of(options.seeds), options.cases):
        targets = sweep_targets(case, options.sweep)
        turned = targets[case.seed % len(targets) :] + targets[: case.seed % len(targets)]
        if not found:
            find_starts(targets[0][1].frames, case.ct, config)  # compile
        found[case.seed] = [_search(named, case.ct, config) for named in turned[: options.global_sweeps]]
        for one in found[case.seed]:
            best = min(one.errors, default=(float("nan"),) * 2)
            print(f"  global {one.target}: rank {one.rank}, nearest {best[0]:.1f} mm {best[1]:.1f} degrees, "
                  f"{one.seconds:.1f} s", file=sys.stderr, flush=True)  # fmt: skip
    every = [one for rows in found.values() for one in rows]
    bodies = float(np.mean([np.mean([0 < s.rank <= FIRST for s in rows]) for rows in found.values()]))
    seconds = [s.seconds for s in every]
    print(f"global start, sweeps of {options.sweep} frames, no prior: {len(every)} searches in {len(found)} bodies")
    for rank in range(1, FIRST + 1):
        share = np.mean([0 < s.rank <= rank for s in every])
        print(f"near the truth among the first {rank}: {100 * share:.0f} %")
    print(f"time: median {np.median(seconds):.1f} s, longest {max(seconds):.1f} s")
    checks = [
        Check(f"share of bodies with one of {FIRST} within {NEAR_MM:g} mm and {NEAR_DEG:g} degrees", bodies,
              REACH["bodies"], at_least=True),
        Check("seconds a sweep (longest)", max(seconds), REACH["seconds"]),
    ]  # fmt: skip
    report(checks)
    return {
        "bodies": bodies, "checks": [vars(c) for c in checks], "options": json.loads(options.global_set),
        "searches": [asdict(s) | {"rank": s.rank} for s in every],
    }  # fmt: skip


def _search(named: Named, volume: Volume, config: GlobalStartConfig) -> Search:
    name, target = named
    begin = time.perf_counter()
    try:
        estimates = find_starts(target.frames, volume, config)
    except NoOverlapError as error:
        return Search(name, (), time.perf_counter() - begin, str(error))
    seconds = time.perf_counter() - begin
    errors = [target.error(e.world_T_ct) for e in estimates[:FIRST]]
    return Search(name, tuple((e.translation_mm, e.rotation_deg) for e in errors), seconds)
