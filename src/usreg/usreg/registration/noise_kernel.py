# SPDX-License-Identifier: Apache-2.0
"""Compiled parts of the covariance: one thread, no BLAS, whose pool would fight over small matrices."""

from __future__ import annotations

import numpy as np

from ..compiled import njit
from .kernel import CHANNELS


@njit(fastmath=True)
def fit_residual(channels, count, images, cells):
    """Fit fixed = gain * moving + offset, and lay out residual, Jacobian and support as images.

    Args:
        channels: (9, N) of `kernel.samples`, the first `count` are valid; cells: (N,) their pixels in the images.
        images: (8, pixels) float32 zeros: residual, six derivatives with gain and offset projected out, one.

    Returns:
        Gain, and the product of fixed and moving, both centred.
    """
    mean = np.zeros(CHANNELS)
    for a in range(CHANNELS):
        for i in range(count):
            mean[a] += channels[a, i]
        mean[a] /= max(1, count)
    along = np.zeros(CHANNELS)
    for a in range(1, CHANNELS):
        for i in range(count):
            along[a] += (channels[a, i] - mean[a]) * (channels[2, i] - mean[2])
    power = max(along[2], 1e-12)
    gain = along[1] / power
    for i in range(count):
        moving, cell = channels[2, i] - mean[2], cells[i]
        images[0, cell] = channels[1, i] - mean[1] - gain * moving
        for a in range(6):
            images[1 + a, cell] = gain * (channels[3 + a, i] - mean[3 + a] - along[3 + a] / power * moving)
        images[7, cell] = 1.0
    return gain, along[1]


@njit(fastmath=True)
def products(images):
    """images @ images.T, (6, 6), of (6, pixels)."""
    out = np.zeros((6, 6))
    for a in range(6):
        for b in range(a, 6):
            total = 0.0
            for i in range(images.shape[1]):
                total += np.float64(images[a, i]) * np.float64(images[b, i])
            out[a, b] = out[b, a] = total
    return out


@njit(fastmath=True)
def spectral_products(real, imaginary, weight):
    """Real part of the weighted sum over frequencies of F_a conj(F_b), (6, 6), of (6, n) spectra; weight (n,)."""
    out = np.zeros((6, 6))
    for a in range(6):
        for b in range(a, 6):
            total = 0.0
            for i in range(weight.shape[0]):
                total += weight[i] * (real[a, i] * real[b, i] + imaginary[a, i] * imaginary[b, i])
            out[a, b] = out[b, a] = total
    return out


@njit()
def tile_products(residual, jacobian, height, width):
    """Sum over tiles of s s', (6, 6), s = sum over the tile of Jacobian times residual; mean of four grids of tiles.

    Args:
        residual: (h, w) and jacobian: (6, h, w), zero where not known. height, width: of a tile, samples.
    """
    h, w = residual.shape
    out = np.zeros((6, 6))
    for grid in range(4):
        top, left = (grid // 2) * (height // 2), (grid % 2) * (width // 2)
        across = (w + left) // width + 1
        sums = np.zeros(((h + top) // height + 1) * across * 6).reshape(-1, 6)
        for r in range(h):
            for c in range(w):
                if residual[r, c] != 0.0:
                    tile = (r + top) // height * across + (c + left) // width
                    for a in range(6):
                        sums[tile, a] += jacobian[a, r, c] * residual[r, c]
        for tile in range(len(sums)):
            for a in range(6):
                for b in range(6):
                    out[a, b] += 0.25 * sums[tile, a] * sums[tile, b]
    return out


@njit()
def trace_of_solve(spread, scatter, ridge):
    """Trace of spread^-1 scatter, (6, 6) each, by Cholesky after scaling the diagonal of `spread` to 1.

    Written out because LAPACK's result depends in its last bits on where its workspace happens to lie.

    Args:
        ridge: added to the scaled diagonal, so that directions which the image does not see do no harm.
    """
    n = spread.shape[0]
    scale = np.zeros(n)
    for i in range(n):
        scale[i] = 1.0 / np.sqrt(max(spread[i, i], 1e-30))
    lower = np.zeros((n, n))
    for i in range(n):
        for j in range(i + 1):
            total = spread[i, j] * scale[i] * scale[j]
            for k in range(j):
                total -= lower[i, k] * lower[j, k]
            lower[i, j] = np.sqrt(max(total + ridge, ridge)) if i == j else total / lower[j, j]
    trace = 0.0
    x = np.zeros(n)
    for c in range(n):
        for i in range(n):
            x[i] = scatter[i, c] * scale[i] * scale[c]
            for k in range(i):
                x[i] -= lower[i, k] * x[k]
            x[i] /= lower[i, i]
        for i in range(n - 1, -1, -1):
            for k in range(i + 1, n):
                x[i] -= lower[k, i] * x[k]
            x[i] /= lower[i, i]
        trace += x[c]
    return trace
