# SPDX-License-Identifier: Apache-2.0
"""The live graph: a scanner and an arm that stamp by the system clock, the nodes of `usreg run live`, and a viewer.

Latency runs from a frame's stamp to the moment at which the viewer holds the whole fused image; the time by which the
source itself was late counts. Compilation and loading come before the first frame; the first seconds of frames
(search of the start, caches) are printed and left out.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))
from live import graph, processes, scene  # noqa: E402
from live.table import tell  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
NS = 10**9
WARM_S, READY_S, MEMORY_S = 6, 180, (20, 60)


def main() -> int:
    options = _options()
    with tempfile.TemporaryDirectory(prefix="usreg-live-", ignore_cleanup_errors=True) as name:
        os.environ.update(processes.environment(Path(name)))
        result = _run(scene.make_scene(Path(name)), options)
    time.sleep(0.5)
    result["leftovers"] = processes.leftovers(set(result.pop("segments")))
    tell(result)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps({"live": result}, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    print(f"written: {options.json}")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="measured, after the warm-up")
    parser.add_argument(
        "--processes", choices=("one", "many"), default="many", help="nodes in one process, or each its own"
    )
    parser.add_argument("--json", type=Path, default=ROOT / "build" / "bench" / "live.json")
    return parser.parse_args()


def _run(made: scene.Scene, options: argparse.Namespace) -> dict[str, Any]:
    """Start everything, send, measure, end everything."""
    import rclpy
    from live.meter import Meter, spin

    rclpy.init()
    meter, ending, running = Meter(), threading.Event(), list[processes.Process]()
    thread = spin(meter, ending)
    try:
        command = [sys.executable, str(Path(scene.__file__).with_name("source.py")), str(made.folder)]
        running += [
            processes.Process("source", command, made.folder, speaks=True),
            graph.start(made, options.processes),
        ]
        ready_s = processes.wait_for("graph that listens", lambda: graph.ready(meter), READY_S, running)
        found = _measure(meter, running[0], running[1], options.seconds)
    finally:
        codes = {process.name: process.stop() for process in reversed(running)}
        ending.set()
        thread.join()
        meter.destroy_node()
        rclpy.try_shutdown()
    told = {process.name: process.tail() for process in running}
    return found | {"ready_s": ready_s, "processes": options.processes, "exit_codes": codes, "told": told}


def _measure(meter: Any, source: processes.Process, nodes: processes.Process, seconds: int) -> dict[str, Any]:
    from live.meter import figures

    source.hear()  # it is ready
    start_ns = time.time_ns() + NS
    begin_ns, end_ns = start_ns + WARM_S * NS, start_ns + (WARM_S + seconds) * NS
    source.tell(f"{start_ns} {WARM_S + seconds}")
    sent = np.array([start_ns + k * NS // scene.FRAME_HZ for k in range((WARM_S + seconds) * scene.FRAME_HZ)])
    memory = _watch(begin_ns, seconds, {source.pid: "source", os.getpid(): "viewer"}, [source, nodes])
    diagnostics, own = dict(meter.diagnostics), source.hear()
    time.sleep(0.5)  # results that are on their way
    return {
        **figures(sent, meter.arrivals, begin_ns, end_ns),
        **memory,
        "warm_up": {"seconds": WARM_S, **figures(sent, meter.arrivals, start_ns, begin_ns)},
        "seconds": seconds,
        "source": own,
        "refused": meter.reasons,
        "diagnostics": diagnostics,
        "compute_median_ms": 1000 * float(np.median(meter.compute_s)) if meter.compute_s else math.nan,
    }


def _watch(begin_ns: int, seconds: int, others: dict[int, str], running: list[processes.Process]) -> dict[str, Any]:
    """Memory at 20 s and at 60 s (of a shorter run: at a third and at the end); processor time in between.

    Source and viewer (`others`) are shown too; the growth that counts is that of the nodes.
    """
    first_s, last_s = (s * seconds / MEMORY_S[1] if seconds < MEMORY_S[1] else s for s in MEMORY_S)
    _sleep_until(begin_ns + int(first_s * NS), running)
    watched = graph.names(running[1]) | others
    first, used = _of_all(watched, processes.memory_mb), _of_all(watched, processes.processor_s)
    _sleep_until(begin_ns + int(last_s * NS), running)
    last, used_later = _of_all(watched, processes.memory_mb), _of_all(watched, processes.processor_s)
    segments = set().union(*_of_all(watched, processes.segments).values())
    rows = {
        name: {
            "first_mb": first[name],
            "last_mb": last[name],
            "growth_mb": last[name]["VmRSS"] - first[name]["VmRSS"],
            "processor": (used_later[name] - used[name]) / (last_s - first_s),
        }
        for name in watched.values()
    }
    _sleep_until(begin_ns + seconds * NS, running)
    growth = max(row["growth_mb"] for name, row in rows.items() if name not in others.values())
    return {"memory": rows, "memory_at_s": [first_s, last_s], "memory_growth_mb": growth, "segments": sorted(segments)}


def _of_all(watched: dict[int, str], measure: Callable[[int], Any]) -> dict[str, Any]:
    return {name: measure(pid) for pid, name in watched.items()}


def _sleep_until(when_ns: int, running: list[processes.Process]) -> None:
    while (left_ns := when_ns - time.time_ns()) > 0:
        for process in running:
            if not process.running():
                raise SystemExit(f"{process.name} has ended in the middle:\n{process.tail()}")
        time.sleep(min(0.5, left_ns / NS))


if __name__ == "__main__":
    sys.exit(main())
