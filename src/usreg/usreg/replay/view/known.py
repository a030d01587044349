# SPDX-License-Identifier: Apache-2.0
"""What is kept of each frame of a recording, beside its pixels: a long recording does not fit into memory."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...data.bag_types import Place
from ...data.types import ImageGeometry
from ...smoothing import Breathing

Matrix = NDArray[np.float64]
Truth = dict[tuple[str, str], Tensor]


@dataclass(frozen=True, eq=False, slots=True)
class FrameNote:
    """A frame without its pixels.

    Args:
        place: of its image in the bag.
        world_T_image: (4, 4), mm; None where the probe's pose is not known, `untracked` says why.
        truth: poses by (parent, child); empty where nobody knows.
        link_names, links: along the arm, world_T_link (n, 4, 4), mm; float32, they are only drawn.
    """

    stamp_s: float
    place: Place
    geometry: ImageGeometry
    world_T_image: Matrix | None = None
    untracked: str = ""
    truth: Truth = field(default_factory=dict)
    link_names: tuple[str, ...] = ()
    links: NDArray[np.float32] | None = None


@dataclass(frozen=True, eq=False, slots=True)
class Result:
    """What registration and filter made of a frame.

    Args:
        status, reason: as `Moment` has them.
        shown: world_T_ct (4, 4), mm, that may be shown with the frame; None where none may.
        sigma: standard deviations (6) of (v, w) of it about the volume's centre, mm and rad.
        raw: world_T_ct of the newest accepted estimate; raw_s: its stamp.
    """

    status: str
    reason: str = ""
    shown: Matrix | None = None
    sigma: tuple[float, ...] | None = None
    raw: Matrix | None = None
    raw_s: float = math.nan
    score: float = math.nan
    overlap: float = math.nan
    probability: float = math.nan
    compute_s: float = math.nan
    system: str = ""
    breathing: Breathing | None = None


def sigma_of(covariance: Tensor) -> tuple[float, ...]:
    """Square roots of the diagonal (6)."""
    return tuple(covariance.diagonal().clamp_min(0).sqrt().tolist())


def as_pose(matrix: Matrix | None) -> Tensor | None:
    """(4, 4) float64 tensor."""
    return None if matrix is None else torch.from_numpy(matrix)
