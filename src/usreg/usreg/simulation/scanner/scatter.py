# SPDX-License-Identifier: Apache-2.0
"""Gathers the scatterers near the image plane and puts their echoes, with the phase of the carrier, into bins."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ...compiled import njit
from .tile import CELL_MM, CELLS
from .warp import INDENTATION_MM, LAMBERT_END, NODE_MM

Array = NDArray[np.float64]
Image = NDArray[np.float32]
HALF_DIAGONAL = 0.5 * CELL_MM * math.sqrt(3.0)


@njit()
def displaced(nodes, corner, x, y, z, out):
    """Displacement at (x, y, z), trilinear between nodes; NaN away from them."""
    fx, fy, fz = (x - corner[0]) / NODE_MM, (y - corner[1]) / NODE_MM, (z - corner[2]) / NODE_MM
    i, j, k = math.floor(fx), math.floor(fy), math.floor(fz)
    if i < 0 or j < 0 or k < 0 or i + 1 >= nodes.shape[0] or j + 1 >= nodes.shape[1] or k + 1 >= nodes.shape[2]:
        out[:] = math.nan
        return
    fx, fy, fz = fx - i, fy - j, fz - k
    for c in range(3):
        v = 0.0
        for a in range(2):
            for b in range(2):
                w = (fx if a else 1 - fx) * (fy if b else 1 - fy)
                v += w * (nodes[i + a, j + b, k, c] * (1 - fz) + nodes[i + a, j + b, k + 1, c] * fz)
        out[c] = v


@njit()
def cell_affine(nodes, corner, centre, image_T_bed, affine):
    """Affine (3, 4) from mm about a cell's middle, body at rest, to the image now."""
    here, high, low, shift = np.empty(3), np.empty(3), np.empty(3), np.zeros(3)
    displaced(nodes, corner, centre[0], centre[1], centre[2], here)
    slope = np.eye(3)
    h = 0.5 * CELL_MM
    for axis in range(3):
        shift[:] = centre
        shift[axis] += h
        displaced(nodes, corner, shift[0], shift[1], shift[2], high)
        shift[axis] -= 2 * h
        displaced(nodes, corner, shift[0], shift[1], shift[2], low)
        for c in range(3):
            slope[c, axis] += (high[c] - low[c]) / (2 * h)
    for r in range(3):
        affine[r, 3] = image_T_bed[r, 3]
        for c in range(3):
            affine[r, 3] += image_T_bed[r, c] * (centre[c] + here[c])
            affine[r, c] = 0.0
            for k in range(3):
                affine[r, c] += image_T_bed[r, k] * slope[k, c]


@njit()
def lambert_of(table, a):
    """Lambert's W between the places of its table."""
    place = min(a / LAMBERT_END * (table.size - 1), table.size - 1.001)
    m = int(place)
    return table[m] + (place - m) * (table[m + 1] - table[m])


@njit()
def near_plane(nodes, corner, centre, image_T_bed, where, depth_mm, press_mm, reach_mm):
    """Depth of a cell that can hold a scatterer which the image shows; NaN for others.

    Args:
        where: fan, centre x, centre y, near radius, first coordinate, step, lines (ScanLines as floats).
    """
    u = np.empty(3)
    displaced(nodes, corner, centre[0], centre[1], centre[2], u)
    p = np.empty(3)
    for r in range(3):
        p[r] = image_T_bed[r, 3]
        for c in range(3):
            p[r] += image_T_bed[r, c] * (centre[c] + u[c])
    margin = 1.2 * HALF_DIAGONAL
    if not abs(p[2]) <= reach_mm + margin:  # also where the displacement is NaN
        return math.nan
    x, y = p[0] - where[1], p[1] - where[2]
    depth = math.hypot(x, y) - where[3] if where[0] > 0 else y
    if depth < -press_mm - margin or depth > depth_mm + margin:
        return math.nan
    if where[0] > 0 and depth + where[3] < 2 * margin:
        return depth
    across = (math.atan2(x, y) if where[0] > 0 else p[0]) - where[4]
    slack = margin / (depth + where[3]) if where[0] > 0 else margin
    slack += 12 * where[5]
    return depth if -slack <= across <= where[5] * (where[6] - 1) + slack else math.nan


