# SPDX-License-Identifier: Apache-2.0
"""A report of what the nodes of a running graph published, made from their recording and the session's truth."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..data.bag_poses import RegistrationRecord, decode_registration, decode_stamped_pose
from ..data.bag_reader import BagReader
from ..data.session_events import FrameEvent, TruthEvent, session_frames
from ..data.sessions import Session
from ..data.types import Frame, TrackedFrame
from ..errors import FileFormatError
from ..evaluation import write_report
from ..fusion import Fuser, OverlayConfig
from ..navigator import StepResult
from ..smoothing import FilterUpdate, Prediction
from .build import frame_count, session_geometry, session_landmarks, session_volume
from .report import Collector
from .step import Step

ESTIMATE, SMOOTHED, POSE = "registration/estimate", "registration/smoothed", "us/pose"


def report_recording(recording: Path, session: Session, report: Path, snapshots: int = 6) -> dict[str, Any]:
    """Write the report of a recorded run; frames that were not registered stand in it with their reason.

    Args:
        recording: bag with `registration/estimate`, `registration/smoothed` and `us/pose`. session: what was played.

    Raises:
        FileFormatError: the recording holds no pose of the probe at all.
    """
    estimates, smoothed, tracked = _read(recording)
    if not tracked:
        raise FileFormatError(f"'{recording.name}' holds no {POSE}: arm_tracking gave no pose, see its log")
    collector, fuser, volume = Collector(frame_count(session), snapshots), Fuser(OverlayConfig()), None
    landmarks = session_landmarks(session)
    for frame, truth in _frames(session):
        result = _result(frame, estimates, smoothed, tracked)
        if collector.wants_picture:
            volume = volume or session_volume(session)
            result.overlay = _overlay(fuser, volume, result)
        collector.take(Step(result, session.config.frames, truth, landmarks=landmarks))
    names, name = session.config.frames, session.folder.resolve().name
    system = next((r.estimate.system for r in estimates.values()), session.config.system)
    facts = {"session": name, "system": system, "seed": session.config.seed}
    content = collector.content(f"usreg run: {name}", names.world, names.volume, **facts)
    write_report(report, **content)
    summary: dict[str, Any] = content["result"]["summary"]
    return summary


def _read(
    recording: Path,
) -> tuple[dict[float, RegistrationRecord], dict[float, Prediction], dict[float, tuple[Tensor, Tensor]]]:
    """Estimates, poses shown and poses of the probe by the stamp of their frame."""
    estimates: dict[float, RegistrationRecord] = {}
    smoothed: dict[float, Prediction] = {}
    tracked: dict[float, tuple[Tensor, Tensor]] = {}
    with BagReader(recording) as bag:
        wanted = [t for t in bag.topics if t.endswith((ESTIMATE, SMOOTHED, POSE))]
        for topic, _, message in bag.messages(wanted):
            if topic.endswith(ESTIMATE):
                record = decode_registration(message)
                estimates[record.stamp_s] = record
                continue
            stamp_s, _, pose, covariance = decode_stamped_pose(message)
            if topic.endswith(POSE):
                tracked[stamp_s] = (pose, covariance)
            else:
                smoothed[stamp_s] = Prediction(pose, covariance, float("nan"), pose[:3, 3], stamp_s)
    return estimates, smoothed, tracked


def _frames(session: Session) -> Iterator[tuple[Frame, dict[tuple[str, str], Tensor]]]:
    """Frames with what is true at their stamp."""
    truth: dict[tuple[str, str], Tensor] = {}
    for event in session_frames(session, session_geometry(session)):
        if isinstance(event, TruthEvent):
            truth[event.parent, event.child] = event.parent_T_child
        elif isinstance(event, FrameEvent):
            yield event.frame, dict(truth)


def _result(
    frame: Frame,
    estimates: dict[float, RegistrationRecord],
    smoothed: dict[float, Prediction],
    tracked: dict[float, tuple[Tensor, Tensor]],
) -> StepResult:
    result = StepResult(frame)
    if frame.stamp_s not in tracked:
        result.status, result.reason = "NO_POSE", "arm_tracking gave no pose of the probe"
        return result
    pose, _ = tracked[frame.stamp_s]
    result.tracked = TrackedFrame(frame, pose, torch.zeros(6, 6, dtype=torch.float64))
    result.prediction = smoothed.get(frame.stamp_s)
    record = estimates.get(frame.stamp_s)
    if record is None:
        result.status, result.reason = "REJECTED", "not registered: a newer frame came first"
        return result
    result.estimate = record.estimate
    result.update = FilterUpdate(record.estimate.accepted, record.estimate.reason)
    result.seconds = {"registration": record.estimate.compute_s}
    if not record.estimate.accepted:
        result.status, result.reason = "REJECTED", record.estimate.reason
    return result


def _overlay(fuser: Fuser, volume: Any, result: StepResult) -> Any:
    if result.tracked is None or result.prediction is None:
        return fuser.alone(result.frame, result.status, result.reason)
    return fuser.fuse(result.tracked, volume, result.prediction.world_T_ct)
