# SPDX-License-Identifier: Apache-2.0
"""What a replay tells `evaluation.write_report`: rows, errors of the poses shown, trajectories, times, pictures."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..data.types import Trajectory
from ..evaluation import Event, Row, Snapshot, result_json, spread
from ..geometry import se3
from .step import Step

SHOWN = ("smoothed", "lagged")


class Collector:
    """Keeps of each step only what the report needs: a long session's images do not fit into memory."""

    def __init__(self, total: int, snapshots: int) -> None:
        self._keep = {int((i + 0.5) * total / snapshots) for i in range(min(snapshots, total))}
        self._rows: list[Row] = []
        self._errors: dict[str, list[float]] = {name: [] for name in SHOWN}
        self._landmarks: dict[str, list[float]] = {name: [] for name in SHOWN}
        self._outputs = 0
        self._poses: dict[str, list[Tensor | None]] = {n: [] for n in ("registered", *SHOWN, "truth")}
        self._events: list[Event] = []
        self._seconds: dict[str, list[float]] = {}
        self._snapshots: list[Snapshot] = []

    @property
    def count(self) -> int:
        """Steps so far."""
        return len(self._rows)

    @property
    def wants_picture(self) -> bool:
        """Whether the next step's picture goes into the report."""
        return self.count in self._keep

    def take(self, step: Step) -> None:
        """Note a step."""
        r = step.result
        if self.wants_picture and r.overlay is not None:
            self._snapshots.append(Snapshot(r.overlay.image.numpy(), f"{step.stamp_s:.2f} s: {r.status}"))
        self._rows.append(step.row())
        poses = (step.registered, step.smoothed, step.fixed_lag, step.true_world_T_ct)
        for name, pose in zip(self._poses, poses, strict=True):
            self._poses[name].append(pose)
        for name in SHOWN:
            self._errors[name].append(step.error_mm(self._poses[name][-1]))
            self._landmarks[name].append(step.landmark_mm(self._poses[name][-1]))
        self._outputs += step.has_output
        for part, seconds in r.seconds.items():
            self._seconds.setdefault(part, []).append(seconds)
        if r.status != "TRACKING":
            self._events.append(Event(step.stamp_s, r.status, r.reason))
        elif r.update is not None and r.update.reason.startswith("re-initialised"):
            self._events.append(Event(step.stamp_s, "RE-INITIALISED", r.update.reason))

    def skip(self, stamp_s: float, reason: str) -> None:
        """Note a message that could not be used."""
        self._events.append(Event(stamp_s, "SKIPPED", reason))

    def content(self, title: str, world: str, ct: str, **facts: Any) -> dict[str, Any]:
        """Arguments of `write_report`; `facts` stand in the result beside the rows."""
        events = sorted(self._events, key=lambda e: e.stamp_s)
        result = result_json(
            self._rows,
            **facts,
            statuses=dict(Counter(r.status for r in self._rows)),
            shown={name: self._shown(name) for name in SHOWN},
            events=[vars(e) for e in events],
        )
        for name in SHOWN:
            shown = result["shown"][name]
            result["summary"][f"{name}_tre_mm"] = shown["summary"]
            if "landmark_tre_mm" in shown:
                result["summary"][f"{name}_landmark_tre_mm"] = shown["landmarks"]
        result["summary"]["output_share"] = self._outputs / len(self._rows) if self._rows else None
        stamps = [r.stamp_s for r in self._rows]
        trajectories = {name: _trajectory(stamps, poses, world, ct) for name, poses in self._poses.items()}
        return {
            "result": result,
            "timing": {"stages": self._seconds},
            "trajectories": {name: t for name, t in trajectories.items() if bool(t.valid.any())},
            "snapshots": self._snapshots,
            "title": title,
        }

    def _shown(self, name: str) -> dict[str, Any]:
        given = [p is not None for p in self._poses[name]]
        share = sum(given) / len(given) if given else math.nan
        errors, landmarks = self._errors[name], self._landmarks[name]
        content = {"given_share": share, "summary": spread(errors), "tre_mm": list(errors)}
        if any(map(math.isfinite, landmarks)):
            content |= {"landmarks": spread(landmarks), "landmark_tre_mm": list(landmarks)}
        return content


def _trajectory(stamps_s: Sequence[float], poses: Sequence[Tensor | None], world: str, ct: str) -> Trajectory:
    filled = [se3.identity() if p is None else p for p in poses]
    stacked = torch.stack(filled) if filled else torch.zeros(0, 4, 4, dtype=torch.float64)
    valid = torch.tensor([p is not None for p in poses], dtype=torch.bool)
    return Trajectory(torch.tensor(stamps_s, dtype=torch.float64), stacked, valid, ct, world)
