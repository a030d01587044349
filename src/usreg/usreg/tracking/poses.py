# SPDX-License-Identifier: Apache-2.0
"""Measured poses (optical or electromagnetic tracker, TF of a robot's driver) at any stamp between them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..config import check_range
from ..data.types import check_covariance
from ..errors import GeometryError, ShapeError
from ..geometry import se3
from .samples import SampleBuffer, StreamConfig

STATUS_OK = "OK"


@dataclass(frozen=True)
class PoseBufferConfig(StreamConfig):
    """See `StreamConfig`; `sigma_mm` and `sigma_rad` per axis are used for poses that bring no covariance."""

    max_frozen_s: float | None = 0.5
    sigma_mm: float = 0.0
    sigma_rad: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("sigma_mm", self.sigma_mm, 0.0, 100.0)
        check_range("sigma_rad", self.sigma_rad, 0.0, 1.0)


class PoseBuffer:
    """Poses world_T_probe by stamp. Interpolation is screw-linear; nothing is ever extrapolated."""

    def __init__(self, config: PoseBufferConfig | None = None, what: str = "pose of the probe") -> None:
        self.config = config or PoseBufferConfig()
        self.samples = SampleBuffer(self.config, what)
        variance = [self.config.sigma_mm**2] * 3 + [self.config.sigma_rad**2] * 3
        self._covariance = torch.diag(torch.tensor(variance, dtype=torch.float64))

    def reset(self) -> None:
        """Forget everything."""
        self.samples.reset()

    @property
    def newest_s(self) -> float:
        """Stamp of the newest sample; NaN when empty."""
        return self.samples.newest_s

    def add(self, stamp_s: float, pose: Tensor, covariance: Tensor | None = None, status: str = STATUS_OK) -> None:
        """Append a measured pose.

        Args:
            pose: world_T_probe (4, 4), mm; not looked at unless `status` is "OK".
            covariance: (6, 6) of (v, w), mm and rad, world axes, about the probe's origin; None = by the configured
            sigmas.
            status: as the tracker says; anything but "OK" makes look-ups that need this sample fail.

        Raises:
            TimeError: the stamp is not finite, repeats or runs backwards. GeometryError, ShapeError: the pose is not
            finite or not rigid;
            its stamp is kept as unusable, so that no interpolation bridges it.
        """
        if status != STATUS_OK:
            self.samples.add(stamp_s, None, None, f"the tracker's status is {status}")
            return
        try:
            clean = se3.check_rigid(pose, "world_T_probe").detach()
            noise = self._covariance if covariance is None else covariance.to(torch.float64)
            check_covariance(noise, "covariance of world_T_probe")
        except (GeometryError, ShapeError) as error:
            self.samples.add(stamp_s, None, None, str(error))
            raise
        self.samples.add(stamp_s, tuple(pose.flatten().tolist()), (clean, noise))

    def at(self, stamp_s: float) -> tuple[Tensor, Tensor]:
        """world_T_probe (4, 4) and its covariance (6, 6) at a stamp.

        The covariance is interpolated linearly, not reduced by averaging: errors of a tracker are correlated in time.

        Raises:
            StalePoseError: missing, stale, INVALID, frozen, or a gap above the limit; the message says how old and
            the limit.
        """
        a, b, u = self.samples.bracket(stamp_s)
        if a is b:
            return a.value
        return se3.interpolate(a.value[0], b.value[0], u), (1 - u) * a.value[1] + u * b.value[1]
