# SPDX-License-Identifier: Apache-2.0
"""One frame registered to one volume from one start: how far off along and about each axis of the image."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ...config import from_mapping
from ...data.types import ImageGeometry, check_pose
from ...geometry import rotation, se3
from ..metrics import sample_points
from ..result import plain

SUCCESS_MM = 10.0  # a pair whose distance is below is a successful one (DeepRS2V, Table 1)
NEAR_PLANE_MM = 5.0  # a landmark at most so far from the true image plane is seen in the image
Triple = tuple[float, float, float]


@dataclass(frozen=True)
class PairError:
    """Errors of an image pose about the centre of the image, in the axes of the true image.

    Args:
        shift_mm: of the centre: lateral (x), in depth (y), out of the plane (z).
        turn_deg: rotation vector of true_T_found about the same axes; its length is the geodesic angle. Unlike Euler
            angles it depends on no order of axes; below 10 degrees both differ by less than half a degree.
    """

    shift_mm: Triple
    turn_deg: Triple

    @property
    def distance_mm(self) -> float:
        """Euclidean distance of the centre from its true place."""
        return math.hypot(*self.shift_mm)

    @property
    def angle_deg(self) -> float:
        """Geodesic angle, 0 to 180."""
        return math.hypot(*self.turn_deg)


@dataclass(frozen=True)
class PairRow:
    """One registration of one frame. NaN: not known.

    Args:
        case: the subject. frame: index of the frame. start: number of the start within the case.
        initial, final: errors at the start and at the result; without a result the pair ends where it began.
        initial_tre_mm, tre_mm: mean over 5x5 points of the sector.
        found: whether there was a result. accepted: whether it passed the gate; `reason` says why not.
        seconds: wall time of the call. cpu_s: of all threads; other processes do not lengthen it.
        landmarks_mm: distance from the true place, by name, of the landmarks that the image shows.
        liver_mm: mean distance over all bifurcations in the liver.
    """

    case: str
    frame: int
    start: int
    initial: PairError
    final: PairError
    initial_tre_mm: float = math.nan
    tre_mm: float = math.nan
    found: bool = True
    accepted: bool = False
    seconds: float = math.nan
    landmarks_mm: dict[str, float] = field(default_factory=dict)
    liver_mm: float = math.nan
    reason: str = ""
    cpu_s: float = math.nan


def pair_error(ct_T_image: Tensor, true_ct_T_image: Tensor, centre_mm: Tensor) -> PairError:
    """Errors about the centre (3,), mm in the image frame, of a pose (4, 4) against the true one.

    Raises:
        ShapeError, GeometryError: a pose is not a finite rigid float64 4x4.
    """
    check_pose(ct_T_image, "ct_T_image")
    check_pose(true_ct_T_image, "ct_T_image_true")
    true_T_found = se3.inverse(true_ct_T_image) @ ct_T_image
    shift = se3.transform_points(true_T_found, centre_mm[None])[0] - centre_mm
    turn = torch.rad2deg(rotation.log(true_T_found[:3, :3]))
    return PairError(_triple(shift), _triple(turn))


def _triple(values: Tensor) -> Triple:
    x, y, z = values.tolist()
    return x, y, z


def seen_landmarks(
    landmarks: Mapping[str, Tensor], ct_T_image: Tensor, geometry: ImageGeometry, near_mm: float = NEAR_PLANE_MM
) -> dict[str, Tensor]:
    """Landmarks (3,), mm in ct, that the image at its true pose (4, 4) shows.

    Those are at most `near_mm` from its plane and, seen along its normal, within the box of the sector's sample points.
    """
    points = sample_points(geometry)
    low, high = points.amin(0)[:2], points.amax(0)[:2]
    image_T_ct, found = se3.inverse(ct_T_image), {}
    for name, point in landmarks.items():
        x = se3.transform_points(image_T_ct, point.to(torch.float64)[None])[0]
        if abs(float(x[2])) <= near_mm and bool(((x[:2] >= low) & (x[:2] <= high)).all()):
            found[name] = point
    return found


def landmark_errors_mm(
    landmarks: Mapping[str, Tensor], ct_T_image: Tensor, true_ct_T_image: Tensor
) -> dict[str, float]:  # fmt: skip
    """How far the image shows each landmark (3,), mm in ct, from where it should: |image_found - image_true|, mm."""
    image_T_found, image_T_true = se3.inverse(ct_T_image), se3.inverse(true_ct_T_image)
    errors = {}
    for name, point in landmarks.items():
        p = point.to(torch.float64)[None]
        moved = se3.transform_points(image_T_found, p) - se3.transform_points(image_T_true, p)
        errors[name] = float(moved.norm())
    return errors


def pairs_json(rows: Sequence[PairRow]) -> list[dict[str, Any]]:
    """Rows as plain values; NaN as None."""
    return list(plain([vars(r) for r in rows]))


def pairs_of(content: Any) -> list[PairRow]:
    """Rows of what `pairs_json` gave.

    Raises:
        ConfigError: something else.
    """
    return [from_mapping(PairRow, _with_nan(row), f"rows[{n}]") for n, row in enumerate(content)]


def _with_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _with_nan(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_with_nan(v) for v in value]
    return math.nan if value is None else value
