# SPDX-License-Identifier: Apache-2.0
"""From the envelope to grey values: gain over depth with its errors, the grey curve, pixels, text beside the sector."""

from __future__ import annotations

import functools
import math

import cv2
import numpy as np
from numpy.typing import NDArray

from ...compiled import njit
from ...geometry.sector import SectorGeometry
from .config import ScannerConfig
from .draws import DeviceDraw
from .lines import Conversion, ScanLines

Array = NDArray[np.float64]
Image = NDArray[np.float32]
Grey = NDArray[np.uint8]


def gain_over_depth_db(config: ScannerConfig, device: DeviceDraw, depth_mm: Array) -> Array:
    """TGC: what the scanner believes is lost, up to a limit, plus the errors of its sliders."""
    believed = 2 * device.assumed_db_cm_mhz * config.frequency_mhz * depth_mm / 10
    places = np.linspace(0.0, max(float(depth_mm[-1]), 1e-9), device.sliders_db.size)
    return np.asarray(np.minimum(believed, config.tgc_limit_db) + np.interp(depth_mm, places, device.sliders_db))


@njit()
def detect(field, gain, every):
    """Magnitude of (2, samples, lines) times a gain (samples,), averaged over `every` (odd) samples.

    Returns:
        (ceil(samples / every), lines) float32, one row for every `every`-th sample.
    """
    samples, lines = field.shape[1], field.shape[2]
    rows = (samples + every - 1) // every
    out = np.zeros((rows, lines), np.float32)
    for row in range(rows):
        first, last = max(0, row * every - every // 2), min(samples, row * every + every // 2 + 1)
        for k in range(first, last):
            weight = np.float32(gain[k] / (last - first))
            for j in range(lines):
                re, im = field[0, k, j], field[1, k, j]
                out[row, j] += weight * math.sqrt(re * re + im * im)
    return out


def grey(envelope: Image, config: ScannerConfig, device: DeviceDraw, gain_db: float) -> Image:
    """Log compression and the scanner's own curve, 0 to 255: a blend of a line and a smooth step, to a power."""
    db = np.float32(20) * np.log10(np.maximum(envelope, np.float32(1e-9)))
    share = (db + np.float32(gain_db - device.level_db)) / np.float32(device.dynamic_range_db)
    level = np.clip(share + _offset(config, device), 0, 1)
    return np.asarray(np.float32(255) * _curve(level, device), dtype=np.float32)


def _curve(level: Image, device: DeviceDraw) -> Image:
    bent = level * level * (3 - 2 * level)
    return np.asarray(((1 - device.bend) * level + device.bend * bent) ** np.float32(device.gamma))


def _offset(config: ScannerConfig, device: DeviceDraw) -> np.float32:
    """Level at which the curve gives `brightness`."""
    levels = np.linspace(0, 1, 257, dtype=np.float32)
    return np.float32(np.interp(config.brightness, _curve(levels, device), levels))


@njit()
def to_pixels(polar, row, column):
    """Bilinear values (N,) float32 of an image of lines at places; beyond the edge the edge's value."""
    rows, lines = polar.shape
    out = np.empty(row.size, np.float32)
    for n in range(row.size):
        r = min(max(row[n], np.float32(0)), np.float32(rows - 1))
        c = min(max(column[n], np.float32(0)), np.float32(lines - 1))
        i, j = min(int(r), max(rows - 2, 0)), min(int(c), max(lines - 2, 0))
        fr, fc = r - i, c - j
        i1, j1 = min(i + 1, rows - 1), min(j + 1, lines - 1)
        top = polar[i, j] * (1 - fc) + polar[i, j1] * fc
        low = polar[i1, j] * (1 - fc) + polar[i1, j1] * fc
        out[n] = top * (1 - fr) + low * fr
    return out


def picture(polar: Image, places: Conversion, background: Grey) -> Grey:
    """Scan conversion onto the burnt-in graphics."""
    image = background.copy()
    values = to_pixels(polar, places.row, places.column)
    image[places.inside] = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return image


@functools.lru_cache(maxsize=8)
def graphics(geometry: SectorGeometry, lines: ScanLines) -> Grey:
    """Text, depth scale and grey bar, (h, w) uint8, zero inside the sector. Shared: do not write into it."""
    plane = geometry.plane
    image = np.zeros((plane.height, plane.width), np.uint8)
    size = min(plane.height, plane.width) / 640
    for text, row in (("usreg sim", 1.0), (f"{geometry.kind} {lines.depth_mm / 10:.0f} cm", 2.0)):
        cv2.putText(image, text, (3, int(row * 28 * size) + 4), cv2.FONT_HERSHEY_SIMPLEX, 0.8 * size + 0.1, 190, 1)
    _grey_bar(image)
    _depth_scale(image, geometry, lines)
    image[geometry.mask().numpy()] = 0
    image.setflags(write=False)
    return image


def _grey_bar(image: Grey) -> None:
    height, width = image.shape
    top, bottom, thick = int(0.2 * height), int(0.5 * height), max(2, width // 60)
    image[top:bottom, 2 : 2 + thick] = np.linspace(255, 0, max(bottom - top, 1)).astype(np.uint8)[:, None]


def _depth_scale(image: Grey, geometry: SectorGeometry, lines: ScanLines) -> None:
    """A tick for every centimetre below the middle of the face, longer at every fifth, at the right edge."""
    face = geometry.apex_mm[1] + geometry.radius_mm[0]
    for k in range(int(lines.depth_mm // 10) + 1):
        row = round((face + 10 * k) / geometry.pixel_to_mm[1][1])
        if 0 <= row < image.shape[0]:
            image[row, -(7 if k % 5 == 0 else 4) :] = 210
