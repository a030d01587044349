# SPDX-License-Identifier: Apache-2.0
"""What was known of the body before the session: a 3D ultrasound from a tracked sweep, a CT, labels, landmarks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ..data.types import Frame, TrackedFrame, Volume
from ..errors import NoOverlapError
from ..geometry import se3
from ..geometry.grid import VoxelGrid
from ..reconstruction import ReconstructionConfig, reconstruct
from ..tracking import JointBuffer, JointBufferConfig
from .body.types import Body
from .recording import Recording, Shot


def tracked_frames(recording: Recording, exposed: Iterable[tuple[Shot, Tensor]]) -> list[TrackedFrame]:
    """Frames of a recording in the frame of the volume, at the poses that the arm measured."""
    buffer, frames = _joints(recording), []
    for shot, image in exposed:
        stamp_s = shot.stamp_ns * 1e-9
        world_T_probe, _ = buffer.at(stamp_s)
        ct_T_image = se3.inverse(recording.world_T_ct(shot.t_s)) @ world_T_probe @ shot.mount.calibrated
        pose = se3.check_rigid(ct_T_image, "ct_T_image")
        frames.append(TrackedFrame(Frame(image, shot.mount.geometry, stamp_s), pose))
    return frames


def world_frames(recording: Recording, exposed: Iterable[tuple[Shot, Tensor]]) -> list[TrackedFrame]:
    """Frames of a recording in the world, at the poses that the arm measured, with its covariance there."""
    buffer, frames = _joints(recording), []
    for index, (shot, image) in enumerate(exposed):
        stamp_s = shot.stamp_ns * 1e-9
        world_T_probe, covariance = buffer.at(stamp_s)
        pose = se3.check_rigid(world_T_probe @ shot.mount.calibrated, "world_T_image")
        moved = se3.move_pivot(covariance, pose[:3, 3] - world_T_probe[:3, 3])
        frames.append(TrackedFrame(Frame(image, shot.mount.geometry, stamp_s, index), pose, moved))
    return frames


def _joints(recording: Recording) -> JointBuffer:
    buffer = JointBuffer(recording.arm, JointBufferConfig(max_gap_s=0.2, max_samples=len(recording.joint_ns) + 2))
    for ns, q in zip(recording.joint_ns.tolist(), recording.joints.tolist(), strict=True):
        buffer.add(ns * 1e-9, recording.arm.joint_names, q)
    return buffer


def ultrasound_volume(frames: list[TrackedFrame], spacing_mm: float) -> Volume:
    """The 3D ultrasound that a sweep gives, compounded, in the frame of its poses."""
    return reconstruct(frames, ReconstructionConfig(spacing_mm=spacing_mm))


def labels_on(grid: VoxelGrid, body: Body) -> Tensor:
    """Labels (D, H, W) int16 of the body at the voxels of another grid, nearest; 0 outside."""
    w, h, d = grid.size
    index_T_index = (body.labels.grid.index_T_ct @ grid.ct_T_index).numpy()
    source = body.labels.data[0].numpy()
    last = np.array(source.shape)[:, None] - 1
    out = np.zeros((d, h, w), np.int16)
    j, i = np.meshgrid(np.arange(h), np.arange(w), indexing="ij")
    for k in range(d):  # a slice at a time: the coordinates of a whole volume would take gigabytes
        index = np.stack([i.ravel(), j.ravel(), np.full(i.size, k), np.ones(i.size)])
        nearest = np.floor((index_T_index @ index)[:3][::-1] + 0.5).astype(np.int64)
        inside = ((nearest >= 0) & (nearest <= last)).all(0)
        z, y, x = np.clip(nearest, 0, last)
        out[k] = np.where(inside, source[z, y, x], 0).reshape(h, w)
    return torch.from_numpy(out)


def seen(landmarks: dict[str, Tensor], volume: Volume) -> dict[str, Tensor]:
    """Landmarks that lie in known voxels of a volume.

    Raises:
        NoOverlapError: none does.
    """
    known = torch.ones(volume.data.shape[1:], dtype=torch.bool) if volume.mask is None else volume.mask
    kept = {}
    for name, point in landmarks.items():
        index = torch.round(se3.transform_points(volume.grid.index_T_ct, point[None])[0]).long().tolist()
        inside = all(0 <= i < n for i, n in zip(index, volume.grid.size, strict=True))
        if inside and bool(known[index[2], index[1], index[0]]):
            kept[name] = point
    if not kept:
        raise NoOverlapError("no landmark of the body lies in what the sweep has seen: scan another place")
    return kept


def cropped(volume: Volume, around: VoxelGrid, margin_mm: float) -> Volume:
    """The part of a volume that holds another grid and a margin.

    Raises:
        NoOverlapError: the grid lies beside the volume.
    """
    return cropped_to(volume, around.corners_ct, margin_mm)


def cropped_to(volume: Volume, points: Tensor, margin_mm: float) -> Volume:
    """The part of a volume that holds points (N, 3), mm, and a margin.

    Raises:
        NoOverlapError: what holds the points lies beside the volume.
    """
    index = se3.transform_points(volume.grid.index_T_ct, points)
    margin = torch.tensor([margin_mm / s for s in volume.grid.spacing_mm], dtype=torch.float64)
    low = torch.floor(index.min(0).values - margin).clamp(min=0).long().tolist()
    top = torch.ceil(index.max(0).values + margin).long().tolist()
    high = [min(n - 1, v) for n, v in zip(volume.grid.size, top, strict=True)]
    if any(a > b for a, b in zip(low, high, strict=True)):
        raise NoOverlapError("what the sweep has seen lies beside the volume: scan another place")
    box = tuple(slice(a, b + 1) for a, b in zip(low, high, strict=True))
    origin = volume.grid.ct_T_index @ torch.tensor([*map(float, low), 1.0], dtype=torch.float64)
    size = tuple(b - a + 1 for a, b in zip(low, high, strict=True))
    grid = replace(volume.grid, size=size, origin_mm=tuple(origin[:3].tolist()))
    return replace(volume, data=volume.data[:, box[2], box[1], box[0]].clone(), grid=grid, mask=None, labels=None)
