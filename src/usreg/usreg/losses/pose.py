# SPDX-License-Identifier: Apache-2.0
"""Errors of predicted corrections, and of the slices that they lead to (DeepRS2V, equations 7 and 8)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..config import check_range
from ..data.types import Volume
from ..errors import ConfigError, ShapeError
from ..geometry import rotation
from ..geometry.plane import PlaneGrid
from ..rendering import slice_volume
from ..similarity import lncc
from .objective import to_sum_one

SMOOTH_RAD = 1e-4  # angles below are rounded off: an angle has no derivative at zero


@dataclass(frozen=True)
class PoseLossConfig:
    """Weights in the proportion of the paper, 20:1:10.

    Args:
        image, translation, rotation: weights of 1 - LNCC, squared error in mm^2, angle in rad; none negative.
        window: of LNCC, pixels of the image that is compared, odd. The paper has 51 pixels of 0.5 mm.
    """

    image: float = 20.0
    translation: float = 1.0
    rotation: float = 10.0
    window: int = 51

    def __post_init__(self) -> None:
        for name in ("image", "translation", "rotation"):
            check_range(name, getattr(self, name), 0.0, 1e6)
        check_range("window", self.window, 3, 10_001)
        if self.window % 2 == 0:
            raise ConfigError(f"'window' is {self.window}; it must be odd, to have a centre")

    @property
    def weights(self) -> dict[str, float]:
        """Weights by the names of `objective.Step`, with sum 1."""
        return to_sum_one({"image": self.image, "translation": self.translation, "rotation": self.rotation})


def squared_distance(found: Tensor, true: Tensor) -> Tensor:
    """Squared length (B,), mm^2, of the difference of translations (B, 3)."""
    if found.shape != true.shape or found.shape[-1:] != (3,):
        raise ShapeError(f"translations must be (B, 3) and alike, got {tuple(found.shape)} and {tuple(true.shape)}")
    return (found - true).square().sum(-1)


def geodesic(found: Tensor, true: Tensor) -> Tensor:
    """Angle (B,), rad in [0, pi], between rotations (B, 3, 3), with a finite gradient everywhere.

    The arc cosine of equation 8 has none at 0 and at pi; the arc tangent of sine and cosine, the sine rounded off below
    `SMOOTH_RAD`, differs from it by less than twice that.
    """
    if found.shape != true.shape or found.shape[-2:] != (3, 3):
        raise ShapeError(f"rotations must be (B, 3, 3) and alike, got {tuple(found.shape)} and {tuple(true.shape)}")
    between = found @ true.transpose(-1, -2)
    cosine = (between.diagonal(dim1=-2, dim2=-1).sum(-1) - 1.0) / 2.0
    sine = (rotation.vee(between).square().sum(-1) + SMOOTH_RAD**2).sqrt()
    return (torch.atan2(sine, cosine) - SMOOTH_RAD).clamp_min(0.0)


def image_loss(
    volume: Volume, ct_T_image: Tensor, plane: PlaneGrid, images: Tensor, masks: Tensor, window: int
) -> Tensor:
    """1 - LNCC of images with the volume's slices at poses, where both are known.

    Args:
        volume: (1, D, H, W), on the device of the poses.
        ct_T_image: (B, 4, 4), mm; the gradient flows to them.
        plane: pixels of the images. images, masks: (B, 1, h, w).
        window: pixels, odd.

    Returns:
        (B,) in [0, 2]. An image that does not meet the volume has 1, without a gradient.
    """
    slices, inside = slice_volume(volume, ct_T_image, plane)
    both = inside & (masks > 0)
    meets = both.flatten(1).any(1)
    loss = torch.ones(len(images), dtype=slices.dtype, device=slices.device)
    if not bool(meets.any()):
        return loss
    alike = lncc(images[meets].to(slices), slices[meets], both[meets], window)
    return loss.index_put((meets.nonzero()[:, 0],), 1.0 - alike.to(loss))


def pose_losses(found: tuple[Tensor, Tensor], true: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    """Means over the batch of the squared distance (mm^2) and the angle (rad) between corrections."""
    moved, turned = (part.float() for part in found)
    return {
        "translation": squared_distance(moved, true[0].to(moved)).mean(),
        "rotation": geodesic(turned, true[1].to(turned)).mean(),
    }
