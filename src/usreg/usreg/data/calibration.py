# SPDX-License-Identifier: Apache-2.0
"""Spatial calibrations: usreg's YAML and PLUS device sets."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import torch
import yaml
from torch import Tensor

from ..config import from_mapping, load_yaml
from ..errors import CalibrationError, MissingTransformError, ShapeError
from ..geometry import se3
from ..geometry.plane import Matrix2, PlaneGrid, check_pixel_to_mm
from ..geometry.sector import ProbeKind, SectorGeometry, full_rectangle
from .atomic import write_text
from .chain import find_path
from .plus_xml import attribute_numbers, read_xml, static_transforms
from .sector_xml import sector_of_xml
from .split import SplitLimits, split_image_to_probe
from .types import Calibration

logger = logging.getLogger("usreg.data")
ImageSize = tuple[int, int]
Row4 = tuple[float, float, float, float]
Matrix4 = tuple[Row4, Row4, Row4, Row4]


@dataclass(frozen=True)
class SectorFile:
    """The sector in a YAML calibration, mm and degrees of the image frame; the same names as `SectorGeometry`.

    Args:
        image_size: width and height in pixels; needed where no image says it.
        clip_mm: absent = the whole image.
    """

    kind: ProbeKind = "linear"
    image_size: tuple[int, int] | None = None
    apex_mm: tuple[float, float] | None = None
    radius_mm: tuple[float, float] | None = None
    angle_deg: tuple[float, float] = (0.0, 0.0)
    clip_mm: tuple[float, float, float, float] | None = None
    depth_mm: float | None = None
    sound_speed_m_s: float = 1540.0
    probe_id: str = ""

    def __post_init__(self) -> None:
        if self.kind != "linear" and (self.apex_mm is None or self.radius_mm is None or self.angle_deg == (0.0, 0.0)):
            raise CalibrationError(f"a {self.kind} sector needs apex_mm, radius_mm and angle_deg")


@dataclass(frozen=True)
class NamesFile:
    """Names of the frames in a PLUS sequence."""

    image: str = "Image"
    probe: str = "Probe"
    world: str = "Tracker"


@dataclass(frozen=True)
class CalibrationFile:
    """A calibration in YAML: `probe_T_image` rigid, mm; `pixel_to_mm` upper triangular; `statics` further 4x4 by name."""

    probe_T_image: Matrix4
    pixel_to_mm: Matrix2
    latency_s: float = 0.0
    sector: SectorFile | None = None
    names: NamesFile = field(default_factory=NamesFile)
    error_mm: float | None = None
    statics: dict[str, Matrix4] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not (math.isfinite(self.latency_s) and abs(self.latency_s) <= 10):
            raise CalibrationError(f"latency_s is {self.latency_s}; expected seconds, within 10 of zero")


def read_calibration(
    path: str | Path, image_size: ImageSize | None = None, limits: SplitLimits | None = None
) -> Calibration:
    """Read a calibration; warnings go to the logger `usreg.data`.

    Args:
        path: `.yaml`, `.yml` or a PLUS device set `.xml`.
        image_size: width and height of the images; the geometry stays None where neither this nor the file says it.
        limits: bounds of shear and spacing.

    Raises:
        MissingFileError: no such file. FileFormatError: malformed. ConfigError: an unknown key or a wrong type.
        CalibrationError: no image-to-probe transform, sheared or scaled beyond the limits, or another image size than the file's.
    """
    calibration, warnings = read_calibration_with_warnings(path, image_size, limits)
    for warning in warnings:
        logger.warning("%s: %s", Path(path).name, warning)
    return calibration


def read_calibration_with_warnings(
    path: str | Path, image_size: ImageSize | None = None, limits: SplitLimits | None = None
) -> tuple[Calibration, tuple[str, ...]]:
    """As `read_calibration`, with what is to be warned about instead of a log."""
    path = Path(path)
    if path.suffix.lower() == ".xml":
        calibration, warnings = _from_xml(read_xml(path), path.name, image_size, limits or SplitLimits())
    else:
        calibration, warnings = _from_yaml(
            from_mapping(CalibrationFile, load_yaml(path), ""), path.name, image_size, limits or SplitLimits()
        )
    return calibration, tuple(warnings)


def _shear_warning(shear_deg: float, limits: SplitLimits) -> list[str]:
    if abs(shear_deg) <= limits.warn_shear_deg:
        return []
    return [
        f"the image axes are sheared by {shear_deg:.2f} degrees; the shear is kept and used (limit {limits.max_shear_deg:g})"
    ]


def _from_yaml(
    file: CalibrationFile, name: str, image_size: ImageSize | None, limits: SplitLimits
) -> tuple[Calibration, list[str]]:
    check_pixel_to_mm(file.pixel_to_mm)
    rigid = se3.check_rigid(_matrix(file.probe_T_image), f"probe_T_image of '{name}'")
    joined = rigid.clone()
    (a, b), (_, d) = file.pixel_to_mm
    joined[:3, 0], joined[:3, 1] = a * rigid[:3, 0], b * rigid[:3, 0] + d * rigid[:3, 1]
    warnings = _shear_warning(split_image_to_probe(joined, limits, f"pixel_to_mm of '{name}'").shear_deg, limits)
    size = _agreed_size(file.sector.image_size if file.sector else None, image_size, name)
    geometry = None
    if size is not None:
        plane = PlaneGrid(size[1], size[0], file.pixel_to_mm)
        if file.sector is None:
            warnings.append("the calibration has no sector: the full image rectangle is used")
        geometry = _sector(file.sector or SectorFile(), plane)
    names, error = file.names, math.nan if file.error_mm is None else file.error_mm
    statics = {k: _matrix(v) for k, v in file.statics.items()}
    return Calibration(
        rigid, file.pixel_to_mm, geometry, file.latency_s, names.image, names.probe, names.world, error, statics
    ), warnings


def _agreed_size(stated: ImageSize | None, seen: ImageSize | None, name: str) -> ImageSize | None:
    if stated is not None and seen is not None and tuple(stated) != tuple(seen):
        raise CalibrationError(
            f"'{name}' is for images of {stated[0]}x{stated[1]}, these are {seen[0]}x{seen[1]}: take the calibration of this depth and size"
        )
    return stated or seen


def _sector(file: SectorFile, plane: PlaneGrid) -> SectorGeometry:
    whole = full_rectangle(plane)
    clip = file.clip_mm or whole.clip_mm
    if file.kind == "linear":
        height = file.depth_mm or clip[3] - clip[1]
        apex, radius, angle = ((clip[0] + clip[2]) / 2, clip[1]), (0.0, height), (0.0, 0.0)
        return SectorGeometry(
            "linear", plane, apex, radius, angle, clip, height, "MF", file.sound_speed_m_s, file.probe_id
        )
    assert file.apex_mm is not None and file.radius_mm is not None  # SectorFile checked it
    first, last = map(math.radians, file.angle_deg)
    depth = file.depth_mm or file.radius_mm[1] - file.radius_mm[0]
    return SectorGeometry(
        file.kind,
        plane,
        file.apex_mm,
        file.radius_mm,
        (first, last),
        clip,
        depth,
        "MF",
        file.sound_speed_m_s,
        file.probe_id,
    )


def _from_xml(
    root: Element, name: str, image_size: ImageSize | None, limits: SplitLimits
) -> tuple[Calibration, list[str]]:
    statics = static_transforms(root, name)
    names, warnings = _names(root)
    matrix, error = _image_to_probe(root, statics, names, name)
    split = split_image_to_probe(matrix, limits, f"{names.image}To{names.probe} of '{name}'")
    warnings += _shear_warning(split.shear_deg, limits)
    latency, more = _latency(root, name)
    warnings += more
    geometry = None
    if image_size is not None:
        geometry, more = sector_of_xml(root, PlaneGrid(image_size[1], image_size[0], split.pixel_to_mm), name)
        warnings += more
    statics.pop(f"{names.image}To{names.probe}", None)
    return Calibration(
        split.probe_T_image, split.pixel_to_mm, geometry, latency, names.image, names.probe, names.world, error, statics
    ), warnings


def _names(root: Element) -> tuple[NamesFile, list[str]]:
    """Names of the three frames; PLUS's own defaults where the file is silent."""
    reconstruction, fcal = root.find("./VolumeReconstruction"), root.find("./fCal")
    places = [e for e in (reconstruction, fcal) if e is not None]
    image = next((v for e in places if (v := e.get("ImageCoordinateFrame"))), "Image")
    probe = next((v for e in places if (v := e.get("ProbeCoordinateFrame"))), "Probe")
    world = next((v for e in places if (v := e.get("ReferenceCoordinateFrame"))), "")
    warnings = [] if world else ["the device set names no ReferenceCoordinateFrame: 'Reference' is the world"]
    return NamesFile(image, probe, world or "Reference"), warnings