@njit()
def gather(
    position, strength, sign, rank, origin, nodes, corner, low, high, image_T_bed, index_T_ct, labels, amplitude, share,
    spread, where, sample_mm, press, lambert, elevation, bend, keep, fade, reach_sigma, wave_number, field, pad,
):  # fmt: skip
    """Add the echoes of all scatterers of the cells from `low` to `high` to field (2, samples, lines + 2 pad).

    Args:
        wave_number: 4 pi / wavelength, round trip, 1/mm.
        keep, fade: see Beam. press: see Warp. lambert: see there.
        index_T_ct: (3, 4) to the voxels of `labels` (D, H, W) uint8.

    Returns:
        How many scatterers were added.
    """
    rows, width = field.shape[1], field.shape[2]
    last_mm = (rows - 1) * sample_mm
    reach_mm = reach_sigma * elevation.max()
    press_mm = press.max()
    per_line = (press.size - 1) / (where[6] - 1)
    centre, affine, voxel = np.empty(3), np.empty((3, 4)), np.empty(3)
    count, added = position.shape[3], 0
    for ci in range(low[0], high[0]):
        for cj in range(low[1], high[1]):
            for ck in range(low[2], high[2]):
                centre[0] = origin[0] + (ci + 0.5) * CELL_MM
                centre[1] = origin[1] + (cj + 0.5) * CELL_MM
                centre[2] = origin[2] + (ck + 0.5) * CELL_MM
                about = near_plane(nodes, corner, centre, image_T_bed, where, last_mm, press_mm, reach_mm)
                if math.isnan(about):
                    continue
                first_row = min(max(int((about - 1.2 * HALF_DIAGONAL) / sample_mm), 0), rows - 1)
                last_row = min(max(int((about + press_mm + 1.2 * HALF_DIAGONAL) / sample_mm), 0), rows - 1)
                most = keep[first_row : last_row + 1].max() * (1 + fade)
                cell_affine(nodes, corner, centre, image_T_bed, affine)
                ti, tj, tk = ci % CELLS, cj % CELLS, ck % CELLS
                for n in range(min(count, int(most * count) + 1)):
                    lx, ly, lz = position[ti, tj, tk, n]
                    e = affine[2, 0] * lx + affine[2, 1] * ly + affine[2, 2] * lz + affine[2, 3]
                    if not abs(e) < reach_mm:
                        continue
                    x = affine[0, 0] * lx + affine[0, 1] * ly + affine[0, 2] * lz + affine[0, 3] - where[1]
                    y = affine[1, 0] * lx + affine[1, 1] * ly + affine[1, 2] * lz + affine[1, 3] - where[2]
                    depth = math.sqrt(x * x + y * y) - where[3] if where[0] > 0 else y
                    if not -press_mm <= depth < last_mm:
                        continue
                    if abs(e) > 1.2 * reach_sigma * elevation[max(int(depth / sample_mm), 0)]:
                        continue
                    across = math.atan2(x, y) if where[0] > 0 else x + where[1]
                    column = (across - where[4]) / where[5] + pad
                    if not 0 <= column < width - 1:
                        continue
                    if press_mm > 0:
                        place = min(max((column - pad) * per_line, 0.0), press.size - 1.001)
                        m = int(place)
                        deep = press[m] + (place - m) * (press[m + 1] - press[m])
                        depth += INDENTATION_MM * lambert_of(
                            lambert, deep / INDENTATION_MM * math.exp(-depth / INDENTATION_MM)
                        )
                        if not 0 <= depth < last_mm:
                            continue
                    row = min(int(depth / sample_mm), rows - 1)
                    off = e / elevation[row]
                    if abs(off) > reach_sigma:
                        continue
                    seen = (keep[row] * (1 + fade) - (n + 0.5) / count) / (fade * keep[row])
                    if seen <= 0:
                        continue
                    for r in range(3):
                        voxel[r] = (
                            index_T_ct[r, 0] * (centre[0] + lx) + index_T_ct[r, 1] * (centre[1] + ly)
                            + index_T_ct[r, 2] * (centre[2] + lz) + index_T_ct[r, 3]
                        )  # fmt: skip
                    # each scatterer has a place of its own within +-half a voxel: edges are soft, not stairs
                    vi = math.floor(voxel[0] + _fraction(lx, 53.7))
                    vj = math.floor(voxel[1] + _fraction(ly, 53.7))
                    vk = math.floor(voxel[2] + _fraction(lz, 53.7))
                    if vi < 0 or vj < 0 or vk < 0:
                        continue
                    if vi >= labels.shape[2] or vj >= labels.shape[1] or vk >= labels.shape[0]:
                        continue
                    label = labels[vk, vj, vi]
                    if rank[ti, tj, tk, n] > share[label]:
                        continue
                    # another strength in every tissue: what one organ shows says nothing of its neighbour
                    other = (n + 7 * label) % count
                    a = amplitude[label] * (1 + spread[label] * strength[ti, tj, tk, other]) * sign[ti, tj, tk, n]
                    a *= min(seen, 1.0) * math.exp(-0.5 * off * off)
                    distance = depth + 0.5 * e * e * bend[row]
                    phase = wave_number * distance
                    fr = distance / sample_mm
                    r0 = int(math.floor(fr))
                    if r0 < 0 or r0 + 1 >= rows:
                        continue
                    fr -= r0
                    c0 = int(column)
                    fc = column - c0
                    re, im = a * math.cos(phase), -a * math.sin(phase)
                    w00, w01, w10, w11 = (1 - fr) * (1 - fc), (1 - fr) * fc, fr * (1 - fc), fr * fc
                    field[0, r0, c0] += w00 * re
                    field[0, r0, c0 + 1] += w01 * re
                    field[0, r0 + 1, c0] += w10 * re
                    field[0, r0 + 1, c0 + 1] += w11 * re
                    field[1, r0, c0] += w00 * im
                    field[1, r0, c0 + 1] += w01 * im
                    field[1, r0 + 1, c0] += w10 * im
                    field[1, r0 + 1, c0 + 1] += w11 * im
                    added += 1
    return added


@njit()
def _fraction(local_mm, scale):
    """A number in [0, 1) that a coordinate within its cell fixes."""
    v = local_mm * scale
    return v - math.floor(v)
