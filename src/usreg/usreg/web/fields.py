# SPDX-License-Identifier: Apache-2.0
"""Fields of a frame's message that need no volume: numbers of the moment, what is drawn of the geometry, the target."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from torch import Tensor

from ..fusion.drawing import dot_radius, marker_pixel, outline_pixels, ruler_ticks, skin_mm, to_pixels
from ..geometry.sector import SectorGeometry
from .moment import Moment


def told(moment: Moment) -> dict[str, Any]:
    """The fields of a moment as they are."""
    breathing = moment.breathing
    return {
        "stamp_s": moment.frame.stamp_s,
        "index": moment.frame.index if moment.index < 0 else moment.index,
        "age_s": moment.age_s,
        "made_server_s": moment.made_s,
        "period_s": _number(moment.period_s),
        "paused": moment.paused,
        "status": moment.status,
        "reason": moment.reason,
        "accepted": moment.status == "ACCEPTED",
        "score": _number(moment.score),
        "overlap": _number(moment.overlap),
        "probability": _number(moment.probability),
        "system": moment.system,
        "sigma_mm": moment.sigma_mm,
        "sigma_deg": None if moment.sigma_rad is None else [math.degrees(s) for s in moment.sigma_rad],
        "pose_age_s": _number(moment.pose_age_s),
        "compute_s": _number(moment.compute_s),
        "tre_mm": _number(moment.tre_mm),
        "breathing": breathing
        and {
            "phase": _number(breathing.phase_rad),
            "depth_mm": _number(breathing.depth_mm),
            "period_s": _number(breathing.period_s),
        },
        "world_T_image": _pose(moment.world_T_image),
        "world_T_ct": _pose(moment.world_T_ct),
        "world_T_ct_raw": _pose(moment.world_T_ct_raw),
        "links": [{"name": link.name, "world_T_link": _pose(link.world_T_link)} for link in moment.links],
    }


@functools.lru_cache(maxsize=16)
def drawn(sector: SectorGeometry) -> dict[str, Any]:
    """What is drawn of the geometry alone. Shared: do not write into it."""
    skin = to_pixels(sector.plane, np.array([skin_mm(sector)]))[0]
    return {
        "pixel_to_mm": sector.pixel_to_mm,
        "kind": sector.kind,
        "skin_px": skin.tolist(),
        "depth_mm": sector.depth_mm,
        "marker_px": marker_pixel(sector),
        "marker_radius_px": dot_radius(sector.plane),
        "ruler": [
            {"row_px": row, "label": str(depth) if depth and depth % 50 == 0 else ""}
            for depth, row in ruler_ticks(sector)
        ],
    }


@functools.lru_cache(maxsize=16)
def outline(sector: SectorGeometry) -> np.ndarray:
    """Outline (N, 2) float32 in (column, row). Shared: do not write into it."""
    return outline_pixels(sector).astype(np.float32)


def target_at(target_ct: Tensor, world_T_ct: Tensor, world_T_image: Tensor, sector: SectorGeometry) -> dict[str, Any]:
    """Where a point of the volume, (3,) mm, lies for a frame.

    Returns:
        Its place in `ct` and in the world; its foot on the plane in pixels and whether that lies inside the sector; its
        distance from the plane, mm, positive on the side that z of the image points to.
    """
    world = world_T_ct.numpy()[:3] @ [*target_ct.tolist(), 1.0]
    pose = world_T_image.numpy()
    x, y, z = (pose[:3, :3].T @ (world - pose[:3, 3])).tolist()
    column, row = to_pixels(sector.plane, np.array([[x, y]]))[0].tolist()
    inside = -0.5 <= row < sector.plane.height - 0.5 and -0.5 <= column < sector.plane.width - 0.5
    return {
        "ct": target_ct.tolist(),
        "world": world.tolist(),
        "px": [column, row],
        "distance_mm": z,
        "inside": inside and bool(sector.mask()[round(row), round(column)]),
    }


def _number(value: float) -> float | None:
    """JSON has no NaN."""
    return value if math.isfinite(value) else None


def _pose(pose: Tensor | None) -> list[float] | None:
    """16 numbers, row by row."""
    return None if pose is None else pose.flatten().tolist()
