# SPDX-License-Identifier: Apache-2.0
"""The field of view in a PLUS device set: fan, clip rectangle, scan conversion. Pixels there, mm here."""

from __future__ import annotations

import math
from typing import Literal
from xml.etree.ElementTree import Element

from ..errors import CalibrationError
from ..geometry.plane import PlaneGrid
from ..geometry.sector import SectorGeometry, full_rectangle
from .plus_xml import attribute_numbers

EDGE_MM = 1e-6  # so that rounding does not drop the pixels whose centre lies on the edge
Fan = tuple[tuple[float, float], tuple[float, float], tuple[float, float]]


def sector_of_xml(root: Element, plane: PlaneGrid, name: str) -> tuple[SectorGeometry, list[str]]:
    """Sector of the images and what is to be warned about.

    PLUS draws the fan in pixels: angles from +y (away from the probe) towards +x, radii along the rows. With unequal
    pixel sizes radii are converted with the distance of rows, the direction of the beam in the middle of the fan.

    Raises:
        FileFormatError: malformed numbers. CalibrationError: a clip rectangle outside the image.
    """
    reconstruction = root.find("./VolumeReconstruction")
    conversion = next(root.iter("ScanConversion"), None)
    nothing = Element("VolumeReconstruction")
    where = nothing if reconstruction is None else reconstruction
    fan = _fan_of_reconstruction(where, plane, name) or _fan_of_conversion(conversion, plane, name)
    clip, warnings = _clip(where, plane, fan is not None, name)
    if fan is None:
        x0, y0, x1, y1 = clip
        apex = ((x0 + x1) / 2, y0)
        return SectorGeometry("linear", plane, apex, (0.0, y1 - y0), (0.0, 0.0), clip, y1 - y0), warnings
    (apex, radius, angle), kind = fan, _kind(conversion)
    warnings += _aspect_warning(plane)
    return SectorGeometry(kind, plane, apex, radius, angle, clip, radius[1] - radius[0]), warnings


def _kind(conversion: Element | None) -> Literal["convex", "phased"]:
    geometry = "" if conversion is None else conversion.get("TransducerGeometry", "").upper()
    return "phased" if geometry == "PHASED" else "convex"


def _fan_of_reconstruction(element: Element, plane: PlaneGrid, name: str) -> Fan | None:
    origin = attribute_numbers(element, "FanOriginPixel", 2, name) or attribute_numbers(element, "FanOrigin", 2, name)
    angles = attribute_numbers(element, "FanAnglesDeg", 2, name) or attribute_numbers(element, "FanAngles", 2, name)
    if origin is None or angles is None or angles == [0.0, 0.0]:
        return None
    start = (
        attribute_numbers(element, "FanRadiusStartPixel", 1, name)
        or attribute_numbers(element, "FanRadiusStart", 1, name)
        or [0.0]
    )
    stop = attribute_numbers(element, "FanRadiusStopPixel", 1, name) or attribute_numbers(
        element, "FanRadiusStop", 1, name
    )
    far = stop[0] if stop else math.hypot(plane.width, plane.height) + abs(origin[1])
    return _fan(plane, (origin[0], origin[1]), (start[0], far), (min(angles), max(angles)), name)


def _fan_of_conversion(element: Element | None, plane: PlaneGrid, name: str) -> Fan | None:
    """A curvilinear transducer as PLUS scan-converts it: the centre of its surface, radii in mm, angles."""
    if element is None or element.get("TransducerGeometry", "").upper() != "CURVILINEAR":
        return None
    centre = attribute_numbers(element, "TransducerCenterPixel", 2, name)
    near, far = (attribute_numbers(element, key, 1, name) for key in ("RadiusStartMm", "RadiusStopMm"))
    first, last = (attribute_numbers(element, key, 1, name) for key in ("ThetaStartDeg", "ThetaStopDeg"))
    if centre is None or near is None or far is None or first is None or last is None:
        return None
    row_mm = plane.spacing_mm[1]
    apex = (centre[0], centre[1] - near[0] / row_mm)
    return _fan(
        plane, apex, (near[0] / row_mm, far[0] / row_mm), (min(first[0], last[0]), max(first[0], last[0])), name
    )


def _fan(
    plane: PlaneGrid,
    apex_px: tuple[float, float],
    radius_px: tuple[float, float],
    angle_deg: tuple[float, float],
    name: str,
) -> Fan:
    if not (0 <= radius_px[0] < radius_px[1] and -90 < angle_deg[0] < angle_deg[1] < 90):
        raise CalibrationError(
            f"'{name}' has a fan of radii {radius_px} px and angles {angle_deg} degrees; expected 0 <= start < "
            "stop and -90 < first < last < 90"
        )
    row_mm = plane.spacing_mm[1]
    angles = [_direction_angle(plane, math.radians(a)) for a in angle_deg]
    return _mm(plane, *apex_px), (radius_px[0] * row_mm, radius_px[1] * row_mm), (angles[0], angles[1])


def _direction_angle(plane: PlaneGrid, angle: float) -> float:
    """Angle in mm of a direction that has this angle in pixels."""
    x, y = _mm(plane, math.sin(angle), math.cos(angle))
    return math.atan2(x, y)


def _mm(plane: PlaneGrid, column: float, row: float) -> tuple[float, float]:
    (a, b), (_, d) = plane.pixel_to_mm
    return a * column + b * row, d * row


def _aspect_warning(plane: PlaneGrid) -> list[str]:
    column_mm, row_mm = plane.spacing_mm
    if abs(column_mm / row_mm - 1) <= 0.02:
        return []
    return [
        f"the fan is given in pixels, but pixels are {column_mm:.4f} x {row_mm:.4f} mm: its radii are taken along "
        "the rows' distance"
    ]


def _clip(
    element: Element, plane: PlaneGrid, has_fan: bool, name: str
) -> tuple[tuple[float, float, float, float], list[str]]:
    origin, size = (attribute_numbers(element, key, 2, name) for key in ("ClipRectangleOrigin", "ClipRectangleSize"))
    if origin is None or size is None or min(size) <= 0:
        whole = full_rectangle(plane).clip_mm
        text = "the device set has no clip rectangle" + (
            ": the fan alone bounds the image" if has_fan else ": the full image rectangle is used"
        )
        return _grown(whole), [text]
    first, last = (
        (max(origin[0], 0), max(origin[1], 0)),
        (min(origin[0] + size[0], plane.width) - 1, min(origin[1] + size[1], plane.height) - 1),
    )
    if last[0] <= first[0] or last[1] <= first[1]:
        raise CalibrationError(
            f"'{name}' clips to {origin} + {size} px, outside the image of {plane.width}x{plane.height}"
        )
    outside = origin[0] < 0 or origin[1] < 0 or origin[0] + size[0] > plane.width or origin[1] + size[1] > plane.height
    warnings = (
        [f"the clip rectangle {origin} + {size} px reaches outside the image of {plane.width}x{plane.height}: cut"]
        if outside
        else []
    )
    corners = [_mm(plane, c, r) for c in (first[0], last[0]) for r in (first[1], last[1])]
    xs, ys = zip(*corners, strict=True)
    return _grown((min(xs), min(ys), max(xs), max(ys))), warnings


def _grown(clip: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = clip
    return x0 - EDGE_MM, y0 - EDGE_MM, x1 + EDGE_MM, y1 + EDGE_MM
