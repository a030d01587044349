# SPDX-License-Identifier: Apache-2.0
"""An opened recording: what is known before it plays, and what registration adds while it does."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...data.sessions import FrameNames, Session
from ...data.types import Frame, TrackedFrame, Volume
from ...errors import UsregError
from ...navigator import StepResult
from ..step import Step
from .known import FrameNote, Matrix, Result, as_pose
from .stages import RecordedStages

SERIES = ("score", "tre", "sigma", "phase")


@dataclass(frozen=True, eq=False)
class Hypotheses:
    """Ranked starts that were published at a stamp, as the page has them."""

    stamp_s: float
    rows: tuple[Mapping[str, Any], ...]


@dataclass(eq=False)
class Content:
    """What a recording holds. `put` may be called by one thread while others read.

    Args:
        title: name of the session or bag. bag: where the pixels are.
        frames: in the order of their stamps. skipped: stamp and reason of what could not be used.
        no_volume: why there is none. points: (N, 3), mm in `ct`, at which errors are told; None: inside the sector.
        session: to be registered by the Navigator; None: nothing is, `no_register` says why.
        stages: as a recorded graph told.
        results: of each frame; None: nothing yet. done: results so far.
    """

    title: str
    bag: Path
    frames: Sequence[FrameNote]
    names: FrameNames = field(default_factory=FrameNames)
    skipped: Sequence[tuple[float, str]] = ()
    volume: Volume | None = None
    no_volume: str = ""
    landmarks: Mapping[str, Tensor] = field(default_factory=dict)
    points: Tensor | None = None
    session: Session | None = None
    no_register: str = ""
    system: str = ""
    hypotheses: Sequence[Hypotheses] = ()
    target_ct: Tensor | None = None
    stages: RecordedStages = field(default_factory=RecordedStages)

    def __post_init__(self) -> None:
        count = len(self.frames)
        self.results: list[Result | None] = [None] * count
        self.series = {name: np.full(count, math.nan, np.float32) for name in SERIES}
        self.registering = self.session is not None
        self.done = 0
        self._index = {note.stamp_s: k for k, note in enumerate(self.frames)}
        self._lock = threading.Lock()

    @property
    def stamps_s(self) -> list[float]:
        """Of the frames."""
        return [note.stamp_s for note in self.frames]

    @property
    def has_truth(self) -> bool:
        """Whether anything is known to measure errors by."""
        return any((self.names.world, self.names.volume) in note.truth for note in self.frames)

    def put(self, stamp_s: float, result: Result) -> None:
        """The result of the frame at a stamp; one for a frame that is not there is left out."""
        index = self._index.get(stamp_s)
        if index is None:
            return
        values = self._values(index, result)
        with self._lock:
            for name, value in zip(SERIES, values, strict=True):
                self.series[name][index] = value
            self.results[index] = result
            self.done += 1

    def ended(self, why: str) -> None:
        """No more results will come."""
        self.registering, self.no_register = False, why

    def known_series(self) -> dict[str, np.ndarray]:
        """Copies of the series that hold a number."""
        with self._lock:
            return {name: values.copy() for name, values in self.series.items() if bool(np.isfinite(values).any())}

    def _values(self, index: int, result: Result) -> tuple[float, ...]:
        sigma = math.nan if result.sigma is None else max(result.sigma[:3])
        phase = math.nan if result.breathing is None else result.breathing.phase_rad
        return result.score, self.error_mm(index, result.shown), sigma, phase

    def error_mm(self, index: int, world_T_ct: Matrix | None) -> float:
        """TRE of a frame's shown pose: at the landmarks, without these inside the sector; NaN where nobody knows."""
        note = self.frames[index]
        if world_T_ct is None or not note.truth:
            return math.nan
        plane = note.geometry.plane
        frame = Frame(
            torch.zeros(1, 1, dtype=torch.uint8).expand(plane.height, plane.width), note.geometry, note.stamp_s
        )
        pose = as_pose(note.world_T_image)
        tracked = None if pose is None else TrackedFrame(frame, pose)
        step = Step(StepResult(frame, tracked=tracked), self.names, note.truth, landmarks=self.points)
        try:
            shown = torch.from_numpy(world_T_ct)
            return step.error_mm(shown) if self.points is None else step.landmark_mm(shown)
        except UsregError:  # what the bag calls truth is no pose
            return math.nan

    def told(self) -> list[str]:
        """What a person should know before looking, a line each."""
        missing = [
            self.no_volume and f"no volume: {self.no_volume}",
            self.no_register and f"not registered: {self.no_register}",
        ]
        untracked = next((f"frames without a pose: {note.untracked}" for note in self.frames if note.untracked), "")
        skipped = f"{len(self.skipped)} messages were left out: {self.skipped[0][1]}" if self.skipped else ""
        return [line for line in (*missing, untracked, skipped) if line]
