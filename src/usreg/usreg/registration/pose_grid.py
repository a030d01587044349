# SPDX-License-Identifier: Apache-2.0
"""Starts from a grid of poses all over where a start may be off: correlation of few pixels, at very many poses.

A climb finds its way from some ten millimetres and degrees; where the start is worse, a place is needed from which to
climb. Smoothed in local contrast, a frame and a volume correlate over about that much, so that a grid as wide as the
start's covariance and as fine as a climb's reach meets the way to the truth.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from ..config import check_range
from ..data.types import Estimate, TrackedFrame, Volume
from ..errors import NoOverlapError
from ..geometry import se3
from ..workers import run_ranges
from .contrast import flat_frame, flat_volume
from .evidence import in_ref_axes
from .pose_grid_kernel import correlate
from .scene import image_points

UNIFORM = math.sqrt(3.0)  # half width of a uniform draw in its standard deviations
LEAST_JOBS = 2000


@dataclass(frozen=True)
class PoseGridConfig:
    """How fine, and how wide where the start states nothing.

    Args:
        step_mm, step_deg: of the grid, at most. reach_mm, reach_deg: half widths where the start states no covariance,
            and never more.
        most: poses; a grid that would have more is made coarser.
        sigma_mm: smoothing of frame and volume. contrast_mm: see `contrast`. pixels: of the frame, about so many.
        min_overlap: share of them that must be known.
        halvings: how often the best are compared with those half a step away, and then half of that.
        keep: how many poses are given back. apart_mm: by which they differ, on average over the image.
    """

    step_mm: float = 7.0
    step_deg: float = 20.0
    reach_mm: float = 40.0
    reach_deg: float = 30.0
    most: int = 90_000
    sigma_mm: float = 4.0
    contrast_mm: float = 6.0
    pixels: int = 150
    min_overlap: float = 0.4
    halvings: int = 0
    keep: int = 48
    apart_mm: float = 8.0

    def __post_init__(self) -> None:
        ranges = {
            "step_mm": (0.5, 100.0), "step_deg": (1.0, 180.0), "reach_mm": (0.0, 500.0), "reach_deg": (0.0, 180.0),
            "most": (1, 100_000_000), "sigma_mm": (0.1, 50.0), "contrast_mm": (0.5, 100.0), "pixels": (3, 1_000_000),
            "min_overlap": (0.0, 1.0), "halvings": (0, 5), "keep": (1, 10_000), "apart_mm": (0.0, 100.0),
        }  # fmt: skip
        for name, (low, high) in ranges.items():
            check_range(name, getattr(self, name), low, high)


@dataclass(frozen=True, eq=False)
class Coarse:
    """A volume as the grid sees it: (D, H, W) float32, uint8 mask, and (4, 4) from mm to voxel index."""

    values: NDArray[np.float32]
    mask: NDArray[np.uint8]
    index_T_ct: Tensor


class PoseGrid:
    """Looks at a grid of poses; keeps what it made of the latest volume."""

    def __init__(self, config: PoseGridConfig | None = None, channel: int = 0) -> None:
        self.config, self.channel = config or PoseGridConfig(), channel
        self._kept: tuple[Volume, Coarse] | None = None

    def prepare(self, volume: Volume) -> Coarse:
        """Smooth the volume in local contrast, once."""
        if self._kept is None or self._kept[0] is not volume:
            self._kept = (volume, coarse(volume, self.config, self.channel))
        return self._kept[1]

    def best(self, volume: Volume, tracked: TrackedFrame, estimate: Estimate) -> Tensor:
        """The best different world_T_ct (K, 4, 4) about an estimate, best first; K may be 0.

        Raises:
            NoOverlapError: the frame's sector holds no pixel.
        """
        ct_T_image = se3.inverse(estimate.world_T_ct) @ tracked.world_T_image
        centre = tracked.frame.plane.centre_mm
        sigma = in_ref_axes(estimate, tracked.world_T_image @ se3.translation(centre)).diagonal().clamp_min(0).sqrt()
        twists = grid_twists(self.config, sigma)
        poses = se3.right_at_centre(ct_T_image, twists[:, :3], twists[:, 3:], centre)
        points, values = pixels_of(tracked, self.config)
        found = scores(self.prepare(volume), points, values, poses, self.config.min_overlap)
        poses = poses[self._different(poses, found, tracked)]
        for _ in range(self.config.halvings if len(poses) else 0):
            twists = 0.5 * twists_between(twists)
            around = se3.right_at_centre(poses[:, None], twists[:, :3], twists[:, 3:], centre)
            found = scores(self.prepare(volume), points, values, around.reshape(-1, 4, 4), self.config.min_overlap)
            best = found.reshape(len(poses), -1).max(1)
            poses = around[torch.arange(len(poses)), best.indices]
            poses = poses[self._different(poses, best.values, tracked)]
        return tracked.world_T_image @ se3.inverse(poses)

    def _different(self, poses: Tensor, found: Tensor, tracked: TrackedFrame) -> list[int]:
        count = min(len(found), 50 * self.config.keep)
        order = found.topk(count).indices
        order = order[found[order] > 0]
        at = se3.transform_points(poses[order], image_points(tracked.frame.geometry)[::3])
        free, chosen = torch.ones(len(order), dtype=torch.bool), []
        for row in range(len(order)):
            if bool(free[row]):
                chosen.append(int(order[row]))
                free &= (at - at[row]).norm(dim=-1).mean(-1) > self.config.apart_mm
            if len(chosen) == self.config.keep:
                break
        return chosen


def coarse(volume: Volume, config: PoseGridConfig, channel: int = 0) -> Coarse:
    """A volume in local contrast, smoothed, on its own grid thinned to about the smoothing."""
    flat = flat_volume(volume, config.contrast_mm, channel)
    data, known = flat.data[0].numpy().astype(np.float32), np.ones(flat.data.shape[1:], np.float32)
    if volume.mask is not None:
        known = volume.mask.numpy().astype(np.float32)
    sigma = [config.sigma_mm / s for s in reversed(volume.grid.spacing_mm)]
    weight = ndimage.gaussian_filter(known, sigma, mode="constant", truncate=2.5)
    value = ndimage.gaussian_filter(data * known, sigma, mode="constant", truncate=2.5)
    thin = [max(1, round(0.6 * s)) for s in sigma]
    cut = tuple(slice(None, None, k) for k in thin)
    weight, value = weight[cut], value[cut]
    mask = (weight > 0.5) & (known[cut] > 0)
    values = np.where(mask, value / np.maximum(weight, 1e-6), 0.0).astype(np.float32)
    index_T_ct = torch.diag(torch.tensor([1.0 / k for k in reversed(thin)] + [1.0]).double()) @ volume.grid.index_T_ct
    return Coarse(np.ascontiguousarray(values), np.ascontiguousarray(mask.astype(np.uint8)), index_T_ct)


def pixels_of(tracked: TrackedFrame, config: PoseGridConfig) -> tuple[Tensor, Tensor]:
    """Points (P, 3), mm in the image frame, all over the sector, and their smoothed values (P,) float32.

    Raises:
        NoOverlapError: the sector holds no pixel.
    """
    frame = flat_frame(tracked, config.contrast_mm).frame
    inside = frame.geometry.mask().numpy()
    sigma = [config.sigma_mm / s for s in reversed(frame.plane.spacing_mm)]
    known = inside.astype(np.float32)
    weight = ndimage.gaussian_filter(known, sigma, mode="constant", truncate=2.5)
    value = ndimage.gaussian_filter(frame.image.numpy() * known, sigma, mode="constant", truncate=2.5)
    step = max(1.0, math.sqrt(inside.sum() / config.pixels))
    rows, columns = (np.arange(0.5 * step, n, step).astype(np.int64) for n in inside.shape)
    row, column = np.meshgrid(rows, columns, indexing="ij")
    kept = inside[row, column]
    row, column = row[kept], column[kept]
    if not len(row):
        raise NoOverlapError("the sector of the frame holds no pixel: check its geometry")
    values = (value[row, column] / np.maximum(weight[row, column], 1e-6)).astype(np.float32)
    return frame.plane.points_mm()[row, column], torch.from_numpy(values)


def grid_twists(config: PoseGridConfig, sigma: Tensor) -> Tensor:
    """Twists (N, 6), mm and rad, on a grid in a box of the start's uniform draw; the start itself is one of them.

    Args:
        sigma: (6,) standard deviations of the start in image axes about the image's centre; zeros where unknown.
    """
    reach = torch.tensor([config.reach_mm] * 3 + [math.radians(config.reach_deg)] * 3, dtype=torch.float64)
    half = torch.minimum(UNIFORM * sigma, reach) if bool((sigma > 0).any()) else reach
    step = torch.tensor([config.step_mm] * 3 + [math.radians(config.step_deg)] * 3, dtype=torch.float64)
    while True:
        counts = (2 * torch.ceil(half / step - 0.25).clamp_min(0) + 1).long().tolist()
        if math.prod(counts) <= config.most:
            break
        step = step * 1.05
    axes = [torch.linspace(-1.0, 1.0, n, dtype=torch.float64) if n > 1 else torch.zeros(1).double() for n in counts]
    # the outermost places stand for what lies about them: half a step within the limits
    spans = [h * (n - 1) / n if n > 1 else 0.0 for h, n in zip(half.tolist(), counts, strict=True)]
    return torch.cartesian_prod(*(span * axis for span, axis in zip(spans, axes, strict=True)))


def twists_between(twists: Tensor) -> Tensor:
    """The 3^k twists (M, 6) one step of a grid about its middle; k axes on which it has more than one place."""
    axes = []
    for column in twists.unbind(-1):
        places = column.unique()
        step = float(places.diff().min()) if len(places) > 1 else 0.0
        axes.append(torch.tensor([-step, 0.0, step] if step else [0.0], dtype=torch.float64))
    return torch.cartesian_prod(*axes)


def scores(seen: Coarse, points: Tensor, values: Tensor, ct_T_images: Tensor, least: float) -> Tensor:
    """Correlations (N,) at poses (N, 4, 4), see `pose_grid_kernel.correlate`."""
    matrices = (seen.index_T_ct @ ct_T_images)[:, :3].contiguous().numpy()
    flat, grey, out = points[:, :2].contiguous().numpy(), values.numpy(), np.empty(len(matrices))

    def work(first: int, last: int) -> None:
        correlate(seen.values, seen.mask, flat, grey, matrices, least, first, last, out)

    run_ranges(work, len(matrices), LEAST_JOBS)
    return torch.from_numpy(out)


def scores_slow(seen: Coarse, points: Tensor, values: Tensor, ct_T_images: Tensor, least: float) -> Tensor:
    """The same by whole arrays, for few poses."""
    index = torch.floor(se3.transform_points(seen.index_T_ct @ ct_T_images, points) + 0.5).long()
    limit = torch.tensor(seen.values.shape[::-1])
    inside = ((index >= 0) & (index < limit)).all(-1)
    x, y, z = index.clamp(torch.zeros(3, dtype=torch.long), limit - 1).unbind(-1)
    weight = (inside & (torch.from_numpy(seen.mask)[z, y, x] > 0)).double()
    moving, count = torch.from_numpy(seen.values)[z, y, x].double(), weight.sum(-1, keepdim=True).clamp_min(1.0)
    a, b = (weight * (v - (weight * v).sum(-1, keepdim=True) / count) for v in (values.double(), moving))
    spread = (a.square().sum(-1) * b.square().sum(-1)).sqrt()
    share = weight.mean(-1)
    seen_well = spread > 1e-6 * count[:, 0]
    found = torch.where(seen_well, (a * b).sum(-1) / spread.clamp_min(1e-12), torch.zeros_like(spread))
    usable = (share >= least) & (weight.sum(-1) >= 3)
    return torch.where(usable, found * (share + 0.4).clamp_max(1.0), torch.full((), -1.0).double())
