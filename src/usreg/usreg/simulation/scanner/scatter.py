# SPDX-License-Identifier: Apache-2.0
"""Gathers the scatterers near the image plane and puts their echoes, with the phase of the carrier, into bins."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...compiled import njit
from .tile import CELL_MM, CELLS
from .warp import INDENTATION_MM, LAMBERT_END, NODE_MM

Array = NDArray[np.float64]
Image = NDArray[np.float32]
HALF_DIAGONAL = 0.5 * CELL_MM * math.sqrt(3.0)
MARGIN_MM = 1.2 * HALF_DIAGONAL


class Points(NamedTuple):
    """The tile of scatterers: see Tile."""

    position: Image
    strength: Image
    sign: Image
    rank: Image
    origin: Array


class Space(NamedTuple):
    """Poses (3, 4) and the table of displacement: see Warp."""

    image_T_bed: Array
    index_T_ct: Array
    nodes: Array
    corner: Array


class Tissue(NamedTuple):
    """Labels (D, H, W) uint8 and the values of each."""

    labels: NDArray[np.uint8]
    amplitude: Image
    share: Image
    spread: Image


class View(NamedTuple):
    """Lines as numbers: see ScanLines; `pad` more beyond either edge; press_mm as in Warp; a table of Lambert's W."""

    fan: bool
    x: float
    y: float
    near: float
    first: float
    step: float
    lines: int
    pad: int
    sample_mm: float
    last_mm: float
    press_mm: Array
    most_press_mm: float
    lambert: Array


class Pulse(NamedTuple):
    """See Beam; reach: of the elevation's standard deviation; wave_number: 4 pi / wavelength, round trip, 1/mm."""

    elevation: Array
    bend: Array
    keep: Array
    fade: float
    reach: float
    reach_mm: float
    wave_number: float


@njit()
def displaced(space, x, y, z, out):
    """Displacement at (x, y, z), trilinear between nodes; NaN away from them."""
    nodes, corner = space.nodes, space.corner
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
def cell_affine(space, centre, affine):
    """Affine (3, 4) from mm about a cell's middle, body at rest, to the image now."""
    here, high, low, shift = np.empty(3), np.empty(3), np.empty(3), np.zeros(3)
    displaced(space, centre[0], centre[1], centre[2], here)
    slope = np.eye(3)
    h = 0.5 * CELL_MM
    for axis in range(3):
        shift[:] = centre
        shift[axis] += h
        displaced(space, shift[0], shift[1], shift[2], high)
        shift[axis] -= 2 * h
        displaced(space, shift[0], shift[1], shift[2], low)
        for c in range(3):
            slope[c, axis] += (high[c] - low[c]) / (2 * h)
    image_T_bed = space.image_T_bed
    for r in range(3):
        affine[r, 3] = image_T_bed[r, 3]
        for c in range(3):
            affine[r, 3] += image_T_bed[r, c] * (centre[c] + here[c])
            affine[r, c] = 0.0
            for k in range(3):
                affine[r, c] += image_T_bed[r, k] * slope[k, c]


@njit()
def near_plane(space, view, centre, reach_mm):
    """Depth of a cell that can hold a scatterer which the image shows; NaN for others."""
    u, p = np.empty(3), np.empty(3)
    displaced(space, centre[0], centre[1], centre[2], u)
    for r in range(3):
        p[r] = space.image_T_bed[r, 3]
        for c in range(3):
            p[r] += space.image_T_bed[r, c] * (centre[c] + u[c])
    if not abs(p[2]) <= reach_mm + MARGIN_MM:  # also where the displacement is NaN
        return math.nan
    x, y = p[0] - view.x, p[1] - view.y
    depth = math.hypot(x, y) - view.near if view.fan else y
    if depth < -view.most_press_mm - MARGIN_MM or depth > view.last_mm + MARGIN_MM:
        return math.nan
    if view.fan and depth + view.near < 2 * MARGIN_MM:
        return depth
    across = (math.atan2(x, y) if view.fan else p[0]) - view.first
    slack = MARGIN_MM / (depth + view.near) if view.fan else MARGIN_MM
    slack += (view.pad + 2) * view.step
    return depth if -slack <= across <= view.step * (view.lines - 1) + slack else math.nan


@njit()
def pressed(press_mm, lambert, depth, share):
    """Depth at which the indented probe shows tissue that lay at a depth; share: of the way across the face."""
    place = min(max(share * (press_mm.size - 1), 0.0), press_mm.size - 1.001)
    m = int(place)
    press = press_mm[m] + (place - m) * (press_mm[m + 1] - press_mm[m])
    a = press / INDENTATION_MM * math.exp(-depth / INDENTATION_MM)
    place = min(a / LAMBERT_END * (lambert.size - 1), lambert.size - 1.001)
    m = int(place)
    return depth + INDENTATION_MM * (lambert[m] + (place - m) * (lambert[m + 1] - lambert[m]))


@njit()
def fraction(local_mm):
    """A number in [0, 1) that a coordinate within its cell fixes."""
    v = local_mm * 53.7
    return v - math.floor(v)


