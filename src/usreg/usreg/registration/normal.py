# SPDX-License-Identifier: Apache-2.0
"""Normal equations of masked NCC at given poses: from moments of each frame to one 6x6 system."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..data.types import TrackedFrame
from ..geometry import se3
from ..similarity import LeastSquares, NccResidual, Similarity, ncc
from .pyramid import FrameLevel, VolumeLevel, frame_level
from .twin import sample_plane

LEAST_SAMPLES = 8  # a frame with fewer has no score


@dataclass(frozen=True, eq=False)
class Normal:
    """Score and normal equations at B poses, of the twist (v, w) in the axes of the reference frame about its origin.

    Args:
        score: (B,) NCC, mean over frames by their samples. gradient: (B, 6) of the score.
        matrix: (B, 6, 6) Gauss-Newton matrix of 1 - score.
        overlap: (B,) share of the sector's samples inside known voxels.
    """

    score: Tensor
    gradient: Tensor
    matrix: Tensor
    overlap: Tensor

    def __getitem__(self, rows: Tensor) -> Normal:
        return Normal(self.score[rows], self.gradient[rows], self.matrix[rows], self.overlap[rows])

    def where(self, choose: Tensor, other: Normal) -> Normal:
        """Rows of this where true (B,), of the other elsewhere."""
        c = choose[:, None]
        return Normal(
            torch.where(choose, self.score, other.score),
            torch.where(c, self.gradient, other.gradient),
            torch.where(c[..., None], self.matrix, other.matrix),
            torch.where(choose, self.overlap, other.overlap),
        )


@dataclass(frozen=True, eq=False)
class View:
    """One frame at one level: its samples and where its centre lies in the reference frame."""

    level: FrameLevel
    ref_T_centre: Tensor


def world_T_ref(frames: tuple[TrackedFrame, ...]) -> Tensor:
    """Reference frame (4, 4): axes of the first image, origin at the mean of the images' centres (for conditioning)."""
    centres = torch.stack([se3.transform_points(f.world_T_image, f.frame.plane.centre_mm[None])[0] for f in frames])
    return se3.from_parts(frames[0].world_T_image[:3, :3], centres.mean(0))


def views(frames: tuple[TrackedFrame, ...], sigma_mm: float, step_mm: float) -> list[View]:
    """Smooth and sample every frame."""
    ref_T_world = se3.inverse(world_T_ref(frames))
    centres = [ref_T_world @ f.world_T_image @ se3.translation(f.frame.plane.centre_mm) for f in frames]
    return [View(frame_level(f.frame, sigma_mm, step_mm), c) for f, c in zip(frames, centres, strict=True)]


def plane_matrices(index_T_ct: Tensor, ct_T_centre: Tensor) -> tuple[Tensor, Tensor]:
    """`planes` (B, 3, 3) float64 and `axes` (B, 3, 3) float32 of `kernel.sample_block` for poses (B, 4, 4)."""
    m = index_T_ct @ ct_T_centre
    return m[:, :3, [0, 1, 3]].contiguous(), m[:, :3, :3].transpose(-1, -2).to(torch.float32).contiguous()


def normal_equations(
    volume: VolumeLevel,
    frames: list[View],
    ct_T_ref: Tensor,
    similarity: Similarity = ncc,
    form: LeastSquares | None = None,
) -> Normal:
    """Score, gradient and Gauss-Newton matrix at poses (B, 4, 4) of the reference frame, in torch.

    For any similarity with a least-squares form; for NCC this is the reference of the compiled `maximise.evaluate`.
    """
    form = form or NccResidual()
    parts, weights = [], []
    for view in frames:
        value, jacobian, known = sampled(volume, view, ct_T_ref)
        parts.append(_frame_normal(view, value, jacobian, known, similarity, form))
        weights.append(known.sum(1).double())
    return parts[0] if len(parts) == 1 else _combine(parts, torch.stack(weights))


def sampled(volume: VolumeLevel, view: View, ct_T_ref: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Moving values (B, N), their derivatives by the twist (B, N, 6) in image axes about the centre, known (B, N)."""
    planes, axes = plane_matrices(volume.index_T_ct, ct_T_ref @ view.ref_T_centre)
    x, y = view.level.x_mm, view.level.y_mm
    value, gradient = sample_plane(volume.data, planes, x, y)
    gx, gy, gz = (gradient @ axes.transpose(-1, -2)).unbind(-1)
    jacobian = torch.stack([gx, gy, gz, y * gz, -x * gz, x * gy - y * gx], -1)
    known = torch.isfinite(value)
    zero = torch.zeros((), dtype=value.dtype)
    return torch.where(known, value, zero).double(), torch.where(known[..., None], jacobian, zero).double(), known


def _frame_normal(
    view: View, value: Tensor, jacobian: Tensor, known: Tensor, similarity: Similarity, form: LeastSquares
) -> Normal:
    """One frame's equations in reference axes; score -1 where hardly a sample is known."""
    seen = known.sum(1) > LEAST_SAMPLES
    mask = (known | ~seen[:, None])[:, None, None]  # what is not seen still needs a mask to compute with
    fixed = view.level.value.double().expand_as(value)[:, None, None]
    moving = value[:, None, None]
    matrix, right = form(fixed, moving, mask).normal_equations(jacobian)
    a = se3.adjoint(se3.inverse(view.ref_T_centre))
    score = torch.where(seen, similarity(fixed, moving, mask), -torch.ones(len(value), dtype=torch.float64))
    weight = seen.double()[:, None]
    overlap = known.sum(1).double() / max(1, known.shape[1])
    return Normal(score, -(right @ a) * weight, (a.T @ matrix @ a) * weight[..., None], overlap)


def _combine(parts: list[Normal], samples: Tensor) -> Normal:
    share = samples / samples.sum(0).clamp_min(1.0)

    def mean(values: list[Tensor]) -> Tensor:
        stack = torch.stack(values)
        return (stack * share.reshape(*share.shape, *[1] * (stack.dim() - 2))).sum(0)

    overlap = torch.stack([p.overlap for p in parts]).mean(0)
    score, gradient, matrix = (mean([getattr(p, n) for p in parts]) for n in ("score", "gradient", "matrix"))
    return Normal(score, gradient, matrix, overlap)
