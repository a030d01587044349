# SPDX-License-Identifier: Apache-2.0
"""A frame gets the pose of its image plane at its stamp."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from ..data.types import Calibration, Frame, ImageGeometry, TrackedFrame
from ..errors import CalibrationError
from ..geometry import se3
from ..geometry.sector import SectorGeometry
from .history import History

SAME_MM = 1e-9  # geometries that went through metres differ by less


class PoseSource(Protocol):
    """What gives measured poses world_T_probe with covariance: `PoseBuffer`, `JointBuffer`."""

    def at(self, stamp_s: float) -> tuple[Tensor, Tensor]:
        """Pose (4, 4) and covariance (6, 6) about the probe's origin, world axes; raises StalePoseError."""
        ...

    def reset(self) -> None:
        """Forget everything."""
        ...


class Tracker:
    """world_T_image = world_T_probe(stamp) @ probe_T_image, with the covariance moved to the image's origin.

    probe_T_image may change within a session, because a change of depth moves the first pixel in the probe: by
    `recalibrate`, where another static transform is told, or by the frame's geometry (see `image_in_probe`).
    """

    def __init__(self, calibration: Calibration, buffer: PoseSource, since_s: float = 0.0) -> None:
        self._calibrations: History[Calibration] = History()
        self._calibrations.add(since_s, calibration)
        self.buffer = buffer

    def recalibrate(self, stamp_s: float, calibration: Calibration) -> None:
        """Another calibration for frames stamped from here on; the first one holds also before its stamp."""
        self._calibrations.add(stamp_s, calibration)

    def calibration_at(self, stamp_s: float) -> Calibration:
        """What holds for a frame."""
        return self._calibrations.at(stamp_s)

    def track(self, frame: Frame) -> TrackedFrame:
        """The frame with its measured pose.

        Raises:
            StalePoseError: no measured pose can be given at the frame's stamp.
            CalibrationError: the frame's geometry is not of the probe that was calibrated.
        """
        return TrackedFrame(frame, *self.pose_at(frame.stamp_s, frame.geometry))

    def pose_at(self, stamp_s: float, geometry: ImageGeometry | None = None) -> tuple[Tensor, Tensor]:
        """world_T_image (4, 4) and its covariance (6, 6) about the image's origin; raises as `track`.

        Args:
            geometry: of the frame; None: as it was calibrated.
        """
        world_T_probe, covariance = self.buffer.at(stamp_s)
        world_T_image = world_T_probe @ image_in_probe(self.calibration_at(stamp_s), geometry)
        offset = world_T_image[:3, 3] - world_T_probe[:3, 3]
        return world_T_image, se3.move_pivot(covariance, offset)

    def reset(self) -> None:
        """Forget every pose (a time jump, another recording); calibrations stay."""
        self.buffer.reset()


def image_in_probe(calibration: Calibration, geometry: ImageGeometry | None) -> Tensor:
    """probe_T_image (4, 4) of a frame, by the centre of the array, which no change of depth moves in the probe.

    probe_T_image(frame) = probe_T_image(calibrated) @ translation(apex_calibrated - apex_frame).

    Args:
        geometry: of the frame; None, or a calibration without a geometry: as it was calibrated.

    Raises:
        CalibrationError: another kind of probe, or a frame of another size whose geometry has no sector.
    """
    known = calibration.geometry
    if geometry is None or known is None:
        return calibration.probe_T_image
    if not isinstance(geometry, SectorGeometry):
        return _as_calibrated(calibration, known, geometry)
    if geometry.kind != known.kind:
        raise CalibrationError(
            f"the calibration is of a {known.kind} probe, the frame's geometry of a {geometry.kind} one: name the "
            "calibration of the probe in use"
        )
    (x0, y0), (x1, y1) = known.apex_mm, geometry.apex_mm
    if max(abs(x0 - x1), abs(y0 - y1)) < SAME_MM:
        return calibration.probe_T_image
    return calibration.probe_T_image @ se3.translation(torch.tensor([x0 - x1, y0 - y1, 0.0], dtype=torch.float64))


def _as_calibrated(calibration: Calibration, known: SectorGeometry, geometry: ImageGeometry) -> Tensor:
    """A frame without a sector has no centre of the array: only pixels of the calibrated size may be placed."""
    a, b = known.plane, geometry.plane
    change = torch.tensor(a.pixel_to_mm) - torch.tensor(b.pixel_to_mm)
    if (a.width, a.height) == (b.width, b.height) and change.abs().max() < SAME_MM:
        return calibration.probe_T_image
    raise CalibrationError(
        f"the calibration is for images of {a.width}x{a.height} with pixels {a.pixel_to_mm} mm, this frame has "
        f"{b.width}x{b.height} with {b.pixel_to_mm} mm and no sector that would say where the array lies in it: give "
        "the probe's geometry (config/probes)"
    )
