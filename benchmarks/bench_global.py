# SPDX-License-Identifier: Apache-2.0
"""Global start on simulated bodies: sweeps and single frames in a CT without any prior pose; learns its table, too.

The table of likelihoods that ships was learnt on the bodies 1000:1020, which are therefore no test of it; the figures
that count are those of 2000:2020. Bodies are cases of `usreg simulate cases`; those that are missing are made.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
import numpy as np  # noqa: E402
from bench_refine import _set_threads  # noqa: E402
from engine_cases import cases, make_missing, seeds_of  # noqa: E402
from engine_global import global_starts  # noqa: E402

from usreg.geometry import se3  # noqa: E402
from usreg.registration.global_start import GlobalStartConfig  # noqa: E402
from usreg.registration.global_start.echoes import KINDS, echoes  # noqa: E402
from usreg.registration.global_start.kernel import MODELS  # noqa: E402
from usreg.registration.global_start.score import Scorer  # noqa: E402
from usreg.registration.global_start.table import as_yaml, learn  # noqa: E402
from usreg.registration.global_start.tissue_map import CLASSES, tissue_map  # noqa: E402
from usreg.simulation.cases import Case  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    _set_threads(options.threads)
    make_missing(seeds_of(options.seeds), options.cases)
    if options.learn:
        counts = np.stack([met(case) for case in cases(seeds_of(options.seeds), options.cases)])
        options.learn.write_text(as_yaml(learn(counts)), encoding="utf-8")
        print(f"written: {options.learn}")
        return
    result: dict[str, Any] = {"seeds": options.seeds, "threads": options.threads}
    for count in options.frames:
        options.sweep = count
        result[f"{count} frames"] = global_starts(options)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(result, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    print(f"written: {options.json}")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--cases", type=Path, default=ROOT / "build" / "bench" / "cases", help="folder of the bodies")
    p.add_argument("--seeds", default="2000:2020", help="bodies A:B")
    p.add_argument("--frames", type=int, nargs="+", default=[20, 1], help="of a sweep that are used")
    p.add_argument("--global-sweeps", type=int, default=1, help="a body; windows change from body to body")
    p.add_argument("--global-set", default="{}", help="JSON: options of the global start")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--json", type=Path, default=ROOT / "build" / "bench" / "global.json")
    p.add_argument("--learn", type=Path, help="learn the table on these bodies and write it here; nothing is measured")
    return p.parse_args(arguments)


def met(case: Case) -> np.ndarray:
    """Counts (CLASSES, KINDS) of what the scan lines of a body's sweeps meet at the true poses, and look like."""
    config, counts = GlobalStartConfig(), np.zeros((CLASSES, KINDS))
    scorer = Scorer(tissue_map(case.ct, config.voxel_mm), np.zeros((CLASSES, KINDS, MODELS), np.float32))
    for sweep in case.sweeps:
        sampled = echoes(sweep.frames, config)
        counts += scorer.meetings(sampled, se3.inverse(sweep.world_T_ct).numpy() @ sampled.world_T_ref)[0]
    return counts


if __name__ == "__main__":
    main()
