# SPDX-License-Identifier: Apache-2.0
"""Levenberg-Marquardt, compiled: the whole climb of one start without returning to Python.

Each start is one job on one thread, with sums in a fixed order: the same poses to the bit, whatever the number of
threads. The slow reference is `levenberg.maximise` over `normal.normal_equations`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..compiled import njit
from .kernel import BLOCK, CHANNELS, gram, sample_block
from .normal import LEAST_SAMPLES

Array = npt.NDArray[Any]


@njit()
def _rotation(w, out):
    """Rodrigues' formula; its terms as series near zero."""
    a2 = w[0] * w[0] + w[1] * w[1] + w[2] * w[2]
    a = np.sqrt(a2)
    s = 1.0 - a2 / 6.0 if a < 1e-4 else np.sin(a) / a
    c = 0.5 - a2 / 24.0 if a < 1e-4 else (1.0 - np.cos(a)) / a2
    for i in range(3):
        for j in range(3):
            out[i, j] = c * w[i] * w[j]
        out[i, i] += 1.0 - c * a2
    out[0, 1] -= s * w[2]
    out[1, 0] += s * w[2]
    out[0, 2] += s * w[1]
    out[2, 0] -= s * w[1]
    out[1, 2] -= s * w[0]
    out[2, 1] += s * w[0]


@njit()
def _product(a, b, out):
    """Product of affine (4, 4) whose last row is 0 0 0 1."""
    for i in range(3):
        for j in range(4):
            total = a[i, 3] if j == 3 else 0.0
            for k in range(3):
                total += a[i, k] * b[k, j]
            out[i, j] = total
    out[3, 0], out[3, 1], out[3, 2], out[3, 3] = 0.0, 0.0, 0.0, 1.0


@njit()
def _solve(matrix, damping, right, out):
    """Cholesky of matrix + damping diag; false where it is not positive."""
    n, low = 6, np.zeros((6, 6))
    top = 0.0
    for i in range(n):
        top = max(top, matrix[i, i])
    for i in range(n):
        for j in range(i + 1):
            total = matrix[i, j]
            if i == j:
                total += damping * matrix[i, i] + 1e-9 * top + 1e-30
            for k in range(j):
                total -= low[i, k] * low[j, k]
            if i == j:
                if not total > 0.0:
                    return False
                low[i, i] = np.sqrt(total)
            else:
                low[i, j] = total / low[j, j]
    for i in range(n):
        total = right[i]
        for k in range(i):
            total -= low[i, k] * out[k]
        out[i] = total / low[i, i]
    for i in range(n - 1, -1, -1):
        total = out[i]
        for k in range(i + 1, n):
            total -= low[k, i] * out[k]
        out[i] = total / low[i, i]
    return True


@njit()
def _add_frame(sums, adjoint, gradient, matrix):
    """Add a frame's gradient and Gauss-Newton matrix of NCC, times its samples; returns score times samples.

    With centred f, m: score = f.m / |f||m|; d(m/|m|) = (I - m m' / |m|^2) J / |m| (see `similarity.NccResidual`), mask
    frozen. Score -1 with hardly a sample, 0 without contrast.
    """
    n = sums[0, 0]
    if n <= LEAST_SAMPLES:
        return -n
    mean_f, mean_m = sums[0, 1] / n, sums[0, 2] / n
    vf, vm = sums[1, 1] - n * mean_f * mean_f, sums[2, 2] - n * mean_m * mean_m
    tiny = 1e-9 * (sums[1, 1] + sums[2, 2]) + 1e-12
    if vf <= tiny or vm <= tiny:
        return 0.0
    sf, sm = np.sqrt(vf), np.sqrt(vm)
    score = (sums[1, 2] - n * mean_f * mean_m) / (sf * sm)
    g, jm, h = np.empty(6), np.empty(6), np.empty((6, 6))
    for a in range(6):
        jm[a] = (sums[2, 3 + a] - mean_m * sums[0, 3 + a]) / sm
        g[a] = ((sums[1, 3 + a] - mean_f * sums[0, 3 + a]) / sf - score * jm[a]) / sm
    for a in range(6):
        for b in range(a, 6):
            h[a, b] = (sums[3 + a, 3 + b] - sums[0, 3 + a] * sums[0, 3 + b] / n - jm[a] * jm[b]) / vm
            h[b, a] = h[a, b]
    half = np.zeros((6, 6))
    for a in range(6):
        for c in range(6):
            gradient[c] += n * g[a] * adjoint[a, c]
            for b in range(6):
                half[a, c] += h[a, b] * adjoint[b, c]
    for a in range(6):
        for c in range(6):
            for d in range(6):
                matrix[c, d] += n * adjoint[a, c] * half[a, d]
    return n * score


