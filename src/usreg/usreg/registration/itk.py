# SPDX-License-Identifier: Apache-2.0
"""The baseline: SimpleITK's registration of one frame, taken as an image of one slice, in the volume.

Of one frame: ITK registers two images, and a sweep is not one. Several frames are refused rather than averaged.
"""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk
import torch
from torch import Tensor

from ..data.types import Estimate, Frame, Problem, Volume
from ..errors import GeometryError, NoOverlapError, ShapeError
from ..geometry import se3
from .itk_method import ItkConfig, Pair, run_level
from .pyramid import VolumeLevel, frame_level, volume_level
from .refine import Refine

SHEAR_LIMIT = 1e-4  # of the row spacing: a calibration's rounding passes, 0.02 mm over the image


class Itk:
    """A stage around `SimpleITK.ImageRegistrationMethod`; one frame at a time."""

    def __init__(self, config: ItkConfig | None = None) -> None:
        self.config = config or ItkConfig()
        self._judge = Refine(self.config.judge)
        self._moving: tuple[Volume, list[Pair]] | None = None

    def prepare(self, volume: Volume) -> None:
        """Smooth and convert the volume and its mask (kept for this volume object)."""
        self._judge.prepare(volume)
        self._levels(volume)

    def _levels(self, volume: Volume) -> list[Pair]:
        if self._moving is None or self._moving[0] is not volume:
            channel = self.config.judge.channel
            levels = [volume_level(volume, s, channel) for s in self.config.smoothing_mm]
            self._moving = (volume, [moving_pair(level, volume) for level in levels])
        return self._moving[1]

    def __call__(self, problem: Problem, estimate: Estimate) -> Estimate:
        """Register one tracked frame.

        Raises:
            ShapeError: not exactly one frame. GeometryError: sheared pixels.
            NoOverlapError: too little of the sector inside the volume, or ITK finds no valid sample.
        """
        if isinstance(problem.fixed, Volume) or len(problem.fixed) != 1:
            raise ShapeError("the ITK baseline registers exactly one tracked frame")
        tracked, c = problem.fixed[0], self.config
        overlap = self._judge.judge(problem, estimate.world_T_ct).overlap
        if overlap < c.judge.min_overlap:
            raise NoOverlapError(
                f"{overlap:.0%} of the sector lies inside the volume at the start, at least {c.judge.min_overlap:.0%} "
                "must: check the start, the calibration and the volume"
            )
        ct_T_image = se3.inverse(estimate.world_T_ct) @ tracked.world_T_image
        transform = to_euler(ct_T_image, tracked.frame.plane.centre_mm)
        for moving, shrink, sigma in zip(self._levels(problem.moving), c.shrink, c.smoothing_mm, strict=True):
            run_level(fixed_pair(tracked.frame, shrink, sigma), moving, transform, c)
        return self._judge.judge(problem, tracked.world_T_image @ se3.inverse(from_euler(transform)))


def moving_pair(level: VolumeLevel, volume: Volume) -> Pair:
    """A smoothed volume as float32 (unknown voxels zero) and its mask."""
    known = torch.isfinite(level.data)
    ct_T_index = torch.linalg.inv(level.index_T_ct)
    spacing = ct_T_index[:3, :3].norm(dim=0).tolist()
    image = sitk.GetImageFromArray(torch.where(known, level.data, torch.zeros_like(level.data)).numpy())
    mask = sitk.GetImageFromArray(known.numpy().astype(np.uint8))
    for each in (image, mask):
        each.SetSpacing(spacing)
        each.SetOrigin(volume.grid.origin_mm)
        each.SetDirection(volume.grid.direction)
    return Pair(image, mask)


def fixed_pair(frame: Frame, shrink: int, sigma_mm: float) -> Pair:
    """A smoothed and thinned frame as a 3D image (w, h, 1) in its own image frame, and its sector.

    Raises:
        GeometryError: the pixels are sheared, which an ITK image cannot say.
    """
    (a, b), (_, d) = frame.plane.pixel_to_mm
    if abs(b) > SHEAR_LIMIT * d:
        raise GeometryError("the ITK baseline cannot use sheared pixels: use the system 'intensity', or resample")
    level = frame_level(frame, sigma_mm, shrink * a)
    value, known = np.zeros(level.shape, np.float32), np.zeros(level.shape, np.uint8)
    value.reshape(-1)[level.cell.numpy()] = level.value.numpy()
    known.reshape(-1)[level.cell.numpy()] = 1
    images = [sitk.GetImageFromArray(array[None]) for array in (value, known)]
    for image in images:
        image.SetSpacing((*level.spacing_mm, 1.0))
    return Pair(*images)


def to_euler(ct_T_image: Tensor, centre_mm: Tensor) -> sitk.Euler3DTransform:
    """ITK's transform from the image frame to ct, rotating about the image's centre."""
    r, t = ct_T_image[:3, :3], ct_T_image[:3, 3]
    transform = sitk.Euler3DTransform()
    transform.SetCenter(centre_mm.tolist())
    transform.SetMatrix(r.reshape(-1).tolist(), 1e-6)
    transform.SetTranslation((t + r @ centre_mm - centre_mm).tolist())
    return transform


def from_euler(transform: sitk.Euler3DTransform) -> Tensor:
    """ct_T_image (4, 4) of ITK's transform."""
    r = torch.tensor(transform.GetMatrix(), dtype=torch.float64).reshape(3, 3)
    c, t = (torch.tensor(v, dtype=torch.float64) for v in (transform.GetCenter(), transform.GetTranslation()))
    return se3.check_rigid(se3.from_parts(r, t + c - r @ c), "ITK's transform")