@njit()
def label_of(index_T_ct, labels, centre, lx, ly, lz):
    """Label at a scatterer; -1 beyond the volume.

    Each scatterer looks from a place of its own within half a voxel: edges are soft, not stairs.
    """
    x, y, z, m = centre[0] + lx, centre[1] + ly, centre[2] + lz, index_T_ct
    i = math.floor(m[0, 0] * x + m[0, 1] * y + m[0, 2] * z + m[0, 3] + fraction(lx))
    j = math.floor(m[1, 0] * x + m[1, 1] * y + m[1, 2] * z + m[1, 3] + fraction(ly))
    k = math.floor(m[2, 0] * x + m[2, 1] * y + m[2, 2] * z + m[2, 3] + fraction(lz))
    if i < 0 or j < 0 or k < 0 or i >= labels.shape[2] or j >= labels.shape[1] or k >= labels.shape[0]:
        return -1
    return int(labels[k, j, i])


@njit()
def deposit(field, row, column, re, im):
    """Add an echo to its four bins, linear; nothing beyond the first or last sample."""
    r, c = int(math.floor(row)), int(column)
    if r < 0 or r + 1 >= field.shape[1]:
        return 0
    fr, fc = row - r, column - c
    for a in range(2):
        for b in range(2):
            w = (fr if a else 1 - fr) * (fc if b else 1 - fc)
            field[0, r + a, c + b] += w * re
            field[1, r + a, c + b] += w * im
    return 1


@njit()
def gather(points, tissue, space, view, pulse, low, high, field):
    """Add the echoes of all scatterers of the cells from `low` to `high` to field (2, samples, lines + 2 pad).

    Returns:
        How many scatterers were added.
    """
    centre, cell = np.empty(3), np.empty(3, np.int64)
    added = 0
    for ci in range(low[0], high[0]):
        for cj in range(low[1], high[1]):
            for ck in range(low[2], high[2]):
                cell[0], cell[1], cell[2] = ci, cj, ck
                for axis in range(3):
                    centre[axis] = points.origin[axis] + (cell[axis] + 0.5) * CELL_MM
                    cell[axis] %= CELLS
                depth = near_plane(space, view, centre, pulse.reach_mm)
                if not math.isnan(depth):
                    added += add_cell(points, tissue, space, view, pulse, cell, centre, depth, field)
    return added


@njit()
def add_cell(points, tissue, space, view, pulse, cell, centre, cell_depth, field):
    """Add the echoes of one cell; long, because taking tuples apart for every scatterer costs more than its echo."""
    affine = np.empty((3, 4))
    cell_affine(space, centre, affine)
    tile = (cell[0], cell[1], cell[2])
    position, strength, sign = points.position[tile], points.strength[tile], points.sign[tile]
    rank, labels, index_T_ct = points.rank[tile], tissue.labels, space.index_T_ct
    amplitude, share, spread = tissue.amplitude, tissue.share, tissue.spread
    elevation, bend, keep, fade, reach = pulse.elevation, pulse.bend, pulse.keep, pulse.fade, pulse.reach
    fan, sample_mm, last_mm, most_press_mm = view.fan, view.sample_mm, view.last_mm, view.most_press_mm
    count, width = position.shape[0], field.shape[2]
    first = min(max(int((cell_depth - MARGIN_MM) / sample_mm), 0), keep.size - 1)
    last = min(max(int((cell_depth + most_press_mm + MARGIN_MM) / sample_mm), 0), keep.size - 1)
    added = 0
    for n in range(min(count, int(keep[first : last + 1].max() * (1 + fade) * count) + 1)):
        lx, ly, lz = position[n, 0], position[n, 1], position[n, 2]
        e = affine[2, 0] * lx + affine[2, 1] * ly + affine[2, 2] * lz + affine[2, 3]
        if not abs(e) < pulse.reach_mm:
            continue
        x = affine[0, 0] * lx + affine[0, 1] * ly + affine[0, 2] * lz + affine[0, 3] - view.x
        y = affine[1, 0] * lx + affine[1, 1] * ly + affine[1, 2] * lz + affine[1, 3] - view.y
        depth = math.sqrt(x * x + y * y) - view.near if fan else y
        if not -most_press_mm <= depth < last_mm:
            continue
        # a first look before the costly angle: the indentation changes the width by less than a fifth
        if abs(e) > 1.2 * reach * elevation[max(int(depth / sample_mm), 0)]:
            continue
        column = ((math.atan2(x, y) if fan else x + view.x) - view.first) / view.step + view.pad
        if not 0 <= column < width - 1:
            continue
        if most_press_mm > 0:
            depth = pressed(view.press_mm, view.lambert, depth, (column - view.pad) / (view.lines - 1))
            if not 0 <= depth < last_mm:
                continue
        row = int(depth / sample_mm)
        off = e / elevation[row]
        seen = (keep[row] * (1 + fade) - (n + 0.5) / count) / (fade * keep[row])
        if abs(off) > reach or seen <= 0:
            continue
        label = label_of(index_T_ct, labels, centre, lx, ly, lz)
        if label < 0 or rank[n] > share[label]:
            continue
        # another strength in every tissue: what one organ shows says nothing of its neighbour
        a = amplitude[label] * (1 + spread[label] * strength[(n + 7 * label) % count]) * sign[n]
        a *= min(seen, 1.0) * math.exp(-0.5 * off * off)
        distance = depth + 0.5 * e * e * bend[row]
        phase = pulse.wave_number * distance
        added += deposit(field, distance / sample_mm, column, a * math.cos(phase), -a * math.sin(phase))
    return added
