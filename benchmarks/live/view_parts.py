# SPDX-License-Identifier: Apache-2.0
"""Runs of the view's benchmark: the graph with a client, a browser on a replay and on the graph, an hour of clients."""

from __future__ import annotations

import json
import re
import socket
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from . import graph, processes, scene

ROOT = Path(__file__).resolve().parents[2]
NS, WARM_S, READY_S = 10**9, 6, 180
VIEW = "web_view"
CLI = [sys.executable, "-m", "usreg.cli"]
URL = re.compile(r"http://\S+")


def scene_of(folder: Path) -> scene.Scene:
    """A scene in the folder, made once."""
    (folder / "scene").mkdir(exist_ok=True)
    return scene.make_scene(folder / "scene")


def free_port() -> int:
    """A port that nobody holds now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def graph_run(made: scene.Scene, seconds: int, view: bool) -> dict[str, Any]:
    """Figures of the live graph, with or without the view and one client that draws nothing."""
    with LiveGraph(made, free_port() if view else 0) as live:
        client = Client(live.url, WARM_S + seconds) if view else None
        found = live.measure(seconds)
        if client is not None:
            found["client"] = client.told()
    return found


class LiveGraph:
    """Source, nodes and meter of `usreg bench live`, with the view on a port (0: without)."""

    def __init__(self, made: scene.Scene, port: int) -> None:
        self.made, self.port = made, port
        self.url = f"http://127.0.0.1:{port}/"
        self.running: list[processes.Process] = []

    def __enter__(self) -> LiveGraph:
        import rclpy

        from .meter import Meter, spin

        rclpy.init()
        self.meter, self.ending = Meter(), threading.Event()
        self.thread = spin(self.meter, self.ending)
        command = [sys.executable, str(Path(scene.__file__).with_name("source.py")), str(self.made.folder)]
        self.running = [processes.Process("source", command, self.made.folder, speaks=True)]
        self.running.append(graph.start(self.made, "many", self.port))
        processes.wait_for("graph that listens", lambda: graph.ready(self.meter), READY_S, self.running)
        if self.port:
            processes.wait_for("view", lambda: listens(self.port), READY_S, self.running)
        self.running[0].hear()
        return self

    def __exit__(self, *_: Any) -> None:
        import rclpy

        for process in reversed(self.running):
            process.stop()
        self.ending.set()
        self.thread.join()
        self.meter.destroy_node()
        rclpy.try_shutdown()

    def begin(self, seconds: int) -> tuple[int, int]:
        """Frames flow from now on; the window that counts, ns."""
        start_ns = time.time_ns() + NS
        self.running[0].tell(f"{start_ns} {WARM_S + seconds}")
        self.start_ns = start_ns
        return start_ns + WARM_S * NS, start_ns + (WARM_S + seconds) * NS

    def measure(self, seconds: int) -> dict[str, Any]:
        """Latencies of the graph and the processor time of the view within the window."""
        from .meter import figures

        begin_ns, end_ns = self.begin(seconds)
        sleep_until(begin_ns)
        pids = {name: pid for pid, name in graph.names(self.running[1]).items()}
        before = {name: processes.processor_s(pid) for name, pid in pids.items()}
        sleep_until(end_ns)
        spent = {name: (processes.processor_s(pid) - before[name]) / seconds for name, pid in pids.items()}
        time.sleep(0.5)
        count = (WARM_S + seconds) * scene.FRAME_HZ
        sent = np.array([self.start_ns + k * NS // scene.FRAME_HZ for k in range(count)])
        found = figures(sent, self.meter.arrivals, begin_ns, end_ns)
        return found | {"server_processor": spent.get(VIEW, 0.0), "processor": spent}


class Client:
    """A client that draws nothing, in a process of its own."""

    def __init__(self, url: str, seconds: float, *options: str) -> None:
        command = [sys.executable, str(Path(__file__).with_name("client.py")), url, str(seconds), *options]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def told(self) -> dict[str, Any]:
        """Its figures, once it has ended."""
        output, _ = self._process.communicate()
        if self._process.returncode:
            raise SystemExit("the client has failed, see above")
        found: dict[str, Any] = json.loads(output)
        return found


def listens(port: int) -> bool:
    """Whether somebody answers on a port."""
    with socket.socket() as found:
        found.settimeout(0.2)
        return found.connect_ex(("127.0.0.1", port)) == 0


def sleep_until(when_ns: int) -> None:
    """By the system clock."""
    time.sleep(max(0.0, (when_ns - time.time_ns()) * 1e-9))


# --- a browser ----------------------------------------------------------------------------------------------------


def replay_in_browser(folder: Path, seconds: int) -> dict[str, Any]:
    """`usreg view phantom` at three times its speed, in Chromium: alone, and beside a replay that registers."""
    from .browser import browser

    found: dict[str, Any] = {}
    server, url = view_process(folder, "phantom", "--loop", "--rate", "3")  # 30 frames a second
    try:
        with browser() as tab:
            tab.page.goto(url)
            tab.wait("window.usreg && usreg.frames3d > 3 && usreg.registered", 120)
            for layout in ("1", "2"):
                tab.page.keyboard.press(layout)
                found |= _drawn(tab, f"alone{'' if layout == '1' else '_large'}", seconds)
            tab.page.keyboard.press("1")
            replay = [*CLI, "replay", "phantom", "--report", str(folder / "report")]
            busy = subprocess.Popen(
                ["sh", "-c", f"while true; do {' '.join(replay)} > /dev/null; done"], start_new_session=True
            )
            try:
                tab.page.wait_for_timeout(5000)  # beyond its start
                found |= _drawn(tab, "busy", seconds)
            finally:
                _end(busy)
            found["errors"], found["strangers"] = tab.errors, tab.strangers
    finally:
        server.stop()
    return found


def graph_in_browser(made: scene.Scene, seconds: int) -> dict[str, Any]:
    """The live graph drawn by Chromium: latency from the stamp and from the fused message to the drawn pixel."""
    from .browser import browser

    with LiveGraph(made, free_port()) as live, browser() as tab:
        tab.page.goto(live.url)
        tab.wait("window.usreg")
        begin_ns, end_ns = live.begin(seconds)
        sleep_until(begin_ns)
        drawn = _drawn(tab, "live", seconds - 1)
        sleep_until(end_ns)
    return drawn | {
        "fused_to_pixel_ms": drawn["live_fused_to_pixel_ms"]["median"],
        "stamp_to_pixel_ms": drawn["live_stamp_to_pixel_ms"]["median"],
    }


def _drawn(tab: Any, name: str, seconds: int) -> dict[str, Any]:
    """Frames drawn a second in a window of time; the share of frames that came is by their sequence numbers."""
    counts = "({two: usreg.frames2d, three: usreg.frames3d, seq: usreg.seq, at: performance.now()})"
    before = tab.value(counts)
    tab.page.wait_for_timeout(1000 * seconds)  # sleeping would hold back what the page asks for
    after = tab.value(counts)
    elapsed = (after["at"] - before["at"]) / 1000
    two, three = after["two"] - before["two"], after["three"] - before["three"]
    return {
        f"{name}_3d_hz": three / elapsed,
        f"{name}_2d_hz": two / elapsed,
        f"{name}_2d_share": two / max(1, after["seq"] - before["seq"]),
        f"{name}_fused_to_pixel_ms": _spread(tab.value("Array.from(usreg.latenciesMs)")),
        f"{name}_stamp_to_pixel_ms": _spread(tab.value("Array.from(usreg.agesMs)")),
    }


def _spread(values: list[float]) -> dict[str, float]:
    if not values:
        return {"median": float("nan"), "p95": float("nan")}
    return {"median": statistics.median(values), "p95": float(np.percentile(values, 95))}


def view_process(folder: Path, *words: str) -> tuple[processes.Process, str]:
    """`usreg view ...` on a free port, and its address."""
    process = processes.Process("view", [*CLI, "view", *words, "--port", str(free_port())], folder)
    wanted: list[str] = []

    def told() -> bool:
        wanted.extend(URL.findall(process.log.read_text(encoding="utf-8")))
        return bool(wanted)

    processes.wait_for("address of the view", told, 60, [process])
    return process, wanted[0]


def _end(process: subprocess.Popen[Any]) -> None:
    for pid in reversed(processes.family(process.pid)):
        subprocess.run(["kill", "-9", str(pid)], check=False)
    process.wait()


# --- an hour ------------------------------------------------------------------------------------------------------


def soak(folder: Path, seconds: int) -> dict[str, Any]:
    """Clients on `usreg run phantom` that loops: one in time, one slow, one that never acknowledges."""
    port = free_port()
    words = ["loop:=true", f"view_port:={port}", "--processes", "many"]
    nodes = processes.Process("nodes", [*CLI, "run", "phantom", *words], folder)
    try:
        processes.wait_for("view", lambda: listens(port), READY_S, [nodes])
        url = f"http://127.0.0.1:{port}/"
        clients = [Client(url, seconds), Client(url, seconds, "--delay-ms", "200"), Client(url, seconds, "--stall")]
        pid = {name: pid for pid, name in graph.names(nodes).items()}[VIEW]
        rows = []
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            rows.append(processes.memory_mb(pid)["VmRSS"])
            time.sleep(min(10.0, seconds / 20))
        told = [client.told() for client in clients]
    finally:
        nodes.stop()
    half = rows[len(rows) // 2 :]
    return {
        "growth_mb": half[-1] - half[0],
        "memory_mb": rows[:: max(1, len(rows) // 12)],
        "late_frames": sum(client["late"] + client["out_of_order"] for client in told),
        "clients": told,
        "seconds": seconds,
    }
