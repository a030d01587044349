# SPDX-License-Identifier: Apache-2.0
"""How well a registrar finds frames whose truth is known: the protocol of `usreg register --perturb`.

ct_T_start = ct_T_image @ image_T_centre @ Trans(t) @ Exp(r) @ centre_T_image, with t and the rotation vector r uniform
per axis within plus and minus the limits; the frames are taken in turn. TRE is the mean over a 5x5 grid in the sector.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .data.types import Problem, TrackedFrame, Volume, start_estimate
from .errors import ConfigError, NoOverlapError
from .evaluation import Row, row_of
from .geometry import se3
from .registration.registrar import Registrar


def draw_twists(limits: Sequence[float], count: int, seed: int) -> Tensor:
    """Twists (count, 6) in mm and rad, uniform within plus and minus (mm, mm, mm, deg, deg, deg).

    Raises:
        ConfigError: not six finite limits that are not negative.
    """
    if len(limits) != 6 or not all(math.isfinite(v) and v >= 0 for v in limits):
        raise ConfigError(f"a perturbation has six limits MM,MM,MM,DEG,DEG,DEG, none negative; got {tuple(limits)}")
    half = torch.tensor([*limits[:3], *(math.radians(v) for v in limits[3:])], dtype=torch.float64)
    uniform = torch.rand(count, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (2.0 * uniform - 1.0) * half


def run_study(
    frames: Sequence[TrackedFrame],
    volume: Volume,
    registrar: Registrar,
    limits: Sequence[float],
    starts: int = 0,
    seed: int = 0,
    truth: Tensor | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Row]:
    """Register frames from drawn starts and compare with the truth.

    Args:
        frames: with their true poses. truth: true world_T_ct; identity if not given (volume made in world coordinates).
        limits: of the draw: mm along x, y, z and degrees about x, y, z, in axes of the image about its centre.
        starts: total number, frames taken in turn; 0 = one for each frame.
        progress: called with (done, total).

    Raises:
        ConfigError: no frame, or limits that are not six numbers.
    """
    if not frames or starts < 0:
        raise ConfigError(f"a study needs at least one frame and no negative count, got {len(frames)} frames, {starts}")
    truth = se3.identity() if truth is None else truth
    starts = starts or len(frames)
    registrar.prepare(volume)
    rows = []
    for number, twist in enumerate(draw_twists(limits, starts, seed)):
        rows.append(run_one(frames[number % len(frames)], volume, registrar, twist, truth))
        if progress:
            progress(number + 1, starts)
    return rows


def run_one(tracked: TrackedFrame, volume: Volume, registrar: Registrar, twist: Tensor, truth: Tensor) -> Row:
    """One start: perturb by the twist (6,), register, compare with the true world_T_ct."""
    ct_T_image = se3.inverse(truth) @ tracked.world_T_image
    ct_T_start = se3.right_at_centre(ct_T_image, twist[:3], twist[3:], tracked.frame.plane.centre_mm)
    start = start_estimate(tracked.world_T_image @ se3.inverse(ct_T_start), volume)
    try:
        estimate = registrar(Problem((tracked,), volume, start))
    except NoOverlapError as error:
        return row_of(tracked, start.world_T_ct, None, truth, reason=str(error))
    return row_of(tracked, start.world_T_ct, estimate, truth)
