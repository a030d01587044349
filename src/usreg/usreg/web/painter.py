# SPDX-License-Identifier: Apache-2.0
"""A moment as the page's message: the picture, the slice of the volume at it, outlines and all numbers.

What the page draws is what `fusion` draws: slice, outlines, marker dot and ruler come from the same functions. The page
only mixes them, so that whoever looks may choose how.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..compiled import njit
from ..data.types import Frame, Volume
from ..fusion import OverlayConfig, SweepTrail
from ..fusion.drawing import sector_of
from ..fusion.organs import Look, organ_looks
from ..fusion.overlay import label_outlines, samples_for, sliced
from ..geometry import se3
from ..geometry.plane import PlaneGrid
from ..geometry.sector import SectorGeometry, full_rectangle
from .fields import drawn, outline, target_at, told
from .letters import in_patient, side_letters
from .moment import Moment
from .scene import organ_messages, scene_message
from .wire import pack

Buffers = dict[str, np.ndarray]
NO_REACH = "the volume does not reach this frame"


class Painter:
    """Makes the messages of a session: of the scene when it changes, of every frame.

    `frame` and the others may run in different threads; a frame sees the volume before or after, never half of it.
    """

    def __init__(self, config: OverlayConfig | None = None) -> None:
        self.config = config or OverlayConfig()
        self.volume: Volume | None = None
        self._looks: list[Look] = []
        self._trail = SweepTrail()
        self._stamp_s = -math.inf

    def use(
        self, volume: Volume | None, landmarks: Mapping[str, Tensor] | None = None, target_ct: Tensor | None = None
    ) -> list[tuple[str, bytes]]:
        """Show a volume from now on. Returns the messages to keep for every client, by key.

        Args:
            landmarks: points (3,) in `ct`, mm, by name. target_ct: (3,), mm.
        """
        if volume is not self.volume:
            if volume is not None:
                self._prepare(volume)
            self._looks = [] if volume is None else organ_looks(volume)
        message = scene_message(volume, self._looks, self.config, landmarks or {}, target_ct)
        self.volume = volume
        return [("scene", message)]

    def organs(self, volume: Volume) -> Iterator[tuple[str, bytes]]:
        """Surfaces of the volume's labels, (key, message), one at a time: slow the first time, see `fusion.organs`."""
        return organ_messages(volume)

    def frame(self, moment: Moment, seq: int) -> bytes:
        """The message of one moment."""
        frame = moment.frame
        sector = sector_of(frame.geometry)
        header = {
            "type": "frame",
            "seq": seq,
            "width": sector.plane.width,
            "height": sector.plane.height,
            **told(moment),
            **drawn(sector),
        }
        buffers: Buffers = {"image": frame.image.numpy(), "outline": outline(sector)}
        fused, more = self._fused(moment, sector, self.volume)
        buffers["trail"] = self._trail_of(moment)
        return pack({**header, **fused}, {**buffers, **more})

    def _prepare(self, volume: Volume) -> None:
        """Window and compilation, so that the first frame is not slow."""
        geometry = full_rectangle(PlaneGrid(32, 32, ((1.0, 0.0), (0.0, 1.0))))
        frame = Frame(torch.zeros(32, 32, dtype=torch.uint8), geometry, 0.0)
        centre = se3.translation(volume.grid.centre_ct)
        self._fused(Moment(frame, centre, se3.identity()), sector_of(geometry), volume)

    def reset(self) -> None:
        """Forget the sweep's trail (another recording, a jump in time)."""
        self._trail.reset()
        self._stamp_s = -math.inf

    def _fused(self, moment: Moment, sector: SectorGeometry, volume: Volume | None) -> tuple[dict[str, Any], Buffers]:
        """What needs the volume at its place: slice, contours, letters, target."""
        world_T_image, world_T_ct = moment.world_T_image, moment.world_T_ct
        if volume is None or world_T_image is None or world_T_ct is None:
            return {"fused": False, "note": "", "letters": None, "target": None, "contours": []}, {
                "contour": np.zeros((0, 2), np.float32)
            }
        ct_T_image = se3.inverse(world_T_ct) @ world_T_image
        shown, reached = _shown(volume, ct_T_image, sector, self.config)
        listed, points = self._contours(volume, ct_T_image, sector)
        header = {
            "fused": True,
            "note": "" if reached else NO_REACH,
            "letters": side_letters(ct_T_image) if in_patient(volume) else None,
            "target": None
            if moment.target_ct is None
            else target_at(moment.target_ct, world_T_ct, world_T_image, sector),
            "contours": listed,
        }
        return header, {"slice": shown, "contour": points}

    def _contours(
        self, volume: Volume, ct_T_image: Tensor, sector: SectorGeometry
    ) -> tuple[list[dict[str, Any]], np.ndarray]:
        """Names, colours and point counts, and all points (N, 2), (column, row)."""
        found = label_outlines(volume, ct_T_image, sector, self.config) if self.config.outlines else []
        listed = [
            {"value": c.value, "name": c.name, "colour": colour, "outlines": [len(o) for o in c.outlines]}
            for c, colour in found
        ]
        points = [o for c, _ in found for o in c.outlines]
        return listed, np.concatenate(points) if points else np.zeros((0, 2), np.float32)

    def _trail_of(self, moment: Moment) -> np.ndarray:
        """Where the transducer has been, (K, 3) in the world; begun anew where time jumps back."""
        if moment.frame.stamp_s < self._stamp_s:
            self._trail.reset()
        self._stamp_s = moment.frame.stamp_s
        if moment.world_T_image is not None:
            self._trail.add_pose(moment.frame.geometry, moment.world_T_image)
        return self._trail.line().points.to(torch.float32).numpy()


def _shown(
    volume: Volume, ct_T_image: Tensor, sector: SectorGeometry, config: OverlayConfig
) -> tuple[np.ndarray, bool]:
    """The slice (h, w) uint8 where it may be shown, at least 1 there and 0 elsewhere, and whether it is anywhere."""
    where = samples_for(sector, config.slice_step)
    grey, mask = sliced(volume, ct_T_image, sector.plane, config, where)
    shown = np.empty(grey.shape, np.uint8)
    return shown, bool(_lift(grey.numpy(), mask.numpy(), sector.mask().numpy(), shown))


@njit()
def _lift(grey: Any, known: Any, inside: Any, shown: Any) -> int:
    """Grey values where known and inside, 0 raised to 1; 0 elsewhere. Returns how many."""
    count = 0
    for row in range(grey.shape[0]):
        for column in range(grey.shape[1]):
            visible = np.uint8(known[row, column] & inside[row, column])
            shown[row, column] = max(grey[row, column], np.uint8(1)) * visible
            count += visible
    return count
