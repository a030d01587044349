# SPDX-License-Identifier: Apache-2.0
"""Which frames of a sweep are worth registering: those that together say most about the pose.

Each frame says as much as its information matrix H (inverse covariance of the pose that it alone would give). The sum
of the chosen ones is made large in its determinant: f(S) = log det(P + sum of H) - log det P with a weak prior P. f is
monotone and submodular, so that taking the frame of largest gain, again and again, reaches at least 1 - 1/e of the
best choice of that size (Nemhauser, Wolsey & Fisher 1978; for poses: Carlone & Karaman, "Attention and anticipation",
2019).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..config import check_range
from ..data.types import TrackedFrame
from ..errors import ConfigError, GeometryError, ShapeError
from ..geometry import se3
from .normal import Normal, View, world_T_ref
from .pyramid import frame_level
from .scene import image_points

CELL_SIGMAS = math.sqrt(4.0 * math.pi)  # white noise behind a Gaussian: one independent value in 4 pi sigma^2
LEAST_REST = 0.01  # of a frame's variance that a score does not see: rounding, interpolation
GUESS_REST = 0.5  # unexplained share, before anything was registered
Evaluate = Callable[[list[View], Tensor], Normal]
Allowed = Callable[[int], Tensor]


@dataclass(frozen=True)
class KeyframeConfig:
    """How many frames and how different.

    Args:
        count: at most so many are registered, which bounds the cost.
        apart_mm: two frames whose images lie closer than this everywhere show the same speckle: one of them is enough.
        min_gain: in nats; a frame that adds less is left out (0: all that may be taken are).
        prior_mm, prior_deg: standard deviations of what is known of the pose without any frame.
        sigma_mm, step_mm: smoothing and sampling of the level at which frames are weighed.
    """

    count: int = 12
    apart_mm: float = 0.5
    min_gain: float = 0.02
    prior_mm: float = 20.0
    prior_deg: float = 20.0
    sigma_mm: float = 4.0
    step_mm: float = 4.0

    def __post_init__(self) -> None:
        check_range("count", self.count, 1, 10_000)
        check_range("apart_mm", self.apart_mm, 0.0, 1000.0)
        check_range("min_gain", self.min_gain, 0.0, 1e6)
        check_range("prior_mm", self.prior_mm, 1e-3, 1e6)
        check_range("prior_deg", self.prior_deg, 1e-3, 360.0)
        check_range("sigma_mm", self.sigma_mm, 0.0, 100.0)
        check_range("step_mm", self.step_mm, 1e-3, 100.0)

    @property
    def prior(self) -> Tensor:
        """Information (6, 6) that is there without any frame."""
        sigmas = torch.tensor([self.prior_mm] * 3 + [math.radians(self.prior_deg)] * 3, dtype=torch.float64)
        return torch.diag(sigmas**-2)


def gain(information: Tensor, prior: Tensor) -> float:
    """f(S): log det(prior + sum of information (K, 6, 6)) - log det(prior)."""
    total = prior + information.sum(0)
    return float(torch.linalg.slogdet(total).logabsdet - torch.linalg.slogdet(prior).logabsdet)


def greedy(
    information: Tensor, prior: Tensor, count: int, allowed: Allowed | None = None, min_gain: float = 0.0
) -> list[int]:
    """Rows of `information` in the order of choice; ties go to the earlier row.

    Args:
        information: (F, 6, 6) symmetric, positive semi-definite. prior: (6, 6), positive definite.
        count: at most so many.
        allowed: from a chosen row to (F,) bool, which rows may be chosen beside it; None: any may.
        min_gain: the choice ends when the best gain is below this; the first frame is always taken.

    Raises:
        ShapeError, GeometryError, ConfigError: sizes that do not fit, no finite matrices, a prior that is not definite.
    """
    _check(information, prior, count)
    free = torch.ones(len(information), dtype=torch.bool)
    total = prior.clone()
    chosen: list[int] = []
    while len(chosen) < count and bool(free.any()):
        rows = torch.nonzero(free)[:, 0]
        added = torch.linalg.slogdet(total + information[rows]).logabsdet - torch.linalg.slogdet(total).logabsdet
        best = int(added.argmax())
        if chosen and float(added[best]) < min_gain:
            break
        row = int(rows[best])
        chosen.append(row)
        total = total + information[row]
        free[row] = False
        if allowed is not None:
            free &= allowed(row)
    return chosen


def _check(information: Tensor, prior: Tensor, count: int) -> None:
    if information.dim() != 3 or information.shape[1:] != (6, 6) or len(information) == 0 or prior.shape != (6, 6):
        raise ShapeError(
            f"keyframes need information (F, 6, 6) of at least one frame and a prior (6, 6), got "
            f"{tuple(information.shape)} and {tuple(prior.shape)}"
        )
    if count < 1:
        raise ConfigError(f"at least one keyframe is needed, 'count' is {count}")
    if not bool(torch.isfinite(information).all() & torch.isfinite(prior).all()):
        raise GeometryError("an information matrix of a frame is not finite")
    if int(torch.linalg.cholesky_ex(prior).info):
        raise GeometryError("the prior of the keyframes is not positive definite")


def with_tracking(information: Tensor, covariance: Tensor) -> Tensor:
    """What frames (F, 6, 6) still say when the pose of each has an error of its own, with covariance (F, 6, 6).

    (H^-1 + S)^-1 = H (I + S H)^-1: no frame says more than its pose is known, many can. Both in the same axes about the
    same point.
    """
    eye = torch.eye(6, dtype=information.dtype)
    found = information @ torch.linalg.solve(eye + covariance @ information, eye.expand_as(information))
    return 0.5 * (found + found.transpose(-1, -2))


def pose_covariances(frames: tuple[TrackedFrame, ...]) -> Tensor:
    """Covariances (F, 6, 6) of the frames' poses as twists in the axes of `world_T_ref` about its origin."""
    reference = world_T_ref(frames)
    turn = se3.adjoint(se3.inverse(reference))
    moves = [turn @ se3.adjoint(se3.translation(f.world_T_image[:3, 3])) for f in frames]
    return torch.stack([a @ f.covariance @ a.T for a, f in zip(moves, frames, strict=True)])


