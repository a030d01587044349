# SPDX-License-Identifier: Apache-2.0
"""What an ultrasound image looks like, in numbers: grey levels, mean over depth, size of the speckle."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates
from torch import Tensor

from ..config import check_range
from ..errors import ShapeError
from ..geometry.sector import SectorGeometry

Array = NDArray[np.float64]


@dataclass(frozen=True)
class SpeckleConfig:
    """How the size of the speckle is measured.

    Args:
        step_mm: of the polar grid along the beam; across it lines lie as far apart at the middle depth.
        detrend_mm: what varies more slowly than this is anatomy and is taken away.
        patch_mm: edge of the patches over which the autocovariance is taken; dark and bright ones are left out.
        grey: mean grey levels of the patches that count.
        depths_mm: from the transducer, between which patches lie; (0, 0): all.
    """

    step_mm: float = 0.25
    detrend_mm: float = 4.0
    patch_mm: float = 12.0
    grey: tuple[float, float] = (25.0, 230.0)
    depths_mm: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        check_range("step_mm", self.step_mm, 0.01, 5.0)
        check_range("detrend_mm", self.detrend_mm, 2 * self.step_mm, 100.0)
        check_range("patch_mm", self.patch_mm, 4 * self.step_mm, 200.0)


@dataclass(frozen=True)
class SpeckleSize:
    """Full width at half maximum of the autocovariance of the grey levels, mm; NaN where no patch is uniform enough."""

    axial_mm: float
    lateral_mm: float
    patches: int


def grey_histogram(image: Tensor, geometry: SectorGeometry, bins: int = 64) -> tuple[Array, Array]:
    """Share of the sector's pixels by grey level: centres (bins,) and shares (bins,) that add up to 1."""
    values = _checked(image, geometry)[geometry.mask().numpy()]
    counts, edges = np.histogram(values, bins, (0.0, 256.0))
    centres: Array = (edges[:-1] + edges[1:]) / 2
    return centres, counts / max(1, counts.sum())


def depth_profile(image: Tensor, geometry: SectorGeometry, step_mm: float = 2.0) -> tuple[Array, Array]:
    """Mean grey level by depth below the transducer: depths (N,), mm, and means (N,)."""
    pixels, mask = _checked(image, geometry), geometry.mask().numpy()
    depth = _depth_mm(geometry)[mask]
    which = np.floor(depth / step_mm).astype(np.int64).clip(0)
    count = np.bincount(which)
    mean: Array = (np.bincount(which, pixels[mask]) / np.maximum(count, 1)).astype(np.float64)
    full = count > 0
    depths: Array = (np.flatnonzero(full).astype(np.float64) + 0.5) * step_mm
    return depths, mean[full]


def speckle_size(image: Tensor, geometry: SectorGeometry, config: SpeckleConfig | None = None) -> SpeckleSize:
    """Size of the speckle from the autocovariance of patches along and across the beam.

    Source: Wagner et al. 1983, "Statistics of speckle in ultrasound B-scans".
    """
    config = config or SpeckleConfig()
    polar, pitch_mm = _polar(_checked(image, geometry), geometry, config.step_mm)
    side = (max(4, round(config.patch_mm / config.step_mm)), max(4, round(config.patch_mm / pitch_mm)))
    sigma = (config.detrend_mm / config.step_mm, config.detrend_mm / pitch_mm)
    fine = polar - gaussian_filter(polar, sigma)
    rows = _rows(config, polar.shape[0])
    covariances = [_autocovariance(fine[box]) for box in _patches(polar, side, rows, config.grey)]
    if not covariances:
        return SpeckleSize(float("nan"), float("nan"), 0)
    mean = np.mean(covariances, 0)
    return SpeckleSize(_width(mean[:, 0]) * config.step_mm, _width(mean[0]) * pitch_mm, len(covariances))


def _checked(image: Tensor, geometry: SectorGeometry) -> Array:
    if tuple(image.shape) != (geometry.plane.height, geometry.plane.width):
        raise ShapeError(
            f"the image is {tuple(image.shape)}, its geometry says {(geometry.plane.height, geometry.plane.width)}"
        )
    return image.to(torch.float64).numpy()


def _depth_mm(geometry: SectorGeometry) -> Array:
    """Depth (h, w) of pixel centres below the transducer's face."""
    x, y = geometry.plane.points_mm()[..., :2].numpy().transpose(2, 0, 1)
    if geometry.kind == "linear":
        return y - geometry.clip_mm[1]
    return np.hypot(x - geometry.apex_mm[0], y - geometry.apex_mm[1]) - geometry.radius_mm[0]


def _polar(pixels: Array, geometry: SectorGeometry, step_mm: float) -> tuple[Array, float]:
    """Samples (depth, line) and the distance of lines at the middle depth, mm."""
    x0, y0, x1, _ = geometry.clip_mm
    depth = np.arange(step_mm, geometry.depth_mm, step_mm)[:, None]
    if geometry.kind == "linear":
        across = np.arange(x0, x1, step_mm)[None]
        x, y, pitch = across + 0 * depth, y0 + depth + 0 * across, step_mm
    else:
        middle = (geometry.radius_mm[0] + geometry.radius_mm[1]) / 2
        angle = np.arange(*geometry.angle_rad, step_mm / middle)[None]
        r = geometry.radius_mm[0] + depth
        x, y, pitch = geometry.apex_mm[0] + r * np.sin(angle), geometry.apex_mm[1] + r * np.cos(angle), step_mm
    (a, b), (_, d) = geometry.pixel_to_mm
    rows = y / d
    columns = (x - b * rows) / a
    return map_coordinates(pixels, [rows, columns], order=1, mode="constant"), pitch


def _rows(config: SpeckleConfig, count: int) -> tuple[int, int]:
    low, high = config.depths_mm
    return (0, count) if high <= low else (round(low / config.step_mm), min(count, round(high / config.step_mm)))


def _patches(polar: Array, side: tuple[int, int], rows: tuple[int, int], grey: tuple[float, float]) -> list[tuple]:
    """Boxes without an edge in them: neither black nor saturated, and spread no more than speckle is."""
    found = []
    for i in range(rows[0], rows[1] - side[0] + 1, side[0]):
        for j in range(0, polar.shape[1] - side[1] + 1, side[1]):
            box = (slice(i, i + side[0]), slice(j, j + side[1]))
            patch = polar[box]
            if grey[0] <= patch.mean() <= grey[1] and (patch <= 1).mean() < 0.2:
                found.append(box)
    return found


def _autocovariance(patch: Array) -> Array:
    """Normalised, lags from 0 on, without wrapping around."""
    centred = patch - patch.mean()
    size = [2 * n for n in centred.shape]
    power = np.abs(np.fft.rfft2(centred, size)) ** 2
    sums = np.fft.irfft2(power, size)[: patch.shape[0] // 2, : patch.shape[1] // 2]
    counts = np.outer(*(n - np.arange(n // 2) for n in patch.shape))
    lags = sums / counts
    return lags / max(lags[0, 0], 1e-12)


def _width(curve: Array) -> float:
    """Full width at half maximum, in samples, of a curve that falls from 1 at lag 0."""
    below = np.nonzero(curve < 0.5)[0]
    if not len(below):
        return float("nan")
    i = int(below[0])
    return float(2 * (i - 1 + (curve[i - 1] - 0.5) / (curve[i - 1] - curve[i])))
