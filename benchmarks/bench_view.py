# SPDX-License-Identifier: Apache-2.0
"""The view: what a client costs the graph, how fast a browser draws, and whether an hour leaves memory flat.

cost     the live graph (752x564, 30 Hz) with and without a client that draws nothing: processor time of the serving
         process, 99th percentile of the graph's latency, runs in turn.
browser  Chromium with software GL, 1400x850: drawn frames a second in 3D and 2D, alone and while registration holds a
         core; latency of the live graph to the drawn pixel.
soak     three clients (one slow, one that never acknowledges) on a session that loops; --soak-seconds 3600 for an hour.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
from live import processes, view_parts  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
# figure, unit, what is to be reached, whether at most (else at least)
REACH = {
    "cost": [("server_processor", "of a core", 0.25, True), ("p99_ratio", "with / without", 1.10, True)],
    "browser": [
        ("alone_3d_hz", "frames/s", 10, False), ("busy_3d_hz", "frames/s", 5, False),
        ("alone_2d_share", "of the frames", 0.97, False), ("busy_2d_share", "of the frames", 0.97, False),
        ("fused_to_pixel_ms", "ms", 80, True), ("stamp_to_pixel_ms", "ms", 150, True),
    ],
    "soak": [
        ("growth_mb", "MB in the second half", 5, True),
        ("late_frames", "frames that reached a client 300 ms after they were made, or out of order", 0, True),
    ],
}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default="cost,browser,soak", help="some of cost, browser, soak")
    parser.add_argument("--seconds", type=int, default=20, help="of each run of cost and browser, after the warm-up")
    parser.add_argument("--soak-seconds", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=3, help="of cost, with and without in turn")
    parser.add_argument("--json", type=Path, default=ROOT / "build" / "bench" / "view.json")
    options = parser.parse_args()
    parts = {"cost": cost, "browser": browser, "soak": soak}
    wanted = [name for name in options.parts.split(",") if name]
    if set(wanted) - set(parts):
        parser.error(f"--parts is '{options.parts}'; choose from {', '.join(parts)}")
    found = {}
    with tempfile.TemporaryDirectory(prefix="usreg-view-", ignore_cleanup_errors=True) as name:
        os.environ.update(processes.environment(Path(name)))
        for part in wanted:
            folder = Path(name) / part
            folder.mkdir()
            found[part] = parts[part](folder, options)
            tell(part, found[part])
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps({"view": found}, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    print(f"written: {options.json}")
    return 0


def cost(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The graph without and with one client, in turn."""
    made = view_parts.scene_of(folder)
    runs: dict[str, list[dict[str, Any]]] = {"without": [], "with": []}
    for number in range(options.repeats):
        for kind in ("without", "with") if number % 2 == 0 else ("with", "without"):
            runs[kind].append(view_parts.graph_run(made, options.seconds, kind == "with"))
            print(f"  {kind}: p99 {runs[kind][-1]['latency_p99_ms']:.1f} ms", flush=True)
    middle = {kind: _median(found, "latency_p99_ms") for kind, found in runs.items()}
    return {
        "server_processor": _median(runs["with"], "server_processor"),
        "p99_with_ms": middle["with"], "p99_without_ms": middle["without"],
        "p99_ratio": middle["with"] / middle["without"],
        "median_with_ms": _median(runs["with"], "latency_median_ms"),
        "median_without_ms": _median(runs["without"], "latency_median_ms"),
        "client": [run["client"] for run in runs["with"]],
    }  # fmt: skip


def browser(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """A real browser on a replay (alone, and with a core taken), and on the live graph."""
    from live.browser import missing

    if missing():
        return {"skipped": missing()}
    found = view_parts.replay_in_browser(folder, options.seconds)
    found |= view_parts.graph_in_browser(view_parts.scene_of(folder), options.seconds)
    return found


def soak(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Three clients on a session that loops."""
    return view_parts.soak(folder, options.soak_seconds)


def _median(runs: list[dict[str, Any]], name: str) -> float:
    return statistics.median(run[name] for run in runs)


def tell(part: str, found: dict[str, Any]) -> None:
    """Print what was measured beside what is to be reached; puts `reached` into it."""
    print(f"== {part}, {time.strftime('%H:%M:%S')}")
    if "skipped" in found:
        print(f"skipped: {found['skipped']}")
        return
    found["reached"] = {}
    for name, unit, limit, most in REACH[part]:
        value = found[name]
        found["reached"][name] = value is not None and (value <= limit if most else value >= limit)
        word = "reached" if found["reached"][name] else "MISSED"
        print(f"{name:24}{value:10.2f}  {'at most' if most else 'at least'} {limit} {unit}: {word}")
    for name, value in found.items():
        if name not in found["reached"] and name != "reached":
            print(f"  {name}: {json.dumps(value)}")


if __name__ == "__main__":
    sys.exit(main())
