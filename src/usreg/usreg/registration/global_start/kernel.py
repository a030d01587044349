# SPDX-License-Identifier: Apache-2.0
"""Compiled CPU kernels: scan lines walked through a map of classes, and how well it explains what they show."""

from __future__ import annotations

import numpy as np

from ...compiled import njit
from .echoes import DARK_END
from .tissue_map import AIR, BONE, CLASSES, GAS, SHADOW_BONE, SHADOW_CARTILAGE, SHADOW_GAS, UNKNOWN

MODELS = 8  # devices in the table
NONE = -1  # outside the volume, or unknown
LEAST = 32  # samples from which a relation says anything


@njit()
def walk(classes, hard, m, origin, direction, count, first, step, limits, out):
    """Class of each sample of one line into out (count,): tissue, or what casts the shadow that it lies in.

    m: (3, 4) float32, index_T_ref. limits: samples of air before contact counts as lost, of tissue before air counts
    as gas, and of cartilage before it casts a shadow.
    """
    ox, oy, oz = origin[0] + first * direction[0], origin[1] + first * direction[1], origin[2] + first * direction[2]
    half = np.float32(0.5)
    x = m[0, 0] * ox + m[0, 1] * oy + m[0, 2] * oz + m[0, 3] + half
    y = m[1, 0] * ox + m[1, 1] * oy + m[1, 2] * oz + m[1, 3] + half
    z = m[2, 0] * ox + m[2, 1] * oy + m[2, 2] * oz + m[2, 3] + half
    qx = step * (m[0, 0] * direction[0] + m[0, 1] * direction[1] + m[0, 2] * direction[2])
    qy = step * (m[1, 0] * direction[0] + m[1, 1] * direction[1] + m[1, 2] * direction[2])
    qz = step * (m[2, 0] * direction[0] + m[2, 1] * direction[1] + m[2, 2] * direction[2])
    shadow, air, tissue, cartilage = 0, 0, 0, 0
    for k in range(count):
        c = NONE
        if shadow > 0:
            c = shadow
        elif x >= 0 and y >= 0 and z >= 0 and x < classes.shape[2] and y < classes.shape[1] and z < classes.shape[0]:
            c = np.int64(classes[int(z), int(y), int(x)])
            if c == UNKNOWN:
                c = NONE
            elif c == BONE:
                shadow = SHADOW_BONE
            elif c > GAS:
                tissue += 1
                cartilage += hard[int(z), int(y), int(x)]
                if cartilage >= limits[2]:
                    shadow = SHADOW_CARTILAGE
            elif tissue >= limits[1]:
                c, shadow = GAS, SHADOW_GAS
            else:
                c, air = AIR, air + 1
                if air > limits[0]:
                    shadow = SHADOW_GAS
        out[k] = c
        x, y, z = x + qx, y + qy, z + qz


@njit()
def likelihoods(classes, hard, origin, direction, length, first, step, limits, poses, kind, table, out, begin, end):
    """Scores out (B,) of poses [begin, end): mean log-likelihood ratio of what the samples look like.

    poses: (B, 3, 4) float32 index_T_ref. table: (CLASSES, KINDS, MODELS) float32: of the ways in which devices
    and bodies show a class the one counts that explains its samples best. A sample that meets nothing counts zero.
    """
    met, totals = np.empty(kind.shape[1], np.int64), np.empty((CLASSES, MODELS), np.float32)
    for p in range(begin, end):
        totals[:, :], count = np.float32(0.0), 0
        for r in range(len(length)):
            walk(classes, hard, poses[p], origin[r], direction[r], length[r], first, step, limits, met)
            for k in range(length[r]):
                if met[k] >= 0:
                    for q in range(MODELS):
                        totals[met[k], q] += table[met[k], kind[r, k], q]
            count += length[r]
        best = 0.0
        for c in range(CLASSES):
            best += totals[c].max()
        out[p] = best / max(count, 1)


@njit()
def relations(classes, hard, origin, direction, length, first, step, limits, poses, level, kind, out, begin, end):
    """Scores out (B,) of poses [begin, end): correlation ratio of brightness given the class, times the share seen.

    The share of the brightness' variance that the classes explain (Roche et al., MICCAI 1998), less what as many
    classes explain of noise. Dark ends of lines do not count: what casts that shadow, only a CT shows.
    """
    met = np.empty(level.shape[1], np.int64)
    sums, counts = np.zeros(CLASSES), np.zeros(CLASSES)
    for p in range(begin, end):
        sums[:], counts[:] = 0.0, 0.0
        n, possible, total, squares = 0, 0, 0.0, 0.0
        for r in range(len(length)):
            walk(classes, hard, poses[p], origin[r], direction[r], length[r], first, step, limits, met)
            for k in range(length[r]):
                c = met[k]
                possible += kind[r, k] != DARK_END
                if c >= 0 and kind[r, k] != DARK_END:
                    v = level[r, k]
                    sums[c] += v
                    counts[c] += 1.0
                    total += v
                    squares += v * v
                    n += 1
        variance = squares - total * total / max(n, 1)
        out[p] = 0.0
        if n >= LEAST and variance > 1e-6 * squares:
            explained, used = -total * total / n, 0
            for c in range(CLASSES):
                if counts[c] > 0.0:
                    explained += sums[c] * sums[c] / counts[c]
                    used += 1
            ratio = explained / variance
            out[p] = (ratio - (1.0 - ratio) * (used - 1) / max(n - used, 1)) * n / possible


@njit()
def meetings(classes, hard, origin, direction, length, first, step, limits, pose, kind, counts):
    """Add to counts (CLASSES, KINDS) what the samples of a pose (3, 4) meet and look like; returns samples met."""
    met, seen = np.empty(kind.shape[1], np.int64), 0
    for r in range(len(length)):
        walk(classes, hard, pose, origin[r], direction[r], length[r], first, step, limits, met)
        for k in range(length[r]):
            if met[k] >= 0:
                counts[met[k], kind[r, k]] += 1.0
                seen += 1
    return seen
