# SPDX-License-Identifier: Apache-2.0
"""Processes of a run: started, measured by /proc, ended; and what they leave in shared memory."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

SHARED_MEMORY = Path("/dev/shm")


def environment(folder: Path) -> dict[str, str]:
    """Of this process and its children: as every way of starting usreg sets it, in a domain of its own."""
    from usreg.nodes.graph import environment as usual

    domain = str(1 + os.getpid() % 101)  # above 101 the ports meet the ephemeral range
    return usual() | {"ROS_DOMAIN_ID": domain, "ROS_LOG_DIR": str(folder / "log")}


class Process:
    """A child in a session of its own, so that a Ctrl-C in the terminal reaches it through us.

    Args:
        speaks: whether its standard output is read by `hear`; else it goes to its log.
    """

    def __init__(self, name: str, command: list[str], folder: Path, speaks: bool = False) -> None:
        self.name, self.log = name, folder / f"{name}.log"
        with self.log.open("w", encoding="utf-8") as log:
            self._popen = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE if speaks else log, stderr=log, text=True,
                start_new_session=True,
            )  # fmt: skip

    @property
    def pid(self) -> int:
        return self._popen.pid

    def running(self) -> bool:
        """Whether it has not ended."""
        return self._popen.poll() is None

    def tell(self, line: str) -> None:
        """A line to its standard input."""
        assert self._popen.stdin is not None
        self._popen.stdin.write(line + "\n")
        self._popen.stdin.flush()

    def hear(self) -> dict[str, Any]:
        """A JSON line of its standard output (the source's)."""
        assert self._popen.stdout is not None
        line = self._popen.stdout.readline()
        if not line:
            raise SystemExit(f"the {self.name} has ended:\n{self.tail()}")
        return json.loads(line)

    def tail(self, lines: int = 15) -> str:
        """End of its log."""
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])

    def stop(self, patience_s: float = 25.0) -> int:
        """SIGINT, as Ctrl-C sends it; if that does not help SIGKILL to it and its children. Returns the exit code."""
        if self.running():
            self._popen.send_signal(signal.SIGINT)
        try:
            return self._popen.wait(patience_s)
        except subprocess.TimeoutExpired:
            for pid in family(self.pid):
                os.kill(pid, signal.SIGKILL)
            return self._popen.wait(5)


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    children = [int(p) for p in _read(f"/proc/{pid}/task/{pid}/children").split()]
    return [pid, *(found for child in children for found in family(child))]


def memory_mb(pid: int) -> dict[str, float]:
    """Resident memory, and the part of it that is the process's own (not files, not shared memory)."""
    rows = dict(line.split(":", 1) for line in _read(f"/proc/{pid}/status").splitlines() if ":" in line)
    return {name: int(rows.get(name, "0 kB").split()[0]) / 1024 for name in ("VmRSS", "RssAnon", "RssShmem")}


def processor_s(pid: int) -> float:
    """Processor time used since the start."""
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK") if fields else 0.0


def segments(pid: int) -> set[str]:
    """Names of what the middleware holds in shared memory for a process."""
    rows = (line.split() for line in _read(f"/proc/{pid}/maps").splitlines())
    names = {Path(row[5]).name for row in rows if len(row) == 6 and row[5].startswith(f"{SHARED_MEMORY}/")}
    return {name for name in names if "fastdds" in name or "fastrtps" in name}


def leftovers(names: set[str]) -> list[str]:
    """Which of these are still there and held by nobody: ports may be shared with the nodes of others."""
    left = {name for name in names if (SHARED_MEMORY / name).exists()}
    for pid in (int(path.name) for path in Path("/proc").glob("[0-9]*")):
        left -= segments(pid)
    return sorted(left)


def wait_for(what: str, reached: Any, timeout_s: float, processes: list[Process]) -> float:
    """Wait until `reached()`; the seconds that it took. SystemExit when a process ends or the time is up."""
    begin = time.monotonic()
    while not reached():
        for process in processes:
            if not process.running():
                raise SystemExit(f"{process.name} has ended while waiting for {what}:\n{process.tail()}")
        if time.monotonic() - begin > timeout_s:
            raise SystemExit(f"no {what} within {timeout_s:.0f} s:\n" + "\n".join(p.tail() for p in processes))
        time.sleep(0.05)
    return time.monotonic() - begin


def command_line(pid: int) -> str:
    """Words of its command line, one after another."""
    return _read(f"/proc/{pid}/cmdline").replace("\0", " ")


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError:  # it has ended
        return ""
