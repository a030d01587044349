# SPDX-License-Identifier: Apache-2.0
"""A frame of a recording with everything that is known of it."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ...data.types import Frame
from ...geometry import se3
from ...web.moment import Link, Moment
from .content import Content
from .known import FrameNote, Result, as_pose


def moment_at(
    content: Content,
    frame: Frame,
    age_s: float = 0.0,
    period_s: float = math.nan,
    paused: bool = False,
    target_ct: Tensor | None = None,
) -> Moment:
    """The moment of a frame by its index.

    Args:
        age_s: of the picture, by the clock of the playback. period_s: of the frames, by that clock.
    """
    index = frame.index
    note, result = content.frames[index], content.results[index]
    known = _waiting(content, note) if result is None else _registered(content, index, result)
    return Moment(
        frame, as_pose(note.world_T_image), age_s=age_s, period_s=period_s, links=_links(note), target_ct=target_ct,
        paused=paused, index=index, **known,
    )  # fmt: skip


def pair_error_mm(content: Content, index: int, world: Tensor, ct: Tensor) -> float:
    """Distance of a point seen in the room from where the shown pose puts it, mm; NaN where no pose is shown."""
    result = content.results[index]
    if result is None or result.shown is None:
        return math.nan
    return float((se3.transform_points(torch.from_numpy(result.shown), ct[None])[0] - world).norm())


def _registered(content: Content, index: int, result: Result) -> dict[str, Any]:
    status, reason = result.status, result.reason
    if content.volume is None:
        status, reason = "NO_VOLUME", content.no_volume
    sigma = result.sigma
    return {
        "world_T_ct": as_pose(result.shown),
        "world_T_ct_raw": as_pose(result.raw),
        "sigma_mm": None if sigma is None else sigma[:3],
        "sigma_rad": None if sigma is None else sigma[3:],
        "status": status,
        "reason": reason,
        "score": result.score,
        "overlap": result.overlap,
        "probability": result.probability,
        "system": result.system,
        "pose_age_s": content.frames[index].stamp_s - result.raw_s,
        "compute_s": result.compute_s,
        "tre_mm": float(content.series["tre"][index]),
        "breathing": result.breathing,
    }


def _waiting(content: Content, note: FrameNote) -> dict[str, Any]:
    """Why nothing is known of a frame."""
    if content.volume is None:
        return {"status": "NO_VOLUME", "reason": content.no_volume}
    if note.world_T_image is None:
        return {"status": "NOT_TRACKED", "reason": note.untracked}
    if content.registering:
        return {
            "status": "WAITING",
            "reason": f"being registered: {content.done} of {len(content.frames)} frames so far",
        }
    return {"status": "WAITING", "reason": content.no_register or "not registered"}


def _links(note: FrameNote) -> tuple[Link, ...]:
    if note.links is None:
        return ()
    poses = torch.from_numpy(note.links).to(torch.float64)
    return tuple(Link(name, pose) for name, pose in zip(note.link_names, poses, strict=True))
