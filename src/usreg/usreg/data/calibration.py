# SPDX-License-Identifier: Apache-2.0
"""Spatial calibrations: usreg's YAML and PLUS device sets."""

from __future__ import annotations

import logging
from pathlib import Path

import yaml

from ..errors import CalibrationError, FileFormatError
from ..geometry.plane import PlaneGrid
from ..geometry.sector import SectorGeometry, full_rectangle
from .atomic import write_text
from .calibration_xml import calibration_of_xml
from .calibration_yaml import ImageSize, calibration_mapping, calibration_of_yaml
from .split import SplitLimits
from .types import Calibration

logger = logging.getLogger("usreg.data")


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
        GeometryError: a pose that is not rigid, a sector that is empty.
        CalibrationError: no image-to-probe transform, sheared or scaled beyond the limits, or for another image size.
    """
    calibration, warnings = read_calibration_with_warnings(path, image_size, limits)
    for warning in warnings:
        logger.warning("%s: %s", Path(path).name, warning)
    return calibration


def read_calibration_with_warnings(
    path: str | Path, image_size: ImageSize | None = None, limits: SplitLimits | None = None
) -> tuple[Calibration, tuple[str, ...]]:
    """As `read_calibration`, but what is to be warned about is returned instead of logged."""
    path, limits = Path(path), limits or SplitLimits()
    suffix = path.suffix.lower()
    if suffix not in (".xml", ".yaml", ".yml"):
        raise FileFormatError(f"'{path.name}' is no calibration: expected a PLUS device set .xml, or .yaml")
    read = calibration_of_xml if suffix == ".xml" else calibration_of_yaml
    calibration, warnings = read(path, image_size, limits)
    return calibration, tuple(warnings)


def write_calibration(calibration: Calibration, path: str | Path) -> None:
    """Write a calibration as YAML.

    Raises:
        WriteError: the disk is full or there is no permission; an older file is unchanged.
    """
    text = yaml.safe_dump(calibration_mapping(calibration), sort_keys=False, default_flow_style=None, width=160)
    write_text(path, text)


def sector_for(calibration: Calibration, width: int, height: int) -> SectorGeometry:
    """The sector of images of a size: the calibration's own, or the full rectangle where it has none.

    Raises:
        CalibrationError: its sector is for another size.
    """
    geometry = calibration.geometry
    if geometry is None:
        return full_rectangle(PlaneGrid(height, width, calibration.pixel_to_mm))
    plane = geometry.plane
    if (plane.width, plane.height) != (width, height):
        raise CalibrationError(
            f"the calibration is for images of {plane.width}x{plane.height}, these are {width}x{height}"
        )
    return geometry
