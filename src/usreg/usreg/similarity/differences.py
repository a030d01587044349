# SPDX-License-Identifier: Apache-2.0
"""Spatial derivatives of images and volumes by differences that respect what is unknown."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import GeometryError, ShapeError


def shifted(x: Tensor, offset: Sequence[int]) -> Tensor:
    """x at pixel + offset, zero beyond the border; offset counts the last axes of x."""
    pads, cuts = [], []
    for step, size in zip(offset, x.shape[-len(offset) :], strict=True):
        pads.append((max(-step, 0), max(step, 0)))
        cuts.append((max(step, 0), size))
    x = functional.pad(x, [end for pad in reversed(pads) for end in pad])
    for axis, (start, size) in enumerate(cuts, start=x.dim() - len(cuts)):
        x = x.narrow(axis, start, size)
    return x


def unit(axes: int, axis: int, step: int = 1) -> tuple[int, ...]:
    """Offset of `step` along one of `axes` image axes."""
    return tuple(step if k == axis else 0 for k in range(axes))


def central_differences(x: Tensor, weight: Tensor) -> tuple[list[Tensor], Tensor]:
    """Derivatives per pixel along every image axis, and weights: zero unless both neighbours along all axes are known.

    Args: x (B, C, ...) with zeros where nothing is known; weight (B, 1, ...). Axes of size one have derivative 0.
    """
    axes, known = x.dim() - 2, weight > 0
    derivatives, inner = [], known
    for axis in range(axes):
        if x.shape[2 + axis] == 1:
            derivatives.append(torch.zeros_like(x))
            continue
        ahead, behind = unit(axes, axis, 1), unit(axes, axis, -1)
        derivatives.append(0.5 * (shifted(x, ahead) - shifted(x, behind)))
        inner = inner & shifted(known, ahead) & shifted(known, behind)
    return derivatives, torch.where(inner, weight, torch.zeros_like(weight))


def gradient_magnitude(volume: Tensor, spacing_mm: Sequence[float]) -> Tensor:
    """Length of the 3D gradient, per mm: the second channel of LC2.

    Central differences; one-sided where a neighbour is unknown or beyond the border.

    Args:
        volume: (..., D, H, W), NaN where unknown.
        spacing_mm: along x, y, z, as `VoxelGrid` has it.

    Returns:
        The same shape; NaN where the voxel is unknown or both neighbours along an axis are; an axis of one voxel
        counts as constant.

    Raises:
        ShapeError: fewer than three axes. GeometryError: a spacing that is not above zero.
    """
    if volume.dim() < 3 or not volume.is_floating_point():
        raise ShapeError(f"a volume is (..., D, H, W) of floats, got {tuple(volume.shape)} {volume.dtype}")
    if len(spacing_mm) != 3 or not all(s > 0 for s in spacing_mm):
        raise GeometryError(f"spacing must be three numbers above zero, mm, got {tuple(spacing_mm)}")
    square = torch.zeros_like(volume)
    for axis, spacing in zip((-1, -2, -3), spacing_mm, strict=True):
        if volume.shape[axis] > 1:
            square = square + (_difference(volume, axis) / spacing) ** 2
    known = torch.isfinite(square) & torch.isfinite(volume)
    zero = square == 0
    length = torch.where(zero | ~known, torch.ones_like(square), square).sqrt()
    length = torch.where(zero, torch.zeros_like(length), length)
    return torch.where(known, length, torch.full_like(length, torch.nan))


def _difference(volume: Tensor, axis: int) -> Tensor:
    steps = volume.diff(dim=axis)
    gap = torch.full_like(volume.narrow(axis, 0, 1), torch.nan)
    ahead, behind = torch.cat([steps, gap], axis), torch.cat([gap, steps], axis)
    one = torch.where(torch.isnan(ahead), behind, ahead)
    return torch.where(torch.isnan(behind) | torch.isnan(ahead), one, 0.5 * (ahead + behind))
