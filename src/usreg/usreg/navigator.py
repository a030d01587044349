# SPDX-License-Identifier: Apache-2.0
"""The main flow without ROS. Read this file first.

A frame goes through five parts: tracking says where the image lay in the room when it was taken, registration finds the
volume (CT, MR, 3D ultrasound) in it, smoothing turns single estimates into a pose with covariance at any time, fusion
draws the volume over the frame. The fifth, acquisition, is whoever calls `step`. What is estimated is `world_T_ct`:
where the patient lies in the room. The ROS nodes wrap the same objects.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import torch
from torch import Tensor

from .data.types import Estimate, Frame, Problem, Rigid, TrackedFrame, Volume
from .errors import LostError, NoOverlapError, StalePoseError, UsregError
from .fusion import Fuser, Overlay
from .geometry import se3
from .registration.registrar import Registrar
from .smoothing import FilterUpdate, PoseFilter, Prediction
from .tracking import Tracker

Status = Literal["TRACKING", "REJECTED", "NO_OVERLAP", "NO_POSE", "LOST", "UNINITIALISED", "ERROR"]
T = TypeVar("T")


@dataclass(eq=False)
class StepResult:
    """What became of one frame. A part that did not come about is None; `reason` says why.

    Args:
        status: TRACKING: registered. REJECTED, NO_OVERLAP, ERROR: this frame was not used, the prediction stands.
            NO_POSE: no measured pose of the probe. LOST: no pose of the volume may be given out. UNINITIALISED: none
            was ever given.
        start: where registration began to search; never shown.
        prediction: pose of the volume at the frame's stamp, the only one that may be shown.
        seconds: wall time of each part.
    """

    frame: Frame
    status: Status = "TRACKING"
    reason: str = ""
    tracked: TrackedFrame | None = None
    start: Prediction | None = None
    estimate: Estimate | None = None
    update: FilterUpdate | None = None
    prediction: Prediction | None = None
    overlay: Overlay | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    def timed(self, part: str, call: Callable[..., T], *inputs: object) -> T:
        """Call and note how long it took."""
        begin = time.perf_counter()
        try:
            return call(*inputs)
        finally:
            self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - begin


class Navigator:
    """Where the probe looks in the volume, frame by frame."""

    def __init__(
        self, tracker: Tracker, registrar: Registrar, pose_filter: PoseFilter, fuser: Fuser, volume: Volume
    ) -> None:
        self.tracker = tracker
        self.registrar = registrar
        self.pose_filter = pose_filter
        self.fuser = fuser
        self.volume = volume

    def prepare(self) -> None:
        """Pyramids, windows and compilation, so that the first frame is not slow."""
        self.registrar.prepare(self.volume)
        self.fuser.prepare(self.volume)

    def initialize(self, stamp_s: float, world_T_ct: Tensor, covariance: Tensor) -> None:
        """Say where the volume lies, roughly: registration starts from here.

        Args:
            world_T_ct: (4, 4), mm. covariance: (6, 6) of (v, w), mm and rad, world axes, about the volume's centre.
        """
        pivot = se3.transform_points(world_T_ct, self.volume.grid.centre_ct[None])[0]
        self.pose_filter.initialize(stamp_s, world_T_ct, covariance, pivot)

    def step(self, frame: Frame) -> StepResult:
        """Take a frame through all parts. Nothing that is wrong with the frame is raised: the result says it."""
        result = StepResult(frame)
        try:
            self._register(result)
        except UsregError as error:
            result.status, result.reason = status_of(error), str(error)
        try:
            result.prediction = result.timed("prediction", self.pose_filter.predict, frame.stamp_s)
            if result.tracked is not None:
                result.overlay = result.timed("fusion", self._fuse, result.tracked, result.prediction)
        except UsregError as error:
            result.prediction, result.status = None, status_of(error)
            result.reason = "; ".join(filter(None, (result.reason, str(error))))
        if result.overlay is None:
            result.overlay = result.timed("fusion", self.fuser.alone, frame, result.status, result.reason)
        return result

    def _register(self, result: StepResult) -> None:
        """Track, register from the filter's state, and tell the filter."""
        stamp_s = result.frame.stamp_s
        result.tracked = result.timed("tracking", self.tracker.track, result.frame)
        result.start = result.timed("prediction", self.pose_filter.search_start, stamp_s)
        problem = Problem((result.tracked,), self.volume, as_start(result.start))
        result.estimate = result.timed("registration", self.registrar, problem)
        result.update = result.timed("smoothing", self.pose_filter.update, stamp_s, result.estimate)
        if not result.update.accepted:
            result.status, result.reason = "REJECTED", result.update.reason

    def _fuse(self, tracked: TrackedFrame, prediction: Prediction) -> Overlay:
        sigma_mm = torch.linalg.eigvalsh(prediction.covariance[:3, :3])[-1].clamp_min(0).sqrt().item()
        note = f"age {prediction.age_s:.2f} s  sigma {sigma_mm:.1f} mm"
        return self.fuser.fuse(tracked, self.volume, prediction.world_T_ct, note)

    def reset(self) -> None:
        """Forget every pose (another recording, a clock that jumped back); then call `initialize`."""
        self.tracker.reset()
        self.registrar.reset()
        self.pose_filter.reset()
        self.fuser.reset()


def as_start(prediction: Prediction) -> Estimate:
    """Where a registration begins: not accepted, so that it can never pass for a result."""
    return Estimate(Rigid(prediction.world_T_ct), prediction.covariance, prediction.pivot, reason="start")


def status_of(error: UsregError) -> Status:
    """Status that an error of a part amounts to."""
    if isinstance(error, LostError):
        return "UNINITIALISED" if "not initialised" in str(error) else "LOST"
    if isinstance(error, StalePoseError):
        return "NO_POSE"
    return "NO_OVERLAP" if isinstance(error, NoOverlapError) else "ERROR"
