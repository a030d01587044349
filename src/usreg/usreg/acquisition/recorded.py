# SPDX-License-Identifier: Apache-2.0
"""Sources of recorded frames: bags, PLUS sequences, DICOM cines. Their stamps are those of acquisition already."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Rows
from pathlib import Path

from torch import Tensor

from ..data.bag_reader import BagReader
from ..data.bag_types import RawMessage
from ..data.dicom import read_cine
from ..data.pairing import FramePairs
from ..data.sequence import Sequence
from ..data.types import Frame, ImageGeometry
from ..errors import MissingFileError, ShapeError, SourceError, UsregError
from .agreement import AcquisitionConfig, acquire
from .stamp_guard import StampGuard

log = logging.getLogger(__name__)


class ArraySource:
    """Frames of images that lie in memory.

    Args:
        images: (N, h, w) uint8.
        stamps_s: (N,) seconds, of acquisition; `config.latency_s` is a residual shift, 0 by default.
        valid: (N,) bool, frames without an image are left out; None = all.
        select: which frames, by their index in the sequence.
    """

    def __init__(
        self,
        images: Tensor,
        stamps_s: Tensor,
        geometry: ImageGeometry,
        config: AcquisitionConfig | None = None,
        valid: Tensor | None = None,
        select: slice = slice(None),
    ) -> None:
        if images.dim() != 3 or stamps_s.shape != images.shape[:1]:
            raise ShapeError(f"images (N, h, w) need N stamps, got {tuple(images.shape)} and {tuple(stamps_s.shape)}")
        self._images, self._stamps, self._geometry = images, stamps_s, geometry
        self._config = config or AcquisitionConfig()
        self._indices = [i for i in range(*select.indices(len(images))) if valid is None or bool(valid[i])]
        self._guard = StampGuard(self._config.reset_after_s)

    def __len__(self) -> int:
        return len(self._indices)

    def __iter__(self) -> Iterator[Frame]:
        self._guard.reset()
        for i in self._indices:
            frame = acquire(self._images[i], float(self._stamps[i]), self._geometry, self._config, i)
            admission = self._guard.check(frame.stamp_s)
            if admission.accepted:
                yield frame
            else:
                log.warning("frame %d was left out: %s", i, admission.reason)

    def reset(self) -> None:
        """Begin again with the first frame: each iteration does."""
        self._guard.reset()


class BagSource:
    """Frames of a bag, in the order of recording; image and geometry are paired by equal stamp.

    Args:
        geometry: used where the bag has no geometry topic.
        topics: of image and geometry.
        on_drop: told why a message was left out.
    """

    def __init__(
        self,
        path: str | Path,
        geometry: ImageGeometry | None = None,
        topics: Rows[str] = ("/us/image", "/us/geometry"),
        on_drop: Callable[[str], None] = log.warning,
    ) -> None:
        self._path, self._geometry, self._topics, self._on_drop = Path(path), geometry, tuple(topics), on_drop

    def __iter__(self) -> Iterator[Frame]:
        image_topic, geometry_topic = self._topics
        with BagReader(self._path) as bag:
            fixed = None if geometry_topic in bag.topics else self._geometry
            if geometry_topic not in bag.topics and fixed is None:
                raise MissingFileError(f"'{self._path.name}' has no topic {geometry_topic}: name the probe")
            pairs, guard = FramePairs(fixed), StampGuard()
            for raw in bag.raw_messages([image_topic] if fixed else [image_topic, geometry_topic]):
                frame = self._pair(pairs, raw.topic == image_topic, bag, raw)
                if frame is not None:
                    admission = guard.check(frame.stamp_s)
                    if admission.accepted:
                        yield frame
                    else:
                        self._on_drop(admission.reason)
            self._report(pairs.finish())

    def _pair(self, pairs: FramePairs, is_image: bool, bag: BagReader, raw: RawMessage) -> Frame | None:
        try:
            message = bag.decode(raw)
            frame = pairs.add_image(message) if is_image else pairs.add_geometry(message)
        except UsregError as error:
            self._on_drop(str(error))
            frame = None
        self._report(pairs.lost)
        pairs.lost.clear()
        return frame

    def _report(self, lost: Rows[tuple[float, str]]) -> None:
        for stamp_s, reason in lost:
            self._on_drop(f"the image or geometry at {stamp_s:.6f} s was left out: {reason}")

    def reset(self) -> None:
        """Begin again with the first frame: each iteration does."""


class SequenceSource(ArraySource):
    """Frames of a PLUS sequence; those without pixels or without a usable stamp are left out.

    Args:
        geometry: of its images, for example of the calibration (`sector_for`).

    Raises:
        SourceError: the sequence holds poses without images.
    """

    def __init__(
        self,
        sequence: Sequence,
        geometry: ImageGeometry,
        config: AcquisitionConfig | None = None,
        select: slice = slice(None),
    ) -> None:
        if sequence.images is None:
            raise SourceError("the sequence holds poses without images: it gives no frames")
        valid = sequence.image_valid if sequence.stamp_valid is None else sequence.image_valid & sequence.stamp_valid
        super().__init__(sequence.images, sequence.stamps_s, geometry, config, valid, select)


class DicomCineSource(ArraySource):
    """Frames of a DICOM cine, stamps from its frame time.

    Args:
        geometry: of its pictures after `config.crop`; None: the region calibrated in the file.

    Raises:
        SourceError: the file has no calibration and no geometry was given.
    """

    def __init__(
        self, path: str | Path, geometry: ImageGeometry | None = None, config: AcquisitionConfig | None = None
    ) -> None:
        cine = read_cine(path)
        geometry = geometry or cine.geometry
        if geometry is None:
            raise SourceError(f"'{Path(path).name}' has no calibrated region: name the probe (config/probes)")
        super().__init__(cine.images, cine.stamps_s, geometry, config)
