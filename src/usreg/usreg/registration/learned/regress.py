# SPDX-License-Identifier: Apache-2.0
"""A network that regresses a pose, as a stage: one look at frame and volume gives the whole correction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ...config import check_range
from ...data.types import Estimate, Problem, TrackedFrame, Volume
from ...errors import NoOverlapError, ShapeError
from ...geometry import se3
from ...networks.delta import Delta, corrected
from ..refine import Refine, RefineConfig
from .crop import Crop, crop_frame, crop_volume
from .reduce import reduce_volume

Network = Callable[[Tensor, Tensor], Delta]  # volume (B, 1, D, H, W), frame (B, 1, H, W), both in 0..1


@dataclass(frozen=True)
class RegressConfig:
    """What the network is fed with, and how its answer is judged.

    Args:
        crop: the grid that it was trained on.
        min_share: of the sector must lie in known voxels at the start, or there is nothing to look at.
        judge: gate and covariance; its channel of the volume is used.
    """

    crop: Crop = field(default_factory=Crop)
    min_share: float = 0.2
    judge: RefineConfig = field(default_factory=RefineConfig)

    def __post_init__(self) -> None:
        check_range("min_share", self.min_share, 0.0, 1.0)


class Regress:
    """A stage around a regression network (`networks`); one frame at a time."""

    def __init__(self, network: Network, config: RegressConfig | None = None) -> None:
        self.network, self.config = network, config or RegressConfig()
        if isinstance(network, nn.Module):
            network.eval()
        self._judge = Refine(self.config.judge)
        self._reduced: tuple[Volume, Volume] | None = None

    def prepare(self, volume: Volume) -> None:
        """Bring the volume to the network's spacing (kept for this volume object), and run the network once."""
        self._judge.prepare(volume)
        self._volume(volume)
        width, height, depth = self.config.crop.size
        with torch.inference_mode():
            self.network(torch.zeros(1, 1, depth, height, width), torch.zeros(1, 1, height, width))

    def _volume(self, volume: Volume) -> Volume:
        if self._reduced is None or self._reduced[0] is not volume:
            self._reduced = (volume, reduce_volume(one_channel(volume, self.config.judge.channel), self._spacing_mm))
        return self._reduced[1]

    @property
    def _spacing_mm(self) -> float:
        return self.config.crop.spacing_mm

    def __call__(self, problem: Problem, estimate: Estimate) -> Estimate:
        """Correct the start, and judge what was found.

        Raises:
            ShapeError: not exactly one tracked frame, or no such channel.
            NoOverlapError: too little of the frame inside the volume. GeometryError: the network gives no finite pose.
        """
        if isinstance(problem.fixed, Volume) or len(problem.fixed) != 1:
            raise ShapeError("a regression network registers exactly one tracked frame")
        tracked = problem.fixed[0]
        ct_T_start = se3.inverse(estimate.world_T_ct) @ tracked.world_T_image
        delta = self._look(tracked, self._volume(problem.moving), ct_T_start)
        ct_T_image = corrected(ct_T_start[None], delta, tracked.frame.plane.centre_mm)[0]
        ct_T_image = se3.check_rigid(ct_T_image, "the network's pose")
        return self._judge.judge(problem, tracked.world_T_image @ se3.inverse(ct_T_image))

    def _look(self, tracked: TrackedFrame, volume: Volume, ct_T_start: Tensor) -> Delta:
        frame, crop = tracked.frame, self.config.crop
        voxels, known = crop_volume(volume, ct_T_start, frame.geometry, crop)
        pixels, sector = crop_frame(frame, crop)
        share = float((known[:, :, crop.size[2] // 2] & sector).sum() / sector.sum().clamp_min(1))
        if share < self.config.min_share:
            raise NoOverlapError(
                f"{share:.0%} of the sector lies inside the volume at the start, at least {self.config.min_share:.0%} "
                "must: check the start, the calibration and the volume"
            )
        with torch.inference_mode():
            translation, rotation = self.network(voxels, pixels)
        return translation.double(), rotation.double()


def one_channel(volume: Volume, channel: int) -> Volume:
    """The volume with one of its channels.

    Raises:
        ShapeError: it has no such channel.
    """
    if not 0 <= channel < volume.data.shape[0]:
        raise ShapeError(f"channel {channel} of a volume with {volume.data.shape[0]} channels")
    if volume.data.shape[0] == 1:
        return volume
    return Volume(volume.data[channel : channel + 1], volume.grid, volume.modality, volume.mask)
