# SPDX-License-Identifier: Apache-2.0
"""What ultrasound would show of a contrast-enhanced CT: dark vessels, dark fluid.

Echo and CT number are two materials' properties without a law between them; but inside an organ the one thing that both
show with contrast is blood: enhanced in the CT, black in ultrasound. So CT numbers above those of the parenchyma are
turned into darkness, everything else is made even, and noise of the parenchyma is cut off. Unlike LC2's free
coefficients in every patch this cannot explain a vessel by fat, or speckle by the noise of the CT.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import uniform_filter

from ..config import check_range
from ..data.types import Volume
from ..errors import ConfigError, ShapeError

Array = npt.NDArray[Any]
PEAK = 0.3  # of the highest peak of the histogram: what is rarer is no parenchyma


@dataclass(frozen=True)
class EchoConfig:
    """From CT numbers to darkness.

    Args:
        organ: whose parenchyma is the reference; where the volume has no such label, the brightest of the common CT
            numbers of soft tissue within `soft_hu` is.
        above_hu: CT numbers above the reference between which brightness falls to its least.
        fat_hu: CT numbers between which what lies below the reference goes over from fat, of which nothing is said, to
            fluid, which is dark. even_hu_mm: slope of the CT from which on fluid does not count.
        edge_hu: CT numbers are clipped to this where borders of organs are looked for.
        average: side of the box over which the CT is averaged first, voxels; odd.
    """

    organ: str = "liver"
    soft_hu: tuple[float, float] = (30.0, 180.0)
    above_hu: tuple[float, float] = (8.0, 40.0)
    fat_hu: tuple[float, float] = (-30.0, -10.0)
    even_hu_mm: float = 10.0
    edge_hu: tuple[float, float] = (-150.0, 250.0)
    average: int = 3

    def __post_init__(self) -> None:
        for name in ("soft_hu", "above_hu", "fat_hu", "edge_hu"):
            low, high = getattr(self, name)
            check_range(f"{name}: its end", high, low + 1.0, 5000.0)
        check_range("even_hu_mm", self.even_hu_mm, 0.1, 1e4)
        check_range("average", self.average, 1, 15)
        if self.average % 2 == 0:
            raise ConfigError(f"'average' must be odd, got {self.average}")


def vessel_echo(volume: Volume, config: EchoConfig, channel: int = 0) -> Volume:
    """Two channels (2, D, H, W) float32: echo, and the clipped CT for its edges; NaN where unknown.

    The echo is 0 in parenchyma, negative in enhanced vessels and in fluid.

    Raises:
        ShapeError: no voxel of soft tissue from which a reference could be taken.
    """
    data = volume.data[channel].to(torch.float32).numpy()
    known = np.isfinite(data) if volume.mask is None else np.isfinite(data) & volume.mask.numpy()
    reference = parenchyma_hu(volume, config, channel)
    smooth = uniform_filter(np.where(known, data, np.float32(reference)), config.average)
    echo = -np.maximum(_beyond(smooth - reference, config), _fluid(smooth, reference, volume, config))
    both = np.stack([echo, np.clip(data, *config.edge_hu)])
    return replace(volume, data=torch.from_numpy(np.where(known, both, np.float32(np.nan))))


def _beyond(excess: Array, config: EchoConfig) -> Array:
    low, high = config.above_hu
    return np.asarray(np.clip(excess, low, high) - low)


def _fluid(smooth: Array, reference: float, volume: Volume, config: EchoConfig) -> Array:
    """Darkness of bile and cysts: below the reference but not fat, and even: at a border with fat the CT passes through
    all numbers between."""
    low, high = config.fat_hu
    gradient = np.gradient(smooth, *volume.grid.spacing_mm[::-1])
    steep = sum(g * g for g in gradient) / config.even_hu_mm**2
    return np.asarray(
        _beyond(reference - smooth, config) * np.clip((smooth - low) / (high - low), 0, 1) * np.exp(-steep)
    )


def parenchyma_hu(volume: Volume, config: EchoConfig, channel: int = 0) -> float:
    """CT number of the organ's parenchyma: the middle one of its label, else that of the brightest common soft tissue.

    Muscle is as common as an enhanced liver, and darker; blood is brighter and rarer.

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
    counts, edges = np.histogram(soft.numpy(), bins=max(8, int((high - low) / 3)))
    even = np.convolve(counts, np.ones(5) / 5, "same")
    peaks = [k for k in range(1, len(even) - 1) if even[k - 1] < even[k] >= even[k + 1] and even[k] > PEAK * even.max()]
    peak = peaks[-1] if peaks else int(even.argmax())
    return float(0.5 * (edges[peak] + edges[peak + 1]))