def image_information(frames: tuple[TrackedFrame, ...], config: KeyframeConfig) -> Tensor:
    """What frames (F, 6, 6) can say of the pose, in reference axes, judged by their images alone: no pose is needed.

    In its plane an image moves by its own gradient; across it the gradient is not seen and taken as large as within.
    """
    ref_T_world = se3.inverse(world_T_ref(frames))
    found = []
    for f in frames:
        centre = ref_T_world @ f.world_T_image @ se3.translation(f.frame.plane.centre_mm)
        a = se3.adjoint(se3.inverse(centre))
        found.append(a.T @ _own_information(f, config) @ a)
    return torch.stack(found)


def _own_information(tracked: TrackedFrame, config: KeyframeConfig) -> Tensor:
    """(6, 6) in the image's axes about its centre."""
    level = frame_level(tracked.frame, config.sigma_mm, config.step_mm)
    image = torch.full((level.shape[0] * level.shape[1],), torch.nan, dtype=torch.float64)
    image[level.cell] = level.value.double()
    dy, dx = (_differences(image.reshape(level.shape), axis).reshape(-1)[level.cell] for axis in (0, 1))
    known = torch.isfinite(dx) & torch.isfinite(dy)
    if not bool(known.any()):
        return torch.zeros(6, 6, dtype=torch.float64)
    gx, gy = dx[known] / level.spacing_mm[0], dy[known] / level.spacing_mm[1]
    x, y = level.x_mm[known].double(), level.y_mm[known].double()
    zero, gz = torch.zeros_like(gx), ((gx**2 + gy**2) / 2.0).sqrt()
    within = torch.stack([gx, gy, zero, zero, zero, x * gy - y * gx], -1)
    across = torch.stack([zero, zero, gz, y * gz, -x * gz, zero], -1)  # of unknown sign: adds no mixed terms
    variance = float(level.value.double().var(unbiased=False)) * GUESS_REST
    share = independent(level.spacing_mm, config.sigma_mm) / max(variance, 1.0 / 12.0)
    return share * (within.T @ within + across.T @ across)


def _differences(image: Tensor, axis: int) -> Tensor:
    """Central differences (h, w) along an axis; NaN at the border and beside what is unknown."""
    found = torch.full_like(image, torch.nan)
    if image.shape[axis] > 2:
        middle = image.narrow(axis, 2, image.shape[axis] - 2) - image.narrow(axis, 0, image.shape[axis] - 2)
        found.narrow(axis, 1, image.shape[axis] - 2).copy_(0.5 * middle)
    return found


def independent(spacing_mm: tuple[float, float], sigma_mm: float) -> float:
    """Independent values for each sample of a level with this smoothing (standard deviation)."""
    return min(1.0, math.prod(spacing_mm) / max(CELL_SIGMAS * sigma_mm, 1e-9) ** 2)


def pose_information(evaluate: Evaluate, views: list[View], ct_T_ref: Tensor, sigma_mm: float) -> Tensor:
    """What frames (F, 6, 6) say near a pose (4, 4), in reference axes: normal matrix over the residual's variance.

    With a score s the residual leaves 1 - s of the variance, so that the information of n independent values is
    n / (2 (1 - s)) times the Gauss-Newton matrix of 1 - s.
    """
    found = []
    for view in views:
        normal = evaluate([view], ct_T_ref[None])
        count = len(view.level.value) * independent(view.level.spacing_mm, sigma_mm) * float(normal.overlap)
        rest = min(max(1.0 - float(normal.score), 0.0), 1.0) + LEAST_REST
        found.append(count / (2.0 * rest) * normal.matrix[0])
    return torch.stack(found)


def further_than(frames: tuple[TrackedFrame, ...], mm: float) -> Allowed:
    """From a row to (F,) bool: whether some of the points that stand for the images lie further than this apart."""
    points = torch.stack([se3.transform_points(f.world_T_image, image_points(f.frame.geometry)) for f in frames])
    return lambda row: (points - points[row]).norm(dim=-1).amax(-1) > mm


def select_keyframes(
    frames: tuple[TrackedFrame, ...], config: KeyframeConfig, information: Tensor | None = None
) -> list[int]:
    """Rows of the frames to register, in the order of the sweep.

    Args:
        information: (F, 6, 6) of the frames in reference axes, see `pose_information`; None: judged by their images.

    Raises:
        ShapeError: no frame.
    """
    if not frames:
        raise ShapeError("no frame to choose keyframes from")
    found = image_information(frames, config) if information is None else information
    known = with_tracking(found, pose_covariances(frames))
    allowed = further_than(frames, config.apart_mm) if config.apart_mm > 0 else None
    return sorted(greedy(known, config.prior, config.count, allowed, config.min_gain))
