# SPDX-License-Identifier: Apache-2.0
"""From samples on rays to the signal on scan lines, compiled, no derivatives.

The slow references are `propagate.propagate` and `pulse.PointSpread`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...compiled import njit
from .beams import Beams
from .config import UltrasoundConfig
from .propagate import AHEAD, FLAT, SMALL
from .pulse import PointSpread
from .sample import Samples
from .threads import in_threads


def receive_fast(samples: Samples, beams: Beams, spread: PointSpread, config: UltrasoundConfig) -> Tensor:
    """IQ (B, L, S, 2) of samples with fields (B, R, S, ...), in single precision."""
    log_z, loss, slope, echo = (
        np.ascontiguousarray(t.numpy(), np.float32)
        for t in (samples.log_impedance, samples.attenuation, samples.slope, samples.echo)
    )
    batch, rays, depths = log_z.shape
    direction = beams.direction.float().numpy()
    planes = np.empty((batch * rays, 3, depths), np.float32)
    half = 0.5 * config.pulse_mm / beams.step_mm
    absorb = 2.0 * config.frequency_mhz / 10.0 * math.log(10.0) / 20.0

    def travel(first: int, last: int) -> None:
        _travel(log_z, loss, slope, echo, direction, planes, half, config.pulse_mm, beams.step_mm, absorb,
                0.5 * config.specular, first, last)  # fmt: skip

    in_threads(travel, batch * rays, 16)
    lateral, axial = spread.lateral.float().numpy(), spread.axial.float().numpy()
    reach = _reach(lateral)
    mirror = spread.mirror_gain.float().numpy()
    gain = (spread.speckle_gain * config.liver_level).float().numpy()
    lines = len(mirror)
    out = np.empty((batch * lines, depths, 2), np.float32)

    def gather(first: int, last: int) -> None:
        _gather(planes, lateral, reach, axial, mirror, gain, rays, spread.rays, out, first, last)

    in_threads(gather, batch * lines, 8)
    return torch.from_numpy(out.reshape(batch, lines, depths, 2))


def _reach(lateral: Any) -> Any:
    """First and last depth + 1 at which each tap (T, S) of the beam has weight, (T, 2)."""
    some = lateral > 0
    first = some.argmax(1)
    last = lateral.shape[1] - some[:, ::-1].argmax(1)
    return np.stack([first, np.where(some.any(1), last, first)], 1)


@njit()
def _travel(
    log_z: Any, loss: Any, slope: Any, echo: Any, direction: Any, planes: Any, half: Any, pulse: Any, step: Any,
    absorb: Any, specular: Any, first: Any, last: Any,
) -> None:  # fmt: skip
    _, rays, depths = log_z.shape
    log_t = np.zeros(depths)
    side = np.zeros((2, depths))
    r = np.zeros(depths)
    cosine = np.zeros(depths)
    for n in range(first, last):
        b, a = n // rays, n % rays
        z, ex, ey = log_z[b, a], direction[a, 0], direction[a, 1]
        for s in range(depths):
            side[0, s] = slope[b, a, s, 0] * ey - slope[b, a, s, 1] * ex
            side[1, s] = slope[b, a, s, 2]
        _integrate(side[0])
        _integrate(side[1])
        for s in range(depths):
            change = _at(z, s + half) - _at(z, s - half)
            r[s] = math.tanh(0.5 * change) if change != 0.0 else 0.0
            if r[s] != 0.0:
                along2 = (change / pulse) ** 2
                across2 = _mean(side[0], s, half) ** 2 + _mean(side[1], s, half) ** 2
                cosine[s] = ((along2 + FLAT) / (along2 + across2 + FLAT)) ** specular
        total = 0.0
        before = 0.0
        for s in range(depths):
            now = math.log1p(-(1.0 - 1e-6) * r[s] * r[s]) if r[s] != 0.0 else 0.0
            if s > 0:
                total += 0.5 * (now + before) * step / pulse
            log_t[s], before = total, now
        absorbed = 0.0
        for s in range(depths):
            if s > 0:
                absorbed -= 0.5 * (loss[b, a, s] + loss[b, a, s - 1]) * step * absorb
            arrival = math.exp(log_t[s] + absorbed)
            planes[n, 0, s], planes[n, 1, s] = echo[b, a, s, 0] * arrival, echo[b, a, s, 1] * arrival
            planes[n, 2, s] = 0.0
            if r[s] != 0.0:
                size = math.sqrt(r[s] * r[s] + SMALL * SMALL) - SMALL
                planes[n, 2, s] = size * cosine[s] * math.exp(_at(log_t, s - AHEAD * half) + absorbed)


@njit(inline="always")
def _at(values, at):
    last = values.shape[0] - 1
    low = int(np.floor(at))
    part = at - low
    a = values[min(max(low, 0), last)]
    return a + part * (values[min(max(low + 1, 0), last)] - a)


@njit(inline="always")
def _integrate(values):
    """In place: trapezoidal integral in samples, and the last slope is kept where the line ends."""
    total, before = 0.0, values[0]
    values[0] = 0.0
    for s in range(1, values.shape[0]):
        now = values[s]
        total += 0.5 * (now + before)
        values[s], before = total, now


@njit(inline="always")
def _mean(total, s, half):
    """Mean of what was integrated over s - half to s + half; beyond the ends there is nothing."""
    return (_at(total, s + half) - _at(total, s - half)) / (2.0 * half)


@njit(fastmath=False)
def _gather(
    planes: Any, lateral: Any, reach: Any, axial: Any, mirror: Any, gain: Any, rays: Any, stride: Any, out: Any,
    first: Any, last: Any,
) -> None:  # fmt: skip
    lines, depths = mirror.shape
    taps, middle, pulse = lateral.shape[0], lateral.shape[0] // 2, axial.shape[0] // 2
    across = np.zeros((3, depths + 2 * pulse), np.float32)
    for n in range(first, last):
        b, line = n // lines, n % lines
        across[:] = 0.0
        for t in range(taps):
            ray = line * stride + t - middle
            if ray < 0 or ray >= rays:
                continue
            for c in range(3):
                source, target, weight = planes[b * rays + ray, c], across[c], lateral[t]
                for s in range(reach[t, 0], reach[t, 1]):
                    target[s + pulse] += weight[s] * source[s]
        for s in range(depths):
            i = q = m = np.float32(0.0)
            for k in range(axial.shape[0]):
                i += axial[k] * across[0, s + k]
                q += axial[k] * across[1, s + k]
                m += axial[k] * across[2, s + k]
            out[n, s, 0] = i * gain[line, s] + m * mirror[line, s]
            out[n, s, 1] = q * gain[line, s]
