# SPDX-License-Identifier: Apache-2.0
"""Tissue along the scan lines: attenuation, interfaces, transmission, contact with the skin."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate1d, gaussian_filter, gaussian_filter1d

from ...compiled import njit
from .config import ScannerConfig
from .draws import DeviceDraw

Image = NDArray[np.float32]
Array = NDArray[np.float64]
LAYER_MM = 1.0  # out-of-plane distance at which impedance is sampled for the slope of an interface
LOSS_MM = 2.4  # an impedance change is taken over this length for transmission: wider than the map's own blur
ECHO_MM = 0.8  # and over this one for the echo
BLUR_MM, BLUR_LINES = 0.45, 2.5
SMEAR_MM = 0.9
ROUGH_FLOOR = 0.08  # share of an interface's echo that comes back at any angle
NEPERS_PER_DB = 0.1151292546497023


@dataclass(frozen=True, eq=False)
class TissueMap:
    """Tissue at even steps (rows) along the scan lines (columns), (rows, lines) float32 each.

    Args:
        attenuation: dB/cm/MHz. log_impedance: (3, rows, lines), in the plane and LAYER_MM on either side of it.
        outside: bool, beyond the skin.
    """

    attenuation: Image
    log_impedance: Image
    outside: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class LineEchoes:
    """What the tissue does to the pulse, (rows, lines) float32.

    Args:
        transmission: amplitude that is left after the way there and back; arrival: the same just before an interface.
        mirror: echo of interfaces, attenuated.
        reflection: |r| over ECHO_MM. contact: (lines,), 1 in contact, 0 lost.
    """

    transmission: Image
    arrival: Image
    mirror: Image
    reflection: Image
    contact: Image


@njit()
def on_plane(plane, row, column, out):
    """Point of the table of the plane at fractional places, bilinear."""
    i, j = min(int(row), plane.shape[0] - 2), min(int(column), plane.shape[1] - 2)
    fr, fc = row - i, column - j
    for axis in range(3):
        top = plane[i, j, axis] * (1 - fc) + plane[i, j + 1, axis] * fc
        low = plane[i + 1, j, axis] * (1 - fc) + plane[i + 1, j + 1, axis] * fc
        out[axis] = top * (1 - fr) + low * fr


@njit()
def tissue_at(x, y, z, index_T_ct, labels, attenuation, log_impedance):
    """Trilinear attenuation, log impedance and share of label 0 at a point; beyond the volume as label 0."""
    m = index_T_ct
    vi = m[0, 0] * x + m[0, 1] * y + m[0, 2] * z + m[0, 3]
    vj = m[1, 0] * x + m[1, 1] * y + m[1, 2] * z + m[1, 3]
    vk = m[2, 0] * x + m[2, 1] * y + m[2, 2] * z + m[2, 3]
    i0, j0, k0 = math.floor(vi), math.floor(vj), math.floor(vk)
    fi, fj, fk = vi - i0, vj - j0, vk - k0
    loss, impedance, air = 0.0, 0.0, 0.0
    for n in range(8):
        di, dj, dk = n & 1, (n >> 1) & 1, n >> 2
        w = (fi if di else 1 - fi) * (fj if dj else 1 - fj) * (fk if dk else 1 - fk)
        i, j, k = i0 + di, j0 + dj, k0 + dk
        label = 0
        if 0 <= i < labels.shape[2] and 0 <= j < labels.shape[1] and 0 <= k < labels.shape[0]:
            label = labels[k, j, i]
        loss += w * attenuation[label]
        impedance += w * log_impedance[label]
        air += w if label == 0 else 0.0
    return loss, impedance, air


@njit()
def sample_lines(plane, normal, rows, lines, index_T_ct, labels, attenuation, log_impedance):
    """Tissue values along the lines.

    Returns:
        attenuation (rows, lines), log impedance (3, rows, lines), outside (rows, lines) bool.
    """
    loss, z = np.zeros((rows, lines), np.float32), np.zeros((3, rows, lines), np.float32)
    outside, p = np.zeros((rows, lines), np.bool_), np.empty(3)
    per_row, per_line = (plane.shape[0] - 1) / max(rows - 1, 1), (plane.shape[1] - 1) / max(lines - 1, 1)
    for r in range(rows):
        for c in range(lines):
            on_plane(plane, r * per_row, c * per_line, p)
            for layer in range(3):
                s = (layer - 1) * LAYER_MM
                x, y, t = p[0] + s * normal[0], p[1] + s * normal[1], p[2] + s * normal[2]
                a, b, air = tissue_at(x, y, t, index_T_ct, labels, attenuation, log_impedance)
                z[layer, r, c] = b
                if layer == 1:
                    loss[r, c], outside[r, c] = a, air > 0.5
    return loss, z, outside


def contact_of(tissue: TissueMap, step_mm: float, gel_mm: float) -> Image:
    """Contact of every line, 1 to 0: lost where the gap between face and skin is wider than the gel fills."""
    solid = ~tissue.outside
    gap = np.where(solid.any(0), solid.argmax(0) * step_mm, np.inf)
    return np.asarray(gaussian_filter1d(np.clip((gel_mm + 1.5 - gap) / 1.5, 0.0, 1.0), 2.0, mode="nearest"), np.float32)


def filled_with_gel(tissue: TissueMap) -> TissueMap:
    """The gap before the skin holds gel: no loss there and no interface."""
    first = (~tissue.outside).argmax(0)
    before = np.arange(tissue.outside.shape[0])[:, None] < first
    skin = tissue.log_impedance[:, first, np.arange(first.size)]
    impedance = np.where(before, skin[:, None], tissue.log_impedance)
    return TissueMap(np.where(before, np.float32(0), tissue.attenuation), impedance, tissue.outside)


def line_echoes(
    tissue: TissueMap, config: ScannerConfig, device: DeviceDraw, step_mm: float, pitch_mm: Array
) -> LineEchoes:  # fmt: skip
    """Attenuation, transmission and the echoes of interfaces.

    An interface reflects r = (Z2 - Z1) / (Z2 + Z1) = tanh(ln(Z2 / Z1) / 2); of the pressure 1 - r^2 is left after both
    passages (Szabo 2014, ch. 3). Both are taken over a length, so that neither depends on the step along the line.
    """
    contact = contact_of(tissue, step_mm, config.gel_mm)
    tissue = filled_with_gel(tissue)
    smooth = gaussian_filter1d(tissue.log_impedance, BLUR_MM / step_mm, axis=1, mode="nearest")
    smooth = gaussian_filter1d(smooth, BLUR_LINES, axis=2, mode="nearest")
    loss = over_length(smooth[1], LOSS_MM, step_mm)
    echo = np.abs(over_length(smooth[1], ECHO_MM, step_mm))
    passed = _integral(np.log1p(-np.minimum(loss**2, 1 - 1e-7)) * (step_mm / LOSS_MM))
    absorbed = _integral(tissue.attenuation * np.float32(-2 * config.frequency_mhz * NEPERS_PER_DB * step_mm / 10))
    behind = round((LOSS_MM / 2 + ECHO_MM) / step_mm)
    reaching = np.concatenate([np.repeat(passed[:1], behind, 0), passed[: passed.shape[0] - behind]])
    arrival = np.exp(absorbed + reaching) * contact
    mirror = echo * _facing(smooth, step_mm, pitch_mm, device.roughness) * arrival
    transmission = np.exp(absorbed + passed) * contact
    return LineEchoes(transmission, arrival, mirror.astype(np.float32), echo.astype(np.float32), contact)


def over_length(log_impedance: Image, length_mm: float, step_mm: float) -> Image:
    """Reflection r of the impedance change over a length centred on each row, linear between rows."""
    half = length_mm / 2 / step_mm
    whole = math.floor(half)
    kernel = np.zeros(2 * whole + 3)
    for sign in (-1, 1):
        kernel[whole + 1 + sign * whole] += sign * (1 - (half - whole))
        kernel[whole + 1 + sign * (whole + 1)] += sign * (half - whole)
    change = correlate1d(log_impedance, kernel, axis=0, mode="nearest")
    return np.asarray(np.tanh(change / 2), dtype=np.float32)


def _integral(values: NDArray[np.floating]) -> Image:
    """Trapezium rule from the face."""
    total = np.cumsum(values, axis=0, dtype=np.float64)
    return np.asarray(total - values / 2 - values[:1] / 2, dtype=np.float32)


def _facing(log_impedance: Image, step_mm: float, pitch_mm: Array, exponent: float) -> Image:
    """How much of an interface's echo returns: its cosine of incidence to a power, above a rough floor."""
    middle = log_impedance[1]
    along = np.gradient(middle, step_mm, axis=0)
    across = np.gradient(middle, axis=1) / np.maximum(pitch_mm, 0.05)[:, None]
    out = (log_impedance[2] - log_impedance[0]) / np.float32(2 * LAYER_MM)
    cosine = np.abs(along) / np.sqrt(along**2 + across**2 + out**2 + 1e-12)
    return np.asarray(ROUGH_FLOOR + (1 - ROUGH_FLOOR) * cosine**exponent, dtype=np.float32)


