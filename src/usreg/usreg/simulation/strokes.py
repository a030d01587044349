# SPDX-License-Identifier: Apache-2.0
"""Strokes of a sonographer who asks for one held breath each: a fan from one place, or a slide along the skin."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..config import check_range
from ..errors import ConfigError
from .body.types import Body
from .paths import Places
from .skin import Skin
from .windows import Sight, Window, costal_margin, poses_at

KNOTS, PRESSED_MM = 9, 4.0
EDGE_MM = 20.0  # strokes keep off the ends of what is known of the skin
STEEP = 0.1  # a strong tilt costs contact: share of liver that a radian has to bring


@dataclass(frozen=True)
class StrokeConfig:
    """How far a stroke goes.

    Args:
        fan_deg, slide_mm: least and greatest span from end to end; each stroke draws its own, uniform.
        least_share: of the image that is open liver, in the poorest part of a stroke that is any good.
    """

    fan_deg: tuple[float, float] = (20.0, 30.0)
    slide_mm: tuple[float, float] = (50.0, 80.0)
    least_share: float = 0.1

    def __post_init__(self) -> None:
        for name, (low, high), most in (("fan_deg", self.fan_deg, 80.0), ("slide_mm", self.slide_mm, 150.0)):
            check_range(f"{name}[0]", low, 1.0, most)
            check_range(f"{name}[1]", high, low, most)
        check_range("least_share", self.least_share, 0.0, 1.0)


@dataclass(frozen=True, eq=False)
class Stroke:
    """The probe's way in one held breath.

    Args:
        name: window and kind. places: (KNOTS, 5), see windows.Window.
        liver_share: of the image that is open liver, in its poorest part.
    """

    name: str
    places: Places
    liver_share: float


def find_strokes(
    body: Body, skin: Skin, windows: tuple[Window, ...], rng: np.random.Generator, config: StrokeConfig | None = None
) -> tuple[Stroke, ...]:
    """The best stroke of every kind that keeps the liver in sight, from windows of several kinds first.

    Spans and directions are drawn; of the places where a span fits, the one is taken that shows most liver.

    Raises:
        ConfigError: not one stroke is any good.
    """
    config = config or StrokeConfig()
    sight, places = Sight(body), {w.name: np.array(w.place) for w in windows}
    spans = {"fan": config.fan_deg, "slide": config.slide_mm}
    found = []
    for name in ("subcostal fan", "intercostal fan", "epigastric slide", "sagittal slide", "epigastric fan"):
        window, kind = name.split()
        span, backwards = float(rng.uniform(*spans[kind])), bool(rng.random() < 0.5)
        ways = _ways(window, kind, span, places, body, skin)
        best = _best(name, ways[:, ::-1] if backwards else ways, sight, skin)
        if best is not None and best.liver_share >= config.least_share:
            found.append(best)
    if not found:
        raise ConfigError("no stroke keeps the liver in sight: ask for smaller spans or a lower least_share")
    return tuple(found)


def _ways(
    window: str, kind: str, span: float, places: dict[str, NDArray[np.float64]], body: Body, skin: Skin
) -> Places:  # fmt: skip
    """Candidates (N, KNOTS, 5); none where the body has no such window."""
    if window == "sagittal":
        return _sagittal(span, body, skin) if "subcostal" in places else np.zeros((0, KNOTS, 5))
    if window not in places:
        return np.zeros((0, KNOTS, 5))
    return _fans(places[window], span) if kind == "fan" else _axial(places[window], span)


def _fans(place: NDArray[np.float64], span_deg: float) -> Places:
    """Tilted about the face, to both sides of a middle."""
    step = np.radians(np.linspace(-0.5 * span_deg, 0.5 * span_deg, KNOTS))
    middles = np.radians(np.arange(-16.0, 17.0, 4.0))
    ways = np.tile(place, (len(middles), KNOTS, 1))
    ways[..., 3] += middles[:, None] + step
    return ways


def _axial(place: NDArray[np.float64], span_mm: float) -> Places:
    """The image across the body, slid from head to feet."""
    step = np.linspace(0.5 * span_mm, -0.5 * span_mm, KNOTS)
    grid = [(z, t) for z in np.arange(-40.0, 41.0, 5.0) for t in np.radians((-20.0, -10.0, 0.0, 10.0))]
    ways = np.tile(place, (len(grid), KNOTS, 1))
    for way, (z, tilt) in zip(ways, grid, strict=True):
        way[:, 1] += z + step
        way[:, 3] += tilt
    return ways


def _sagittal(span_mm: float, body: Body, skin: Skin) -> Places:
    """The image along the body, its marked side to the head, slid along the costal margin and below it."""
    margin = costal_margin(body, skin)
    middle_z = float(np.median(margin[:, 1]))
    step = np.linspace(-0.5 * span_mm, 0.5 * span_mm, KNOTS)
    ways = []
    for angle in np.radians(np.arange(-65.0, 11.0, 5.0)):
        radius = float(np.linalg.norm(skin.point(angle, middle_z)[:2] - skin.axis_mm))
        angles = angle + step / radius
        for drop in (12.0, 20.0, 30.0, 42.0):
            z = np.interp(angles, margin[:, 0], margin[:, 1]) - drop
            for rock in np.radians((0.0, 12.0, 24.0)):
                ways.append(np.stack(np.broadcast_arrays(angles, z, 0.5 * math.pi, 0.0, rock), -1))
    return np.array(ways)


def _best(name: str, ways: Places, sight: Sight, skin: Skin) -> Stroke | None:
    low, high = skin.z_range_mm
    z = ways[..., 1]
    ways = ways[(z.min(1, initial=np.inf) > low + EDGE_MM) & (z.max(1, initial=-np.inf) < high - EDGE_MM)]
    if not len(ways):
        return None
    poses = poses_at(skin, ways.reshape(-1, 5), PRESSED_MM)
    share = sight.liver_share(poses).reshape(ways.shape[:2])
    worth = share.min(1) + share.mean(1) - STEEP * np.abs(ways[..., 3:]).sum(-1).mean(1)
    best = int(np.argmax(worth))
    return Stroke(name, ways[best], float(share[best].min()))
