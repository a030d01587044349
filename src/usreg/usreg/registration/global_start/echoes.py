# SPDX-License-Identifier: Apache-2.0
"""Frames as scan lines: what each sample looks like, in a few kinds that do not depend on the device's gain."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ...data.types import ImageGeometry, TrackedFrame
from ...errors import NoOverlapError, ShapeError
from ...geometry.sector import SectorGeometry, full_rectangle
from .config import GlobalStartConfig

Array = npt.NDArray[Any]
LEVELS = (0.15, 0.4, 0.65, 0.9, 1.2, 1.6)  # brightness over that of what is usual at the depth
CONTRASTS = (0.55, 0.8, 1.0, 1.25, 1.6)  # brightness over that of the surroundings
KINDS = (len(LEVELS) + 1) * (len(CONTRASTS) + 1) + 1
DARK_END = KINDS - 1
DARK = 0.25  # level below which the end of a line counts as dark
LEAST_DARK = 0.15  # of a line
LIT = 12.0  # grey values below this say nothing of the gain
STEADY_MM = 20.0  # the gain over depth is taken from below the wall of the body


@dataclass(frozen=True, eq=False)
class Echoes:
    """Samples along the scan lines of all frames, in the frame of the middle image (`ref`).

    Args:
        origin, direction: (R, 3) float32, mm: where each line begins, unit vectors.
        kind: (R, K) uint8, what each sample looks like, 0 to KINDS - 1. level: (R, K) float32, its brightness.
        length: (R,) samples of each line. first_mm, step_mm: where samples lie along the lines.
        lines: of a frame, frame after frame. world_T_ref: (4, 4).
        face_mm: (2,) middle of the face in the image. depth_mm: of the image.
    """

    origin: Array
    direction: Array
    kind: Array
    level: Array
    length: Array
    first_mm: float
    step_mm: float
    lines: int
    world_T_ref: Array
    face_mm: Array
    depth_mm: float

    @property
    def frames(self) -> int:
        """How many frames."""
        return len(self.length) // self.lines

    @property
    def centre(self) -> Array:
        """Middle (3,) of the middle image, mm."""
        return np.array([self.face_mm[0], self.face_mm[1] + 0.5 * self.depth_mm, 0.0])

    def part(self, frames: int, every_line: int, every_sample: int) -> Echoes:
        """Fewer frames, evenly chosen, every so many lines and samples."""
        count = min(frames, self.frames)
        chosen = ((np.arange(count) + 0.5) * self.frames / count).astype(np.int64)
        offset = 0 if every_line > self.lines else every_line // 2
        rows = (chosen[:, None] * self.lines + np.arange(offset, self.lines, every_line)).ravel()
        skip = every_sample // 2
        return replace(
            self,
            origin=self.origin[rows], direction=self.direction[rows],
            kind=np.ascontiguousarray(self.kind[rows, skip::every_sample]),
            level=np.ascontiguousarray(self.level[rows, skip::every_sample]),
            length=np.maximum(0, (self.length[rows] - skip + every_sample - 1) // every_sample),
            first_mm=self.first_mm + skip * self.step_mm, step_mm=self.step_mm * every_sample,
            lines=len(rows) // count,
        )  # fmt: skip


def echoes(frames: tuple[TrackedFrame, ...], config: GlobalStartConfig) -> Echoes:
    """Sample frames along their scan lines.

    Raises:
        ShapeError: no frames, or of different geometries. NoOverlapError: they show nothing.
    """
    if not frames or any(f.frame.geometry != frames[0].frame.geometry for f in frames):
        raise ShapeError("a global start needs frames of one image geometry, at least one")
    sector = _sector(frames[0].frame.geometry)
    start, along, depths = _lines(sector, config)
    fine, around, length = _sampled(frames, sector, start, along, depths, config)
    lit = fine > LIT
    if lit.mean() < 0.02:
        raise NoOverlapError("the frames are dark: no echo in them says where they lie")
    level = fine / _usual(fine, lit, depths)
    kind = _kinds(level, fine / np.maximum(around, 4.0)).reshape(-1, len(depths))
    level = level.reshape(-1, len(depths))
    _mark_dark_ends(kind, level, length := np.tile(length, len(frames)))
    reference = frames[len(frames) // 2].world_T_image.numpy()
    moved = [np.linalg.inv(reference) @ f.world_T_image.numpy() for f in frames]
    return Echoes(
        np.concatenate([start @ m[:3, :3].T + m[:3, 3] for m in moved]).astype(np.float32),
        np.concatenate([along @ m[:3, :3].T for m in moved]).astype(np.float32),
        kind, np.minimum(level, 3.0).astype(np.float32), length, float(depths[0]), config.sample_mm, config.lines,
        reference, _face(sector), sector.depth_mm,
    )  # fmt: skip


def _sector(geometry: ImageGeometry) -> SectorGeometry:
    return geometry if isinstance(geometry, SectorGeometry) else full_rectangle(geometry.plane)


def _face(sector: SectorGeometry) -> Array:
    """Middle (2,) of the transducer's face in the image, mm."""
    if sector.kind == "linear":
        return np.array([0.5 * (sector.clip_mm[0] + sector.clip_mm[2]), sector.clip_mm[1]])
    middle = 0.5 * (sector.angle_rad[0] + sector.angle_rad[1])
    return np.array(sector.apex_mm) + sector.radius_mm[0] * np.array([np.sin(middle), np.cos(middle)])


