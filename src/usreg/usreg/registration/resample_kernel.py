# SPDX-License-Identifier: Apache-2.0
"""Compiled sampling of volumes on image planes into thinned images, for similarities that need the image as a whole.

With or without slopes: methods that need no derivative get none. The slow reference is `rendering.slice_volume`.
"""

from __future__ import annotations

import numpy as np

from ..compiled import njit

# no reassociation and no "no NaN" assumption: NaN marks what is unknown
SAFE = {"contract", "nsz", "arcp"}


@njit(fastmath=SAFE, inline="always")
def _lerp(a, b, f):
    return a + f * (b - a)


@njit(fastmath=SAFE)
def resample(data, planes, x, y, cell, images, masks, counts, first, last):
    """Values of jobs [first, last), each one plane.

    Args:
        data: (D, H, W, K) float32, NaN where unknown. planes: (B, 3, 3) as in `normal.plane_matrices`.
        x, y: (N,) float32 mm about the image centre. cell: (N,) their pixel.
        images: (B, K, P) zeros, filled where all K are known; masks: (B, P) bool, false; counts: (B,) samples known.
    """
    depth, height, width, channels = data.shape
    value = np.empty(channels, np.float32)
    for b in range(first, last):
        p, n = planes[b], 0
        for i in range(len(x)):
            u = p[0, 0] * x[i] + p[0, 1] * y[i] + p[0, 2]
            v = p[1, 0] * x[i] + p[1, 1] * y[i] + p[1, 2]
            w = p[2, 0] * x[i] + p[2, 1] * y[i] + p[2, 2]
            if not (u >= 0.0 and v >= 0.0 and w >= 0.0 and u < width - 1 and v < height - 1 and w < depth - 1):
                continue
            iu, iv, iw = int(u), int(v), int(w)
            fu, fv, fw = np.float32(u - iu), np.float32(v - iv), np.float32(w - iw)
            known = True
            for k in range(channels):
                c00 = _lerp(data[iw, iv, iu, k], data[iw, iv, iu + 1, k], fu)
                c01 = _lerp(data[iw, iv + 1, iu, k], data[iw, iv + 1, iu + 1, k], fu)
                c10 = _lerp(data[iw + 1, iv, iu, k], data[iw + 1, iv, iu + 1, k], fu)
                c11 = _lerp(data[iw + 1, iv + 1, iu, k], data[iw + 1, iv + 1, iu + 1, k], fu)
                value[k] = _lerp(_lerp(c00, c01, fv), _lerp(c10, c11, fv), fw)
                known = known and value[k] == value[k]
            if known:
                for k in range(channels):
                    images[b, k, cell[i]] = value[k]
                masks[b, cell[i]] = True
                n += 1
        counts[b] = n


@njit(fastmath=SAFE)
def resample_slopes(data, planes, axes, x, y, cell, images, masks, counts, slopes, first, last):
    """As `resample`, with slopes (B, K, N, 3), zeros, filled: derivatives per mm along the image's axes x, y, z.

    axes: (B, 3, 3) float32 of `normal.plane_matrices`.
    """
    depth, height, width, channels = data.shape
    value, step = np.empty(channels, np.float32), np.empty((channels, 3), np.float32)
    for b in range(first, last):
        p, a, n = planes[b], axes[b], 0
        for i in range(len(x)):
            u = p[0, 0] * x[i] + p[0, 1] * y[i] + p[0, 2]
            v = p[1, 0] * x[i] + p[1, 1] * y[i] + p[1, 2]
            w = p[2, 0] * x[i] + p[2, 1] * y[i] + p[2, 2]
            if not (u >= 0.0 and v >= 0.0 and w >= 0.0 and u < width - 1 and v < height - 1 and w < depth - 1):
                continue
            iu, iv, iw = int(u), int(v), int(w)
            fu, fv, fw = np.float32(u - iu), np.float32(v - iv), np.float32(w - iw)
            known = True
            for k in range(channels):
                a000, a001 = data[iw, iv, iu, k], data[iw, iv, iu + 1, k]
                a010, a011 = data[iw, iv + 1, iu, k], data[iw, iv + 1, iu + 1, k]
                a100, a101 = data[iw + 1, iv, iu, k], data[iw + 1, iv, iu + 1, k]
                a110, a111 = data[iw + 1, iv + 1, iu, k], data[iw + 1, iv + 1, iu + 1, k]
                b00, b01 = _lerp(a000, a001, fu), _lerp(a010, a011, fu)
                b10, b11 = _lerp(a100, a101, fu), _lerp(a110, a111, fu)
                c0, c1 = _lerp(b00, b01, fv), _lerp(b10, b11, fv)
                value[k] = _lerp(c0, c1, fw)
                known = known and value[k] == value[k]
                step[k, 0] = _lerp(_lerp(a001 - a000, a011 - a010, fv), _lerp(a101 - a100, a111 - a110, fv), fw)
                step[k, 1] = _lerp(b01 - b00, b11 - b10, fw)
                step[k, 2] = c1 - c0
            if known:
                for k in range(channels):
                    images[b, k, cell[i]] = value[k]
                    for j in range(3):
                        slopes[b, k, i, j] = a[j, 0] * step[k, 0] + a[j, 1] * step[k, 1] + a[j, 2] * step[k, 2]
                masks[b, cell[i]] = True
                n += 1
        counts[b] = n


@njit()
def pull(slopes, x, y, cell, d_images, out, first, last):
    """Derivatives (B, 6) by the twist in image axes about the centre: sum of d score / d pixel times d pixel / d twist.

    d_images: (B, K, P). Sums in double precision, in the order of the samples.
    """
    for b in range(first, last):
        out[b, :] = 0.0
        for k in range(slopes.shape[1]):
            for i in range(len(x)):
                d = np.float64(d_images[b, k, cell[i]])
                gx, gy, gz = d * slopes[b, k, i, 0], d * slopes[b, k, i, 1], d * slopes[b, k, i, 2]
                out[b, 0] += gx
                out[b, 1] += gy
                out[b, 2] += gz
                out[b, 3] += y[i] * gz
                out[b, 4] -= x[i] * gz
                out[b, 5] += x[i] * gy - y[i] * gx
