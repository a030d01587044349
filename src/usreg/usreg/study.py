# SPDX-License-Identifier: Apache-2.0
"""How well a registrar finds frames or sweeps whose truth is known: the protocol of `usreg register --perturb`.

ct_T_start = ct_T_image @ image_T_centre @ Trans(t) @ Exp(r) @ centre_T_image, with t and the rotation vector r uniform
per axis within plus and minus the limits; the frames are taken in turn. TRE is the mean over a 5x5 grid in the sector.
A sweep is moved as one, about its centre, in the axes of its middle frame; its TRE is the mean over all its frames.
A start states the covariance of its draw, as the first pose of a session does: a user knows how far off it may be.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .data.types import Estimate, Problem, TrackedFrame, Volume, start_estimate
from .errors import ConfigError, NoOverlapError, ShapeError
from .evaluation import Row, row_of
from .evaluation.metrics import PoseError, poses_error
from .geometry import se3
from .registration.registrar import Registrar

Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Target:
    """What is registered at once, and the truth.

    Args:
        frames: one, or those of a sweep.
        world_T_ct: (4, 4), where the volume truly lies.
        ct_T_images: (N, 4, 4), where each image truly lies, where that is known better than the tracking says; None: as
            tracked.
    """

    frames: tuple[TrackedFrame, ...]
    world_T_ct: Tensor
    ct_T_images: Tensor | None = None

    def __post_init__(self) -> None:
        if not self.frames:
            raise ShapeError("a target needs at least one frame")
        if self.ct_T_images is not None and self.ct_T_images.shape != (len(self.frames), 4, 4):
            raise ShapeError(
                f"{len(self.frames)} frames need true poses ({len(self.frames)}, 4, 4), "
                f"got {tuple(self.ct_T_images.shape)}"
            )

    @property
    def middle(self) -> int:
        """The frame in whose axes the target is perturbed."""
        return len(self.frames) // 2

    @property
    def true_ct_T_images(self) -> Tensor:
        """(N, 4, 4)."""
        return self.placed(self.world_T_ct) if self.ct_T_images is None else self.ct_T_images

    def placed(self, world_T_ct: Tensor) -> Tensor:
        """ct_T_images (N, 4, 4) as the tracking has them, for a pose of the volume."""
        return se3.inverse(world_T_ct) @ torch.stack([f.world_T_image for f in self.frames])

    def centre(self) -> Tensor:
        """Mean (3,) of the images' centres, mm in the middle frame."""
        if len(self.frames) == 1:
            return self.frames[0].frame.plane.centre_mm
        images = self.true_ct_T_images
        centres = torch.stack([f.frame.plane.centre_mm for f in self.frames])
        in_ct = se3.transform_points(images, centres[:, None])[:, 0].mean(0, keepdim=True)
        return se3.transform_points(se3.inverse(images[self.middle]), in_ct)[0]

    def start(self, twist: Tensor) -> Tensor:
        """world_T_ct (4, 4) that is off by a twist (6,), mm and rad, about the centre."""
        ct_T_middle = self.true_ct_T_images[self.middle]
        ct_T_start = se3.right_at_centre(ct_T_middle, twist[:3], twist[3:], self.centre())
        return self.frames[self.middle].world_T_image @ se3.inverse(ct_T_start)

    def started(self, twist: Tensor, volume: Volume, variance: Tensor | None = None) -> Estimate:
        """The start as an estimate; its covariance is that of twists with variances (6,), none where one is zero."""
        world_T_ct = self.start(twist)
        found = start_estimate(world_T_ct, volume)
        if variance is None or not bool((variance > 0).all()):
            return found
        world_T_centre = self.frames[self.middle].world_T_image @ se3.translation(self.centre())
        a = se3.adjoint(se3.translation(-found.pivot) @ world_T_centre)
        covariance = a @ torch.diag(variance) @ a.T
        return replace(found, covariance=0.5 * (covariance + covariance.T))

    def error(self, world_T_ct: Tensor) -> PoseError:
        """Errors of all images for a pose of the volume."""
        return poses_error(self.placed(world_T_ct), self.true_ct_T_images, [f.frame.geometry for f in self.frames])


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


