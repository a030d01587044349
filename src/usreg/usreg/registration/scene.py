# SPDX-License-Identifier: Apache-2.0
"""What one refinement works with: frames sampled at every level, the volume's levels, and the reference frame."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..data.types import ImageGeometry, TrackedFrame
from ..geometry import se3
from ..geometry.sector import SectorGeometry, full_rectangle
from .matching import Matcher, Prior
from .normal import Normal, View, views, world_T_ref
from .pyramid import VolumeLevel


@dataclass(frozen=True, eq=False)
class Scene:
    """Frames and volume, level by level.

    Args:
        matcher: the similarity. volumes: one for each level; views: for each level one for each frame.
        world_T_ref: reference frame (4, 4), see `normal.world_T_ref`.
        points_ref: (N, 3) points that stand for the images, mm. radius_mm: their rms distance from the origin.
        prior: what was known of the pose before; it counts in climbs and comparisons.
    """

    frames: tuple[TrackedFrame, ...]
    matcher: Matcher
    volumes: list[VolumeLevel]
    views: list[list[View]]
    world_T_ref: Tensor
    points_ref: Tensor
    radius_mm: float
    prior: Prior | None = None

    def measure(self, level: int, ct_T_ref: Tensor, full: bool = True) -> Normal:
        """Score and normal equations at poses (B, 4, 4); without `full` score and overlap alone."""
        return self.matcher.evaluate(self.volumes[level], self.views[level], ct_T_ref, full)

    def worth(self, score: Tensor, ct_T_ref: Tensor) -> Tensor:
        """Scores (B,) less what the prior takes off them."""
        return score if self.prior is None else score - self.prior.cost(ct_T_ref)

    def compare(self, level: int, ct_T_ref: Tensor) -> Tensor:
        """Scores (B,) by which poses (B, 4, 4) are ranked."""
        return self.worth(self.matcher.compare(self.volumes[level], self.views[level], ct_T_ref), ct_T_ref)

    def apart_mm(self, pose: Tensor, others: Tensor) -> Tensor:
        """Largest distance (K,), mm, of the images' points between a pose (4, 4) and others (K, 4, 4)."""
        here = se3.transform_points(pose, self.points_ref)
        return (se3.transform_points(others, self.points_ref) - here).norm(dim=-1).amax(-1)


def build_scene(
    frames: tuple[TrackedFrame, ...], matcher: Matcher, volumes: list[VolumeLevel], steps_mm: list[float]
) -> Scene:
    """Smooth and sample the frames like the volume's levels, about every `steps_mm`."""
    reference = world_T_ref(frames)
    sampled = [views(frames, level.sigma_mm, step) for level, step in zip(volumes, steps_mm, strict=True)]
    ref_T_world = se3.inverse(reference)
    points = torch.cat(
        [se3.transform_points(ref_T_world @ f.world_T_image, image_points(f.frame.geometry)) for f in frames]
    )
    return Scene(frames, matcher, volumes, sampled, reference, points, float((points**2).sum(1).mean().sqrt()))


def image_points(geometry: ImageGeometry) -> Tensor:
    """Points (25, 3), mm, that stand for an image: the 5x5 grid inside the sector, or of the rectangle without one."""
    sector = geometry if isinstance(geometry, SectorGeometry) else full_rectangle(geometry.plane)
    return sector.sample_points_mm()
