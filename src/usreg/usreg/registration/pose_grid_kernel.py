# SPDX-License-Identifier: Apache-2.0
"""Compiled: correlation of a few pixels with a volume at very many poses; `pose_grid.scores_slow` is the reference."""

from __future__ import annotations

import math

from ..compiled import njit


@njit(fastmath={"contract", "nsz", "arcp"})
def correlate(volume, mask, points, values, matrices, least, first, last, out):
    """Correlation at poses [first, last), nearest voxels; -1 where fewer than a share `least` of the pixels is known.

    volume: (D, H, W) float32. mask: (D, H, W) uint8. points: (P, 2) mm in the image. values: (P,) float32.
    matrices: (N, 3, 4) from mm to voxel index x, y, z. What is not known takes off the score: a pose half outside must
    not win by the few pixels that happen to fit.
    """
    depth, height, width = volume.shape
    for n in range(first, last):
        m = matrices[n]
        count, sa, sb, saa, sbb, sab = 0, 0.0, 0.0, 0.0, 0.0, 0.0
        for p in range(points.shape[0]):
            x, y = points[p, 0], points[p, 1]
            u = int(math.floor(m[0, 0] * x + m[0, 1] * y + m[0, 3] + 0.5))
            v = int(math.floor(m[1, 0] * x + m[1, 1] * y + m[1, 3] + 0.5))
            w = int(math.floor(m[2, 0] * x + m[2, 1] * y + m[2, 3] + 0.5))
            if u < 0 or v < 0 or w < 0 or u >= width or v >= height or w >= depth or mask[w, v, u] == 0:
                continue
            a, b = values[p], volume[w, v, u]
            count += 1
            sa += a
            sb += b
            saa += a * a
            sbb += b * b
            sab += a * b
        share = count / points.shape[0]
        if count < 3 or share < least:
            out[n] = -1.0
            continue
        va, vb = saa - sa * sa / count, sbb - sb * sb / count
        spread = math.sqrt(max(va, 0.0) * max(vb, 0.0))
        found = (sab - sa * sb / count) / spread if spread > 1e-6 * count else 0.0
        out[n] = found * min(1.0, share + 0.4)
