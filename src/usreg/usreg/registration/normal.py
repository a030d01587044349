# SPDX-License-Identifier: Apache-2.0
"""Normal equations of masked NCC at given poses: from moments of each frame to one 6x6 system."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..data.types import TrackedFrame
from ..geometry import se3
from .pyramid import FrameLevel, VolumeLevel, frame_level
from .twin import moments


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


def normal_equations(volume: VolumeLevel, frames: list[View], ct_T_ref: Tensor) -> Normal:
    """Score, gradient and Gauss-Newton matrix at poses (B, 4, 4) of the reference frame: the reference in torch.

    The compiled way is `maximise.evaluate`.
    """
    parts, weights = [], []
    for view in frames:
        planes, axes = plane_matrices(volume.index_T_ct, ct_T_ref @ view.ref_T_centre)
        sums = moments(volume.data, planes, axes, view.level.x_mm, view.level.y_mm, view.level.value)
        parts.append(ncc_normal(sums, view))
        weights.append(sums[:, 0, 0])
    return parts[0] if len(parts) == 1 else _combine(parts, torch.stack(weights))


def ncc_normal(sums: Tensor, view: View) -> Normal:
    """Masked NCC from moments (B, 9, 9): normalised residual with its rank-one projection.

    With centred f, m: score = f.m / |f||m|; d(m/|m|) = (I - m m' / |m|^2) J / |m|, mask frozen. Score -1 where there is
    no contrast or hardly a sample.
    """
    n = sums[:, 0, 0].clamp_min(1.0)
    mean = sums[:, 0, 1:] / n[:, None]
    c = sums[:, 1:, 1:] - n[:, None, None] * mean[:, :, None] * mean[:, None, :]
    vf, vm = c[:, 0, 0], c[:, 1, 1]
    tiny = 1e-9 * (sums[:, 1, 1] + sums[:, 2, 2]) + 1e-12
    fine = (vf > tiny) & (vm > tiny) & (sums[:, 0, 0] > 8)
    sf, sm = vf.clamp_min(1e-12).sqrt(), vm.clamp_min(1e-12).sqrt()
    score = c[:, 0, 1] / (sf * sm)
    jf, jm, jj = c[:, 0, 2:] / sf[:, None], c[:, 1, 2:] / sm[:, None], c[:, 2:, 2:]
    gradient = (jf - score[:, None] * jm) / sm[:, None]
    matrix = (jj - jm[:, :, None] * jm[:, None, :]) / vm.clamp_min(1e-12)[:, None, None]
    a = se3.adjoint(se3.inverse(view.ref_T_centre))
    gradient, matrix = gradient @ a, a.T @ matrix @ a
    overlap = sums[:, 0, 0] / max(1, view.level.value.numel())
    zero = torch.zeros_like(score)
    return Normal(
        torch.where(fine, score, zero - 1),
        torch.where(fine[:, None], gradient, zero[:, None]),
        torch.where(fine[:, None, None], matrix, zero[:, None, None]),
        overlap,
    )


def _combine(parts: list[Normal], samples: Tensor) -> Normal:
    share = samples / samples.sum(0).clamp_min(1.0)

    def mean(values: list[Tensor]) -> Tensor:
        stack = torch.stack(values)
        return (stack * share.reshape(*share.shape, *[1] * (stack.dim() - 2))).sum(0)

    overlap = torch.stack([p.overlap for p in parts]).mean(0)
    score, gradient, matrix = (mean([getattr(p, n) for p in parts]) for n in ("score", "gradient", "matrix"))
    return Normal(score, gradient, matrix, overlap)
