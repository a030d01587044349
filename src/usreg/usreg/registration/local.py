# SPDX-License-Identifier: Apache-2.0
"""LNCC and LC2 over patches by Levenberg-Marquardt: frames and volume laid out for the compiled kernel."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..config import check_range
from ..data.types import Volume
from ..errors import ConfigError
from ..geometry import se3
from ..workers import run_ranges
from .levenberg import LevenbergConfig
from .local_kernel import climb_local, tile_gradients
from .matching import Prior
from .maximise import Climbed
from .noise import Noise
from .normal import Normal, View
from .pyramid import VolumeLevel, volume_level

Array = npt.NDArray[Any]
FORMS = ("lncc", "lc2")
TILE_MM = 15.0  # patches of the covariance: wider than speckle and than what one vessel wall spans


@dataclass(frozen=True)
class LocalConfig:
    """How a frame is cut into patches and what counts in them.

    Args:
        patch_mm: sides of the patches; several sides are several scales, each with the same say.
        patch_samples: least side in samples: coarse levels take wider patches.
        stride: distance of patches as a share of their side.
        ridge: on the coefficients, as a share of the channel's variance over the volume: patches in which the volume is
            all but flat do not blow up its noise.
        power: a patch weighs (variance of the frame in it + `floor`) ** -power: 0 = by its variance (Wein et al. 2013),
            1 = all patches alike.
        floor: squared grey values.
        least_share: of a patch's samples that must lie in known voxels.
        window: grey values of the volume (HU in a CT) are clipped to it first; equal ends: not at all.
        both_signs: coefficients may be negative, too: contrast that is turned round is as good (Wein et al. 2013).
        edge_channel: channel of the volume whose gradient LC2 takes; -1: the one whose values it takes.
        all_counts: what lies in no known voxel counts as not explained: a pose cannot gain by looking away. Else the
            score is that of what is seen.
    """

    patch_mm: tuple[float, ...] = (16.0,)
    patch_samples: int = 7
    stride: float = 0.5
    ridge: float = 0.01
    power: float = 0.5
    floor: float = 25.0
    least_share: float = 0.5
    window: tuple[float, float] = (0.0, 0.0)
    both_signs: bool = False
    edge_channel: int = -1
    all_counts: bool = True

    def __post_init__(self) -> None:
        if not self.patch_mm:
            raise ConfigError("'patch_mm' needs at least one side")
        for side in self.patch_mm:
            check_range("patch_mm", side, 1.0, 1000.0)
        check_range("patch_samples", self.patch_samples, 3, 1000)
        check_range("stride", self.stride, 0.1, 1.0)
        check_range("ridge", self.ridge, 0.0, 100.0)
        check_range("power", self.power, 0.0, 1.0)
        check_range("floor", self.floor, 1e-6, 1e6)
        check_range("least_share", self.least_share, 0.05, 1.0)


@dataclass(frozen=True, eq=False)
class Patches:
    """Samples of each patch of one frame: members[ends[p - 1] : ends[p]]."""

    ends: Array
    members: Array


class LocalMatcher:
    """A `Matcher` by local linear regression.

    Args:
        form: "lncc" or "lc2".
    """

    def __init__(self, form: str, config: LocalConfig | None = None) -> None:
        if form not in FORMS:
            raise ConfigError(f"local regression knows {FORMS}, got '{form}'")
        self.form, self.config = form, config or LocalConfig()

    def level(self, volume: Volume, sigma_mm: float, channel: int) -> VolumeLevel:
        """Channels (D, H, W, 1 or 2): the smoothed volume, and for LC2 the magnitude of its 3D gradient per mm."""
        low, high = self.config.window
        if high > low:
            kept = volume.data[channel : channel + 1].to(torch.float32).clamp(low, high)
            volume = Volume(kept, volume.grid, volume.modality, volume.mask)
            channel = 0
        smooth = volume_level(volume, sigma_mm, channel)
        channels = [smooth.data] if self.form == "lncc" else [smooth.data, self._edges(volume, smooth)]
        data = torch.stack(channels, -1).contiguous()
        return VolumeLevel(data, smooth.index_T_ct, sigma_mm, channel_variance(data))

    def _edges(self, volume: Volume, smooth: VolumeLevel) -> Tensor:
        """Gradient of the same channel, or of the one that is named."""
        other = self.config.edge_channel
        return gradient_magnitude(smooth if other < 0 else volume_level(volume, smooth.sigma_mm, other))

    def evaluate(self, level: VolumeLevel, views: list[View], ct_T_ref: Tensor, full: bool = True) -> Normal:
        """See `Matcher`; without `full` score and overlap alone, which is several times faster."""
        settings = np.array([1.0, 0.0, 1.0, 0.0, 1.0, 2.0, 2.0, 2.0, float(full)])
        return self._run(level, views, ct_T_ref, settings)[1]

    def climb(
        self, level: VolumeLevel, views: list[View], starts: Tensor, radius_mm: float, min_overlap: float,
        config: LevenbergConfig, prior: Prior | None = None,
    ) -> Climbed:  # fmt: skip
        """See `Matcher`."""
        c = config
        stop = (float(c.iterations), c.tolerance_mm, radius_mm, min_overlap)
        settings = np.array([*stop, c.damping, c.ease, c.brake, c.damping_limit, 1.0])
        return self._run(level, views, starts, settings, prior)

    def compare(self, level: VolumeLevel, views: list[View], ct_T_ref: Tensor) -> Tensor:
        """The scores as they are: patches that are not seen count neither for nor against."""
        return self.evaluate(level, views, ct_T_ref, full=False).score

    def noises(self, level: VolumeLevel, views: list[View], ct_T_ref: Tensor) -> list[Noise]:
        """Normal matrices, and the spread of their gradient between tiles of TILE_MM.

        The gradient is a sum over tiles; what tiles disagree by holds noise and wrong models alike (cluster-robust
        covariance, Liang & Zeger 1986). Six parameters were fitted to the tiles.
        """
        scene = self._scene(level, views, TILE_MM)
        ends, count = scene[8], len(scene[9])
        gradients, matrices, known = np.zeros((count, 6)), np.zeros((len(views), 6, 6)), np.zeros(count)
        pose = np.ascontiguousarray(ct_T_ref.numpy())
        tile_gradients(scene, self._rule(level), pose, (gradients, matrices, known))
        out, first = [], 0
        for frame, last in enumerate(ends):
            g = gradients[first:last]
            tiles = max(1.0, float((np.abs(g).sum(1) > 0).sum()))
            spread = g.T @ g * tiles / max(1.0, tiles - 6.0 / len(views))
            matrix = torch.from_numpy(matrices[frame].copy())
            out.append(Noise(matrix, torch.from_numpy(spread.copy()), tiles, 1.0, 1.0, 1.0))
            first = last
        return out

    def _run(
        self, level: VolumeLevel, views: list[View], starts: Tensor, settings: Array,
        prior: Prior | None = None,
    ) -> Climbed:  # fmt: skip
        poses, count = starts.detach().clone().contiguous(), len(starts)
        scores, gradients, matrices = np.zeros((count, 3)), np.zeros((count, 6)), np.zeros((count, 6, 6))
        scene, rule = self._scene(level, views, 0.0), self._rule(level)
        known = prior or Prior(starts[0], torch.zeros(6, 6, dtype=torch.float64))
        about = (known.ct_T_ref.contiguous().numpy(), known.information.contiguous().numpy())

        def work(first: int, last: int) -> None:
            climb_local(scene, rule, settings, about, first, last, poses.numpy(), scores, gradients, matrices)

        run_ranges(work, count, 1)
        score, overlap, evaluations = torch.from_numpy(scores).unbind(1)
        return poses, Normal(score, torch.from_numpy(gradients), torch.from_numpy(matrices), overlap), evaluations

    def _scene(self, level: VolumeLevel, views: list[View], tile_mm: float) -> tuple[Any, ...]:
        x, y, fixed = (torch.cat([getattr(v.level, n) for v in views]).numpy() for n in ("x_mm", "y_mm", "value"))
        sizes = [len(v.level.value) for v in views]
        places = torch.stack([v.ref_T_centre for v in views])
        adjoints = se3.adjoint(se3.inverse(places)).contiguous().numpy()
        cut = [self._patches(v, tile_mm) for v in views]
        members, ends, first, before = [], [], 0, 0
        for size, patches in zip(sizes, cut, strict=True):
            members.append(patches.members + first)
            ends.append(patches.ends + before)
            first, before = first + size, before + len(patches.members)
        return (
            level.data.numpy(), level.index_T_ct.contiguous().numpy(), x, y, fixed, np.cumsum(sizes), places.numpy(),
            adjoints, np.cumsum([len(p.ends) for p in cut]), np.concatenate(ends), np.concatenate(members),
        )  # fmt: skip

    def _patches(self, view: View, tile_mm: float) -> Patches:
        c, f = self.config, view.level
        if tile_mm > 0:
            return cut_patches(f.cell, f.shape, f.spacing_mm, (tile_mm,), 1, 1.0)
        return cut_patches(f.cell, f.shape, f.spacing_mm, c.patch_mm, c.patch_samples, c.stride)

    def _rule(self, level: VolumeLevel) -> tuple[Any, ...]:
        c = self.config
        ridge = c.ridge * np.array(level.variance) + 1e-9
        return ridge, not c.both_signs, c.power, c.floor, c.least_share, c.all_counts


def gradient_magnitude(level: VolumeLevel) -> Tensor:
    """Length (D, H, W), per mm, of the 3D gradient by central differences; NaN beside unknown voxels."""
    data = level.data.numpy()
    spacing = torch.linalg.inv(level.index_T_ct)[:3, :3].norm(dim=0).tolist()
    parts = [np.gradient(data, mm, axis=a) for a, mm in zip((2, 1, 0), spacing, strict=True) if data.shape[a] > 1]
    total = sum((p.astype(np.float32) ** 2 for p in parts), np.zeros_like(data))
    return torch.from_numpy(np.sqrt(total))


def channel_variance(data: Tensor) -> tuple[float, ...]:
    """Variance of each channel over known voxels."""
    flat = data.reshape(-1, data.shape[-1]).numpy().astype(np.float64)
    flat = flat[np.isfinite(flat).all(1)]
    return tuple(flat.var(0).tolist()) if len(flat) else (0.0,) * data.shape[-1]


@functools.lru_cache(maxsize=64)
def cut_patches(
    cell: Tensor, shape: tuple[int, int], spacing_mm: tuple[float, float], sides_mm: tuple[float, ...], least: int,
    stride: float,
) -> Patches:  # fmt: skip
    """Square patches on a regular grid over the thinned image; those with less than half of their samples are left out.

    Args:
        cell: (N,) position of each sample in the image of `shape`, ascending. spacing_mm: of columns and rows.
    """
    flat = np.full(shape[0] * shape[1], -1)
    flat[cell.numpy()] = np.arange(len(cell))
    index = flat.reshape(shape)
    ends, members, total = [], [], 0
    for side in sides_mm:
        columns, rows = (max(least, round(side / mm)) for mm in spacing_mm)
        for top in _firsts(shape[0], rows, stride):
            for left in _firsts(shape[1], columns, stride):
                block = index[top : top + rows, left : left + columns]
                own = block[block >= 0]
                if 2 * len(own) >= min(rows, shape[0]) * min(columns, shape[1]):
                    members.append(own)
                    total += len(own)
                    ends.append(total)
    if not members:  # an image smaller than a patch: all of it is one
        members, ends = [np.arange(len(cell))], [len(cell)]
    return Patches(np.array(ends, np.int64), np.concatenate(members).astype(np.int64))


def _firsts(size: int, side: int, stride: float) -> list[int]:
    """First rows of patches that cover an image evenly, the border included."""
    if size <= side:
        return [0]
    steps = max(1, round((size - side) / max(1.0, stride * side)))
    return [round(k * (size - side) / steps) for k in range(steps + 1)]
