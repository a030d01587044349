# SPDX-License-Identifier: Apache-2.0
"""Calibrations in PLUS device sets: names of the frames, ImageToProbe, latency, sector."""

from __future__ import annotations

import math
from pathlib import Path
from xml.etree.ElementTree import Element

import torch
from torch import Tensor

from ..errors import CalibrationError, MissingTransformError
from ..geometry.plane import PlaneGrid
from .calibration_yaml import ImageSize, NamesFile
from .chain import find_path
from .plus_xml import attribute_numbers, read_xml, static_transforms
from .sector_xml import sector_of_xml
from .split import SplitLimits, shear_warning, split_image_to_probe
from .types import Calibration


def calibration_of_xml(path: Path, size: ImageSize | None, limits: SplitLimits) -> tuple[Calibration, list[str]]:
    """Read a PLUS device set, and what is to be warned about.

    Raises:
        As `calibration.read_calibration`.
    """
    root = read_xml(path)
    statics = static_transforms(root, path.name)
    names, warnings = frame_names(root)
    matrix = _image_to_probe(statics, names, path.name)
    split = split_image_to_probe(matrix, limits, f"{names.image}To{names.probe} of '{path.name}'")
    latency, more = _latency(root, path.name)
    warnings += shear_warning(split.shear_deg, limits) + more
    geometry = None
    if size is not None:
        geometry, more = sector_of_xml(root, PlaneGrid(size[1], size[0], split.pixel_to_mm), path.name)
        warnings += more
    error = _stated_error(root, names, path.name)
    statics.pop(f"{names.image}To{names.probe}", None)
    ends = (names.image, names.probe, names.world)
    return Calibration(split.probe_T_image, split.pixel_to_mm, geometry, latency, *ends, error, statics), warnings


def frame_names(root: Element) -> tuple[NamesFile, list[str]]:
    """Names of the three frames; PLUS's own defaults where the file is silent."""
    places = [e for tag in ("VolumeReconstruction", "fCal") if (e := root.find(f"./{tag}")) is not None]

    def stated(key: str) -> str:
        return next((value for e in places if (value := e.get(key))), "")

    world = stated("ReferenceCoordinateFrame")
    warnings = [] if world else ["the device set names no ReferenceCoordinateFrame: 'Reference' is the world"]
    names = NamesFile(
        stated("ImageCoordinateFrame") or "Image", stated("ProbeCoordinateFrame") or "Probe", world or "Reference"
    )
    return names, warnings


def _image_to_probe(statics: dict[str, Tensor], names: NamesFile, name: str) -> Tensor:
    """The matrix itself, or a chain that leads there (Image, TransducerOriginPixel, TransducerOrigin, Probe)."""
    try:
        path = find_path(statics, names.image, names.probe)
    except MissingTransformError as error:
        raise CalibrationError(
            f"'{name}' has no transform from '{names.image}' to '{names.probe}': calibrate the probe, or name its "
            "frames "
            f"in VolumeReconstruction. {error}"
        ) from error
    matrix = torch.eye(4, dtype=torch.float64)
    for step, inverted in path:
        static = statics[step]
        if inverted and not abs(float(torch.linalg.det(static))) > 1e-12:
            raise CalibrationError(f"'{name}': {step} cannot be inverted, its determinant is zero")
        matrix = (torch.linalg.inv(static) if inverted else static) @ matrix
    return matrix


def _stated_error(root: Element, names: NamesFile, name: str) -> float:
    for element in root.iterfind("./CoordinateDefinitions/Transform"):
        if element.get("From") == names.image and element.get("To") == names.probe:
            values = attribute_numbers(element, "Error", 1, name)
            return values[0] if values and values[0] >= 0 else math.nan
    return math.nan


def _latency(root: Element, name: str) -> tuple[float, list[str]]:
    """`LocalTimeOffsetSec` of the video is the negative of a latency.

    What PLUS recorded from a live device carries the offset in its stamps already; only a file that is played again is
    shifted by it.
    """
    latency, warnings = 0.0, []
    for device in root.iter("Device"):
        values = attribute_numbers(device, "LocalTimeOffsetSec", 1, name)
        video = any(s.get("Type") == "Video" for s in device.iter("DataSource"))
        if not values or values[0] == 0 or not video:
            continue
        label = f"LocalTimeOffsetSec={values[0]:g} of the device '{device.get('Id', '?')}'"
        if device.get("Type") == "SavedDataSource":
            latency = -values[0]
            warnings.append(f"{label} is used as latency_s={latency:g}")
        else:
            warnings.append(
                f"{label} is in the stamps of what was recorded with it and is not applied again; "
                f"for a live stream write latency_s: {-values[0]:g} into a YAML calibration"
            )
    return latency, warnings
