# SPDX-License-Identifier: Apache-2.0
"""The volume resliced at the frame and laid over it."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from torch import Tensor

from ..data.types import Frame, TrackedFrame, Volume, check_pose
from ..errors import ShapeError
from ..geometry import se3
from ..geometry.plane import PlaneGrid
from ..geometry.sector import SectorGeometry, full_rectangle
from ..rendering import slice_fast
from . import drawing
from .compose import blend, checkerboard, enlarge
from .config import WINDOWS, OverlayConfig
from .labels import Contour, label_contours
from .palette import Colour, distinct_colours, label_colour


@dataclass(frozen=True, eq=False)
class Overlay:
    """A fused picture.

    Args:
        image: (h, w, 3) uint8 RGB; `zoom` times the frame's size.
        slice: (h, w) uint8, the volume at the frame's pixels; zeros where there is none.
        mask: (h, w) bool, where the frame's pixels lie in known voxels.
        status: "" or why the frame stands alone.
    """

    image: Tensor
    slice: Tensor
    mask: Tensor
    status: str = ""


class Fuser:
    """Draws overlays. Holds nothing but its configuration: no picture depends on one before."""

    def __init__(self, config: OverlayConfig | None = None) -> None:
        self.config = config or OverlayConfig()

    def prepare(self, volume: Volume) -> None:
        """Work out the display window and draw a small picture: kernels and imports must not delay the first frame."""
        display_window(volume, self.config)
        geometry = full_rectangle(PlaneGrid(32, 32, ((1.0, 0.0), (0.0, 1.0))))
        frame = Frame(torch.zeros(32, 32, dtype=torch.uint8), geometry, 0.0)
        self.fuse(TrackedFrame(frame, se3.identity()), volume, se3.identity())

    def fuse(self, tracked: TrackedFrame, volume: Volume, world_T_ct: Tensor, note: str = "") -> Overlay:
        """The frame with the volume laid over it; see `overlay`."""
        return overlay(tracked, volume, world_T_ct, self.config, note)

    def alone(self, frame: Frame, status: str, reason: str = "") -> Overlay:
        """The frame without a volume, and why; see `frame_alone`."""
        return frame_alone(frame, status, reason, self.config)

    def reset(self) -> None:
        """Nothing to forget."""


def overlay(
    tracked: TrackedFrame, volume: Volume, world_T_ct: Tensor, config: OverlayConfig | None = None, note: str = ""
) -> Overlay:
    """Lay the volume over a frame.

    Args:
        tracked: frame with its pose. volume: placed by `world_T_ct`, (4, 4), mm.
        note: short line at the lower right, for example the pose's age.

    Raises:
        ShapeError, GeometryError: the pose is not (4, 4) float64 and rigid, or the volume lacks the channel.
    """
    config = config or OverlayConfig()
    check_pose(world_T_ct, "world_T_ct")
    ct_T_image = se3.inverse(world_T_ct) @ tracked.world_T_image
    frame, plane = tracked.frame, tracked.frame.plane
    grey, mask = sliced(volume, ct_T_image, plane, config)
    sector = drawing.sector_of(frame.geometry)
    big, big_grey, big_shown, sector = _zoomed(frame.image, grey, mask & frame.geometry.mask(), sector, config)
    picture = _compose(big, big_grey, big_shown, sector.plane, config)
    if config.outlines:
        _contours(picture, volume, ct_T_image, sector, config)
    _annotate(picture, sector, config, note if bool(mask.numpy().any()) else "the volume does not reach this frame")
    return Overlay(torch.from_numpy(picture), grey, mask)


def frame_alone(frame: Frame, status: str, reason: str = "", config: OverlayConfig | None = None) -> Overlay:
    """The frame without a volume, with a clear status: what is shown when there is no registration."""
    config = config or OverlayConfig()
    empty = torch.zeros_like(frame.image)
    none = empty.to(torch.bool)
    sector = drawing.sector_of(frame.geometry)
    big, _, _, sector = _zoomed(frame.image, empty, none, sector, config)
    picture = np.repeat(big[..., None], 3, axis=2)
    _annotate(picture, sector, config, "")
    drawing.draw_status(picture, status, reason)
    return Overlay(torch.from_numpy(picture), empty, none, status)


def sliced(
    volume: Volume, ct_T_image: Tensor, plane: PlaneGrid, config: OverlayConfig, where: np.ndarray | None = None
) -> tuple[Tensor, Tensor]:
    """Grey values (h, w) uint8 and mask (h, w) of the volume at a frame, sampled at every `slice_step`-th pixel.

    Args:
        where: samples that are asked for, on the coarse grid, as `samples_for` gives them; None: all.
    """
    window = display_window(volume, config)
    step = config.slice_step
    small, known = slice_fast(volume, ct_T_image, coarse(plane, step), window, config.channel, where)
    if step == 1:
        return small, known
    image, mask = enlarge(small.numpy(), known.numpy(), step, plane.height, plane.width)
    return torch.from_numpy(image), torch.from_numpy(mask)


def coarse(plane: PlaneGrid, step: int) -> PlaneGrid:
    """Every `step`-th pixel, and as many that the last pixel lies between two."""
    (a, b), (_, d) = plane.pixel_to_mm
    height, width = (math.ceil((n - 1) / step) + 1 for n in (plane.height, plane.width))
    return PlaneGrid(height, width, ((a * step, b * step), (0.0, d * step)))


@functools.lru_cache(maxsize=16)
def samples_for(sector: SectorGeometry, step: int) -> np.ndarray:
    """Samples (bool, on the coarse grid) from which the pixels inside a sector are interpolated. Shared."""
    rows, columns = np.nonzero(sector.mask().numpy())
    plane = coarse(sector.plane, step)
    needed = np.zeros((plane.height, plane.width), np.bool_)
    for down in (0, step - 1):
        for right in (0, step - 1):
            needed[(rows + down) // step, (columns + right) // step] = True
    return needed


def display_window(volume: Volume, config: OverlayConfig) -> tuple[float, float]:
    """Values shown as black and white."""
    if config.window is not None:
        return config.window
    if not 0 <= config.channel < volume.data.shape[0]:
        raise ShapeError(f"channel {config.channel} of a volume with {volume.data.shape[0]} channels: choose another")
    if volume.data.dtype == torch.uint8:
        return 0.0, 255.0
    return WINDOWS.get(volume.modality) or _value_window(volume.data, config.channel)


@functools.lru_cache(maxsize=1)
def _value_window(data: Tensor, channel: int) -> tuple[float, float]:
    """1st and 99th percentile of about a million voxels; tensors hash by identity."""
    values = data[channel].flatten()
    values = values[:: max(1, len(values) // 1_000_000)].to(torch.float32)
    values = values[torch.isfinite(values)].sort().values
    if not len(values):
        return 0.0, 1.0
    low, high = (float(values[round(q * (len(values) - 1))]) for q in (0.01, 0.99))
    return (low, high) if high > low else (low, low + 1.0)


def _zoomed(
    image: Tensor, grey: Tensor, shown: Tensor, sector: SectorGeometry, config: OverlayConfig
) -> tuple[np.ndarray, np.ndarray, np.ndarray, SectorGeometry]:
    """Pictures `zoom` times larger; the centre of the first pixel stays the origin."""
    arrays = [image.numpy(), grey.numpy(), shown.numpy()]
    zoom = config.zoom_for(image.shape[1])
    if zoom == 1:
        return (*arrays, sector)  # type: ignore[return-value]
    h, w = image.shape
    m = np.array([[1.0 / zoom, 0, 0], [0, 1.0 / zoom, 0]])
    kinds = (cv2.INTER_LINEAR, cv2.INTER_LINEAR, cv2.INTER_NEAREST)
    edge = cv2.BORDER_REPLICATE
    big = [
        cv2.warpAffine(a.astype(np.uint8), m, (w * zoom, h * zoom), flags=k | cv2.WARP_INVERSE_MAP, borderMode=edge)
        for a, k in zip(arrays, kinds, strict=True)
    ]
    (a, b), (_, d) = sector.pixel_to_mm
    plane = PlaneGrid(h * zoom, w * zoom, ((a / zoom, b / zoom), (0.0, d / zoom)))
    return big[0], big[1], big[2].astype(np.bool_), replace(sector, plane=plane)


def _compose(
    frame: np.ndarray, grey: np.ndarray, shown: np.ndarray, plane: PlaneGrid, config: OverlayConfig
) -> np.ndarray:
    if config.mode == "alpha":
        return blend(frame, grey, shown, config.opacity)
    if config.mode == "checkerboard":
        return checkerboard(frame, grey, shown, config.tile_mm / plane.spacing_mm[0])
    return cv2.cvtColor(frame, cv2.COLOR_GRAY2RGB)


def label_outlines(
    volume: Volume, ct_T_image: Tensor, sector: SectorGeometry, config: OverlayConfig
) -> list[tuple[Contour, Colour]]:
    """Outlines of the labels at a frame, in its pixels, with their colours; they run on outside of the sector.

    Mode "vessels": those of vessels alone, in colours that differ.
    """
    step = max(2, config.slice_step)
    plane = coarse(sector.plane, step)
    shown = replace(sector, plane=plane).mask().numpy()
    contours = label_contours(volume, ct_T_image, plane, step, shown, config.outlined)
    colours = _vessel_colours(volume, config)
    return [(c, colours[c.value] if c.value in colours else label_colour(c.value)) for c in contours]


def _vessel_colours(volume: Volume, config: OverlayConfig) -> dict[int, Colour]:
    """Of vessels, where they are shown alone."""
    alone = [v for v, name in volume.label_names.items() if config.mode == "vessels" and config.outlined(name)]
    return distinct_colours(alone)


def _contours(
    picture: np.ndarray, volume: Volume, ct_T_image: Tensor, sector: SectorGeometry, config: OverlayConfig
) -> None:
    vessels = config.mode == "vessels"
    if volume.labels is None or (vessels and not _vessel_colours(volume, config)):
        if config.mode in ("contours", "vessels") and config.text:
            at = (picture.shape[1] // 20, picture.shape[0] // 12)
            what = "labels of vessels" if vessels else "labels"
            drawing.write(picture, f"the volume has no {what}", at, drawing.WHITE)
        return
    outlines = label_outlines(volume, ct_T_image, sector, config)
    drawing.draw_contours(picture, outlines, sector.mask().numpy(), config.text, bold=vessels)


def _annotate(picture: np.ndarray, sector: SectorGeometry, config: OverlayConfig, note: str) -> None:
    if config.sector:
        drawing.draw_sector(picture, sector)
    if config.ruler:
        drawing.draw_ruler(picture, sector)
    if config.text and note:
        drawing.draw_note(picture, note)
    drawing.draw_marker(picture, sector)
    drawing.draw_notice(picture)
