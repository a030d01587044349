# SPDX-License-Identifier: Apache-2.0
"""A convex sector, and rows as a study of sixty starts gives them."""

import math

import numpy as np
import pytest

from usreg.evaluation import Row
from usreg.geometry.plane import PlaneGrid
from usreg.geometry.sector import SectorGeometry


@pytest.fixture
def sector() -> SectorGeometry:
    plane = PlaneGrid(120, 160, ((0.8, 0.0), (0.0, 0.8)))
    return SectorGeometry("convex", plane, (64.0, -30.0), (40.0, 110.0), (-0.5, 0.5), (0.0, 0.0, 127.0, 95.0), 70.0)


@pytest.fixture
def rows() -> list[Row]:
    generator = np.random.default_rng(7)
    made = []
    for n in range(60):
        final = float(abs(generator.normal(0, 0.5)))
        accepted = n % 10 != 3
        made.append(
            Row(
                frame=2 * n + 1,
                stamp_s=10.0 + n / 15,
                initial_tre_mm=float(generator.uniform(2, 18)),
                final_tre_mm=final if accepted else 12.0,
                translation_mm=0.7 * final,
                rotation_deg=0.4 * final,
                out_of_plane_mm=0.3 * final,
                score=0.95 - 0.05 * final,
                accepted=accepted,
                seconds=0.03 + 0.001 * n,
                reason="" if accepted else "score 0.41 is below 0.6 <b>&",
                status="TRACKING" if accepted else "LOST",
                overlap=0.9,
                predicted_mm=0.45,
                nees=float(generator.chisquare(6)) if accepted else math.nan,
            )
        )
    return made
