# SPDX-License-Identifier: Apache-2.0
"""What the residual of a frame says about its noise.

Neighbouring pixels share speckle, so the residual is correlated. Its autocovariance c(d), measured on the residual
image itself, gives the covariance of the gradient, M = sum_ij J_i c(i - j) J_j' (one product of spectra). With white
noise M = c(0) H; `Noise.cell_samples` tells how many samples make up one independent one.

That holds where the residual is noise. Where parts of the image want different poses (tissue that moved, a volume that
was pieced together), sums of J times residual over whole tiles are larger than M allows: by how much scales M.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.fft import irfft2, next_fast_len, rfft2
from torch import Tensor

from ..geometry import se3
from .kernel import CHANNELS, samples
from .noise_kernel import fit_residual, products, spectral_products, tile_products, trace_of_solve
from .normal import View, plane_matrices
from .pyramid import VolumeLevel

Array = npt.NDArray[Any]
WINDOW_MM = 8.0  # lags beyond this are taken as independent
RIDGE = 1e-9  # of a scaled matrix: directions without any information
TILE_MM = 10.0
LEAST_TILES = 12.0  # fewer say nothing about six directions
QUANTUM = 1.0 / 12.0  # variance of rounding to whole grey values: no frame is more exact than that


@dataclass(frozen=True, eq=False)
class Noise:
    """Normal matrix and spread of its gradient for one frame, in reference axes.

    Args:
        matrix: (6, 6) sum of J J'. spread: (6, 6) covariance of the sum of J times residual.
        cell_samples: samples per independent sample. variance: of the residual, squared grey values.
        weight: of this frame in the sum that is maximised, 1 / (NCC times variance of fixed).
        disagreement: factor, at least 1, by which parts of the image disagree more than noise lets them; in `spread`.
    """

    matrix: Tensor
    spread: Tensor
    cell_samples: float
    variance: float
    weight: float
    disagreement: float


def frame_noise(volume: VolumeLevel, view: View, ct_T_ref: Tensor) -> Noise:
    """Residual and Jacobian images of one frame at its estimate (4, 4), and what they say about the noise.

    In numpy and scipy on the caller's thread: torch would wake its pool for images of this size, which costs more than
    it gives where other processes share the processors.
    """
    residual, jacobian, known, weight = residual_images(volume, view, ct_T_ref)
    spacing = view.level.spacing_mm
    shape = padded(residual.shape, spacing)
    spectrum, cell = noise_spectrum(residual, known, spacing, shape)
    j = rfft2(jacobian, s=shape).reshape(6, -1)
    matrix = products(jacobian.reshape(6, -1))
    spread = spectral_products(j.real.copy(), j.imag.copy(), spectrum.reshape(-1)) / math.prod(shape) + QUANTUM * matrix
    factor = disagreement(residual, jacobian, spread, float(known.sum()), spacing)
    variance = float((residual**2).sum() / max(1, known.sum()))
    a = se3.adjoint(se3.inverse(view.ref_T_centre))
    # copied: products of matrices end in other bits where the memory of numpy is aligned by chance
    in_ref = [a.T @ torch.from_numpy(m).clone() @ a for m in (matrix, factor * spread)]
    return Noise(in_ref[0], in_ref[1], cell, variance + QUANTUM, weight, factor)


def disagreement(
    residual: Array, jacobian: Array, spread: Array, count: float, spacing_mm: tuple[float, float]
) -> float:
    """Mean over six directions of what sums over tiles scatter, against `spread`; at least 1.

    Six parameters were fitted to the tiles' sums, which takes as many of them away.
    """
    tiles = count * math.prod(spacing_mm) / TILE_MM**2
    if tiles < LEAST_TILES:
        return 1.0
    sizes = [max(1, round(TILE_MM / mm)) for mm in reversed(spacing_mm)]
    scatter = tile_products(residual, jacobian, sizes[0], sizes[1])
    ratio = trace_of_solve(spread, scatter, RIDGE) / 6.0
    return max(1.0, float(ratio) * tiles / (tiles - 6.0))


def residual_images(volume: VolumeLevel, view: View, ct_T_ref: Tensor) -> tuple[Array, Array, Array, float]:
    """Residual (h, w), Jacobian (6, h, w) in grey values per mm and rad, where known (h, w) (else zero), weight.

    The model is fixed = gain * moving + offset: both are fitted, and their directions are taken out of the Jacobian.
    """
    level = view.level
    planes, axes = plane_matrices(volume.index_T_ct, (ct_T_ref @ view.ref_T_centre)[None])
    count = len(level.value)
    channels, place = np.empty((CHANNELS, count), np.float32), np.empty(count, np.int64)
    x, y, value = (t.numpy() for t in (level.x_mm, level.y_mm, level.value))
    n = samples(volume.data.numpy(), planes[0].numpy(), axes[0].numpy(), x, y, value, channels, place)
    flat = np.zeros((8, level.shape[0] * level.shape[1]), np.float32)
    gain, together = fit_residual(channels, n, flat, level.cell.numpy()[place[:n]])
    weight = max(n, 1) / (max(gain, 0.0) * together + QUANTUM * max(n, 1))
    images = flat.reshape(8, *level.shape)
    return images[0], images[1:7], images[7] > 0, weight


def noise_spectrum(
    residual: Array, known: Array, spacing_mm: tuple[float, float], shape: tuple[int, int]
) -> tuple[Array, float]:
    """Power spectrum of the residual's autocovariance, tapered to WINDOW_MM, and samples per independent sample.

    Args:
        residual: (h, w), zero where not known (h, w).
        spacing_mm: of columns and rows. shape: padded sizes, see `padded`.

    Returns:
        Half plane as `rfft2` has it, with the columns that stand for two counted twice.
    """
    r, k = rfft2(residual, s=shape), rfft2(known.astype(np.float32), s=shape)
    pairs = irfft2(_power(k), s=shape).clip(1.0)
    auto = irfft2(_power(r), s=shape) / pairs * _taper(shape, spacing_mm)
    cell = float(auto.sum() / max(float(auto[0, 0]), 1e-30))
    spectrum = rfft2(auto).real.clip(0.0)
    spectrum[:, 1 : (shape[1] + 1) // 2] *= 2.0
    return spectrum, max(1.0, cell)


def _power(spectrum: Array) -> Array:
    return spectrum.real**2 + spectrum.imag**2


@functools.lru_cache(maxsize=16)
def _taper(shape: tuple[int, int], spacing_mm: tuple[float, float]) -> Array:
    """Window over lags (rows, columns) in the order of the FFT: one up to half of WINDOW_MM, then a cosine to zero."""
    dy, dx = (np.fft.fftfreq(n, 1.0 / n) * mm for n, mm in zip(shape, reversed(spacing_mm), strict=True))
    edge = (2.0 * np.hypot(dy[:, None], dx[None]) / WINDOW_MM - 1.0).clip(0.0, 1.0)
    return 0.5 + 0.5 * np.cos(math.pi * edge)


@functools.lru_cache(maxsize=16)
def padded(shape: tuple[int, int], spacing_mm: tuple[float, float]) -> tuple[int, int]:
    """Sizes that keep lags within the window from wrapping around, and that FFTs like."""
    reach = [math.ceil(WINDOW_MM / mm) + 1 for mm in reversed(spacing_mm)]
    return next_fast_len(shape[0] + reach[0], real=True), next_fast_len(shape[1] + reach[1], real=True)