def _lines(sector: SectorGeometry, config: GlobalStartConfig) -> tuple[Array, Array, Array]:
    """Origins (L, 3) on the face and directions (L, 3) in the image, and depths (K,) of the samples, mm."""
    share = (np.arange(config.lines) + 0.5) / config.lines
    depths = np.arange(config.skip_mm + 0.5 * config.sample_mm, sector.depth_mm, config.sample_mm)
    if len(depths) < 4:
        raise ShapeError(f"an image of {sector.depth_mm} mm is too shallow for samples every {config.sample_mm} mm")
    zero = np.zeros(config.lines)
    if sector.kind == "linear":
        x0, y0, x1, _ = sector.clip_mm
        return np.stack([x0 + share * (x1 - x0), zero + y0, zero], -1), np.stack([zero, zero + 1, zero], -1), depths
    angle = sector.angle_rad[0] + share * (sector.angle_rad[1] - sector.angle_rad[0])
    along = np.stack([np.sin(angle), np.cos(angle), zero], -1)
    return np.array([*sector.apex_mm, 0.0]) + sector.radius_mm[0] * along, along, depths


def _sampled(
    frames: tuple[TrackedFrame, ...], sector: SectorGeometry, start: Array, along: Array, depths: Array,
    config: GlobalStartConfig,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """Brightness (N, L, K) of samples and of their surroundings, and how many samples (L,) lie inside the sector."""
    points = start[:, None, :2] + along[:, None, :2] * depths[:, None]
    x0, y0, x1, y1 = sector.clip_mm
    inside = (points >= [x0, y0]).all(-1) & (points <= [x1, y1]).all(-1)
    length = np.cumprod(inside, 1).sum(1)
    (a, b), (_, d) = sector.pixel_to_mm
    row = points[..., 1] / d
    column = ((points[..., 0] - b * row) / a).astype(np.float32)
    row, mask = row.astype(np.float32), sector.mask().numpy().astype(np.float32)
    pair = []
    for sigma_mm in (config.smooth_mm, config.contrast_mm):
        sigma = (sigma_mm / abs(a), sigma_mm / abs(d))
        weight = np.maximum(_blur(mask, sigma), 1e-3)
        images = [_blur(f.frame.image.numpy() * mask, sigma) / weight for f in frames]
        pair.append(np.stack([cv2.remap(i, column, row, cv2.INTER_LINEAR) for i in images]))
    return pair[0], pair[1], length


def _blur(image: Array, sigma: tuple[float, float]) -> Array:
    return np.asarray(cv2.GaussianBlur(image.astype(np.float32), (0, 0), sigmaX=sigma[0], sigmaY=sigma[1]))


def _usual(fine: Array, lit: Array, depths: Array) -> Array:
    """Brightness (K,) that is usual at each depth: a parabola through the logarithms of the medians."""
    counts = lit.sum((0, 1))
    good = (counts > 0.02 * lit.shape[0] * lit.shape[1]) & (depths > STEADY_MM)
    if good.sum() < 5:
        return np.full(len(depths), float(np.median(fine[lit])))
    medians = np.array([np.median(fine[:, :, k][lit[:, :, k]]) for k in np.flatnonzero(good)])
    curve = np.polyfit(depths[good], np.log(medians), 2)
    return np.asarray(np.exp(np.polyval(curve, np.clip(depths, STEADY_MM, depths[good].max()))))


def _kinds(level: Array, contrast: Array) -> Array:
    return np.asarray(
        np.digitize(level, LEVELS) * (len(CONTRASTS) + 1) + np.digitize(contrast, CONTRASTS), dtype=np.uint8
    )


def _mark_dark_ends(kind: Array, level: Array, length: Array) -> None:
    """The end of a line that stays dark is behind something: one kind of its own."""
    for row, n in enumerate(length.tolist()):
        bright = np.flatnonzero(level[row, :n] >= DARK)
        first = int(bright[-1]) + 1 if len(bright) else 0
        if n - first >= max(3.0, LEAST_DARK * n):
            kind[row, first:n] = DARK_END
