# SPDX-License-Identifier: Apache-2.0
"""The sampling of the kernel in torch: slower, on any device, and the reference of the parity tests."""

from __future__ import annotations

import torch
from torch import Tensor


def sample_plane(volume: Tensor, planes: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Trilinear values (B, N) and their derivatives (B, N, 3) by voxel index; NaN outside and beside unknown voxels.

    Args:
        volume: (D, H, W), NaN where unknown.
        planes: (B, 3, 3), columns = voxel index per mm along x, along y, and index of the image centre.
        x, y: (N,) mm about the image centre.
    """
    depth, height, width = volume.shape
    index = torch.stack([x, y, torch.ones_like(x)], -1).to(planes.dtype) @ planes.transpose(-1, -2)
    limit = index.new_tensor([width - 1, height - 1, depth - 1])
    inside = ((index >= 0) & (index < limit)).all(-1)
    if min(volume.shape) < 2:  # no cell has eight corners
        return index.new_full(index.shape[:-1], torch.nan).to(volume.dtype), torch.zeros_like(index).to(volume.dtype)
    base = torch.where(inside[..., None], index, torch.zeros_like(index)).floor()
    f = (index - base).to(volume.dtype)
    i, j, k = base.long().unbind(-1)
    flat, at = volume.reshape(-1), (k * height + j) * width + i
    strides = (1, width, width * height)

    def corner(dz: int, dy: int, dx: int) -> Tensor:
        offset = dx * strides[0] + dy * strides[1] + dz * strides[2]
        return flat[at + offset]

    fu, fv, fw = f.unbind(-1)
    low = [[corner(dz, dy, 0) for dy in (0, 1)] for dz in (0, 1)]
    d = [[corner(dz, dy, 1) - low[dz][dy] for dy in (0, 1)] for dz in (0, 1)]
    b = [[low[dz][dy] + fu * d[dz][dy] for dy in (0, 1)] for dz in (0, 1)]
    e = [b[z][1] - b[z][0] for z in (0, 1)]
    c = [b[z][0] + fv * e[z] for z in (0, 1)]
    h = [d[z][0] + fv * (d[z][1] - d[z][0]) for z in (0, 1)]
    value = c[0] + fw * (c[1] - c[0])
    gradient = torch.stack([h[0] + fw * (h[1] - h[0]), e[0] + fw * (e[1] - e[0]), c[1] - c[0]], -1)
    return torch.where(inside, value, torch.full_like(value, torch.nan)), gradient
