# SPDX-License-Identifier: Apache-2.0
"""What one scanner got by its seed: tissue values, gain sliders, drift, contact, the curve from decibels to grey."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...data.tissues import TissueTable
from .config import ScannerConfig

Array = NDArray[np.float64]
SOFT_MRAYL = 1.63  # the redraw scales the logarithm of the impedance relative to this
SOFT_DB = (0.3, 1.0)  # attenuation of what counts as soft tissue
DENSITY_SHARE = (0.7, 1.0)


@dataclass(frozen=True, eq=False)
class TissueDraw:
    """Tissue values of one scanner, row by row of the table, each (T,).

    Args:
        attenuation: dB/cm/MHz. log_impedance: of MRayl. level: root mean square of the backscattered pressure.
        share: of the scatterers that this tissue has. spread: of the scatterers' strength.
    """

    attenuation: Array
    log_impedance: Array
    level: Array
    share: Array
    spread: Array


def draw_tissues(table: TissueTable, redraw: float, rng: np.random.Generator) -> TissueDraw:
    """Tissue values drawn anew around the table's, log-normal with relative spread `redraw`, clipped at twice that."""

    def factor() -> Array:
        return np.exp(redraw * np.clip(rng.standard_normal(len(table.tissues)), -2.0, 2.0))

    def column(name: str) -> Array:
        return np.asarray(table.column(name).numpy(), dtype=np.float64)

    density = column("scatterer_density_mm3") * factor()
    soft = math.log(SOFT_MRAYL)
    return TissueDraw(
        attenuation=column("attenuation_db_cm_mhz") * factor(),
        log_impedance=soft + (np.log(column("impedance_mrayl")) - soft) * factor(),
        level=np.where(density > 0, column("scatterer_mean") * factor(), 0.0),
        share=np.clip(density / max(float(np.median(density)), 1e-9), *DENSITY_SHARE),
        spread=column("scatterer_spread") * factor(),
    )


@dataclass(frozen=True, eq=False)
class DeviceDraw:
    """The electronics of one scanner.

    Args:
        sliders_db: (8,) errors of the gain over depth, equidistant from face to full depth.
        assumed_db_cm_mhz: attenuation that the gain over depth makes up for.
        level_db: of soft tissue, for which the gain is set.
        drift, contact: (3,) phases. periods_s: (3,) of the drift.
        dynamic_range_db, bend, gamma: of the grey curve.
        comb_mm, comb: (2,) spacings and strengths of repeat echoes behind strong reflectors. roughness: exponent of the
        fall of an interface's echo with the angle of incidence.
    """

    sliders_db: Array
    assumed_db_cm_mhz: float
    level_db: float
    drift: Array
    periods_s: Array
    contact: Array
    dynamic_range_db: float
    bend: float
    gamma: float
    comb_mm: Array
    comb: Array
    roughness: float

    def gain_db(self, t_s: float, size_db: float) -> float:
        """Slow drift of the gain: a function of time alone, whatever frames were made before."""
        return float(size_db * np.sin(2 * math.pi * t_s / self.periods_s + self.drift).mean() * math.sqrt(2))


def draw_device(config: ScannerConfig, tissues: TissueDraw, rng: np.random.Generator) -> DeviceDraw:
    """Draw a device as somebody set it up by eye for these tissues; its order of draws is part of what a seed means."""
    soft = (tissues.attenuation > SOFT_DB[0]) & (tissues.attenuation < SOFT_DB[1]) & (tissues.level > 0)
    attenuation = float(np.median(tissues.attenuation[soft])) if soft.any() else sum(SOFT_DB) / 2
    level = float(np.median(tissues.level[soft])) if soft.any() else 1.0
    return DeviceDraw(
        sliders_db=config.tgc_error_db * np.clip(rng.standard_normal(8), -2.0, 2.0),
        assumed_db_cm_mhz=attenuation * float(rng.uniform(0.8, 1.0)),
        level_db=20 * math.log10(level),
        drift=rng.uniform(0, 2 * math.pi, 3),
        periods_s=rng.uniform((7.0, 17.0, 37.0), (13.0, 29.0, 61.0)),
        contact=rng.uniform(0, 2 * math.pi, 3),
        dynamic_range_db=float(rng.uniform(*config.dynamic_range_db)),
        bend=float(rng.uniform(0.2, 0.7)),
        gamma=float(rng.uniform(0.9, 1.15)),
        comb_mm=rng.uniform((1.6, 2.6), (2.4, 4.2)),
        comb=rng.uniform(0.4, 0.65, 2),
        roughness=float(rng.uniform(3.0, 7.0)),
    )


def label_columns(draw: TissueDraw, rows: NDArray[np.int64]) -> Mapping[str, NDArray[np.float32]]:
    """The values by label value, (V,) float32; rows without a tissue get zeros (no voxel has them)."""
    known = rows >= 0
    safe = np.where(known, rows, 0)
    amplitude = draw.level / np.sqrt(draw.share * (1 + draw.spread**2))
    columns = {
        "attenuation": draw.attenuation, "log_impedance": draw.log_impedance,
        "amplitude": amplitude, "share": draw.share, "spread": draw.spread,
    }  # fmt: skip
    return {name: np.where(known, value[safe], 0.0).astype(np.float32) for name, value in columns.items()}
