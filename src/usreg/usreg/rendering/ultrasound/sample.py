# SPDX-License-Identifier: Apache-2.0
"""Tissue along scan lines: a sparse soft one-hot of the labels, times the tissue table.

Each voxel holds shares of up to three kinds of label (`soften`). A sample interpolates them by a quadratic B-spline of
the 27 voxels about it (its derivatives are continuous, and so is the gradient in the pose) and raises them to the power
SHARP before they are scaled to sum 1: that is the soft one-hot map at that sample, and no map is ever made for the
whole volume. Well inside a tissue there is one entry of weight 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .soften import KEPT, WHOLE
from .speckle import ScattererTile, scatterers
from .tissue import LabelMap

IMPEDANCE, ATTENUATION, ECHO, TEXTURE = range(4)  # columns of the tissue table
TINY = 1e-12
SHARP = 3  # power that makes interfaces thin again


@dataclass(frozen=True, eq=False)
class Samples:
    """What lies at N samples.

    Args:
        log_impedance: (N,) natural logarithm. attenuation: (N,) dB/cm/MHz.
        slope: (N, 3) derivatives of log_impedance along the image's axes, per mm.
        echo: (N, 2) IQ per unit of incident pressure, liver = 1; without speckle its expected power (N, 1).
        tissue: (N,) whether any tissue lies there.
    """

    log_impedance: Tensor
    attenuation: Tensor
    slope: Tensor
    echo: Tensor
    tissue: Tensor


@dataclass(frozen=True, eq=False)
class OneHot:
    """Entries (Q,) of the soft one-hot: sample, kind of label, weight above 0 and its derivative (Q, 3) by voxel index.

    The weights of a sample sum to 1.
    """

    sample: Tensor
    kind: Tensor
    weight: Tensor
    slope: Tensor


def sample_tissue(
    labels: LabelMap, table: Tensor, tile: ScattererTile | None, index: Tensor, index_A_image: Tensor, place: Tensor
) -> Samples:
    """Tissue at points of image planes.

    Args:
        labels: of the body. table: (T, 4) as `Tissues` gives it.
        tile: scatterers; None for expected power.
        index: (B, P, 3) voxel indices of the points. index_A_image: (B, 3, 3) voxels per mm along the image's axes.
        place: (B, P, 3) voxel positions of the points in the tile; not read without one.

    Returns:
        Samples of N = B * P points.
    """
    count = index.shape[0] * index.shape[1]
    hot = one_hot(labels, index.reshape(-1, 3))
    rows = table.index_select(0, labels.tissue.index_select(0, hot.kind))
    mean = rows.new_zeros(count, 2).index_add(0, hot.sample, hot.weight[:, None] * rows[:, :2])
    slope = rows.new_zeros(count, 3).index_add(0, hot.sample, hot.slope * rows[:, :1])
    slope = slope.reshape(index.shape) @ index_A_image
    echo = rows.new_zeros(count, 1 if tile is None else 2)
    echo = echo.index_add(0, hot.sample, _echoes(labels, hot, rows, tile, place.reshape(-1, 3)))
    tissue = torch.zeros(count, dtype=torch.bool, device=rows.device)
    tissue[hot.sample[hot.kind != labels.outside]] = True
    return Samples(mean[:, IMPEDANCE], mean[:, ATTENUATION], slope.reshape(-1, 3), echo, tissue)


def _echoes(labels: LabelMap, hot: OneHot, rows: Tensor, tile: ScattererTile | None, place: Tensor) -> Tensor:
    """Echo of each entry, (Q, 2) IQ or (Q, 1) power. Kinds are independent: their powers add."""
    if tile is None:
        return (hot.weight * rows[:, ECHO] ** 2)[:, None]
    shift = labels.shift.to(place) * tile.size
    field = scatterers(tile, place.index_select(0, hot.sample) + shift.index_select(0, hot.kind))
    texture = (0.5 * rows[:, TEXTURE].sqrt() * field[2] - 0.25 * rows[:, TEXTURE]).exp()
    root = (hot.weight + TINY).sqrt() - TINY**0.5  # zero where a kind comes in, with a finite slope
    amplitude = root * rows[:, ECHO] * texture
    return torch.stack([amplitude * field[0], amplitude * field[1]], -1)


def one_hot(labels: LabelMap, index: Tensor) -> OneHot:
    """Soft one-hot of the labels at voxel indices (N, 3); beyond the volume its border goes on."""
    depth, height, width = labels.mixed.shape
    size = torch.tensor([width, height, depth], device=index.device)
    centre = index.detach().round()
    offset, centre = index - centre, centre.to(torch.int64)
    near = torch.minimum(centre.clamp_min(0), size - 1)
    flat = (near[:, 2] * height + near[:, 1]) * width + near[:, 0]
    mixed = labels.mixed.reshape(-1)[flat] > 0
    pure, edge = (~mixed).nonzero()[:, 0], mixed.nonzero()[:, 0]
    kind = labels.shares.reshape(-1, 6)[flat[pure], 0].to(torch.int64)
    whole = OneHot(pure, kind, torch.ones_like(offset[pure, 0]), torch.zeros_like(offset[pure]))
    if not len(edge):
        return whole
    row, kind, share = _merge(*_neighbours(labels, centre[edge], size))
    weight, slope = _interpolated(share.to(offset), offset[edge][row])
    return _joined(whole, _sharpened(OneHot(edge[row], kind, weight, slope), len(index)))


def _neighbours(labels: LabelMap, centre: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """Kinds (M, 27, 3) and shares (M, 27, 3) of the voxels about those at (M, 3); order z, y, x."""
    step = torch.arange(-1, 2, device=centre.device)
    i, j, k = (torch.minimum((centre[:, a : a + 1] + step).clamp_min(0), size[a] - 1) for a in range(3))
    _, height, width = labels.mixed.shape
    flat = (k[:, :, None, None] * height + j[:, None, :, None]) * width + i[:, None, None, :]
    found = labels.shares.reshape(-1, 6)[flat.reshape(-1, 27)]
    return found[..., :KEPT], found[..., KEPT:] / WHOLE


def _interpolated(share: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
    """Quadratic B-spline of shares (Q, 27) at offsets (Q, 3) in [-1/2, 1/2], (Q,), and its derivatives (Q, 3)."""
    f = offset[..., None]
    w = torch.cat([0.5 * (0.5 - f) ** 2, 0.75 - f**2, 0.5 * (0.5 + f) ** 2], -1)
    d = torch.cat([f - 0.5, -2.0 * f, f + 0.5], -1)
    zyx = share.reshape(-1, 3, 3, 3)
    zy, zy_dx = ((zyx * k[:, 0, None, None, :]).sum(-1) for k in (w, d))
    z, z_dx, z_dy = ((a * k[:, 1, None, :]).sum(-1) for a, k in ((zy, w), (zy_dx, w), (zy, d)))
    value, dx, dy, dz = ((a * k[:, 2]).sum(-1) for a, k in ((z, w), (z_dx, w), (z_dy, w), (z, d)))
    return value, torch.stack([dx, dy, dz], -1)


def _sharpened(hot: OneHot, count: int) -> OneHot:
    """Weights w^p / sum w^p of the entries of each sample, and their derivatives."""
    power = hot.weight**SHARP
    slope = SHARP * hot.weight[:, None] ** (SHARP - 1) * hot.slope
    total = power.new_zeros(count).index_add(0, hot.sample, power)[hot.sample]
    change = power.new_zeros(count, 3).index_add(0, hot.sample, slope)[hot.sample]
    weight = power / total
    return OneHot(hot.sample, hot.kind, weight, (slope - weight[:, None] * change) / total[:, None])


def _joined(a: OneHot, b: OneHot) -> OneHot:
    return OneHot(
        torch.cat([a.sample, b.sample]),
        torch.cat([a.kind, b.kind]),
        torch.cat([a.weight, b.weight]),
        torch.cat([a.slope, b.slope]),
    )


def _merge(around: Tensor, share: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Shares of one kind after the other, until none is left: row of the sample (Q,), kind (Q,), its shares (Q, 27).

    Args:
        around, share: (M, 27, 3) kinds and shares about M samples.
    """
    rows, kinds, shares = [], [], []
    row = torch.arange(len(around), device=around.device)
    while len(row):
        first = share.reshape(len(row), -1).argmax(1)
        kind = around.reshape(len(row), -1).gather(1, first[:, None])[..., None]
        same = around == kind
        rows.append(row)
        kinds.append(kind[:, 0, 0].to(torch.int64))
        shares.append((share * same).sum(-1))
        share = share.masked_fill(same, 0.0)
        more = share.reshape(len(row), -1).any(1).nonzero()[:, 0]
        row, around, share = row[more], around[more], share[more]
    return torch.cat(rows), torch.cat(kinds), torch.cat(shares)
