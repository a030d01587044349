# SPDX-License-Identifier: Apache-2.0
"""Image and geometry travel as two messages of the same stamp: here they find each other."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..config import check_range
from .bag_messages import decode_geometry, decode_image
from .types import Frame, ImageGeometry


class FramePairs:
    """Pairs images with geometries of equal stamp, whichever comes first.

    Args:
        fixed: geometry of every image, for streams without a geometry topic.
        max_pending: messages that wait; beyond it the oldest is given up and named in `lost`.
    """

    def __init__(self, fixed: ImageGeometry | None = None, max_pending: int = 64) -> None:
        check_range("max_pending", max_pending, 1, 10000)
        self._fixed, self._limit = fixed, max_pending
        self._images: dict[float, Tensor] = {}
        self._geometries: dict[float, ImageGeometry] = {}
        self._count = 0
        self.lost: list[tuple[float, str]] = []

    def add_image(self, message: Any) -> Frame | None:
        """A frame when its geometry is there.

        Raises:
            FileFormatError, ShapeError: the message contradicts itself, or its geometry.
        """
        stamp_s, image = decode_image(message)
        geometry = self._fixed or self._geometries.pop(stamp_s, None)
        if geometry is not None:
            return self._frame(image, geometry, stamp_s)
        self._keep(self._images, stamp_s, image, "its geometry did not come")
        return None

    def add_geometry(self, message: Any) -> Frame | None:
        """A frame when its image is there.

        Raises:
            GeometryError, ShapeError: the message contradicts itself, or its image.
        """
        stamp_s, geometry = decode_geometry(message)
        if stamp_s in self._images:
            return self._frame(self._images.pop(stamp_s), geometry, stamp_s)
        self._keep(self._geometries, stamp_s, geometry, "its image did not come")
        return None

    def finish(self) -> list[tuple[float, str]]:
        """Stamps that found no partner until now, with the reason; forgets them."""
        lost, self.lost = self.lost, []
        lost += [(s, "its geometry did not come") for s in self._images]
        lost += [(s, "its image did not come") for s in self._geometries]
        self.reset()
        return lost

    def reset(self) -> None:
        """Forget what waits, and count frames from zero again."""
        self._images.clear()
        self._geometries.clear()
        self._count = 0

    def _frame(self, image: Tensor, geometry: ImageGeometry, stamp_s: float) -> Frame:
        frame = Frame(image, geometry, stamp_s, self._count)
        self._count += 1
        return frame

    def _keep(self, pending: dict[float, Any], stamp_s: float, value: Any, reason: str) -> None:
        pending[stamp_s] = value
        if len(pending) > self._limit:
            oldest = next(iter(pending))
            del pending[oldest]
            self.lost.append((oldest, reason))
