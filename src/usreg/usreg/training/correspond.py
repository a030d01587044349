# SPDX-License-Identifier: Apache-2.0
"""What the correspondence network learns: where in the volume each pixel of the liver lies, and when it does not know.

The likelihood of the true place is raised among all places of the volume (cross-entropy with the eight descriptors
about it); the confidence of a pixel is that of its best place being right.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..config import check_range, from_mapping, to_mapping
from ..data.types import Volume
from ..geometry import rotation, se3
from ..losses.objective import Objective, Step
from ..networks.correspondence import Correspondence, CorrespondenceConfig
from ..registration.learned.correspond import FRAME_STRIDE, VOLUME_STRIDE, Correspond, CorrespondConfig
from ..registration.learned.view import FrameView, Smoothed, ViewConfig, VolumeView, smoothed, view_image, view_volume
from ..registration.learned.vote import look
from .pairs import Batch
from .recipe import Recipe, pose_figures


@dataclass(frozen=True)
class CorrespondTrainingConfig:
    """How batches are varied.

    Args:
        view_deg: half width per axis of the draw that turns the view against the mean of the frames, which are
            themselves turned against it. scale: half width of the logarithm of the size of everything. mirror: share of
            batches that are mirrored left to right.
        pixels: of each frame, drawn; `elsewhere`: more of them that do not show the liver, for the confidence.
        right_mm: a best place that is this near counts as right. confidence: weight of its loss beside the places'.
    """

    view_deg: float = 8.0
    scale: float = 0.15
    mirror: float = 0.5
    pixels: int = 64
    elsewhere: int = 12
    right_mm: float = 9.0
    confidence: float = 0.2

    def __post_init__(self) -> None:
        check_range("view_deg", self.view_deg, 0.0, 180.0)
        check_range("scale", self.scale, 0.0, 1.0)
        check_range("mirror", self.mirror, 0.0, 1.0)
        check_range("pixels", self.pixels, 1, 100_000)
        check_range("elsewhere", self.elsewhere, 0, 100_000)
        check_range("right_mm", self.right_mm, 0.1, 100.0)
        check_range("confidence", self.confidence, 0.0, 100.0)


@dataclass(frozen=True, eq=False)
class Targets:
    """Pixels of one frame with their true places.

    Args:
        index: (P, 2) of descriptors, x y. place: (P, 3) true place among the volume's descriptors, x y z.
        known: (P,) whether it shows the liver within the volume.
    """

    index: Tensor
    place: Tensor
    known: Tensor


class CorrespondObjective:
    """Losses of a batch; keeps the smoothed volumes of subjects that it has met."""

    def __init__(self, view: ViewConfig | None = None, config: CorrespondTrainingConfig | None = None) -> None:
        self.view, self.config = view or ViewConfig(), config or CorrespondTrainingConfig()
        self._kept: dict[int, tuple[Volume, Smoothed]] = {}

    def __call__(self, network: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Losses "place" and "confidence"; logged: "right", share of pixels whose best place is, and "median_mm"."""
        assert isinstance(network, Correspondence)
        generator = torch.Generator().manual_seed(int(torch.randint(2**31, ())))  # follows the trainer's seed
        scale = math.exp(self.config.scale * _between(generator))
        mirrored = float(torch.rand((), generator=generator)) < self.config.mirror
        seen = view_volume(
            self._smoothed(batch.volume), self._axes(batch, mirrored, generator), scale * self.view.volume_mm
        )  # fmt: skip
        frames = [self._frame(batch, i, scale * self.view.frame_mm, mirrored) for i in range(len(batch))]
        places = network.encode_volume(seen.values)[0]
        found, confidence = network.encode_frame(torch.cat([f.values for f in frames]))
        targets = [self._targets(batch, i, frames[i], seen, generator) for i in range(len(batch))]
        return self._losses(network.scale, found, confidence, places, targets, seen)

    def _smoothed(self, volume: Volume) -> Smoothed:
        kept = self._kept.get(id(volume))
        if kept is None or kept[0] is not volume:
            kept = self._kept[id(volume)] = (volume, smoothed(volume, self.view.volume_mm))
        return kept[1]

    def _axes(self, batch: Batch, mirrored: bool, generator: torch.Generator) -> Tensor:
        """ct_R_view (3, 3): about the mean of the frames', as a view is that of a start which is not far off."""
        mean = rotation.project(batch.ct_T_true[:, :3, :3].mean(0))
        turn = math.radians(self.config.view_deg) * (2 * torch.rand(3, generator=generator, dtype=torch.float64) - 1)
        axes = mean @ rotation.exp(turn)
        return axes * torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64) if mirrored else axes

    def _frame(self, batch: Batch, number: int, step_mm: float, mirrored: bool) -> FrameView:
        image = (255.0 * batch.images[number]).numpy()
        view = view_image(image, batch.frames[number].frame.geometry, step_mm)
        return flipped(view) if mirrored else view

    def _targets(
        self, batch: Batch, number: int, frame: FrameView, seen: VolumeView, generator: torch.Generator
    ) -> Targets:  # fmt: skip
        """Pixels with their true places, drawn."""
        inside = frame.values[0, 1, ::FRAME_STRIDE, ::FRAME_STRIDE] > 0
        index = inside.nonzero().flip(-1)
        points = index_points(index * FRAME_STRIDE, frame.image_T_index)
        place = se3.transform_points(torch.linalg.inv(seen.ct_T_index) @ batch.ct_T_true[number], points)
        place = place / VOLUME_STRIDE
        known = self._shows_liver(batch, number, points) & _within(place, seen)
        order = torch.randperm(len(index), generator=generator)
        yes, no = order[known[order]][: self.config.pixels], order[~known[order]][: self.config.elsewhere]
        chosen = torch.cat([yes, no])
        return Targets(index[chosen], place[chosen], known[chosen])

    def _shows_liver(self, batch: Batch, number: int, points: Tensor) -> Tensor:
        plane = batch.frames[number].frame.geometry.plane
        pixel = se3.transform_points(torch.linalg.inv(plane.image_T_pixel), points)[:, :2]
        column, row = torch.floor(pixel + 0.5).long().unbind(-1)
        return batch.liver[number][row.clamp(0, plane.height - 1), column.clamp(0, plane.width - 1)]

    def _losses(
        self, scale: Tensor, found: Tensor, confidence: Tensor, places: Tensor, targets: list[Targets], seen: VolumeView
    ) -> dict[str, Tensor]:  # fmt: skip
        known = known_places(seen)
        number = torch.cat([torch.full((len(t.index),), i) for i, t in enumerate(targets)])
        index, place, shows = (
            torch.cat([getattr(t, name) for t in targets]) for name in ("index", "place", "known")
        )  # fmt: skip
        own = found[number, :, index[:, 1], index[:, 0]]
        sure = confidence[number, index[:, 1], index[:, 0]]
        shape = places.shape[1:]
        logits = scale * own @ places.reshape(len(places), -1)[:, known]
        rows = torch.full((shape[0] * shape[1] * shape[2],), -1, dtype=torch.long)
        rows[known] = torch.arange(len(known))
        columns, weights = corners(place, shape, rows)
        usable = shows & (weights.sum(-1) > 0.5)
        weights = weights / weights.sum(-1, keepdim=True).clamp_min(1e-6)
        log_p = logits.gather(1, columns) - torch.logsumexp(logits, 1, keepdim=True)
        cross = -(weights * log_p).sum(-1)[usable]
        with torch.no_grad():
            best = unravel(known[logits.argmax(1)], shape).double()
            step = VOLUME_STRIDE * float(seen.ct_T_index[:3, 0].norm())
            off = (best - place).norm(dim=-1) * step
            right = (off < self.config.right_mm) & usable
        doubt = functional.binary_cross_entropy_with_logits(sure, right.to(sure))
        count = usable.sum().clamp_min(1)
        return {
            "place": cross.sum() / count,
            "confidence": doubt,
            "right": right.sum() / count,
            "median_mm": off[usable].median() if bool(usable.any()) else torch.tensor(math.nan),
        }


