# SPDX-License-Identifier: Apache-2.0
"""Simulated sessions from start to end: made, replayed, and compared with the truth at the vessels' bifurcations.

Parameters were chosen while looking at seeds 0 to 3; the figures are those of the seeds named here. A session takes a
minute or two to make.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from usreg.replay import replay_session
from usreg.simulation import simulate

ROOT = Path(__file__).resolve().parents[1]
REACH_MM = {"phantom": 2.0, "volunteer": 4.0}
REACH_OUTPUT = 0.9
SECONDS = {"phantom": 30.0, "volunteer": 12.0}


def main() -> None:
    options = _options()
    print(
        "reach: mean error at the landmarks of 2 mm (phantom) and 4 mm (volunteer), no accepted estimate above 10 mm,"
    )
    print("output (an accepted estimate and a pose given out) on 90 % of the frames")
    titles = (
        "session",
        "seed",
        "frames",
        "start mm",
        "accepted",
        "mean mm",
        "p95 mm",
        "worst mm",
        "> 10 mm",
        "shown mm",
    )
    print("".join(f"{t:>10}" for t in (*titles, "ms", "made s")))
    rows = [case(kind, seed) for kind in REACH_MM for seed in options.seeds]
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps({"sessions": rows}, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    print(f"written: {options.json}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[100, 101])
    parser.add_argument("--json", type=Path, default=ROOT / "build" / "bench" / "sessions.json")
    return parser.parse_args()


def case(kind: str, seed: int) -> dict[str, Any]:
    """One session; its row is printed when it is done."""
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        session = simulate(kind, Path(folder) / "session", seed, SECONDS[kind])
        made = time.perf_counter() - begin
        summary = replay_session(session, Path(folder) / "report")
    tre = summary["landmark_tre_mm"]
    reached = (
        tre["mean"] is not None and tre["mean"] <= REACH_MM[kind] and summary["gross_among_accepted"] == 0
        and summary["output_share"] >= REACH_OUTPUT
    )  # fmt: skip
    row = {"kind": kind, "seed": seed, "made_s": made, "reached": reached, "summary": summary}
    cells = (
        kind, seed, summary["count"], summary["initial_tre_mm"]["max"], f"{100 * summary['output_share']:.1f}%",
        tre["mean"], tre["p95"], tre["max"], summary["gross_among_accepted"],
        summary["smoothed_landmark_tre_mm"]["mean"], 1000 * summary["median_seconds"], made,
    )  # fmt: skip
    print("".join(_cell(c) for c in cells), "reached" if reached else "MISSED", flush=True)
    return row


def _cell(value: Any) -> str:
    return f"{value:10.2f}" if isinstance(value, float) else f"{'none' if value is None else value:>10}"


if __name__ == "__main__":
    sys.exit(main())
