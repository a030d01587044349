# SPDX-License-Identifier: Apache-2.0
"""Local contrast: grey values less their local mean, over their local spread.

Gain over depth, shadows and poor contact multiply the echo, which after log compression is a slow change of brightness:
it differs between two views of one place. What is left after it is taken away is structure.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, zoom

from ..data.types import ImageGeometry, TrackedFrame, Volume

Array = NDArray[Any]
MIDDLE, SPREAD = 128.0, 36.0  # grey level and standard deviation of the result
LEAST_SPREAD = 6.0  # grey levels: where nothing but noise is seen it is not blown up
KNOWN_SHARE = 0.05
REACH = 2.5  # standard deviations at which the window is cut


def flat_frame(tracked: TrackedFrame, sigma_mm: float) -> TrackedFrame:
    """The frame in local contrast, uint8; nothing outside its sector counts.

    Args:
        sigma_mm: standard deviation of the window.
    """
    frame = tracked.frame
    mask, weight, pixels = _window(frame.geometry, sigma_mm)
    image = frame.image.numpy().astype(np.float32) * mask
    mean = gaussian_filter(image, pixels, truncate=REACH) / weight
    square = gaussian_filter(image * image, pixels, truncate=REACH) / weight
    flat = _normalised(image, mean, square) * mask
    return replace(tracked, frame=replace(frame, image=torch.from_numpy(np.rint(flat).astype(np.uint8))))


@lru_cache(maxsize=16)
def _window(geometry: ImageGeometry, sigma_mm: float) -> tuple[Array, Array, tuple[float, float]]:
    """Mask, known share of the window, and its standard deviation in pixels (rows, columns)."""
    dx, dy = geometry.plane.spacing_mm
    pixels = (sigma_mm / dy, sigma_mm / dx)
    mask = geometry.mask().numpy().astype(np.float32)
    return mask, np.maximum(gaussian_filter(mask, pixels, truncate=REACH), KNOWN_SHARE), pixels


def flat_volume(volume: Volume, sigma_mm: float, channel: int = 0) -> Volume:
    """One channel of a volume in local contrast, uint8 (1, D, H, W); unknown voxels do not count."""
    data = volume.data[channel].to(torch.float32).numpy()
    known = np.isfinite(data) if volume.mask is None else np.isfinite(data) & volume.mask.numpy()
    data = np.where(known, data, np.float32(0))
    weight = np.maximum(_wide(known.astype(np.float32), volume, sigma_mm), KNOWN_SHARE)
    mean = _wide(data, volume, sigma_mm) / weight
    square = _wide(data * data, volume, sigma_mm) / weight
    flat = np.rint(_normalised(data, mean, square)).astype(np.uint8)
    return replace(volume, data=torch.from_numpy(flat)[None], mask=torch.from_numpy(known))


def _wide(data: Array, volume: Volume, sigma_mm: float) -> Array:
    """Gaussian of a volume, on every second to tenth voxel: it is smooth at that scale."""
    spacing = np.array(volume.grid.spacing_mm[::-1])
    thin = np.maximum(1, (sigma_mm / 2.5 / spacing).astype(int))
    coarse = _binned(data, thin)
    smooth = gaussian_filter(coarse, sigma_mm / (spacing * thin), mode="constant", truncate=REACH)
    factors = [n / c for n, c in zip(data.shape, smooth.shape, strict=True)]
    grown = zoom(smooth, factors, order=1, mode="nearest", grid_mode=True)
    return np.asarray(grown[tuple(slice(n) for n in data.shape)])


def _binned(data: Array, thin: Array) -> Array:
    """Means over blocks; what is missing at the end counts as zero."""
    padded = np.pad(data, [(0, -n % t) for n, t in zip(data.shape, thin, strict=True)])
    d, h, w = (n // t for n, t in zip(padded.shape, thin, strict=True))
    return np.asarray(padded.reshape(d, thin[0], h, thin[1], w, thin[2]).mean((1, 3, 5)))


def _normalised(data: Array, mean: Array, square: Array) -> Array:
    spread = np.sqrt(np.maximum(square - mean * mean, LEAST_SPREAD**2))
    return np.asarray(np.clip(MIDDLE + SPREAD * (data - mean) / spread, 0, 255))
