# SPDX-License-Identifier: Apache-2.0
"""Compiled CPU kernel: samples of an image plane in a volume with the derivatives of the moving value by the pose.

Their moments are summed block by block in a fixed order. The slow reference of both is `normal.normal_equations`.
"""

from __future__ import annotations

import numpy as np

from ..compiled import njit

BLOCK = 256
CHANNELS = 9  # one, fixed, moving, and the derivative of moving by (v, w) in image axes about the image centre
# no reassociation and no "no NaN" assumption where samples are taken: NaN marks what is unknown
SAFE = {"contract", "nsz", "arcp"}


@njit(fastmath=SAFE, inline="always")
def _inside(u, v, w, shape):
    return u >= 0.0 and v >= 0.0 and w >= 0.0 and u < shape[2] - 1 and v < shape[1] - 1 and w < shape[0] - 1


@njit(fastmath=SAFE)
def sample_block(volume, plane, axes, x, y, fixed, start, stop, channels):
    """Fill `channels` (9, BLOCK) with the samples of [start, stop) that lie inside known voxels; return their count.

    plane: (3, 3) float64, columns = voxel index per mm along x, along y, and index of the image centre.
    axes: (3, 3) float32, rows = image axes; turns a gradient per voxel index into one per mm in image axes.
    """
    n = 0
    for i in range(start, stop):
        px, py = x[i], y[i]
        u = plane[0, 0] * px + plane[0, 1] * py + plane[0, 2]
        v = plane[1, 0] * px + plane[1, 1] * py + plane[1, 2]
        w = plane[2, 0] * px + plane[2, 1] * py + plane[2, 2]
        if not _inside(u, v, w, volume.shape):
            continue
        iu, iv, iw = int(u), int(v), int(w)
        fu, fv, fw = np.float32(u - iu), np.float32(v - iv), np.float32(w - iw)
        a000, a001 = volume[iw, iv, iu], volume[iw, iv, iu + 1]
        a010, a011 = volume[iw, iv + 1, iu], volume[iw, iv + 1, iu + 1]
        a100, a101 = volume[iw + 1, iv, iu], volume[iw + 1, iv, iu + 1]
        a110, a111 = volume[iw + 1, iv + 1, iu], volume[iw + 1, iv + 1, iu + 1]
        d00, d01, d10, d11 = a001 - a000, a011 - a010, a101 - a100, a111 - a110
        b00, b01, b10, b11 = a000 + fu * d00, a010 + fu * d01, a100 + fu * d10, a110 + fu * d11
        e0, e1 = b01 - b00, b11 - b10
        c0, c1 = b00 + fv * e0, b10 + fv * e1
        moving = c0 + fw * (c1 - c0)
        if not moving == moving:
            continue
        gw, gv = c1 - c0, e0 + fw * (e1 - e0)
        h0, h1 = d00 + fv * (d01 - d00), d10 + fv * (d11 - d10)
        gu = h0 + fw * (h1 - h0)
        gx = axes[0, 0] * gu + axes[0, 1] * gv + axes[0, 2] * gw
        gy = axes[1, 0] * gu + axes[1, 1] * gv + axes[1, 2] * gw
        gz = axes[2, 0] * gu + axes[2, 1] * gv + axes[2, 2] * gw
        channels[0, n], channels[1, n], channels[2, n] = 1.0, fixed[i], moving
        channels[3, n], channels[4, n], channels[5, n] = gx, gy, gz
        channels[6, n], channels[7, n], channels[8, n] = py * gz, -px * gz, px * gy - py * gx
        n += 1
    return n


@njit(fastmath=True)
def gram(channels, n, out):
    """Upper triangle of channels @ channels.T over the first n samples, in double precision."""
    for a in range(CHANNELS):
        for b in range(a, CHANNELS):
            total = 0.0
            for i in range(n):
                total += np.float64(channels[a, i]) * np.float64(channels[b, i])
            out[a, b] = total


@njit()
def samples(volume, plane, axes, x, y, fixed, out, place):
    """All channels of the samples in known voxels: out (9, N) float32, their positions (N,); returns their count."""
    channels, n = np.empty((CHANNELS, 1), np.float32), 0
    for i in range(len(x)):
        if sample_block(volume, plane, axes, x, y, fixed, i, i + 1, channels) == 1:
            for c in range(CHANNELS):
                out[c, n] = channels[c, 0]
            place[n] = i
            n += 1
    return n


@njit()
def common_ncc(volume, planes, axes, x, y, fixed):
    """NCC (B,) of one frame at several poses over the samples that are known at all of them, and their count."""
    poses, count = len(planes), len(x)
    moving = np.full((poses, count), np.nan, np.float32)
    channels = np.empty((CHANNELS, 1), np.float32)
    shared = np.ones(count, np.bool_)
    for b in range(poses):
        for i in range(count):
            if sample_block(volume, planes[b], axes[b], x, y, fixed, i, i + 1, channels) == 1:
                moving[b, i] = channels[2, 0]
            else:
                shared[i] = False
    scores = np.zeros(poses)
    for b in range(poses):
        scores[b] = _ncc(fixed, moving[b], shared)
    return scores, shared.sum()


@njit()
def _ncc(a, b, shared):
    n, sum_a, sum_b = 0, 0.0, 0.0
    for i in range(len(a)):
        if shared[i]:
            n, sum_a, sum_b = n + 1, sum_a + a[i], sum_b + b[i]
    aa, bb, ab = 0.0, 0.0, 0.0
    for i in range(len(a)):
        if shared[i]:
            da, db = a[i] - sum_a / n, b[i] - sum_b / n
            aa, bb, ab = aa + da * da, bb + db * db, ab + da * db
    return ab / np.sqrt(aa * bb) if aa > 0.0 and bb > 0.0 else 0.0
