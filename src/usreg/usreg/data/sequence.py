# SPDX-License-Identifier: Apache-2.0
"""A tracked ultrasound sequence in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from ..errors import ShapeError
from .chain import find_path
from .sequence_fields import Statuses
from .stamp_checks import increasing_stamps
from .types import Trajectory


@dataclass(frozen=True, eq=False)
class Sequence:
    """Frames with their stamps and tracked transforms; everything else that the file said is kept for writing.

    Args:
        images: (N, h, w) uint8 in MF orientation, or None for poses alone.
        image_valid: (N,) bool, false where the file has no pixels for a frame.
        stamps_s: (N,) float64, NaN where the file has none.
        transforms: by name without its ending, "ProbeToTracker"; translations in the units of the file (mm; `Image` is
            in pixels).
        fields: other keys of each frame, as text. header: other keys of the file.
        statuses: of each transform as the file said, None = not said; empty = taken from the trajectories.
        image_status: likewise for the images.
        problems: in words, for `usreg info` and logs.
    """

    images: Tensor | None
    image_valid: Tensor
    stamps_s: Tensor
    transforms: dict[str, Trajectory]
    orientation: str = "MF"
    fields: tuple[dict[str, str], ...] = ()
    source_format: str = ""
    header: dict[str, str] = field(default_factory=dict)
    statuses: dict[str, Statuses] = field(default_factory=dict)
    image_status: Statuses = ()
    problems: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        n = self.stamps_s.shape[0]
        if self.images is not None and (
            self.images.dim() != 3 or self.images.dtype != torch.uint8 or self.images.shape[0] != n
        ):
            raise ShapeError(
                f"a sequence of {n} stamps needs images ({n}, h, w) uint8, got {tuple(self.images.shape)} "
                f"{self.images.dtype}"
            )
        if self.orientation != "MF":
            raise ShapeError(
                f"images in memory are MF, got '{self.orientation}': flip the pixels (never a matrix) first"
            )
        lengths = {
            "image_valid": len(self.image_valid),
            "fields": len(self.fields) or n,
            "image_status": len(self.image_status) or n,
        }
        lengths |= {name: len(t.stamps_s) for name, t in self.transforms.items()}
        wrong = {k: v for k, v in lengths.items() if v != n}
        if wrong:
            raise ShapeError(f"a sequence of {n} stamps has parts of other lengths: {wrong}")

    @cached_property
    def stamp_valid(self) -> Tensor:
        """(N,) bool, false where the stamp is missing, repeats or runs backwards."""
        return increasing_stamps(self.stamps_s)

    @property
    def count(self) -> int:
        """Frames."""
        return self.stamps_s.shape[0]

    @property
    def size(self) -> tuple[int, int] | None:
        """Width and height of the images, None for poses alone."""
        return None if self.images is None else (self.images.shape[2], self.images.shape[1])

    def find(self, source: str, target: str, extra: Mapping[str, Tensor] | None = None) -> Trajectory:
        """Poses that map `source` into `target`, by the shortest path of names; inverses included.

        Args:
            extra: static 4x4 by name, for example {"ImageToProbe": ...}; what the file
                measured comes first, as in PLUS.

        Returns:
            A trajectory; a frame is valid where every transform on the path is.

        Raises:
            MissingTransformError: no path.
        """
        statics = dict(extra or {})
        poses = torch.eye(4, dtype=torch.float64).repeat(self.count, 1, 1)
        valid = torch.ones(self.count, dtype=torch.bool)
        for name, inverted in find_path([*self.transforms, *statics], source, target):
            measured = self.transforms.get(name)
            step = statics[name].expand(self.count, 4, 4) if measured is None else measured.poses
            valid = valid if measured is None else valid & measured.valid
            poses = (_inverse(step, valid) if inverted else step) @ poses
        return Trajectory(self.stamps_s, poses, valid & torch.isfinite(poses).flatten(1).all(1), source, target)


def _inverse(matrices: Tensor, valid: Tensor) -> Tensor:
    """Inverses (N, 4, 4), affine ones too; rows that are not valid or not invertible become NaN."""
    usable = valid & (torch.linalg.det(torch.nan_to_num(matrices)).abs() > 1e-12)
    safe = torch.where(usable[:, None, None], matrices, torch.eye(4, dtype=matrices.dtype))
    return torch.where(usable[:, None, None], torch.linalg.inv(safe), torch.full_like(safe, torch.nan))


def subset(sequence: Sequence, frames: slice) -> Sequence:
    """The chosen frames of a sequence, with all that belongs to them."""
    index = list(range(sequence.count))[frames]
    pick = torch.tensor(index, dtype=torch.long)
    transforms = {
        k: Trajectory(t.stamps_s[pick], t.poses[pick], t.valid[pick], t.source, t.target)
        for k, t in sequence.transforms.items()
    }
    return replace(
        sequence,
        images=None if sequence.images is None else sequence.images[pick],
        image_valid=sequence.image_valid[pick],
        stamps_s=sequence.stamps_s[pick],
        transforms=transforms,
        fields=tuple(sequence.fields[i] for i in index) if sequence.fields else (),
        statuses={k: tuple(s[i] for i in index) for k, s in sequence.statuses.items()},
        image_status=tuple(sequence.image_status[i] for i in index) if sequence.image_status else (),
    )
