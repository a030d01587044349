# SPDX-License-Identifier: Apache-2.0
"""Calibrations in YAML: `probe_T_image` rigid, `pixel_to_mm`, `latency_s`, `sector`, names of the frames."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..config import from_mapping, load_yaml
from ..errors import CalibrationError
from ..geometry import se3
from ..geometry.plane import Matrix2, PlaneGrid, check_pixel_to_mm
from ..geometry.sector import ProbeKind, SectorGeometry, full_rectangle
from .split import SplitLimits, shear_warning, split_image_to_probe
from .types import Calibration

ImageSize = tuple[int, int]
Row4 = tuple[float, float, float, float]
Matrix4 = tuple[Row4, Row4, Row4, Row4]
MAX_LATENCY_S = 10.0


@dataclass(frozen=True)
class SectorFile:
    """The sector in a YAML calibration, mm and radians of the image frame; the same names as `SectorGeometry`.

    Args:
        image_size: width and height in pixels; needed where no image says it.
        clip_mm: absent = the whole image.
        depth_mm: absent = far minus near radius, or the clip rectangle's height.
    """

    kind: ProbeKind = "linear"
    image_size: tuple[int, int] | None = None
    apex_mm: tuple[float, float] | None = None
    radius_mm: tuple[float, float] | None = None
    angle_rad: tuple[float, float] | None = None
    clip_mm: tuple[float, float, float, float] | None = None
    depth_mm: float | None = None
    sound_speed_m_s: float = 1540.0
    probe_id: str = ""

    def __post_init__(self) -> None:
        if self.kind != "linear" and None in (self.apex_mm, self.radius_mm, self.angle_rad):
            raise CalibrationError(f"a {self.kind} sector needs apex_mm, radius_mm and angle_rad")

    def geometry(self, plane: PlaneGrid) -> SectorGeometry:
        """The sector on a grid of pixels."""
        clip = self.clip_mm or full_rectangle(plane).clip_mm
        height = clip[3] - clip[1]
        apex = self.apex_mm or ((clip[0] + clip[2]) / 2, clip[1])
        radius = self.radius_mm or (0.0, height)
        angle = self.angle_rad or (0.0, 0.0)
        depth = self.depth_mm or (height if self.kind == "linear" else radius[1] - radius[0])
        extras = ("MF", self.sound_speed_m_s, self.probe_id)
        return SectorGeometry(self.kind, plane, apex, radius, angle, clip, depth, *extras)


@dataclass(frozen=True)
class NamesFile:
    """Names of the frames in a PLUS sequence."""

    image: str = "Image"
    probe: str = "Probe"
    world: str = "Tracker"


@dataclass(frozen=True)
class CalibrationFile:
    """A calibration in YAML: rigid `probe_T_image`, mm; upper-triangular `pixel_to_mm`; `statics`: more 4x4 by name."""

    probe_T_image: Matrix4
    pixel_to_mm: Matrix2
    latency_s: float = 0.0
    sector: SectorFile | None = None
    names: NamesFile = field(default_factory=NamesFile)
    error_mm: float | None = None
    statics: dict[str, Matrix4] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not (math.isfinite(self.latency_s) and abs(self.latency_s) <= MAX_LATENCY_S):
            raise CalibrationError(f"latency_s is {self.latency_s}; expected seconds, within {MAX_LATENCY_S} of zero")


def calibration_of_yaml(path: Path, size: ImageSize | None, limits: SplitLimits) -> tuple[Calibration, list[str]]:
    """Read a YAML calibration, and what is to be warned about.

    Raises:
        As `calibration.read_calibration`.
    """
    file = from_mapping(CalibrationFile, load_yaml(path), "")
    check_pixel_to_mm(file.pixel_to_mm)
    rigid = se3.check_rigid(_matrix(file.probe_T_image), f"probe_T_image of '{path.name}'")
    scaled = rigid @ _scale(file.pixel_to_mm)
    shear_deg = split_image_to_probe(scaled, limits, f"pixel_to_mm of '{path.name}'").shear_deg
    warnings = shear_warning(shear_deg, limits)
    geometry, more = _geometry(file, _agreed_size(file.sector, size, path.name))
    statics = {k: _matrix(v) for k, v in file.statics.items()}
    error = math.nan if file.error_mm is None else file.error_mm
    names = (file.names.image, file.names.probe, file.names.world)
    calibration = Calibration(rigid, file.pixel_to_mm, geometry, file.latency_s, *names, error, statics)
    return calibration, warnings + more


def _geometry(file: CalibrationFile, size: ImageSize | None) -> tuple[SectorGeometry | None, list[str]]:
    if size is None:
        return None, []
    plane = PlaneGrid(size[1], size[0], file.pixel_to_mm)
    if file.sector is None:
        return full_rectangle(plane), ["the calibration has no sector: the full image rectangle is used"]
    return file.sector.geometry(plane), []


def _agreed_size(sector: SectorFile | None, seen: ImageSize | None, name: str) -> ImageSize | None:
    stated = None if sector is None else sector.image_size
    if stated is not None and seen is not None and tuple(stated) != tuple(seen):
        raise CalibrationError(
            f"'{name}' is for images of {stated[0]}x{stated[1]}, these are {seen[0]}x{seen[1]}: "
            "take the calibration of this depth and size"
        )
    return stated or seen


def _scale(pixel_to_mm: Matrix2) -> Tensor:
    (a, b), (_, d) = pixel_to_mm
    scale = torch.eye(4, dtype=torch.float64)
    scale[0, 0], scale[0, 1], scale[1, 1] = a, b, d
    return scale


def _matrix(rows: Matrix4) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def calibration_mapping(calibration: Calibration) -> dict[str, Any]:
    """Plain numbers and names, keys as in the YAML file."""
    names = {"image": calibration.image_name, "probe": calibration.probe_name, "world": calibration.world_name}
    content: dict[str, Any] = {
        "probe_T_image": calibration.probe_T_image.tolist(),
        "pixel_to_mm": [list(row) for row in calibration.pixel_to_mm],
        "latency_s": calibration.latency_s,
        "names": names,
    }
    if math.isfinite(calibration.error_mm):
        content["error_mm"] = calibration.error_mm
    if calibration.geometry is not None:
        content["sector"] = sector_mapping(calibration.geometry)
    if calibration.statics:
        content["statics"] = {k: v.tolist() for k, v in calibration.statics.items()}
    return content


def sector_mapping(sector: SectorGeometry) -> dict[str, Any]:
    """A sector as plain numbers, keys as in the YAML file."""
    content: dict[str, Any] = {"kind": sector.kind, "image_size": [sector.plane.width, sector.plane.height]}
    content |= {"apex_mm": list(sector.apex_mm), "radius_mm": list(sector.radius_mm)}
    content |= {"angle_rad": list(sector.angle_rad), "clip_mm": list(sector.clip_mm)}
    content |= {"depth_mm": sector.depth_mm, "sound_speed_m_s": sector.sound_speed_m_s}
    return content | ({"probe_id": sector.probe_id} if sector.probe_id else {})