def repeats(echoes: LineEchoes, device: DeviceDraw, share: float, step_mm: float) -> Image:
    """Echoes that run twice and more: between close strong reflectors, and between a reflector and the face.

    Args:
        share: of the pressure that the face sends back.

    Returns:
        (rows, lines) to be added to the mirror echoes; what lies behind gas and bone consists of little else.
    """
    rows = echoes.mirror.shape[0]
    strong = echoes.mirror * echoes.reflection
    total = np.zeros_like(strong)
    for spacing, keep in zip(device.comb_mm, device.comb, strict=True):
        total += _comb(strong, max(1, round(spacing / step_mm)), float(keep)) * np.float32(share)
    total = gaussian_filter(total, (SMEAR_MM / step_mm, 2.0), mode="nearest")  # their paths differ in length
    twice = np.zeros_like(strong)
    again = strong * echoes.arrival  # the whole way a second time
    twice[::2] = again[: (rows + 1) // 2]
    twice[1::2] = 0.5 * (again[: rows // 2] + again[1 : rows // 2 + 1])
    return np.asarray(total + twice * np.float32(share), dtype=np.float32)


def _comb(values: Image, delay: int, keep: float) -> Image:
    """Each value again and again after `delay` rows, each time `keep` of the time before."""
    out = np.zeros_like(values)
    for start in range(delay, values.shape[0], delay):
        stop = min(start + delay, values.shape[0])
        before = slice(start - delay, stop - delay)
        out[start:stop] = np.float32(keep) * (values[before] + out[before])
    return out
