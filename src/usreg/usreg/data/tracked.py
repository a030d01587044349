# SPDX-License-Identifier: Apache-2.0
"""Frames of a sequence with the pose of their image plane: world_T_image = world_T_probe @ probe_T_image."""

from __future__ import annotations

import bisect
import logging
from dataclasses import dataclass

import torch
from torch import Tensor

from ..config import check_range
from ..errors import CalibrationError, GeometryError
from ..geometry import se3
from .calibration import sector_for
from .sequences import Sequence
from .types import Calibration, Frame, TrackedFrame, Trajectory

logger = logging.getLogger("usreg.data")


@dataclass(frozen=True)
class TrackedConfig:
    """How poses are taken at the frames' stamps.

    Args:
        max_gap_s: poses are not interpolated over longer gaps.
    """

    max_gap_s: float = 0.25

    def __post_init__(self) -> None:
        check_range("max_gap_s", self.max_gap_s, 1e-6, 60.0)


def tracked_frames(
    sequence: Sequence, calibration: Calibration, frames: slice | None = None, config: TrackedConfig | None = None
) -> list[TrackedFrame | None]:
    """Frames with their measured poses.

    With `latency_s` zero a frame has the pose that was recorded with it; else the frame's stamp is corrected and the
    pose interpolated there (screw-linear), never extrapolated.

    Args:
        sequence: images and transforms.
        calibration: names of the frames, probe_T_image, sector.
        frames: which, as a slice; all by default.

    Returns:
        One entry for each chosen frame; None where the pose is INVALID or missing, the pixels are missing, or the stamp
        is not usable.

    Raises:
        MissingTransformError: no chain from probe to world. CalibrationError: no images, or images of another size than
            the calibration's.
        GeometryError: no pose of the whole chain is rigid.
    """
    images, size = sequence.images, sequence.size
    if images is None or size is None:
        raise CalibrationError("the sequence holds poses without images: it has no frames to track")
    geometry = sector_for(calibration, *size)
    poses, valid = _rigid(world_trajectory(sequence, calibration))
    stamps = sequence.stamps_s - calibration.latency_s
    if calibration.latency_s != 0:
        usable = valid & sequence.stamp_valid
        poses, valid = interpolate_poses(
            sequence.stamps_s, poses, usable, stamps, (config or TrackedConfig()).max_gap_s
        )
    good = (valid & sequence.stamp_valid & sequence.image_valid).tolist()
    chosen = range(sequence.count)[frames or slice(None)]
    world_T_image = poses @ calibration.probe_T_image
    result = [
        TrackedFrame(Frame(images[i], geometry, float(stamps[i]), i), world_T_image[i]) if good[i] else None
        for i in chosen
    ]
    left_out = sum(r is None for r in result)
    if left_out:
        logger.warning("%d of %d frames have no usable pose, pixels or stamp and are left out", left_out, len(result))
    return result


def world_trajectory(sequence: Sequence, calibration: Calibration) -> Trajectory:
    """world_T_probe of every frame, through the transforms of the sequence and the statics of the calibration."""
    return sequence.find(calibration.probe_name, calibration.world_name, extra=calibration.statics)


def _rigid(trajectory: Trajectory) -> tuple[Tensor, Tensor]:
    """Poses made exactly orthonormal, and which of them can be used."""
    poses = torch.eye(4, dtype=torch.float64).repeat(len(trajectory.valid), 1, 1)
    valid, wrong = trajectory.valid.clone(), None
    for i in trajectory.valid.nonzero().flatten().tolist():
        try:
            poses[i] = se3.check_rigid(trajectory.poses[i], f"{trajectory.source}To{trajectory.target} of frame {i}")
        except GeometryError as error:
            valid[i], wrong = False, wrong or error
    if wrong is not None:
        if not bool(valid.any()):
            raise wrong
        logger.warning("%d poses are left out: %s", int((trajectory.valid & ~valid).sum()), wrong)
    return poses, valid


def interpolate_poses(
    stamps_s: Tensor, poses: Tensor, usable: Tensor, at_s: Tensor, max_gap_s: float
) -> tuple[Tensor, Tensor]:
    """Poses (M, 4, 4) and their validity (M,) at other stamps, screw-linear between the usable neighbours.

    Args:
        stamps_s: (N,), increasing over the usable rows. poses: (N, 4, 4) rigid. usable: (N,) bool.
        at_s: (M,). max_gap_s: neighbours farther apart are not bridged.
    """
    rows = usable.nonzero().flatten().tolist()
    known = [float(stamps_s[i]) for i in rows]
    before, after, share, valid = [], [], [], []
    for stamp in at_s.tolist():
        k = bisect.bisect_right(known, stamp)
        exact = k > 0 and known[k - 1] == stamp
        inside = 0 < k < len(known) and known[k] - known[k - 1] <= max_gap_s
        a, b = (rows[k - 1], rows[k]) if inside else (rows[k - 1], rows[k - 1]) if exact else (0, 0)
        before.append(a)
        after.append(b)
        share.append((stamp - known[k - 1]) / (known[k] - known[k - 1]) if inside else 0.0)
        valid.append(inside or exact)
    u = torch.tensor(share, dtype=torch.float64)
    return se3.interpolate(poses[before], poses[after], u), torch.tensor(valid, dtype=torch.bool)
