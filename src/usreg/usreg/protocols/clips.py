# SPDX-License-Identifier: Apache-2.0
"""What is registered: frames of subjects that were set aside, or of a real sweep, each from starts off the truth."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from ..config import check_range
from ..data.calibration import read_calibration
from ..data.sequences import read_sequence
from ..data.tracked import tracked_frames
from ..data.types import ImageGeometry, Volume
from ..errors import ConfigError, FileFormatError, NoOverlapError
from ..evaluation import sample_points
from ..evaluation.landmarks import VESSELS
from ..geometry import se3
from ..reconstruction import ReconstructionConfig, reconstruct
from ..simulation.subject_files import read_subject
from ..study import Target, draw_twists

TRIES = 60  # twists that are drawn for each start; those that leave too little of the frame in the volume are left out
GRID = 9  # by 9: points of the sector that say how much of a frame lies in the volume


@dataclass(frozen=True, eq=False)
class Clip:
    """A volume, frames of it whose truth is known, and landmarks (3,), mm in ct.

    Args:
        seed: added to the seed of the draw, so that every clip has starts of its own.
    """

    name: str
    volume: Volume
    targets: tuple[Target, ...]
    landmarks: dict[str, Tensor] = field(default_factory=dict)
    seed: int = 0


@dataclass(frozen=True)
class Draw:
    """Starts of a study.

    Args:
        limits: half widths of the uniform draw along and about x, y, z of the image about its centre, mm and degrees.
        starts: of each clip, its frames evenly or in turn.
        least_true, least_start: share of the frame that lies in known voxels, where it truly is and where it begins.
    """

    limits: tuple[float, float, float, float, float, float] = (10.0, 10.0, 5.0, 5.0, 5.0, 10.0)
    starts: int = 40
    least_true: float = 0.5
    least_start: float = 0.0

    def __post_init__(self) -> None:
        check_range("starts", self.starts, 1, 100_000)
        check_range("least_true", self.least_true, 0.0, 1.0)
        check_range("least_start", self.least_start, 0.0, 1.0)
        if not all(math.isfinite(v) and v >= 0 for v in self.limits):
            raise ConfigError(f"limits are six numbers, none negative, got {self.limits}")


@dataclass(frozen=True, eq=False)
class Pair:
    """A frame of a clip and where it begins: off the truth by a twist (6,), mm and rad."""

    frame: int
    start: int
    target: Target
    twist: Tensor


def subject_clip(folder: Path) -> Clip:
    """The clip of a simulated subject.

    Raises:
        MissingFileError, FileFormatError: of the files.
    """
    subject = read_subject(folder)
    targets = tuple(Target((f,), pose) for f, pose in zip(subject.frames, subject.world_T_cts, strict=True))
    vessels = {name: p for name, p in subject.landmarks.items() if name.startswith(VESSELS)}
    return Clip(folder.name, subject.volume, targets, vessels or subject.landmarks, subject.seed)


def liver_clip(folder: Path, spacing_mm: float = 1.0) -> Clip:
    """The real sweep over a liver: a volume of its even frames, registered are the odd ones; the tracking is the truth.

    Raises:
        MissingFileError, FileFormatError: of the files.
    """
    recording = read_sequence(folder / "liver_sweep.igs.mha")
    if recording.images is None:
        raise FileFormatError(f"the sequence in '{folder.name}' holds no images")
    size = (recording.images.shape[2], recording.images.shape[1])
    frames = tracked_frames(recording, read_calibration(folder / "liver_sweep_device_set.xml", image_size=size))
    volume = reconstruct(frames[::2], ReconstructionConfig(spacing_mm))
    return Clip("liver sweep", volume, tuple(Target((f,), se3.identity()) for f in frames[1::2] if f is not None))


def pairs_of_clip(clip: Clip, draw: Draw, seed: int) -> list[Pair]:
    """The starts of a clip: the same clip, draw and seed give the same ones.

    Raises:
        NoOverlapError: no frame lies in the volume, or from none of many starts does one.
    """
    chosen = _spread_frames(clip, draw)
    twists = iter(draw_twists(draw.limits, TRIES * draw.starts, seed + clip.seed))
    return [Pair(frame, n, clip.targets[frame], _twist(clip, frame, twists, draw)) for n, frame in enumerate(chosen)]


def _spread_frames(clip: Clip, draw: Draw) -> list[int]:
    """Frames that lie in the volume: evenly over all of them, or in turn where there are fewer than starts."""
    geometry = [t.frames[0].frame.geometry for t in clip.targets]
    inside = [
        n for n, t in enumerate(clip.targets)
        if overlap(clip.volume, t.true_ct_T_images[0], geometry[n]) >= draw.least_true
    ]  # fmt: skip
    if not inside:
        raise NoOverlapError(f"no frame of '{clip.name}' lies in the volume by {draw.least_true:.0%}")
    if len(inside) < draw.starts:
        return [inside[n % len(inside)] for n in range(draw.starts)]
    return [inside[int((n + 0.5) * len(inside) / draw.starts)] for n in range(draw.starts)]


def _twist(clip: Clip, frame: int, twists: Iterator[Tensor], draw: Draw) -> Tensor:
    target = clip.targets[frame]
    geometry = target.frames[0].frame.geometry
    for twist in twists:
        if draw.least_start == 0.0:
            return twist
        if overlap(clip.volume, target.placed(target.start(twist))[0], geometry) >= draw.least_start:
            return twist
    raise NoOverlapError(
        f"'{clip.name}': too few starts within {draw.limits} leave {draw.least_start:.0%} of a frame in the volume: "
        "narrow the limits"
    )


def overlap(volume: Volume, ct_T_image: Tensor, geometry: ImageGeometry) -> float:
    """Share of points of the sector, its image at a pose (4, 4), whose nearest voxel is known."""
    index = se3.transform_points(volume.grid.index_T_ct @ ct_T_image, sample_points(geometry, GRID))
    nearest = torch.floor(index + 0.5).long().flip(-1)
    size = torch.tensor(volume.data.shape[1:])
    inside = ((nearest >= 0) & (nearest < size)).all(-1)
    if volume.mask is not None:
        z, y, x = nearest.clamp(torch.zeros(3, dtype=torch.long), size - 1).unbind(-1)
        inside &= volume.mask[z, y, x]
    return float(inside.double().mean())


def evenly(count: int, most: int) -> list[int]:
    """Indices of at most `most` of `count` things, evenly spread; all where `most` is zero."""
    if not most or most >= count:
        return list(range(count))
    return [int((k + 0.5) * count / most) for k in range(most)]
