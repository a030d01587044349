# SPDX-License-Identifier: Apache-2.0
"""What a simulated recording knows of where everything truly lies, for the error that the page shows.

It is read from the bag's file, never from a topic: no node hears the truth. Imports nothing of ROS.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping

from torch import Tensor

from ..data.bag_poses import decode_transforms
from ..data.bag_reader import BagReader
from ..data.landmarks import read_landmarks
from ..data.sessions import Session
from ..data.types import Frame
from ..evaluation import landmark_tre_mm, tre_mm, vessel_points
from ..geometry import se3

SAME_S = 1e-6  # by which the clocks of bag and message may differ


class Truth:
    """True poses by stamp.

    Args:
        session: whose bag is read now; small messages only.

    Raises:
        UsregError: the bag or the landmarks cannot be read.
    """

    def __init__(self, session: Session) -> None:
        names = session.config.frames
        self.landmarks: Mapping[str, Tensor] = (
            {} if session.landmarks_path is None else read_landmarks(session.landmarks_path)
        )
        self._points = vessel_points(self.landmarks) if self.landmarks else None
        self._volume, self._image = (names.world, names.volume), (names.world, names.image)
        self._known: dict[tuple[str, str], tuple[list[float], list[Tensor]]] = {}
        with BagReader(session.bag_path) as bag:
            topic = session.config.topics.truth
            for _, _, message in bag.messages([topic]) if topic in bag.topics else ():
                for t in decode_transforms(message):
                    stamps, poses = self._known.setdefault((t.parent, t.child), ([], []))
                    stamps.append(t.stamp_s)
                    poses.append(t.parent_T_child)

    def __bool__(self) -> bool:
        return self._volume in self._known

    def _at(self, edge: tuple[str, str], stamp_s: float) -> Tensor | None:
        stamps, poses = self._known.get(edge, ([], []))
        place = bisect_right(stamps, stamp_s + SAME_S) - 1
        return None if place < 0 else se3.check_rigid(poses[place], f"true {edge[1]} in {edge[0]}")

    def tre_mm(self, frame: Frame, world_T_image: Tensor | None, world_T_ct: Tensor | None) -> float:
        """Error of a pose that is shown with a frame: mean over the landmarks where the session has some, else over
        the sector as a replay reports it; NaN where nobody knows."""
        truth = self._at(self._volume, frame.stamp_s)
        if world_T_ct is None or truth is None:
            return math.nan
        if self._points is not None:
            return landmark_tre_mm(world_T_ct, truth, self._points)
        if world_T_image is None:
            return math.nan
        found = se3.inverse(world_T_ct) @ world_T_image
        true_image = self._at(self._image, frame.stamp_s)
        true = se3.inverse(truth) @ (world_T_image if true_image is None else true_image)
        return tre_mm(found, true, frame.geometry)