def _image_to_probe(root: Element, statics: dict[str, Tensor], names: NamesFile, name: str) -> tuple[Tensor, float]:
    try:
        path = find_path(statics, names.image, names.probe)
    except MissingTransformError as error:
        raise CalibrationError(
            f"'{name}' has no transform from '{names.image}' to '{names.probe}': calibrate the probe, or name its frames. {error}"
        ) from error
    matrix = torch.eye(4, dtype=torch.float64)
    for step, inverted in path:
        if inverted and not abs(float(torch.linalg.det(statics[step]))) > 1e-12:
            raise CalibrationError(f"'{name}': {step} cannot be inverted")
        matrix = (torch.linalg.inv(statics[step]) if inverted else statics[step]) @ matrix
    return matrix, _stated_error(root, names, name)


def _stated_error(root: Element, names: NamesFile, name: str) -> float:
    for element in root.iterfind("./CoordinateDefinitions/Transform"):
        if element.get("From") == names.image and element.get("To") == names.probe:
            values = attribute_numbers(element, "Error", 1, name)
            return values[0] if values and values[0] >= 0 else math.nan
    return math.nan


def _latency(root: Element, name: str) -> tuple[float, list[str]]:
    """`LocalTimeOffsetSec` is the negative of a latency. What PLUS recorded from a live device carries it in its stamps already."""
    latency, warnings = 0.0, []
    for device in root.iter("Device"):
        values = attribute_numbers(device, "LocalTimeOffsetSec", 1, name)
        if not values or values[0] == 0 or not any(s.get("Type") == "Video" for s in device.iter("DataSource")):
            continue
        label = f"LocalTimeOffsetSec={values[0]:g} of device '{device.get('Id', '?')}'"
        if device.get("Type") == "SavedDataSource":
            latency = -values[0]
            warnings.append(f"{label} is used as latency_s={latency:g}")
        else:
            warnings.append(
                f"{label} is in the stamps of sequences recorded with it and is not applied again; for a live stream set latency_s={-values[0]:g} in a YAML calibration"
            )
    return latency, warnings


