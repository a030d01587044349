# SPDX-License-Identifier: Apache-2.0
"""Training of networks that regress the correction of a start pose: DeepRS2V as published, and FVR-Net."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..config import from_mapping, to_mapping
from ..data.types import Volume
from ..geometry import se3
from ..losses.objective import Objective, Step
from ..losses.pose import PoseLossConfig, image_loss, pose_losses
from ..networks.delta import Delta, corrected, correction
from ..registration.learned.crop import Crop, crop_images, crop_volume
from ..registration.learned.reduce import reduce_volume
from .pairs import Batch
from .recipe import Recipe, pose_figures


class Eyes:
    """What the network is fed with, as in registration; a subject's volume is brought to the crop's spacing once."""

    def __init__(self, crop: Crop) -> None:
        self.crop = crop
        self._kept: dict[int, tuple[Volume, Volume]] = {}

    def volume(self, batch: Batch) -> Volume:
        """Of the batch, reduced."""
        kept = self._kept.get(batch.subject)
        if kept is None or kept[0] is not batch.volume:
            kept = self._kept[batch.subject] = batch.volume, reduce_volume(batch.volume, self.crop.spacing_mm)
        return kept[1]

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Volumes (B, 1, D, H, W) in the box about the start, frames (B, 1, H, W) and their masks."""
        values, _ = crop_volume(self.volume(batch), batch.ct_T_start, batch.geometry, self.crop)
        images, masks = crop_images(batch.images, batch.geometry, self.crop)
        return values, images, masks


class PoseObjective:
    """Losses of equation 7: of the image, where frame and slice intersect, of the translation, of the rotation."""

    def __init__(self, crop: Crop, config: PoseLossConfig) -> None:
        self.crop, self.config, self.eyes = crop, config, Eyes(crop)

    def __call__(self, network: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Means over the batch."""
        values, images, masks = self.eyes(batch)
        found = network(values, images)
        centre = batch.geometry.plane.centre_mm
        losses = pose_losses(found, correction(batch.ct_T_start, batch.ct_T_true, centre))
        if self.config.image > 0:
            losses["image"] = self._image(batch, found, centre, images, masks)
        return losses

    def _image(self, batch: Batch, found: Delta, centre: Tensor, images: Tensor, masks: Tensor) -> Tensor:
        """1 - LNCC on the pixels of the crop, whose frame lies off the image's."""
        delta = found[0].float(), found[1].float()
        image_T_crop = se3.translation(centre - self.crop.plane.centre_mm)
        poses = corrected(batch.ct_T_start.float(), delta, centre) @ image_T_crop.to(delta[0])
        with torch.autocast(poses.device.type, enabled=False):
            loss = image_loss(self.eyes.volume(batch), poses, self.crop.plane, images, masks, self.config.window)
        return loss.mean()


def recipe(network: nn.Module, network_config: Any, crop: Crop, loss: PoseLossConfig) -> Recipe:
    """The recipe of a regression network."""

    eyes = Eyes(crop)

    def figures(network: nn.Module, batch: Batch) -> dict[str, Tensor]:
        values, images, _ = eyes(batch)
        return pose_figures(batch, corrected(batch.ct_T_start, network(values, images), batch.geometry.plane.centre_mm))

    weights = {name: weight for name, weight in loss.weights.items() if weight > 0}
    objective = Objective((Step("pose", PoseObjective(crop, loss), weights),))
    return Recipe(network, network_config, objective, figures, {"crop": to_mapping(crop)})


def crop_and_loss(options: Mapping[str, Any]) -> tuple[Crop, PoseLossConfig]:
    """Of the keys `crop` and `loss` of a training's configuration."""
    return (
        from_mapping(Crop, options.get("crop", {}), "crop"),
        from_mapping(PoseLossConfig, options.get("loss", {}), "loss"),
    )
