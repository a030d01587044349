# SPDX-License-Identifier: Apache-2.0
"""Any similarity of `similarity/` as an objective over poses: planes sampled by the compiled kernel, compared in torch.

The derivative by the pose is d score / d pixel (autograd through the similarity alone) times d pixel / d twist (from
the kernel): no graph goes through the sampling. The reference is `autograd`, which differentiates through the slicer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..errors import NoOverlapError
from ..geometry import se3
from ..similarity import Similarity
from ..workers import run_ranges
from .normal import LEAST_SAMPLES, View, plane_matrices
from .optimisers.agreement import Looked
from .pyramid import FrameLevel, VolumeLevel
from .resample_kernel import pull, resample, resample_slopes

PIXELS = 1 << 19  # pixels compared at once: bounds the memory of descriptors
SAMPLES = 4000  # least number of samples that are worth a thread
ROUNDING = 1e-5  # of the largest value: differences that smoothing a constant in float32 leaves, several times over
UNSEEN = -1.0  # score of an image of which hardly a sample is known


@dataclass(frozen=True, eq=False)
class FrameImages:
    """F frames of one geometry at B poses each, job f * B + b.

    Args:
        score: (F, B). count: (F, B) samples known. gradient: (F, B, 6) in image axes about the centre, or None.
    """

    score: Tensor
    count: Tensor
    gradient: Tensor | None


class ImageObjective:
    """Mean similarity of frames, weighted by their samples, at poses ct_T_ref.

    Args:
        level: data (D, H, W) or (D, H, W, K). views: of all frames at this level.
        similarity: (fixed (J, 1, h, w), moving (J, K, h, w), mask (J, 1, h, w)) -> (J,).
        dtype: of the images that are compared; sums over frames and gradients are float64.
    """

    def __init__(
        self, level: VolumeLevel, views: list[View], similarity: Similarity, dtype: torch.dtype = torch.float32
    ) -> None:
        self.level, self.similarity, self.dtype = level, similarity, dtype
        data = level.data if level.data.dim() == 4 else level.data[..., None]
        self.data = data.contiguous().numpy()
        self.groups = _groups(views)
        self.fixed = {id(g[0]): torch.stack([fixed_image(v.level) for v in g]).to(dtype) for g in self.groups}
        self.sizes = torch.tensor([len(v.level.value) for g in self.groups for v in g], dtype=torch.float64)

    def __call__(self, poses: Tensor, slopes: bool) -> Looked:
        """Look at poses (B, 4, 4), see `Objective`."""
        parts = [self.frames(group, poses, slopes) for group in self.groups]
        score, count = (torch.cat([getattr(p, n) for p in parts]) for n in ("score", "count"))
        share = count / count.sum(0).clamp_min(1.0)
        mean = torch.where(count.sum(0) > 0, (share * score).sum(0), torch.full_like(score[0], UNSEEN))
        gradient = torch.zeros(len(poses), 6, dtype=torch.float64)
        if slopes:
            views = [v for g in self.groups for v in g]
            adjoints = torch.stack([se3.adjoint(se3.inverse(v.ref_T_centre)) for v in views])
            turned = torch.cat([p.gradient for p in parts if p.gradient is not None]) @ adjoints
            gradient = (share[..., None] * turned).sum(0)
        return Looked(mean, (count / self.sizes[:, None].clamp_min(1.0)).mean(0), gradient)

    def frames(self, group: list[View], poses: Tensor, slopes: bool) -> FrameImages:
        """Scores of frames of one geometry, one by one."""
        centres = torch.stack([poses @ v.ref_T_centre for v in group]).flatten(0, 1)
        jobs, parts = len(centres), []
        pixels = group[0].level.shape[0] * group[0].level.shape[1]
        size = max(1, PIXELS // max(1, pixels))
        for first in range(0, jobs, size):
            chosen = torch.arange(first, min(first + size, jobs))
            parts.append(self._part(group, centres[chosen], chosen // len(poses), slopes))
        score, count = (torch.cat([p[i] for p in parts]).reshape(len(group), -1) for i in (0, 1))
        gradient = torch.cat([p[2] for p in parts]).reshape(len(group), -1, 6) if slopes else None
        return FrameImages(score, count, gradient)

    def pixel_gradients(self, view: View, pose: Tensor) -> Tensor:
        """What each sample of one frame adds to the gradient at a pose (4, 4): (N, 6), image axes about the centre."""
        sampled = sample_images(self.data, self.level.index_T_ct, view.level, (pose @ view.ref_T_centre)[None], True)
        if float(sampled.count) <= LEAST_SAMPLES or sampled.slopes is None:
            return torch.zeros(len(view.level.cell), 6, dtype=torch.float64)
        moving = sampled.image.to(self.dtype).requires_grad_(True)
        score = _scores(self.similarity, fixed_image(view.level).to(self.dtype)[None], moving, sampled.mask)
        (d,) = torch.autograd.grad(score.sum(), moving)
        at_samples = torch.nan_to_num(d).flatten(2)[0][:, view.level.cell, None].double()
        gx, gy, gz = (at_samples * sampled.slopes[0].double()).sum(0).unbind(-1)
        x, y = view.level.x_mm.double(), view.level.y_mm.double()
        return torch.stack([gx, gy, gz, y * gz, -x * gz, x * gy - y * gx], -1)

    def _fixed(self, group: list[View]) -> Tensor:
        """Frames of one geometry as images (F, 1, h, w)."""
        kept = self.fixed.get(id(group[0]))
        if kept is not None and len(kept) == len(group):
            return kept
        return torch.stack([fixed_image(v.level) for v in group]).to(self.dtype)

    def _part(self, group: list[View], centres: Tensor, frame: Tensor, slopes: bool) -> tuple[Tensor, Tensor, Tensor]:
        sampled = sample_images(self.data, self.level.index_T_ct, group[0].level, centres, slopes)
        fixed = self._fixed(group)[frame]
        seen = sampled.count > LEAST_SAMPLES
        mask = sampled.mask | ~seen[:, None, None, None]  # what is not seen still needs a mask to compute with
        moving = sampled.image.to(self.dtype).requires_grad_(slopes)
        with torch.set_grad_enabled(slopes):
            score = _scores(self.similarity, fixed, moving, mask)
        good = seen & torch.isfinite(score.detach())
        out = torch.where(good, score.detach().double(), torch.full_like(score, UNSEEN, dtype=torch.float64))
        gradient = torch.zeros(len(centres), 6, dtype=torch.float64)
        if slopes and score.requires_grad:
            (d,) = torch.autograd.grad(score.sum(), moving)
            gradient = sampled.pull(d)
            good = good & torch.isfinite(gradient).all(1)
            gradient = torch.where(good[:, None], gradient, torch.zeros_like(gradient))
        return out, sampled.count, gradient


@dataclass(frozen=True, eq=False)
class SampledImages:
    """Planes of a volume as thinned images.

    Args:
        image: (J, K, h, w) float32, zero where not known. mask: (J, 1, h, w) bool. count: (J,) float64.
        slopes: (J, K, N, 3) float32 per mm along image axes, or None.
        pull: from derivatives by the image (J, K, h, w) to those by the twist (J, 6), image axes about the centre.
    """

    image: Tensor
    mask: Tensor
    count: Tensor
    slopes: Tensor | None
    pull: Callable[[Tensor], Tensor]


def sample_images(
    data: np.ndarray, index_T_ct: Tensor, frame: FrameLevel, ct_T_centre: Tensor, slopes: bool
) -> SampledImages:
    """Sample volume data (D, H, W, K) at poses of an image's centre (J, 4, 4); without `slopes` no `pull`."""
    planes, axes = (t.numpy() for t in plane_matrices(index_T_ct, ct_T_centre))
    x, y, cell = frame.x_mm.numpy(), frame.y_mm.numpy(), frame.cell.numpy()
    jobs, channels, (h, w) = len(planes), data.shape[3], frame.shape
    images, masks = np.zeros((jobs, channels, h * w), np.float32), np.zeros((jobs, h * w), np.bool_)
    counts, least = np.zeros(jobs), max(1, SAMPLES // max(1, len(x)))
    steps = np.zeros((jobs, channels, len(x), 3), np.float32) if slopes else None

    def fill(first: int, last: int) -> None:
        if steps is None:
            resample(data, planes, x, y, cell, images, masks, counts, first, last)
        else:
            resample_slopes(data, planes, axes, x, y, cell, images, masks, counts, steps, first, last)

    def by_twist(d: Tensor) -> Tensor:
        flat, out = d.to(torch.float32).reshape(jobs, channels, -1).contiguous().numpy(), np.zeros((jobs, 6))
        run_ranges(lambda first, last: pull(steps, x, y, cell, flat, out, first, last), jobs, least)
        return torch.from_numpy(out)

    run_ranges(fill, jobs, least)
    image, mask = torch.from_numpy(images).reshape(jobs, channels, h, w), torch.from_numpy(masks)
    return SampledImages(
        image, mask.reshape(jobs, 1, h, w), torch.from_numpy(counts),
        None if steps is None else torch.from_numpy(steps), by_twist,
    )  # fmt: skip


def fixed_image(frame: FrameLevel) -> Tensor:
    """A thinned frame as an image (1, h, w), zero outside its sector; without contrast it is flat to the bit."""
    image = torch.zeros(frame.shape[0] * frame.shape[1], dtype=frame.value.dtype)
    image[frame.cell] = frame.value if has_contrast(frame.value) else torch.zeros_like(frame.value)
    return image.reshape(1, *frame.shape)


def has_contrast(values: Tensor) -> bool:
    """Whether known values differ by more than the rounding of the smoothing, which descriptors would blow up."""
    known = values[torch.isfinite(values)]
    return len(known) > 0 and float(known.max() - known.min()) > ROUNDING * float(known.abs().max())


def _groups(views: list[View]) -> list[list[View]]:
    """Frames of one geometry are compared together."""
    groups: dict[tuple[object, ...], list[View]] = {}
    for view in views:
        groups.setdefault((view.level.shape, view.level.spacing_mm, view.level.cell.data_ptr()), []).append(view)
    return list(groups.values())


def _scores(similarity: Similarity, fixed: Tensor, moving: Tensor, mask: Tensor) -> Tensor:
    """Scores (J,); NaN for images that the similarity finds nothing to compare in."""
    try:
        return similarity(fixed, moving, mask)
    except NoOverlapError:
        if len(fixed) == 1:
            return torch.full((1,), torch.nan, dtype=moving.dtype)
        rows = range(len(fixed))
        return torch.cat([_scores(similarity, fixed[r : r + 1], moving[r : r + 1], mask[r : r + 1]) for r in rows])
