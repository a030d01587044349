# SPDX-License-Identifier: Apache-2.0
"""What ultrasound would show of a contrast-enhanced CT: dark vessels.

Echo and CT number are two materials' properties without a law between them; but inside an organ the one thing that both
show with contrast is blood: enhanced in the CT, black in ultrasound. So CT numbers above those of the parenchyma are
turned into darkness, everything else is made even, and noise of the parenchyma is cut off. Unlike LC2's free
coefficients in every patch this cannot explain a vessel by fat, or speckle by the noise of the CT.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.ndimage import uniform_filter

from ..config import check_range
from ..data.types import Volume
from ..errors import ConfigError, ShapeError


@dataclass(frozen=True)
class EchoConfig:
    """From CT numbers to darkness.

    Args:
        organ: whose parenchyma is the reference; where the volume has no such label, the commonest CT number of soft
            tissue within `soft_hu` is.
        above_hu: CT numbers above the reference between which brightness falls to its least.
        average: side of the box over which the CT is averaged first, voxels; odd.
    """

    organ: str = "liver"
    soft_hu: tuple[float, float] = (30.0, 180.0)
    above_hu: tuple[float, float] = (8.0, 40.0)
    average: int = 3

    def __post_init__(self) -> None:
        for name in ("soft_hu", "above_hu"):
            low, high = getattr(self, name)
            check_range(f"{name}: its end", high, low + 1.0, 5000.0)
        check_range("average", self.average, 1, 15)
        if self.average % 2 == 0:
            raise ConfigError(f"'average' must be odd, got {self.average}")


def vessel_echo(volume: Volume, config: EchoConfig, channel: int = 0) -> Volume:
    """One channel (1, D, H, W) float32, 0 in parenchyma and below, negative in enhanced vessels; NaN stays unknown.

    Raises:
        ShapeError: no voxel of soft tissue from which a reference could be taken.
    """
    data = volume.data[channel].to(torch.float32).numpy()
    known = np.isfinite(data) if volume.mask is None else np.isfinite(data) & volume.mask.numpy()
    reference = parenchyma_hu(volume, config, channel)
    smooth = uniform_filter(np.where(known, data, np.float32(reference)), config.average)
    low, high = config.above_hu
    echo = low - np.clip(smooth - reference, low, high)
    return replace(volume, data=torch.from_numpy(np.where(known, echo, np.float32(np.nan)))[None])


def parenchyma_hu(volume: Volume, config: EchoConfig, channel: int = 0) -> float:
    """CT number of the organ's parenchyma: the middle one of its label, else the commonest of soft tissue.

    Raises:
        ShapeError: neither label nor soft tissue.
    """
    data = volume.data[channel].to(torch.float32)
    values = [value for value, name in volume.label_names.items() if name == config.organ]
    if volume.labels is not None and values:
        inside = data[volume.labels == values[0]]
        if len(inside):
            return float(inside.median())
    low, high = config.soft_hu
    soft = data[(data >= low) & (data <= high)]
    if len(soft) == 0:
        raise ShapeError(
            f"no voxel of the volume lies between {low:.0f} and {high:.0f} HU: is it a CT in Hounsfield units? "
            "Use another similarity, for example lc2 or mind"
        )
    counts, edges = np.histogram(soft.numpy(), bins=max(4, int((high - low) / 3)))
    peak = int(np.convolve(counts, np.ones(3), "same").argmax())
    return float(0.5 * (edges[peak] + edges[peak + 1]))
