# SPDX-License-Identifier: Apache-2.0
"""Surfaces of organs for stock viewers: files on this machine, and the markers that name them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from geometry_msgs.msg import Vector3
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker

from ..data.types import Volume
from ..errors import UsregError
from ..fusion.organs import Look, organ_files
from .worker import NewestWorker

NICENESS = 10


class Surfaces:
    """Makes the surfaces of a volume in a thread, once somebody wants them.

    Args:
        frame: of the volume. refused: told why there are none.
    """

    def __init__(self, frame: str, refused: Callable[[UsregError], None]) -> None:
        self._frame, self._refused = frame, refused
        self._wanted: Volume | None = None
        self._markers: tuple[Marker, ...] = ()
        self._worker: NewestWorker | None = None

    def of(self, volume: Volume) -> tuple[Marker, ...]:
        """Those that are made by now; the first call for a volume has them made."""
        if volume is not self._wanted:
            self._wanted, self._markers = volume, ()
            self._worker = self._worker or NewestWorker(self._make, niceness=NICENESS, name="surfaces")
            self._worker.put(volume)
        return self._markers

    def stop(self) -> None:
        """End the thread; the organ in hand is not waited for."""
        worker, self._worker, self._wanted = self._worker, None, None
        if worker is not None:
            worker.stop(0.0)

    def _make(self, volume: Volume) -> None:
        made: tuple[Marker, ...] = ()
        try:
            for look, path in organ_files(volume):
                if self._wanted is not volume:
                    return
                made = (*made, surface_marker(look, path, self._frame))
                self._markers = made
        except UsregError as error:
            self._refused(error)


def surface_marker(look: Look, path: Path, frame: str) -> Marker:
    """MESH_RESOURCE of a file in metres; it stays where the volume's frame goes."""
    red, green, blue = (c / 255 for c in look.colour)
    return Marker(
        header=Header(frame_id=frame), ns=f"{look.name} surface", type=Marker.MESH_RESOURCE, frame_locked=True,
        mesh_resource=path.as_uri(), scale=Vector3(x=1.0, y=1.0, z=1.0),
        color=ColorRGBA(r=red, g=green, b=blue, a=float(look.opacity)),
    )  # fmt: skip


def no_marker(name: str, frame: str) -> Marker:
    """Has a viewer take away a marker that was sent alone under this name."""
    return Marker(header=Header(frame_id=frame), ns=name, action=Marker.DELETE)
