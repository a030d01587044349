# SPDX-License-Identifier: Apache-2.0
"""Compiled: likelihoods of a frame's pixels looked up at poses. Slow references stand in `vote`."""

from __future__ import annotations

import math

import numpy as np

from ...compiled import njit


@njit()
def score_poses(ratio, rows, points, weights, matrices, floor, out):
    """Weighted mean logarithms (N,) of the likelihood ratio of pixels at poses.

    ratio: (P, V) float32 likelihood over its mean. rows: (d, h, w) int32, column of `ratio` or -1 where unknown.
    points: (P, 2) mm in the image. matrices: (N, 3, 4) from mm to index x, y, z of the grid of `rows`.
    floor: likelihood ratio of a pixel that is found nowhere, and its share.
    """
    depth, height, width = rows.shape
    total = 0.0
    for p in range(points.shape[0]):
        total += weights[p]
    for n in range(matrices.shape[0]):
        m = matrices[n]
        value = 0.0
        for p in range(points.shape[0]):
            x, y = points[p, 0], points[p, 1]
            u = m[0, 0] * x + m[0, 1] * y + m[0, 3]
            v = m[1, 0] * x + m[1, 1] * y + m[1, 3]
            w = m[2, 0] * x + m[2, 1] * y + m[2, 3]
            found = 0.0
            if u > -1.0 and v > -1.0 and w > -1.0 and u < width and v < height and w < depth:
                i, j, k = int(math.floor(u)), int(math.floor(v)), int(math.floor(w))
                for c in range(8):
                    a, b, d = i + (c & 1), j + ((c >> 1) & 1), k + (c >> 2)
                    if a < 0 or b < 0 or d < 0 or a >= width or b >= height or d >= depth:
                        continue
                    row = rows[d, b, a]
                    if row >= 0:
                        share = (1.0 - abs(u - a)) * (1.0 - abs(v - b)) * (1.0 - abs(w - d))
                        found += share * ratio[p, row]
            value += weights[p] * math.log(floor + (1.0 - floor) * found)
        out[n] = value / total


@njit()
def expect_near(ratio, rows, points, matrices, reach, sigma, places, mass):
    """Where pixels most likely lie near to where poses put them.

    matrices: (N, 3, 4). reach: voxels that are looked at on both sides along every axis.
    sigma: standard deviation, in voxels, of the window. places: (N, P, 3) expected index x, y, z.
    mass: (N, P) mean likelihood ratio in the window, 0 where nothing is known.
    """
    size = 2 * reach + 1
    wa, wb, wd = np.empty(size), np.empty(size), np.empty(size)
    for n in range(matrices.shape[0]):
        m = matrices[n]
        for p in range(points.shape[0]):
            x, y = points[p, 0], points[p, 1]
            u = m[0, 0] * x + m[0, 1] * y + m[0, 3]
            v = m[1, 0] * x + m[1, 1] * y + m[1, 3]
            w = m[2, 0] * x + m[2, 1] * y + m[2, 3]
            i = _window(u, reach, sigma, wa)
            j = _window(v, reach, sigma, wb)
            k = _window(w, reach, sigma, wd)
            _expect(ratio[p], rows, i, j, k, wa, wb, wd, places[n, p], mass[n], p)
            if mass[n, p] == 0.0:
                places[n, p, 0], places[n, p, 1], places[n, p, 2] = u, v, w


@njit()
def _window(centre, reach, sigma, out):
    """Fill weights about a place along one axis; returns the index of the first."""
    first = int(math.floor(centre + 0.5)) - reach
    for a in range(out.shape[0]):
        out[a] = math.exp(-0.5 * ((first + a - centre) / sigma) ** 2)
    return first


@njit()
def _expect(ratio, rows, i, j, k, wa, wb, wd, place, mass, p):
    depth, height, width = rows.shape
    size = wa.shape[0]
    total, window, su, sv, sw = 0.0, 0.0, 0.0, 0.0, 0.0
    for c in range(max(0, -k), min(size, depth - k)):
        for b in range(max(0, -j), min(size, height - j)):
            near = wd[c] * wb[b]
            for a in range(max(0, -i), min(size, width - i)):
                row = rows[k + c, j + b, i + a]
                if row < 0:
                    continue
                weight = near * wa[a]
                value = weight * ratio[row]
                window += weight
                total += value
                su += value * (i + a)
                sv += value * (j + b)
                sw += value * (k + c)
    if total > 1e-12:
        place[0], place[1], place[2] = su / total, sv / total, sw / total
        mass[p] = total / window
    else:
        mass[p] = 0.0
