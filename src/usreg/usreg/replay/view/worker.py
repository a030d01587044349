# SPDX-License-Identifier: Apache-2.0
"""The process that registers a session beside its playback: a line of JSON on standard output for each frame.

It is a process of its own so that neither slows the other, and ends with the one that started it.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from ...config import from_mapping
from ...data.session_events import ReplayConfig as OrderConfig
from ...data.sessions import Session, SessionConfig, read_session
from ...errors import UsregError
from ..build import ReplayConfig, build_navigator
from ..run import fixed_threads, session_steps
from ..step import Step
from .known import sigma_of
from .recorded_session import RecordedSession

NICE = 5


class NoFusion:
    """In the place of the fuser: pictures are made where they are looked at."""

    def prepare(self, volume: Any) -> None:
        """Nothing to prepare."""

    def fuse(self, *parts: Any) -> None:
        """No picture."""

    def alone(self, *parts: Any) -> None:
        """No picture."""

    def reset(self) -> None:
        """Nothing to forget."""


def results(session: Session, config: ReplayConfig) -> Iterator[dict[str, Any]]:
    """What the Navigator makes of each frame, as plain values.

    Raises:
        UsregError: the session cannot be registered; the message says why.
    """
    with fixed_threads():
        navigator, feed = build_navigator(session, config)
        navigator.fuser = NoFusion()  # type: ignore[assignment]
        for step in session_steps(session, navigator, feed, order=OrderConfig(skip_damaged=True)):
            breath = navigator.pose_filter.breathing(step.stamp_s)
            yield plain(step) | {"breathing": None if breath is None else list(vars(breath).values())}


def plain(step: Step) -> dict[str, Any]:
    """A step without its pictures."""
    r, e, shown = step.result, step.result.estimate, step.result.prediction
    return {
        "stamp_s": step.stamp_s,
        "status": r.status,
        "reason": r.reason if r.update is None or r.reason else r.update.reason,
        "shown": None if shown is None else _rows(shown.world_T_ct),
        "sigma": None if shown is None else sigma_of(shown.covariance),
        "raw": _rows(step.registered),
        "compute_s": r.seconds.get("registration"),
        **(
            {}
            if e is None
            else {"score": e.score, "overlap": e.overlap, "probability": e.probability, "system": e.system}
        ),
    }


def _rows(pose: Tensor | None) -> list[list[float]] | None:
    return None if pose is None else pose.tolist()


def ordered(session: Session, config: Mapping[str, Any]) -> str:
    """The order that `main` takes, as text."""
    return json.dumps(
        {
            "folder": str(session.folder.resolve()),
            "bag": str(session.bag_path.resolve()),
            "config": session_changes(session),
            "replay": dict(config),
        }
    )


def session_changes(session: Session) -> dict[str, Any]:
    """Topics and pose source, which a recording may name otherwise than the session's file."""
    topics = vars(session.config.topics)
    return {"topics": topics, "pose_source": session.config.pose_source}


def session_of(order: Mapping[str, Any]) -> Session:
    """The session of an order.

    Raises:
        UsregError: it cannot be read (any more).
    """
    session = read_session(order["folder"])
    topics = from_mapping(type(session.config.topics), order["config"]["topics"], "topics")
    config: SessionConfig = replace(session.config, topics=topics, pose_source=order["config"]["pose_source"])
    return RecordedSession(session.folder, config, Path(order["bag"]))


def main() -> None:
    """Take the order from the command line, write results until they end or standard input is closed."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.nice(NICE)
    order = json.loads(sys.argv[1])
    try:
        for line in results(session_of(order), ReplayConfig(**order["replay"])):
            _tell(line)
        _tell({"done": True})
    except UsregError as error:
        _tell({"error": str(error)})


def _tell(line: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
