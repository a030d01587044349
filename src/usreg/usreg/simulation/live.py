# SPDX-License-Identifier: Apache-2.0
"""A simulated scan as a stream: each image is a function that makes it, so that whoever plays it may leave some out."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from ..data.atomic import atomic_folder
from ..data.bag_messages import encode_geometry, encode_image
from ..data.ros_time import to_s
from ..data.sessions import write_session
from .recording import FRAMES, TOPICS, Entry, Recording, Shot, devices, expose, joint_entries, static_entries
from .scanner import Scanner
from .scenario import Kind
from .session import Prepared, Progress, prepare


@dataclass(frozen=True, eq=False)
class LiveScan:
    """Messages of drivers; the truth is left out."""

    recording: Recording
    scanner: Scanner

    def entries(self) -> Iterator[Entry]:
        """In the order of arrival; the message of an image is a function without arguments."""
        streams = (static_entries(self.recording), joint_entries(self.recording), self._frames())
        yield from heapq.merge(*streams, key=lambda e: e.log_ns)

    def _frames(self) -> Iterator[Entry]:
        scanners = devices(self.recording, self.scanner)
        for shot in self.recording.shots:
            ns, log_ns, number = shot.stamp_ns, shot.arrival_ns, self.recording.mounts.index(shot.mount)
            geometry = encode_geometry(to_s(ns), shot.mount.geometry, FRAMES.image, number)
            yield Entry(log_ns, ns, TOPICS.geometry, geometry)
            yield Entry(log_ns, ns, TOPICS.image, partial(_exposed, scanners[shot.mount.stamp_ns], shot))


def _exposed(scanner: Scanner, shot: Shot) -> Any:
    """The image that a recording of the same seed holds."""
    return encode_image(to_s(shot.stamp_ns), expose(scanner, shot), FRAMES.image)


def stream_session(
    kind: Kind, seed: int = 0, seconds: float = 60.0, folder: str | Path | None = None,
    progress: Progress | None = None, make: Callable[..., Prepared] = prepare,
) -> LiveScan:  # fmt: skip
    """A session to be streamed.

    Args:
        folder: to be made with what a live graph needs beside the stream: volumes, landmarks, and a session.yaml that
            names no bag. None: a session that ships has them, where kind and seed are the same.
        progress: as `prepare` takes it. make: `prepare`, or what gives another session.

    Raises:
        As `session.simulate`.
    """
    prepared = make(kind, seed, seconds, progress)
    if folder is not None:
        with atomic_folder(folder) as partial_folder:
            config = prepared.write(partial_folder, bag=False)
            write_session(partial_folder, replace(config, bag="", sweep="", truth=False))
    return LiveScan(prepared.scene.scan, prepared.scene.scanner)
