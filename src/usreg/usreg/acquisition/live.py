# SPDX-License-Identifier: Apache-2.0
"""Pictures that arrive become frames: the part that the acquisition node wraps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..data.types import Frame, ImageGeometry
from ..errors import UsregError
from .agreement import AcquisitionConfig, acquire
from .stamp_guard import StampGuard


@dataclass(frozen=True, eq=False)
class Arrival:
    """What became of a picture.

    Args:
        frame: None where the picture was dropped.
        reset: time jumped back: everything with a memory begins again, then takes this frame.
        reason: why it was dropped, or why there is a reset.
        geometry_changed: the first frame of another geometry (depth, zoom, probe).
    """

    frame: Frame | None
    reset: bool = False
    reason: str = ""
    geometry_changed: bool = False


class Acquirer:
    """Turns pictures into frames one after the other: grey, crop, orientation, size, latency, stamps.

    Args:
        geometry: of pictures that come without one.
    """

    def __init__(self, geometry: ImageGeometry, config: AcquisitionConfig | None = None) -> None:
        self._geometry, self._config = geometry, config or AcquisitionConfig()
        self._guard = StampGuard(self._config.reset_after_s)
        self._last: ImageGeometry | None = None
        self._index = 0
        self.geometry_sequence = 0

    @property
    def dropped(self) -> int:
        """Pictures that did not become frames."""
        return self._guard.dropped

    def add(self, picture: Any, arrival_s: float, geometry: ImageGeometry | None = None) -> Arrival:
        """Take a picture (h, w) or (h, w, 3) uint8; nothing is raised for a bad one, the reason says what was wrong."""
        geometry = geometry or self._geometry
        try:
            frame = acquire(picture, arrival_s, geometry, self._config, self._index)
        except UsregError as error:
            self._guard.dropped += 1
            return Arrival(None, reason=str(error))
        admission = self._guard.check(frame.stamp_s)
        if not admission.accepted:
            return Arrival(None, reason=admission.reason)
        changed = self._last is not None and self._last != geometry
        self.geometry_sequence += changed
        self._last, self._index = geometry, self._index + 1
        return Arrival(frame, admission.reset, admission.reason, changed)

    def reset(self) -> None:
        """Forget the last stamp; counts go on."""
        self._guard.reset()
