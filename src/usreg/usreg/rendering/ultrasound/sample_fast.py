# SPDX-License-Identifier: Apache-2.0
"""Tissue along scan lines, compiled, no derivatives. Its slow reference is `sample.sample_tissue`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...compiled import njit
from .sample import SHARP, Samples
from .speckle import ScattererTile
from .threads import in_threads
from .tissue import LabelMap


def sample_fast(
    labels: LabelMap,
    table: Tensor,
    tile: ScattererTile | None,
    index_T_image: Tensor,
    tile_T_image: Tensor,
    points: Tensor,
) -> Samples:
    """`Samples` (B * P) at points (P, 3) of the image frame, mm, on the CPU in single precision.

    Args:
        labels, table, tile: as for `sample_tissue`.
        index_T_image, tile_T_image: (B, 4, 4) from mm of the image to voxels of the body, and of the tile.
    """
    batch, count = len(index_T_image), len(points)
    rows = table.detach().float()[labels.tissue].numpy()
    shift = (labels.shift * (0 if tile is None else tile.size)).float().numpy()
    out = np.zeros((batch * count, 8), np.float32)
    field = np.zeros((1, 4), np.int8) if tile is None else tile.values.numpy()
    period, correlation, scale = (0, 1.0, 0.0) if tile is None else (tile.size, tile.correlation, tile.scale)
    place, at = index_T_image.detach().numpy(), tile_T_image.detach().numpy()
    where = points.float().numpy()
    shares, mixed = labels.shares.numpy(), labels.mixed.numpy()

    def work(first: int, last: int) -> None:
        _sample(
            shares,
            mixed,
            rows,
            shift,
            field,
            period,
            np.float32(correlation),
            np.float32(scale),
            place,
            at,
            where,
            out,
            first,
            last,
        )

    in_threads(work, batch * count, 4096)
    result = torch.from_numpy(out).to(table)
    echo = result[:, 5:6] if tile is None else result[:, 5:7]
    return Samples(result[:, 0], result[:, 1], result[:, 2:5], echo, torch.from_numpy(out[:, 7] > 0))


@njit(fastmath=False)
def _sample(
    shares: Any, mixed: Any, rows: Any, shift: Any, field: Any, period: Any, correlation: Any, scale: Any,
    index_T: Any, tile_T: Any, points: Any, out: Any, first: Any, last: Any,
) -> None:  # fmt: skip
    depth, height, width = mixed.shape
    count = points.shape[0]
    weight = np.zeros((3, 3), np.float32)
    steep = np.zeros((3, 3), np.float32)
    found = np.zeros(81, np.int64)
    share = np.zeros(81, np.float32)
    change = np.zeros((81, 3), np.float32)
    for n in range(first, last):
        b, p = n // count, n % count
        m = index_T[b]
        x, y, z = points[p, 0], points[p, 1], points[p, 2]
        u = m[0, 0] * x + m[0, 1] * y + m[0, 2] * z + m[0, 3]
        v = m[1, 0] * x + m[1, 1] * y + m[1, 2] * z + m[1, 3]
        w = m[2, 0] * x + m[2, 1] * y + m[2, 2] * z + m[2, 3]
        i, j, k = int(np.rint(u)), int(np.rint(v)), int(np.rint(w))
        ic, jc, kc = min(max(i, 0), width - 1), min(max(j, 0), height - 1), min(max(k, 0), depth - 1)
        many = 1
        found[0], share[0] = shares[kc, jc, ic, 0], 1.0
        if mixed[kc, jc, ic]:
            for axis, f in enumerate((np.float32(u - i), np.float32(v - j), np.float32(w - k))):
                weight[axis, 0], weight[axis, 1] = 0.5 * (0.5 - f) ** 2, 0.75 - f * f
                weight[axis, 2] = 0.5 * (0.5 + f) ** 2
                steep[axis, 0], steep[axis, 1], steep[axis, 2] = f - 0.5, -2.0 * f, f + 0.5
            many = _one_hot(shares, i, j, k, weight, steep, found, share, change)
            gx = gy = gz = np.float32(0.0)
            for slot in range(many):
                value = rows[found[slot], 0]
                gx, gy, gz = gx + change[slot, 0] * value, gy + change[slot, 1] * value, gz + change[slot, 2] * value
            out[n, 2] = gx * m[0, 0] + gy * m[1, 0] + gz * m[2, 0]
            out[n, 3] = gx * m[0, 1] + gy * m[1, 1] + gz * m[2, 1]
            out[n, 4] = gx * m[0, 2] + gy * m[1, 2] + gz * m[2, 2]
        t = tile_T[b]
        for slot in range(many):
            kind, part = found[slot], share[slot]
            out[n, 0] += part * rows[kind, 0]
            out[n, 1] += part * rows[kind, 1]
            if kind != 0:
                out[n, 7] = 1.0
            echo = rows[kind, 2]
            if period == 0:
                out[n, 5] += part * echo * echo
                continue
            px = t[0, 0] * x + t[0, 1] * y + t[0, 2] * z + t[0, 3] + shift[kind, 0]
            py = t[1, 0] * x + t[1, 1] * y + t[1, 2] * z + t[1, 3] + shift[kind, 1]
            pz = t[2, 0] * x + t[2, 1] * y + t[2, 2] * z + t[2, 3] + shift[kind, 2]
            real, imaginary, texture = _scatterers(field, period, correlation, scale, px, py, pz)
            v2 = rows[kind, 3]
            size = np.sqrt(part) * echo
            size *= np.exp(np.float32(0.5) * np.sqrt(v2) * texture - np.float32(0.25) * v2)
            out[n, 5] += size * real
            out[n, 6] += size * imaginary


@njit(inline="always")
def _one_hot(shares, i, j, k, weight, steep, found, share, change):
    """Kinds, sharpened weights and their derivatives about a voxel of mixed kinds; how many."""
    depth, height, width = shares.shape[:3]
    many = 0
    for c in range(3):
        kk = min(max(k + c - 1, 0), depth - 1)
        for d in range(3):
            jj = min(max(j + d - 1, 0), height - 1)
            yz = weight[1, d] * weight[2, c]
            dy, dz = steep[1, d] * weight[2, c], weight[1, d] * steep[2, c]
            for e in range(3):
                row = shares[kk, jj, min(max(i + e - 1, 0), width - 1)]
                for rank in range(3):
                    if row[3 + rank] == 0:
                        continue
                    part, kind, slot = row[3 + rank] * np.float32(1.0 / 255.0), row[rank], 0
                    while slot < many and found[slot] != kind:
                        slot += 1
                    if slot == many:
                        found[slot], share[slot], change[slot] = kind, 0.0, 0.0
                        many += 1
                    share[slot] += part * weight[0, e] * yz
                    change[slot, 0] += part * steep[0, e] * yz
                    change[slot, 1] += part * weight[0, e] * dy
                    change[slot, 2] += part * weight[0, e] * dz
    total = tx = ty = tz = np.float32(0.0)
    for slot in range(many):
        w, rise = share[slot], SHARP * share[slot] ** (SHARP - 1)
        share[slot] = w**SHARP
        for axis in range(3):
            change[slot, axis] *= rise
        total, tx = total + share[slot], tx + change[slot, 0]
        ty, tz = ty + change[slot, 1], tz + change[slot, 2]
    for slot in range(many):
        share[slot] /= total
        change[slot, 0] = (change[slot, 0] - share[slot] * tx) / total
        change[slot, 1] = (change[slot, 1] - share[slot] * ty) / total
        change[slot, 2] = (change[slot, 2] - share[slot] * tz) / total
    return many


@njit(inline="always")
def _wrapped(x, period):
    """x in [0, period), without the slow remainder of whole numbers."""
    x -= period * np.floor(x * (1.0 / period))
    return x if 0.0 <= x < period else 0.0


@njit(inline="always")
def _scatterers(field, period, correlation, scale, x, y, z):
    x, y, z = _wrapped(x, period), _wrapped(y, period), _wrapped(z, period)
    i, j, k = int(x), int(y), int(z)
    a, b, c = np.float32(x - i), np.float32(y - j), np.float32(z - k)
    i1 = i + 1 if i + 1 < period else 0
    j1 = j + 1 if j + 1 < period else 0
    k1 = k + 1 if k + 1 < period else 0
    real = imaginary = texture = np.float32(0.0)
    for layer, wz in ((k, np.float32(1.0) - c), (k1, c)):
        for row, wy in ((j, np.float32(1.0) - b), (j1, b)):
            start = (layer * period + row) * period
            for column, wx in ((i, np.float32(1.0) - a), (i1, a)):
                weight = wx * wy * wz
                real += weight * field[start + column, 0]
                imaginary += weight * field[start + column, 1]
                texture += weight * field[start + column, 2]
    two, one = np.float32(2.0) * (np.float32(1.0) - correlation), np.float32(1.0)
    lost = (one - two * a * (one - a)) * (one - two * b * (one - b)) * (one - two * c * (one - c))
    gain = scale / np.sqrt(lost)
    return real * gain, imaginary * gain, texture * scale