@njit()
def _measure(scene, pose, work, gradient, matrix):
    """Score and overlap of all frames at one pose; fills gradient (6,) and matrix (6, 6)."""
    volume, index_T_ct, x, y, fixed, ends, ref_T_centre, adjoints = scene
    channels, sums, part = work
    ct_T_centre, plane4 = np.empty((4, 4)), np.empty((4, 4))
    plane, axes = np.empty((3, 3)), np.empty((3, 3), np.float32)
    gradient[:] = 0.0
    matrix[:] = 0.0
    score, samples, overlap, start = 0.0, 0.0, 0.0, 0
    for frame in range(len(ends)):
        _product(pose, ref_T_centre[frame], ct_T_centre)
        _product(index_T_ct, ct_T_centre, plane4)
        for i in range(3):
            plane[i, 0], plane[i, 1], plane[i, 2] = plane4[i, 0], plane4[i, 1], plane4[i, 3]
            for j in range(3):
                axes[j, i] = plane4[i, j]
        sums[:] = 0.0
        first = start
        while first < ends[frame]:
            n = sample_block(volume, plane, axes, x, y, fixed, first, min(ends[frame], first + BLOCK), channels)
            gram(channels, n, part)
            for a in range(CHANNELS):
                for b in range(a, CHANNELS):
                    sums[a, b] += part[a, b]
            first += BLOCK
        score += _add_frame(sums, adjoints[frame], gradient, matrix)
        samples += sums[0, 0]
        overlap += sums[0, 0] / max(1, ends[frame] - start)
        start = ends[frame]
    if samples == 0.0:
        return -1.0, 0.0
    for a in range(6):
        gradient[a] /= samples
        for b in range(6):
            matrix[a, b] /= samples
    return score / samples, overlap / len(ends)


@njit()
def climb(scene, settings, first, last, poses, scores, gradients, matrices):
    """Climb from poses[first:last] in place.

    Args:
        scene: volume (D, H, W) float32, NaN where unknown; index_T_ct (4, 4); x, y, fixed (N,) float32 samples of all
            frames, one after the other; ends (K,) where each frame ends; ref_T_centre (K, 4, 4); adjoints (K, 6, 6)
            from reference twists to twists about each image's centre.
        settings: iterations, tolerance_mm, radius_mm, min_overlap, damping, ease, brake, damping_limit.
        poses: (B, 4, 4) ct_T_ref; scores: (B, 3) score, overlap, evaluations; gradients (B, 6); matrices (B, 6, 6).
    """
    iterations, tolerance, radius, min_overlap = int(settings[0]), settings[1], settings[2], settings[3]
    work = np.empty((CHANNELS, BLOCK), np.float32), np.empty((CHANNELS, CHANNELS)), np.empty((CHANNELS, CHANNELS))
    trial, moved, step = np.empty((4, 4)), np.eye(4), np.empty(6)
    gradient, matrix = np.empty(6), np.empty((6, 6))
    for job in range(first, last):
        pose, damping, count = poses[job], settings[4], 1
        score, overlap = _measure(scene, pose, work, gradients[job], matrices[job])
        floor = min(min_overlap, overlap)
        while count < iterations and damping < settings[7]:
            if not _solve(matrices[job], damping, gradients[job], step):
                damping *= settings[6]
                continue
            _rotation(step[3:], moved)
            moved[0, 3], moved[1, 3], moved[2, 3] = step[0], step[1], step[2]
            _product(pose, moved, trial)
            new, share = _measure(scene, trial, work, gradient, matrix)
            count += 1
            if new > score and share >= floor:
                pose[:], gradients[job], matrices[job] = trial, gradient, matrix
                score, overlap, damping = new, share, damping / settings[5]
            else:
                damping *= settings[6]
            shift = np.sqrt(step[0] ** 2 + step[1] ** 2 + step[2] ** 2)
            turn = np.sqrt(step[3] ** 2 + step[4] ** 2 + step[5] ** 2)
            if shift + radius * turn < tolerance:
                break
        scores[job, 0], scores[job, 1], scores[job, 2] = score, overlap, count
