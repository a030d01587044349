# SPDX-License-Identifier: Apache-2.0
"""Speckle that is fixed to tissue: a band-limited complex field, its envelope, log-compressed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

Array = NDArray[np.float64]
FWHM_PER_SIGMA = 2.3548


def speckle_db(shape: tuple[int, ...], resolution_voxels: float, rng: np.random.Generator) -> Array:
    """Fully developed speckle in dB about its mean.

    Args:
        shape: of the voxel grid (D, H, W).
        resolution_voxels: full width at half maximum of the resolution cell.

    Source: Wagner et al. 1983: the envelope of a circular Gaussian field. Its power is averaged over part of a cell
    before the logarithm, as compounding scanners do, so that the nulls do not become infinitely deep and sharp. The
    field is periodic, so that its strength is the same up to the border.
    """
    sigma = resolution_voxels / FWHM_PER_SIGMA
    power = sum(gaussian_filter(rng.standard_normal(shape), sigma, mode="wrap") ** 2 for _ in range(2))
    power = gaussian_filter(power, 0.75 * sigma, mode="wrap")
    return 10 * np.log10(np.maximum(power / power.mean(), 1e-4))


def smooth_field(shape: tuple[int, ...], sigma_voxels: float, rng: np.random.Generator) -> Array:
    """A smooth random field (D, H, W) of zero mean and unit variance: slow changes of echogenicity within an organ."""
    field = gaussian_filter(rng.standard_normal(shape), sigma_voxels, mode="wrap")
    return (field - field.mean()) / field.std()
