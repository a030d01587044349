# SPDX-License-Identifier: Apache-2.0
"""Sectors of linear, convex and phased probes: masks by hand, outlines, sample points, sizes, what is refused."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from usreg.errors import GeometryError, ShapeError
from usreg.geometry.plane import PlaneGrid
from usreg.geometry.sector import SectorGeometry, full_rectangle

PLANE = PlaneGrid(120, 160, ((0.5, 0.0), (0.0, 0.5)))
WHOLE = (0.0, 0.0, 79.5, 59.5)
CONVEX = SectorGeometry("convex", PLANE, (39.75, -20.0), (22.0, 78.0), (-0.5, 0.6), WHOLE, 56.0)
PHASED = SectorGeometry("phased", PLANE, (39.75, 0.0), (0.0, 58.0), (-0.7, 0.7), WHOLE, 58.0)
LINEAR = SectorGeometry("linear", PLANE, (40.0, 5.0), (0.0, 40.0), (0.0, 0.0), (10.0, 5.0, 70.0, 45.0), 40.0)
ALL = pytest.mark.parametrize("sector", [CONVEX, PHASED, LINEAR], ids=lambda s: s.kind)


@ALL
def test_mask_by_hand(sector):
    """Every pixel's centre, with the definition written out once more."""
    mask = sector.mask()
    assert mask.shape == (120, 160) and 0.1 < mask.double().mean() < 0.9
    x0, y0, x1, y1 = sector.clip_mm
    for row in range(0, 120, 7):
        for column in range(0, 160, 7):
            x, y = column * 0.5, row * 0.5
            inside = x0 <= x <= x1 and y0 <= y <= y1
            if sector.kind != "linear":
                dx, dy = x - sector.apex_mm[0], y - sector.apex_mm[1]
                inside &= sector.radius_mm[0] <= math.hypot(dx, dy) <= sector.radius_mm[1]
                inside &= sector.angle_rad[0] <= math.atan2(dx, dy) <= sector.angle_rad[1]
            assert bool(mask[row, column]) == inside


def test_angles_run_from_the_beam_towards_the_marked_side():
    half = replace(CONVEX, angle_rad=(0.0, 0.6))
    columns = half.mask().nonzero()[:, 1]
    assert columns.min() * 0.5 >= 39.75 - 1e-9


def test_the_near_arc_begins_below_the_apex():
    column = 79  # x = 39.5, next to the apex
    rows = CONVEX.mask()[:, column].nonzero().flatten()
    assert rows.min() * 0.5 == pytest.approx(22.0 - 20.0, abs=0.5)
    assert rows.max() * 0.5 == pytest.approx(78.0 - 20.0, abs=0.5)


@ALL
def test_area_of_outline_and_mask_agree(sector):
    """The shoelace formula over the outline gives the area that the mask counts."""
    outline = sector.outline_mm(0.25)
    x, y = outline.T
    x0, y0, x1, y1 = sector.clip_mm
    assert x.min() >= x0 - 1e-9 and x.max() <= x1 + 1e-9 and y.min() >= y0 - 1e-9 and y.max() <= y1 + 1e-9
    area = 0.5 * (x * y.roll(-1) - y * x.roll(-1)).sum().abs()
    counted = sector.mask().sum() * 0.25
    assert area.item() == pytest.approx(counted.item(), rel=0.025)


def test_a_fan_outside_its_clip_rectangle_has_no_outline():
    assert replace(CONVEX, clip_mm=(0.0, 0.0, 5.0, 5.0)).outline_mm().shape == (0, 2)


@ALL
def test_sample_points_lie_inside_and_reach_the_edges(sector):
    points = sector.sample_points_mm()
    assert points.shape == (25, 3) and not points[:, 2].any()
    centre = points[:, :2].mean(0)
    slightly_in = centre + (points[:, :2] - centre) * (1 - 1e-6)
    inside = sector.contains(slightly_in)
    assert inside.double().mean() > 0.9
    spread = points[:, :2].amax(0) - points[:, :2].amin(0)
    extent = sector.mask().nonzero().amax(0).flip(0) * 0.5 - sector.mask().nonzero().amin(0).flip(0) * 0.5
    assert bool((spread > extent - 1.5).all())
    assert sector.sample_points_mm(3).shape == (9, 3)


@ALL
@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_another_size_keeps_the_same_millimetres(sector, factor):
    other = sector.resized(int(120 * factor), int(160 * factor))
    assert other.apex_mm == sector.apex_mm and other.plane.spacing_mm == pytest.approx((0.5 / factor,) * 2)
    a, b = sector.mask().double().mean().item(), other.mask().double().mean().item()
    assert a == pytest.approx(b, abs=0.02)


def test_full_rectangle_is_everything():
    sheared = PlaneGrid(30, 40, ((0.5, 0.02), (0.0, 0.25)))
    for plane in (PLANE, sheared):
        sector = full_rectangle(plane, "p1")
        assert bool(sector.mask().all()) and sector.probe_id == "p1" and sector.kind == "linear"
        assert sector.pixel_to_mm == plane.pixel_to_mm


@given(
    x=st.floats(-20, 100),
    y=st.floats(-40, 90),
    first=st.floats(-1.5, 1.4),
    width=st.floats(0.05, 1.4),
    near=st.floats(0, 40),
    depth=st.floats(1, 100),
)
def test_a_wider_fan_contains_the_narrower_one(x, y, first, width, near, depth):
    fan = replace(CONVEX, angle_rad=(first, min(first + width, 3.0)), radius_mm=(near, near + depth))
    wider = replace(fan, angle_rad=(first - 0.01, fan.angle_rad[1] + 0.01), radius_mm=(near * 0.99, near + depth + 1))
    point = torch.tensor([x, y], dtype=torch.float64)
    assert bool(wider.contains(point)) or not bool(fan.contains(point))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"kind": "square"}, "choose linear, convex or phased"),
        ({"clip_mm": (5.0, 0.0, 5.0, 9.0)}, "empty"),
        ({"clip_mm": (5.0, 0.0, 9.0)}, "12 finite numbers"),
        ({"depth_mm": 0.0}, "empty"),
        ({"radius_mm": (78.0, 22.0)}, "near < far"),
        ({"radius_mm": (-1.0, 22.0)}, "near < far"),
        ({"angle_rad": (0.5, 0.5)}, "first < last"),
        ({"angle_rad": (0.5, 4.0)}, "first < last"),
        ({"apex_mm": (math.nan, 0.0)}, "finite"),
        ({"sound_speed_m_s": math.inf}, "finite"),
    ],
)
def test_sectors_that_are_refused(change, match):
    with pytest.raises(GeometryError, match=match):
        replace(CONVEX, **change)


def test_sizes_that_are_refused():
    with pytest.raises(ShapeError):
        CONVEX.resized(0, 10)
