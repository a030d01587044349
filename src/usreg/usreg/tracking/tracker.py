# SPDX-License-Identifier: Apache-2.0
"""A frame gets the pose of its image plane at its stamp."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from ..data.types import Calibration, Frame, TrackedFrame
from ..geometry import se3


class PoseSource(Protocol):
    """What gives measured poses world_T_probe with covariance: `PoseBuffer`, `JointBuffer`."""

    def at(self, stamp_s: float) -> tuple[Tensor, Tensor]:
        """Pose (4, 4) and covariance (6, 6) about the probe's origin, world axes; raises StalePoseError."""
        ...

    def reset(self) -> None:
        """Forget everything."""
        ...


class Tracker:
    """world_T_image = world_T_probe(stamp) @ probe_T_image, with the covariance moved to the image's origin."""

    def __init__(self, calibration: Calibration, buffer: PoseSource) -> None:
        self.calibration = calibration
        self.buffer = buffer

    def track(self, frame: Frame) -> TrackedFrame:
        """The frame with its measured pose.

        Raises:
            StalePoseError: no measured pose can be given at the frame's stamp.
        """
        return TrackedFrame(frame, *self.pose_at(frame.stamp_s))

    def pose_at(self, stamp_s: float) -> tuple[Tensor, Tensor]:
        """world_T_image (4, 4) and its covariance (6, 6) about the image's origin; raises as `track`."""
        world_T_probe, covariance = self.buffer.at(stamp_s)
        world_T_image = world_T_probe @ self.calibration.probe_T_image
        offset = world_T_image[:3, 3] - world_T_probe[:3, 3]
        return world_T_image, se3.move_pivot(covariance, offset)

    def reset(self) -> None:
        """Forget every pose (a time jump, another recording)."""
        self.buffer.reset()
