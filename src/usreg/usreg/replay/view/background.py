# SPDX-License-Identifier: Apache-2.0
"""Registration of a session beside its playback: the process that does it, and what comes from it."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from typing import Any, get_args

import numpy as np

from ...data.sessions import Session
from ...smoothing import Breathing
from ...web.moment import MomentStatus
from .known import Matrix, Result
from .worker import ordered

log = logging.getLogger(__name__)
STATUS = {"TRACKING": "ACCEPTED", "NO_POSE": "NOT_TRACKED", "UNINITIALISED": "WAITING"}  # of the Navigator: of a moment
END_S = 3.0
TAIL = 400  # characters of the log of a process that failed


class Background:
    """Runs the Navigator over a session in a process of its own.

    Args:
        take: told stamp and result of each frame, in order. ended: told "" at the end, else why there will be no more.
            Both from a thread of this class.
    """

    def __init__(
        self,
        session: Session,
        config: Mapping[str, Any],
        take: Callable[[float, Result], None],
        ended: Callable[[str], None],
    ) -> None:
        self._command = [sys.executable, "-m", "usreg.replay.view.worker", ordered(session, config)]
        self._take, self._ended = take, ended
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._run, name="registering", daemon=True)
        self._stopping = False

    def start(self) -> None:
        """Begin."""
        # one thread, so that one processor is left for the playback and the browser
        environment = os.environ | {"OMP_NUM_THREADS": "1", "USREG_THREADS": "1"}
        environment["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p)
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  closed by the thread
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, env=environment,
            start_new_session=True,  # Ctrl-C is for the playback, which ends this process itself
        )  # fmt: skip
        self._thread.start()

    def stop(self) -> None:
        """End the process, if it still runs."""
        self._stopping = True
        process = self._process
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            process.kill()
        self._thread.join(END_S)
        self._log.close()

    def _run(self) -> None:
        assert self._process is not None
        why = self._read()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if not self._stopping:
            self._ended(why if why is not None else self._failure())

    def _read(self) -> str | None:
        """Hand on what comes; "" at the end, else why there is no more. None: the process has not said."""
        assert self._process is not None and self._process.stdout is not None
        raw: tuple[Matrix | None, float] = (None, float("nan"))
        with self._process.stdout as lines:
            for line in lines:
                found = json.loads(line)
                if "stamp_s" not in found:
                    return str(found.get("error", ""))
                if found["raw"] is not None:
                    raw = np.array(found["raw"]), found["stamp_s"]
                self._take(found["stamp_s"], result_of(found, *raw))
        return None

    def _failure(self) -> str:
        """Of a process that ended by itself."""
        assert self._process is not None
        self._log.seek(0)
        tail = self._log.read().decode("utf-8", "replace").strip()[-TAIL:]
        return f"the process that registers has ended with code {self._process.returncode}: {tail}"


def result_of(found: Mapping[str, Any], raw: Matrix | None, raw_s: float) -> Result:
    """A line of the worker."""
    status = STATUS.get(found["status"], found["status"])
    assert status in get_args(MomentStatus)
    nan = float("nan")
    return Result(
        status=status,
        reason=found["reason"],
        shown=None if found["shown"] is None else np.array(found["shown"]),
        sigma=None if found["sigma"] is None else tuple(found["sigma"]),
        raw=raw,
        raw_s=raw_s,
        score=found.get("score", nan),
        overlap=found.get("overlap", nan),
        probability=found.get("probability", nan),
        compute_s=nan if found["compute_s"] is None else found["compute_s"],
        system=found.get("system", ""),
        breathing=None if found["breathing"] is None else Breathing(*found["breathing"]),
    )