def flipped(view: FrameView) -> FrameView:
    """The same frame, its index x counted from the other side."""
    image_T_index = view.image_T_index.clone()
    image_T_index[0, 3] += image_T_index[0, 0] * (view.values.shape[-1] - 1)
    image_T_index[0, 0] *= -1
    return FrameView(view.values.flip(-1), image_T_index)


def index_points(index: Tensor, image_T_index: Tensor) -> Tensor:
    """Points (P, 3), mm, of indices (P, 2), x y, of a frame's grid."""
    flat = torch.cat([index.double(), torch.zeros(len(index), 1, dtype=torch.float64)], -1)
    return se3.transform_points(image_T_index, flat)


def known_places(seen: VolumeView) -> Tensor:
    """Flat indices (V,) of the descriptors of a volume's view that lie at known voxels."""
    mask = seen.values[0, 1, ::VOLUME_STRIDE, ::VOLUME_STRIDE, ::VOLUME_STRIDE] > 0
    return mask.reshape(-1).nonzero()[:, 0]


def corners(place: Tensor, shape: torch.Size, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rows (P, 8) and trilinear weights (P, 8) of the descriptors about places (P, 3), x y z; unknown ones weigh 0."""
    low = torch.floor(place)
    found, weights = [], []
    limit = torch.tensor([shape[2], shape[1], shape[0]])
    for corner in np.ndindex(2, 2, 2):
        at = low + torch.tensor(corner)
        weight = (1.0 - (place - at).abs()).clamp_min(0.0).prod(-1)
        inside = ((at >= 0) & (at < limit)).all(-1)
        x, y, z = at.long().clamp(torch.zeros(3, dtype=torch.long), limit - 1).unbind(-1)
        row = rows[(z * shape[1] + y) * shape[2] + x]
        found.append(row.clamp_min(0))
        weights.append(weight * (inside & (row >= 0)))
    return torch.stack(found, -1), torch.stack(weights, -1).to(torch.float32)


def unravel(flat: Tensor, shape: torch.Size) -> Tensor:
    """Indices (N, 3), x y z, of flat ones."""
    x = flat % shape[2]
    rest = torch.div(flat, shape[2], rounding_mode="floor")
    return torch.stack([x, rest % shape[1], torch.div(rest, shape[1], rounding_mode="floor")], -1)


def _within(place: Tensor, seen: VolumeView) -> Tensor:
    d, h, w = (math.ceil(n / VOLUME_STRIDE) for n in seen.values.shape[2:])
    return ((place >= 0) & (place <= torch.tensor([w - 1, h - 1, d - 1]))).all(-1)


def _between(generator: torch.Generator) -> float:
    return 2.0 * float(torch.rand((), generator=generator)) - 1.0


def recipe(network: Mapping[str, Any], options: Mapping[str, Any]) -> Recipe:
    """The recipe of mode usreg.

    Args:
        network: keys of `CorrespondenceConfig`. options: `view`, keys of `ViewConfig`; `training`, keys of
            `CorrespondTrainingConfig`; `ask`, keys of `CorrespondConfig`, for the validation.
    """
    sizes = from_mapping(CorrespondenceConfig, network, "network")
    view = from_mapping(ViewConfig, options.get("view", {}), "view")
    training = from_mapping(CorrespondTrainingConfig, options.get("training", {}), "training")
    ask = from_mapping(CorrespondConfig, {**options.get("ask", {}), "view": to_mapping(view)}, "ask")
    weights = {"place": 1.0, "confidence": training.confidence}
    objective = Objective((Step("correspond", CorrespondObjective(view, training), weights),))
    model = Correspondence(sizes)
    return Recipe(model, sizes, objective, Asked(ask), {"view": to_mapping(view)})


class Asked:
    """Errors of the poses that the network alone finds; volumes are smoothed once."""

    def __init__(self, config: CorrespondConfig) -> None:
        self.config = config

    def __call__(self, network: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Figures (B,) of a batch."""
        assert isinstance(network, Correspondence)
        stage = Correspond(network, self.config)
        found = []
        for tracked, start in zip(batch.frames, batch.ct_T_start, strict=True):
            ballot = stage.ballot(batch.volume, tracked.frame, start, self.config.prior_mm)
            found.append(look(ballot, start, self.config.vote)[0].ct_T_image)
        return pose_figures(batch, torch.stack(found))
