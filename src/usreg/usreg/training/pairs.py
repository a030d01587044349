# SPDX-License-Identifier: Apache-2.0
"""Pairs of live frames and a 3D ultrasound, drawn on the fly from subjects that lie in memory.

Batch k is a pure function of the seed and k: a run that is resumed, or shared among processes, meets the same pairs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ..config import check_range
from ..data.types import ImageGeometry, TrackedFrame, Volume
from ..errors import ConfigError
from ..geometry import rotation, se3
from ..geometry.plane import PlaneGrid
from ..registration.learned.reduce import reduce_frame, reduce_mask, reduce_volume, stride_of
from ..rendering.slicing import slice_volume
from .augment import AugmentConfig, augment

Limits = tuple[float, float, float, float, float, float]
PAPER: Limits = (10.0, 10.0, 5.0, 5.0, 5.0, 10.0)  # section 3.1 of the DeepRS2V paper: mm and degrees
OVERLAP_MM = 4.0
Progress = Callable[[int, int], None]


class Source(Protocol):
    """What pairs need of a subject; `simulation.subjects.Subject` is one."""

    @property
    def seed(self) -> int: ...
    @property
    def volume(self) -> Volume: ...
    @property
    def frames(self) -> tuple[TrackedFrame, ...]: ...
    @property
    def world_T_cts(self) -> Tensor: ...
    @property
    def liver(self) -> Tensor: ...


@dataclass(frozen=True)
class PairConfig:
    """How pairs are drawn.

    Args:
        batch: frames of a batch, all of one subject.
        alike: they are drawn from so many times as many frames whose directions are nearest to one of them: a view of
            the volume that is encoded for a batch then suits them all. 0: from all frames.
        limits: half widths of the start about the truth, in the image's axes about its centre: three mm, three degrees.
        far_limits, far_share: other limits, and the share of the pairs that they hold for.
        frame_mm, volume_mm: pixels and voxels are brought to at most this size.
        min_overlap: share of a frame's sector that must lie in known voxels for the frame to be taken.
        augment: of the images; None: they stay as they are.
    """

    batch: int = 4
    alike: float = 0.0
    limits: Limits = PAPER
    far_limits: Limits = (40.0, 40.0, 40.0, 30.0, 30.0, 30.0)
    far_share: float = 0.0
    frame_mm: float = 1.0
    volume_mm: float = 1.0
    min_overlap: float = 0.5
    augment: AugmentConfig | None = field(default_factory=AugmentConfig)

    def __post_init__(self) -> None:
        check_range("batch", self.batch, 1, 1024)
        check_range("alike", self.alike, 0.0, 1e6)
        for name in ("limits", "far_limits"):
            for number, value in enumerate(getattr(self, name)):
                check_range(f"{name}[{number}]", value, 0.0, 100.0 if number < 3 else 90.0)
        check_range("far_share", self.far_share, 0.0, 1.0)
        check_range("frame_mm", self.frame_mm, 0.05, 20.0)
        check_range("volume_mm", self.volume_mm, 0.05, 20.0)
        check_range("min_overlap", self.min_overlap, 0.0, 1.0)


@dataclass(frozen=True, eq=False)
class Batch:
    """Frames of one subject, each with where it truly lies in the volume and where it is thought to lie.

    Args:
        subject: index. volume: of the subject, reduced.
        frames: B, reduced, of one geometry; their images are `images` as uint8.
        ct_T_start, ct_T_true: (B, 4, 4) float64, mm: `ct_T_image` of the start and of the truth.
        liver: (B, h, w) bool, pixels for which the truth holds.
        images: (B, h, w) float32 in 0..1, augmented.
        seed, number: of the pairs, and which batch of theirs it is; `generator` draws from these alone.
    """

    subject: int
    volume: Volume
    frames: tuple[TrackedFrame, ...]
    ct_T_start: Tensor
    ct_T_true: Tensor
    liver: Tensor
    images: Tensor
    seed: int = 0
    number: int = 0

    def generator(self) -> torch.Generator:
        """For what an objective draws: the same numbers whenever this batch is met."""
        return generator_of(self.seed, 2, self.number)

    def to(self, device: torch.device) -> Batch:
        """The batch with its arrays on a device."""
        frames = (replace(f, frame=replace(f.frame, image=f.frame.image.to(device))) for f in self.frames)
        return replace(
            self, volume=moved(self.volume, device), frames=tuple(frames),
            ct_T_start=self.ct_T_start.to(device), ct_T_true=self.ct_T_true.to(device), liver=self.liver.to(device),
            images=self.images.to(device),
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def geometry(self) -> ImageGeometry:
        """Of all its frames."""
        return self.frames[0].frame.geometry


@dataclass(frozen=True, eq=False)
class Prepared:
    """A subject in memory: reduced, and only frames that lie in the volume.

    Args:
        groups: indices of frames that share one geometry.
    """

    seed: int
    volume: Volume
    frames: tuple[TrackedFrame, ...]
    ct_T_images: Tensor
    liver: Tensor | tuple[Tensor, ...]
    groups: tuple[tuple[int, ...], ...]


class Pairs:
    """Batches of subjects."""

    def __init__(
        self, subjects: Sequence[Source], config: PairConfig | None = None, seed: int = 0,
        progress: Progress | None = None, device: torch.device | None = None,
    ) -> None:  # fmt: skip
        """Reduce the subjects, which may be made or read one by one while this goes on.

        Args:
            device: where volumes lie; the rest is drawn on the processor.

        Raises:
            ConfigError: no subject, or one without a frame in its volume.
        """
        self.config = config or PairConfig()
        self.seed = seed
        if not len(subjects):
            raise ConfigError("there are no subjects to draw pairs from: name bodies, for example 3000:3040")
        self.subjects: list[Prepared] = []
        for number in range(len(subjects)):
            found = prepare(subjects[number], self.config)
            self.subjects.append(found if device is None else replace(found, volume=moved(found.volume, device)))
            if progress is not None:
                progress(number + 1, len(subjects))

    def batch(self, step: int, rank: int = 0, world: int = 1) -> Batch:
        """The batch of a step for one of `world` processes: batch number step * world + rank.

        Each subject has its turn once before one has a second; frames, starts and looks are drawn.
        """
        number = step * world + rank
        turn, place = divmod(number, len(self.subjects))
        order = torch.randperm(len(self.subjects), generator=generator_of(self.seed, 0, turn))
        return self._drawn(int(order[place]), number)

    def _drawn(self, index: int, number: int) -> Batch:
        subject, count = self.subjects[index], self.config.batch
        generator = generator_of(self.seed, 1, number)
        near = round(self.config.alike * count)
        groups = [_neighbours(g, subject.ct_T_images, near, generator) for g in subject.groups] if near else []
        chosen = _choose(groups or subject.groups, count, generator)
        true = subject.ct_T_images[chosen]
        frames = [subject.frames[i] for i in chosen]
        start = self._starts(true, frames[0].frame.plane.centre_mm, generator)
        images = torch.stack([f.frame.image for f in frames]).to(torch.float32) / 255.0
        if self.config.augment is not None:
            images = augment(images, frames[0].frame.geometry, self.config.augment, generator)
        shown = (images * 255.0).round().to(torch.uint8)
        frames = [replace(f, frame=replace(f.frame, image=i)) for f, i in zip(frames, shown, strict=True)]
        liver = torch.stack([subject.liver[i] for i in chosen])
        return Batch(index, subject.volume, tuple(frames), start, true, liver, images, self.seed, number)

    def _starts(self, true: Tensor, centre: Tensor, generator: torch.Generator) -> Tensor:
        """Poses (B, 4, 4) off the truth, uniform within the limits."""
        near, far = (
            torch.tensor([*v[:3], *map(math.radians, v[3:])]) for v in (self.config.limits, self.config.far_limits)
        )
        is_far = torch.rand(len(true), 1, generator=generator) < self.config.far_share
        uniform = 2 * torch.rand(len(true), 6, generator=generator) - 1
        twist = (uniform * torch.where(is_far, far, near)).to(torch.float64)
        return se3.right_at_centre(true, twist[:, :3], twist[:, 3:], centre)


def moved(volume: Volume, device: torch.device) -> Volume:
    """The volume on a device; the same object where it lies there."""
    if volume.data.device == device:
        return volume
    mask = None if volume.mask is None else volume.mask.to(device)
    return replace(volume, data=volume.data.to(device), mask=mask, labels=None, label_names={})


def generator_of(*numbers: int) -> torch.Generator:
    """A generator of its own for each tuple of numbers that are not negative."""
    state = np.random.SeedSequence(numbers).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(state[0]) << 31 | int(state[1]) >> 1)


def prepare(subject: Source, config: PairConfig) -> Prepared:
    """Reduce a subject and leave out frames outside its volume.

    Raises:
        ConfigError: no frame is left.
    """
    volume = replace(reduce_volume(subject.volume, config.volume_mm), labels=None, label_names={})
    poses = se3.inverse(subject.world_T_cts) @ torch.stack([f.world_T_image for f in subject.frames])
    reduced = [replace(f, frame=reduce_frame(f.frame, config.frame_mm)) for f in subject.frames]
    groups: dict[ImageGeometry, list[int]] = {}
    for i, f in enumerate(reduced):
        groups.setdefault(f.frame.geometry, []).append(i)
    shares = {g: overlaps(volume, poses[members], g) for g, members in groups.items()}
    kept = sorted(
        i for g, members in groups.items()
        for i, share in zip(members, shares[g], strict=True) if share >= config.min_overlap
    )  # fmt: skip
    if not kept:
        raise ConfigError(
            f"no frame of subject {subject.seed} lies in its volume by {config.min_overlap:.0%}: leave the subject out "
            "or ask for less (min_overlap)"
        )
    frames = tuple(reduced[i] for i in kept)
    liver = tuple(reduce_mask(subject.liver[i], subject.frames[i].frame.geometry, config.frame_mm) for i in kept)
    places = [tuple(kept.index(i) for i in members if i in kept) for members in groups.values()]
    return Prepared(subject.seed, volume, frames, poses[kept], liver, tuple(filter(None, places)))


def overlaps(volume: Volume, ct_T_images: Tensor, geometry: ImageGeometry) -> list[float]:
    """Shares of the sector that lie in known voxels, for poses (N, 4, 4); looked at every few millimetres."""
    geometry = _every(geometry, OVERLAP_MM)
    _, masks = slice_volume(volume, ct_T_images.to(torch.float32), geometry.plane)
    sector = geometry.mask()
    return ((masks[:, 0] & sector).sum((1, 2)) / sector.sum().clamp_min(1)).tolist()


def _every(geometry: ImageGeometry, step_mm: float) -> ImageGeometry:
    """The same field of view on pixels of about `step_mm`."""
    plane = geometry.plane
    columns, rows = (stride_of(s, step_mm) for s in plane.spacing_mm)
    (a, b), (_, d) = plane.pixel_to_mm
    grid = ((a * columns, b * rows), (0.0, d * rows))
    return replace(geometry, plane=PlaneGrid(-(-plane.height // rows), -(-plane.width // columns), grid))


def _neighbours(group: Sequence[int], poses: Tensor, count: int, generator: torch.Generator) -> list[int]:
    """The `count` frames of a group whose directions differ least from that of one of them, drawn."""
    turns = poses[list(group), :3, :3]
    one = int(torch.randint(len(group), (), generator=generator))
    angles = rotation.geodesic_angle(turns[one].expand(len(turns), 3, 3), turns)
    return [group[i] for i in torch.argsort(angles, stable=True)[: max(1, count)].tolist()]


def _choose(groups: Sequence[Sequence[int]], count: int, generator: torch.Generator) -> list[int]:
    """Indices of `count` frames of one geometry; none twice where there are enough."""
    sizes = torch.tensor([float(len(g)) for g in groups])
    group = groups[int(torch.multinomial(sizes, 1, generator=generator))]
    chosen: list[int] = []
    while len(chosen) < count:
        order = torch.randperm(len(group), generator=generator).tolist()
        chosen += [group[i] for i in order[: count - len(chosen)]]
    return chosen