def write_calibration(calibration: Calibration, path: str | Path) -> None:
    """Write a calibration as YAML.

    Raises:
        WriteError: the disk is full or there is no permission.
    """
    write_text(
        path, yaml.safe_dump(calibration_mapping(calibration), sort_keys=False, default_flow_style=None, width=160)
    )


def calibration_mapping(calibration: Calibration) -> dict[str, Any]:
    """Plain numbers and names, keys as in the YAML file."""
    content: dict[str, Any] = {
        "probe_T_image": calibration.probe_T_image.tolist(),
        "pixel_to_mm": [list(row) for row in calibration.pixel_to_mm],
        "latency_s": calibration.latency_s,
        "names": {"image": calibration.image_name, "probe": calibration.probe_name, "world": calibration.world_name},
    }
    if math.isfinite(calibration.error_mm):
        content["error_mm"] = calibration.error_mm
    if calibration.geometry is not None:
        content["sector"] = _sector_mapping(calibration.geometry)
    if calibration.statics:
        content["statics"] = {k: v.tolist() for k, v in calibration.statics.items()}
    return content


def _sector_mapping(sector: SectorGeometry) -> dict[str, Any]:
    content: dict[str, Any] = {"kind": sector.kind, "image_size": [sector.plane.width, sector.plane.height]}
    if sector.kind != "linear":
        content |= {
            "apex_mm": list(sector.apex_mm),
            "radius_mm": list(sector.radius_mm),
            "angle_deg": [math.degrees(a) for a in sector.angle_rad],
        }
    content |= {"clip_mm": list(sector.clip_mm), "depth_mm": sector.depth_mm, "sound_speed_m_s": sector.sound_speed_m_s}
    return content | ({"probe_id": sector.probe_id} if sector.probe_id else {})


def with_image_size(calibration: Calibration, width: int, height: int) -> Calibration:
    """The calibration for images of a size: its own sector, or the full rectangle where it has none.

    Raises:
        CalibrationError: its sector is for another size.
    """
    geometry = calibration.geometry
    if geometry is None:
        return replace(calibration, geometry=full_rectangle(PlaneGrid(height, width, calibration.pixel_to_mm)))
    if (geometry.plane.width, geometry.plane.height) != (width, height):
        raise CalibrationError(
            f"the calibration is for images of {geometry.plane.width}x{geometry.plane.height}, these are {width}x{height}"
        )
    return calibration


def _matrix(rows: Matrix4) -> Tensor:
    matrix = torch.tensor(rows, dtype=torch.float64)
    if matrix.shape != (4, 4):
        raise ShapeError("a transform must have 4 rows of 4 numbers")
    return matrix
