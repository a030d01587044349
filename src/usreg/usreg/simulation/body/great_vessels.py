# SPDX-License-Identifier: Apache-2.0
"""Aorta, vena cava, their branches to the organs, and the veins that make the portal vein."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .frame import Frame
from .shapes import Points, spline
from .types import Tube


@dataclass(frozen=True, eq=False)
class GreatVessels:
    """Curves (N, 4) of x, y, z, radius.

    Args:
        aorta, cava: the trunks, from below. portal: from the confluence behind the pancreas to the porta hepatis.
        others: (structure, curve) of branches and tributaries.
    """

    aorta: Points
    cava: Points
    portal: Points
    others: tuple[tuple[str, Points], ...]

    def tubes(self) -> list[Tube]:
        """All of them as tubes."""
        named = [("aorta", self.aorta), ("inferior_vena_cava", self.cava), ("portal_vein", self.portal), *self.others]
        return [tube for name, curve in named for tube in tubes_of(curve, name)]


def tubes_of(curve: Points, structure: str) -> list[Tube]:
    """Tubes along a curve (N, 4)."""
    ends = [(tuple(map(float, p[:3])), float(p[3])) for p in curve]
    return [Tube(a, b, ra, rb, structure) for (a, ra), (b, rb) in zip(ends[:-1], ends[1:], strict=True)]  # type: ignore[arg-type]


def at_spine(frame: Frame, x: float, ahead_mm: float, z: float) -> tuple[float, float, float]:
    """A point so many mm in front of the vertebral bodies."""
    return x, float(frame.spine_front(z)) - ahead_mm, z


def great_vessels(frame: Frame) -> GreatVessels:
    """Courses as in the supine adult: the aorta left of the midline, the cava right, leaving the spine at the liver."""
    rng = frame.rng(3)
    ra, rc = frame.measures["aorta_diameter_mm"] / 2, frame.measures["vena_cava_diameter_mm"] / 2
    sway = rng.uniform(-2.0, 2.0, 8)
    fork, join = frame.z("L4", -2.0), frame.z("L4", -14.0)

    def p(x: float, ahead: float, level: str, up: float, radius: float) -> tuple[float, ...]:
        return *at_spine(frame, x, ahead, frame.z(level, up)), radius

    aorta = spline(np.array([
        (*at_spine(frame, 6.0 + sway[0], 0.78 * ra + 2, fork), 0.78 * ra), p(8 + sway[1], ra, "L2", 0, 0.85 * ra),
        p(7, ra + 3, "T12", 0, ra), p(15, ra - 4, "T10", 0, ra), p(22, ra - 14, "T8", 0, ra),
        p(25, ra - 18, "T5", 0, ra),
    ]))  # fmt: skip
    cava = spline(np.array([
        (*at_spine(frame, -14.0, 0.8 * rc, join), 0.8 * rc), p(-20 + sway[2], 0.8 * rc, "L2", 0, 0.88 * rc),
        p(-22 + sway[3], rc + 5, "L1", 8, rc), p(-25, rc + 13, "T11", -8, rc), p(-26, rc + 21, "T10", 0, rc),
        p(-24, rc + 33, "T9", 5, rc), p(-16, rc + 42, "T8", 6, rc),
    ]))  # fmt: skip
    return GreatVessels(aorta, cava, _portal(frame, rng), tuple(_branches(frame, aorta, cava, rng)))


def porta_hepatis(frame: Frame) -> Points:
    """(3,) where the portal vein enters the liver and divides."""
    z = frame.z("T12", -8.0)
    return np.array([-36.0, float(frame.spine_front(z)) - 34.0, z])


def confluence(frame: Frame) -> Points:
    """(3,) where splenic and superior mesenteric vein meet, behind the neck of the pancreas."""
    return np.array(at_spine(frame, -7.0, 32.0, frame.z("L1", -10.0)))


def _portal(frame: Frame, rng: np.random.Generator) -> Points:
    a, b, r = confluence(frame), porta_hepatis(frame), frame.measures["portal_vein_diameter_mm"] / 2
    middle = 0.5 * (a + b) + np.array([0.0, 3.0, 0.0]) + rng.uniform(-2.0, 2.0, 3)
    return spline(np.column_stack([np.array([a, middle, b]), [r, r, r]]))


def _branches(frame: Frame, aorta: Points, cava: Points, rng: np.random.Generator) -> list[tuple[str, Points]]:
    z_l, z_r = renal_hilum(frame, 1.0)[2], renal_hilum(frame, -1.0)[2]
    found: list[tuple[str, Points]] = []
    for side, z_hilum in ((1.0, z_l), (-1.0, z_r)):
        hilum, start_z = renal_hilum(frame, side), z_hilum + 2.0
        artery, vein = _on(aorta, start_z), _on(cava, start_z)
        before = _on(aorta, start_z) - [0.0, aorta[:, 3].max() + 5.5, 0.0]
        behind = np.array(at_spine(frame, -18.0, 3.4, start_z))  # the right artery runs behind the vena cava
        bend = behind if side < 0 else 0.5 * (artery + hilum)
        found.append(("aorta", _arc(artery, bend, hilum + [0, 4, 2], 2.8)))
        bend = 0.5 * (vein + hilum) + [0, -3, 1] if side < 0 else before  # the left vein crosses before the aorta
        found.append(("inferior_vena_cava", _arc(vein, bend, hilum + [0, -3, -2], 4.0)))
    top = _on(aorta, frame.z("T12", 3.0))
    found.append(
        ("aorta", spline(np.array([(*top, 4.0), (*(top + [-2, -20, -3]), 3.6), (*(top + [-4, -27, 3]), 3.0)])))
    )
    mesenteric = _on(aorta, frame.z("L1", 17.0))
    smv, c = [], confluence(frame)
    for z in (frame.z("L2", 0.0), frame.z("L3", 10.0), frame.z("L4", 10.0)):
        smv.append((*at_spine(frame, -10.0, 38.0, z), 4.6))
    found.append(("aorta", spline(np.array([
        (*mesenteric, 3.6), (*(mesenteric + [0, -26, -7]), 3.5),
        *((x + 15.0, y + 2.0, z, 3.2) for x, y, z, _ in smv),
    ]))))  # fmt: skip
    found.append(("portal_vein", spline(np.array([(*c, 5.0), *smv]))))
    found.append(("portal_vein", splenic_vein(frame)))
    for name, curve, spread in (("aorta", aorta, 1.0), ("inferior_vena_cava", cava, 0.95)):
        low = curve[0]
        for side in (-1.0, 1.0):
            end = (side * 48.0, low[1] + 6.0, low[2] - 75.0, 0.55 * low[3])
            curve_bend = (low[0] + side * 15.0, low[1] - 1.0, low[2] - 25.0, 0.6 * low[3])
            found.append((name, spline(np.array([(*low[:3], 0.7 * spread * low[3]), curve_bend, end]))))
    return found


def renal_hilum(frame: Frame, side: float) -> Points:
    """(3,) where vessels enter the kidney; the right kidney lies lower."""
    z = frame.z("L1", 2.0) if side > 0 else frame.z("L1", -14.0)
    return np.array([side * 42.0, float(frame.spine_y(z)) + 2.0, z])


def splenic_vein(frame: Frame) -> Points:
    """Curve (N, 4) behind the pancreas, from the hilum of the spleen to the confluence."""
    c = confluence(frame)
    z = frame.z("L1", 8.0)
    return spline(np.array([
        (*c, 4.4), (*at_spine(frame, 18.0, 34.0, z), 4.2), (*at_spine(frame, 45.0, 18.0, z + 12), 3.9),
        (*at_spine(frame, 72.0, -8.0, z + 30), 3.6),
    ]))  # fmt: skip


def _on(curve: Points, z: float) -> Points:
    return np.array([np.interp(z, curve[:, 2], curve[:, i]) for i in range(3)])


def _arc(a: Points, bend: Points, b: Points, radius: float) -> Points:
    return spline(np.column_stack([np.array([a, bend, b]), [radius] * 3]))
