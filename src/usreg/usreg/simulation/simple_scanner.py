# SPDX-License-Identifier: Apache-2.0
"""Frames of the phantom: its echo on the image plane, seen by another device than the one that made the volume."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates, spline_filter
from torch import Tensor

from ..config import check_range
from ..geometry import se3
from ..geometry.grid import VoxelGrid
from ..geometry.sector import SectorGeometry
from .tissue import Array


@dataclass(frozen=True)
class ScannerConfig:
    """How frames differ from the volume.

    Args:
        gain, offset: grey values are scaled by the one and raised by the other.
        attenuation: share of the gain that is lost from the face to the full depth.
        flutter: standard deviation of the gain from frame to frame.
        multiplicative, additive_grey: standard deviations of the noise, drawn anew for every frame.
        blur_px: standard deviation of the blur along rows and columns.
    """

    gain: float = 0.92
    offset: float = 8.0
    attenuation: float = 0.1
    flutter: float = 0.02
    multiplicative: float = 0.12
    additive_grey: float = 4.0
    blur_px: tuple[float, float] = (0.5, 0.8)

    def __post_init__(self) -> None:
        check_range("gain", self.gain, 0.05, 20.0)
        check_range("offset", self.offset, -255.0, 255.0)
        check_range("attenuation", self.attenuation, 0.0, 1.0)
        for name in ("flutter", "multiplicative"):
            check_range(name, getattr(self, name), 0.0, 1.0)
        check_range("additive_grey", self.additive_grey, 0.0, 100.0)
        for sigma in self.blur_px:
            check_range("blur_px", sigma, 0.0, 10.0)


class Scanner:
    """Cuts frames out of an echo volume, by a cubic interpolation that shares nothing with what it is to test."""

    def __init__(self, echo: Array, grid: VoxelGrid, geometry: SectorGeometry, config: ScannerConfig) -> None:
        self.config, self.geometry = config, geometry
        self._coefficients = spline_filter(echo, order=3, mode="nearest")
        self._index_T_ct = grid.index_T_ct
        self._mask = geometry.mask().numpy()
        self._points = geometry.plane.points_mm()[geometry.mask()]
        self._gain = self._depth_gain()

    def _depth_gain(self) -> Array:
        g = self.geometry
        x, y = self._points[:, 0].numpy(), self._points[:, 1].numpy()
        r = np.hypot(x - g.apex_mm[0], y - g.apex_mm[1])
        share = np.clip((r - g.radius_mm[0]) / (g.radius_mm[1] - g.radius_mm[0]), 0, 1)
        return self.config.gain * (1 - self.config.attenuation * share)

    def frame(self, ct_T_image: Tensor, rng: np.random.Generator) -> Tensor:
        """Image (h, w) uint8 at a true pose; zero outside the sector."""
        c = self.config
        index = se3.transform_points(self._index_T_ct @ ct_T_image, self._points).numpy()
        echo = map_coordinates(self._coefficients, index.T[::-1], order=3, mode="constant", cval=0.0, prefilter=False)
        echo = np.clip(echo, 0.0, 255.0) * self._gain * (1 + c.flutter * rng.standard_normal())
        echo = echo * (1 + c.multiplicative * rng.standard_normal(echo.shape))
        image = self._blurred(echo + c.offset)
        image = np.rint(image + c.additive_grey * rng.standard_normal(image.shape))
        return torch.from_numpy((np.clip(image, 0, 255) * self._mask).astype(np.uint8))

    def _blurred(self, values: Array) -> NDArray[np.float64]:
        """Blur within the sector only: weights normalise at its edge."""
        image = np.zeros(self._mask.shape)
        image[self._mask] = values
        weight = gaussian_filter(self._mask.astype(np.float64), self.config.blur_px)
        return np.where(self._mask, gaussian_filter(image, self.config.blur_px) / np.maximum(weight, 1e-6), 0.0)
