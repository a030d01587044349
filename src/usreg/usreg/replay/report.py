# SPDX-License-Identifier: Apache-2.0
"""What a replay tells `evaluation.write_report`: rows, errors of the smoothed poses, trajectories, times, pictures."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..data.sessions import Session
from ..data.types import Trajectory
from ..evaluation import Event, Row, Snapshot, normalised_error, result_json, row_of, spread, tre_mm
from ..geometry import se3
from ..navigator import Navigator
from .build import ReplayConfig

if TYPE_CHECKING:
    from .run import Skipped, Step


def report_content(
    session: Session, config: ReplayConfig, navigator: Navigator, steps: Sequence[Step], skipped: Sequence[Skipped]
) -> dict[str, Any]:
    """Arguments of `write_report`."""
    world, ct = session.config.frames.world, session.config.frames.volume
    rows = [row_of_step(s, session) for s in steps]
    shown = {"smoothed": _shown(steps, session, _live), "lagged": _shown(steps, session, _lagged)}
    more = {
        "session": session.folder.name,
        "system": config.system or session.config.system,
        "seed": session.config.seed,
        "statuses": dict(Counter(s.result.status for s in steps)),
        "skipped_messages": len(skipped),
        **{name: _summary(values) for name, values in shown.items()},
        "events": [vars(e) for e in _events(steps, skipped)],
    }
    result = result_json(rows, **more)
    result["summary"] |= {f"{name}_tre_mm": result[name]["tre_mm"] for name in shown}
    return {
        "result": result,
        "timing": {"stages": _times(steps)},
        "trajectories": _trajectories(steps, world, ct),
        "snapshots": [s for s in map(_snapshot, steps) if s is not None],
        "title": f"usreg replay: {session.folder.name}",
    }


def row_of_step(step: Step, session: Session) -> Row:
    """The registration of a frame against the truth; a frame without a pose of the probe has only its status."""
    r = step.result
    if r.tracked is None:
        return Row(r.frame.index, r.frame.stamp_s, status=r.status, reason=r.reason)
    truth = image_truth(step, session)
    start = None if r.start is None else r.start.world_T_ct
    row = row_of(r.tracked, start, r.estimate, truth, r.status, r.reason)
    known = step.truth.get((session.config.frames.world, session.config.frames.volume))
    if r.estimate is None or known is None:
        return row
    # the covariance is of world_T_ct and holds the tracking's; the TRE is where the image lies in the volume
    e = r.estimate
    accepted = e.accepted and r.update is not None and r.update.accepted
    return replace(row, accepted=accepted, nees=normalised_error(e.world_T_ct, known, e.covariance, e.pivot))


def image_truth(step: Step, session: Session) -> Tensor | None:
    """The world_T_ct that puts the frame, at its measured pose, where it truly lies in the volume; None: not known."""
    names, tracked = session.config.frames, step.result.tracked
    world_T_ct = step.truth.get((names.world, names.volume))
    world_T_image = step.truth.get((names.world, names.image))
    if world_T_ct is None or tracked is None:
        return None
    if world_T_image is None:
        return _rigid(world_T_ct)
    return _rigid(tracked.world_T_image @ se3.inverse(world_T_image) @ world_T_ct)


def _rigid(pose: Tensor) -> Tensor:
    return se3.check_rigid(pose, "truth")


def _live(step: Step) -> Tensor | None:
    return None if step.result.prediction is None else step.result.prediction.world_T_ct


def _lagged(step: Step) -> Tensor | None:
    return None if step.lagged is None else step.lagged.world_T_ct


def _shown(steps: Sequence[Step], session: Session, pose_of: Callable[[Step], Tensor | None]) -> list[dict[str, Any]]:
    """TRE of the poses that were given out, one row for each frame; NaN where none was, or without truth."""
    rows = []
    for step in steps:
        pose, truth, tracked = pose_of(step), image_truth(step, session), step.result.tracked
        error = math.nan
        if pose is not None and truth is not None and tracked is not None:
            found, true = (se3.inverse(t) @ tracked.world_T_image for t in (pose, truth))
            error = tre_mm(found, true, step.result.frame.geometry)
        rows.append({"stamp_s": step.stamp_s, "given": pose is not None, "tre_mm": error})
    return rows


def _summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    given = sum(r["given"] for r in rows)
    share = given / len(rows) if rows else math.nan
    return {"given_share": share, "tre_mm": spread([r["tre_mm"] for r in rows]), "frames": list(rows)}


def _events(steps: Sequence[Step], skipped: Sequence[Skipped]) -> list[Event]:
    found = [Event(s.stamp_s, s.result.status, s.result.reason) for s in steps if s.result.status != "TRACKING"]
    found += [
        Event(s.stamp_s, "RE-INITIALISED", s.result.update.reason)
        for s in steps
        if s.result.update is not None and s.result.update.accepted and "re-init" in s.result.update.reason
    ]
    found += [Event(s.stamp_s, "SKIPPED", s.reason) for s in skipped]
    return sorted(found, key=lambda e: e.stamp_s)


def _times(steps: Sequence[Step]) -> dict[str, list[float]]:
    parts = list(dict.fromkeys(name for s in steps for name in s.result.seconds))
    return {name: [s.result.seconds[name] for s in steps if name in s.result.seconds] for name in parts}


def _trajectories(steps: Sequence[Step], world: str, ct: str) -> dict[str, Trajectory]:
    def registered(step: Step) -> Tensor | None:
        r = step.result
        used = r.update is not None and r.update.accepted
        return r.estimate.world_T_ct if r.estimate is not None and used else None

    chosen: dict[str, Callable[[Step], Tensor | None]] = {
        "registered": registered, "smoothed": _live, "lagged": _lagged, "truth": lambda s: s.truth.get((world, ct)),
    }  # fmt: skip
    found = {name: _trajectory(steps, pose_of, world, ct) for name, pose_of in chosen.items()}
    return {name: t for name, t in found.items() if bool(t.valid.any())}


def _trajectory(steps: Sequence[Step], pose_of: Callable[[Step], Tensor | None], world: str, ct: str) -> Trajectory:
    poses = [pose_of(s) for s in steps]
    stamps = torch.tensor([s.stamp_s for s in steps], dtype=torch.float64)
    filled = [se3.identity() if p is None else p for p in poses]
    stacked = torch.stack(filled) if filled else torch.zeros(0, 4, 4, dtype=torch.float64)
    return Trajectory(stamps, stacked, torch.tensor([p is not None for p in poses], dtype=torch.bool), ct, world)


def _snapshot(step: Step) -> Snapshot | None:
    r = step.result
    if r.overlay is None:
        return None
    return Snapshot(r.overlay.image.numpy(), f"{step.stamp_s:.2f} s: {r.status}")