def variance_of(limits: Sequence[float]) -> Tensor:
    """Variances (6,), mm^2 and rad^2, of what `draw_twists` draws."""
    half = torch.tensor([*limits[:3], *(math.radians(v) for v in limits[3:])], dtype=torch.float64)
    return half**2 / 3.0


def draw_directions(mm: float, deg: float, count: int, seed: int) -> Tensor:
    """Twists (count, 6) of exactly this length and this angle, mm and rad, in random directions.

    Raises:
        ConfigError: a length or an angle that is negative or not finite.
    """
    if not all(math.isfinite(v) and v >= 0 for v in (mm, deg)):
        raise ConfigError(f"a perturbation has a length and an angle, neither negative; got {mm} mm, {deg} deg")
    normal = torch.randn(count, 2, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    size = torch.tensor([[mm], [math.radians(deg)]], dtype=torch.float64)
    return (size * normal / normal.norm(dim=-1, keepdim=True)).reshape(count, 6)


def run_study(
    frames: Sequence[TrackedFrame],
    volume: Volume,
    registrar: Registrar,
    limits: Sequence[float],
    starts: int = 0,
    seed: int = 0,
    truth: Tensor | None = None,
    progress: Progress | None = None,
    sweep: int = 1,
) -> list[Row]:
    """Register frames from drawn starts and compare with the truth.

    Args:
        frames: with their true poses. truth: true world_T_ct; identity if not given (volume made in world coordinates).
        limits: of the draw: mm along x, y, z and degrees about x, y, z, in axes of the image about its centre.
        starts: total number, frames taken in turn; 0 = one for each frame.
        progress: called with (done, total).
        sweep: so many consecutive frames are registered as one; frames beyond the last whole sweep are left out.

    Raises:
        ConfigError: no frame, too few for a sweep, or limits that are not six numbers.
    """
    if not frames or starts < 0 or not 1 <= sweep <= len(frames):
        raise ConfigError(
            f"a study needs at least one frame, as many as a sweep, and no negative count, got {len(frames)} frames, "
            f"sweeps of {sweep}, {starts} starts"
        )
    truth = se3.identity() if truth is None else truth
    firsts = range(0, len(frames) - sweep + 1, sweep)
    targets = [Target(tuple(frames[i : i + sweep]), truth) for i in firsts]
    twists = draw_twists(limits, starts or len(targets), seed)
    return run_targets(targets, volume, registrar, twists, progress, variance_of(limits))


def run_targets(
    targets: Sequence[Target], volume: Volume, registrar: Registrar, twists: Tensor, progress: Progress | None = None,
    variance: Tensor | None = None,
) -> list[Row]:  # fmt: skip
    """Register from starts off the truth by twists (M, 6), targets taken in turn: a row for each.

    Args:
        variance: (6,) of the twists, which the starts state; None: they state nothing.
    """
    registrar.prepare(volume)
    rows = []
    for number, twist in enumerate(twists):
        registrar.reset()  # starts are drawn: none may know of the one before
        rows.append(run_one(targets[number % len(targets)], volume, registrar, twist, variance))
        if progress:
            progress(number + 1, len(twists))
    return rows


def run_one(
    target: Target, volume: Volume, registrar: Registrar, twist: Tensor, variance: Tensor | None = None
) -> Row:  # fmt: skip
    """One start: perturb by the twist (6,), register, compare with the truth; `variance` as in `run_targets`."""
    start = target.started(twist, volume, variance)
    try:
        estimate = registrar(Problem(target.frames, volume, start))
    except NoOverlapError as error:
        return row_of_target(target, start.world_T_ct, None, str(error))
    return row_of_target(target, start.world_T_ct, estimate)


def row_of_target(target: Target, start: Tensor, estimate: Estimate | None, reason: str = "") -> Row:
    """The row of one registration, that of its middle frame with the errors over all frames."""
    row = row_of(target.frames[target.middle], start, estimate, target.world_T_ct, reason=reason)
    initial = target.error(start).tre_mm
    if estimate is None:
        return replace(row, initial_tre_mm=initial)
    e = target.error(estimate.world_T_ct)
    return replace(
        row, initial_tre_mm=initial, final_tre_mm=e.tre_mm, translation_mm=e.translation_mm,
        rotation_deg=e.rotation_deg, out_of_plane_mm=e.out_of_plane_mm,
    )  # fmt: skip
