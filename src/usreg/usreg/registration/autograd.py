# SPDX-License-Identifier: Apache-2.0
"""A similarity differentiated through the slicer: the slow reference of `image_objective`.

`rendering.slice_volume` samples the volume at the pose in the volume's precision, and autograd goes all the way.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..data.types import Volume
from ..geometry import se3
from ..geometry.grid import VoxelGrid
from ..geometry.plane import PlaneGrid
from ..rendering import slice_volume
from ..similarity import Similarity
from .image_objective import fixed_image
from .levenberg import move
from .normal import View
from .pyramid import FrameLevel, VolumeLevel


def score_and_gradient(
    level: VolumeLevel, view: View, ct_T_ref: Tensor, similarity: Similarity
) -> tuple[Tensor, Tensor]:
    """Scores (B,) of one frame at poses (B, 4, 4) and their gradients (B, 6) by the twist in reference axes."""
    volume, (plane, first) = level_volume(level), level_plane(view.level)
    twist = torch.zeros(len(ct_T_ref), 6, dtype=torch.float64, requires_grad=True)
    poses = move(ct_T_ref, twist) @ view.ref_T_centre @ se3.translation(first)
    moving, known = slice_volume(volume, poses, plane)
    sector = torch.zeros(view.level.shape[0] * view.level.shape[1], dtype=torch.bool)
    sector[view.level.cell] = True
    mask = known & sector.reshape(1, 1, *view.level.shape)
    fixed = fixed_image(view.level).double()[None].expand(len(poses), -1, -1, -1)
    score = similarity(fixed, moving, mask)
    (gradient,) = torch.autograd.grad(score.sum(), twist)
    return score.detach(), gradient


def level_volume(level: VolumeLevel) -> Volume:
    """A level of the pyramid as a volume."""
    data = level.data if level.data.dim() == 4 else level.data[..., None]
    d, h, w = data.shape[:3]
    ct_T_index = torch.linalg.inv(level.index_T_ct)
    spacing = ct_T_index[:3, :3].norm(dim=0)
    direction = (ct_T_index[:3, :3] / spacing).reshape(-1).tolist()
    grid = VoxelGrid((w, h, d), tuple(spacing.tolist()), tuple(ct_T_index[:3, 3].tolist()), tuple(direction))
    return Volume(data.movedim(3, 0), grid)


def level_plane(frame: FrameLevel) -> tuple[PlaneGrid, Tensor]:
    """The grid of a thinned frame, and where its first sample lies (3,), mm from the image's centre."""
    column, row = (frame.cell % frame.shape[1]).double(), (frame.cell // frame.shape[1]).double()
    ones = torch.ones_like(row)
    along = torch.linalg.lstsq(torch.stack([column, row, ones], 1), frame.x_mm.double()[:, None]).solution[:, 0]
    down = torch.linalg.lstsq(torch.stack([row, ones], 1), frame.y_mm.double()[:, None]).solution[:, 0]
    a, b, x = along.tolist()
    d, y = down.tolist()
    return PlaneGrid(*frame.shape, ((a, b), (0.0, d))), torch.tensor([x, y, 0.0], dtype=torch.float64)
