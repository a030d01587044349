# SPDX-License-Identifier: Apache-2.0
"""From the envelope to grey values: time-gain compensation, log compression, gain."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .config import UltrasoundConfig

FLOOR = 1e-12  # of the power, so that silence has a logarithm


def compressed(power: Tensor, depth_mm: Tensor, config: UltrasoundConfig) -> Tensor:
    """Grey values in [0, 1] of the squared envelope (..., S) at depths (S,) mm.

    Liver with the compensated attenuation comes out at `liver_grey`; the dynamic range spans 0 to 1.
    """
    decibel = (10.0 / math.log(10.0)) * torch.log(power + FLOOR * config.liver_level**2) - config.liver_echo_db
    decibel = decibel + tgc_db(depth_mm, config) + config.gain_db
    return (config.liver_grey + decibel / config.dynamic_range_db).clamp(0.0, 1.0)


def tgc_db(depth_mm: Tensor, config: UltrasoundConfig) -> Tensor:
    """Gain (S,) in dB that makes up for the round trip through tissue of the compensated attenuation."""
    return 2.0 * config.tgc_db_cm_mhz * config.frequency_mhz * depth_mm / 10.0
