# SPDX-License-Identifier: Apache-2.0
"""Compiled: likelihoods of a frame's pixels looked up at poses. Slow references stand in `vote`."""

from __future__ import annotations

import math

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
def expect_near(ratio, rows, points, matrix, reach, sigma, places, mass):
    """Where pixels most likely lie near to where a pose puts them.

    reach: voxels that are looked at on both sides along every axis. sigma: standard deviation, in voxels, of the
    window. places: (P, 3) expected index x, y, z. mass: (P,) mean likelihood ratio in the window, 0 where nothing is
    known.
    """
    depth, height, width = rows.shape
    for p in range(points.shape[0]):
        x, y = points[p, 0], points[p, 1]
        u = matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 3]
        v = matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 3]
        w = matrix[2, 0] * x + matrix[2, 1] * y + matrix[2, 3]
        i, j, k = int(math.floor(u + 0.5)), int(math.floor(v + 0.5)), int(math.floor(w + 0.5))
        total, window, su, sv, sw = 0.0, 0.0, 0.0, 0.0, 0.0
        for d in range(max(0, k - reach), min(depth, k + reach + 1)):
            for b in range(max(0, j - reach), min(height, j + reach + 1)):
                for a in range(max(0, i - reach), min(width, i + reach + 1)):
                    row = rows[d, b, a]
                    if row < 0:
                        continue
                    far = (a - u) ** 2 + (b - v) ** 2 + (d - w) ** 2
                    near = math.exp(-0.5 * far / (sigma * sigma))
                    value = near * ratio[p, row]
                    window += near
                    total += value
                    su += value * a
                    sv += value * b
                    sw += value * d
        if total > 1e-12:
            places[p, 0], places[p, 1], places[p, 2] = su / total, sv / total, sw / total
            mass[p] = total / window
        else:
            places[p, 0], places[p, 1], places[p, 2] = u, v, w
            mass[p] = 0.0
