# SPDX-License-Identifier: Apache-2.0
"""Frames of a recording by their index, read from the bag when they are asked for."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

from ...data.bag_messages import decode_image
from ...data.bag_reader import BagReader
from ...data.types import Frame
from .known import FrameNote

KEPT = 16  # frames; the bag keeps the chunks around them


class Frames:
    """Pixels by index; a few frames are kept. For one thread."""

    def __init__(self, bag: Path, notes: Sequence[FrameNote]) -> None:
        self._bag, self._notes = BagReader(bag, skip_damaged=True), notes
        self._kept: OrderedDict[int, Frame] = OrderedDict()

    def __len__(self) -> int:
        return len(self._notes)

    def close(self) -> None:
        """Close the bag."""
        self._bag.close()

    def __getitem__(self, index: int) -> Frame:
        """The frame.

        Raises:
            FileFormatError: the bag has changed since its frames were found.
        """
        frame = self._kept.pop(index, None) or self._read(index)
        self._kept[index] = frame
        if len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return frame

    def _read(self, index: int) -> Frame:
        note = self._notes[index]
        _, image = decode_image(self._bag.decode(self._bag.read(note.place)))
        return Frame(image, note.geometry, note.stamp_s, index)
