# SPDX-License-Identifier: Apache-2.0
"""Vessel trees: Murray's law at every fork, inside the liver, the two never touching; forks are the landmarks."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from usreg.simulation.body import Body, BodyConfig, Tube, make_body
from usreg.simulation.body.shapes import Field, Lattice, ellipsoid
from usreg.simulation.body.tree import Tree, grow, segment_distance, territories

SEEDS = (0, 1, 2)
Bodies = Callable[[int], Body]


@cache
def ball_tree() -> tuple[Tree, Field]:
    """A tree in a ball of 40 mm radius, entering from below."""
    lattice = Lattice.around((-45, -45, -45), (45, 45, 45), 3.0)
    ball = Field(lattice, ellipsoid(lattice, (0, 0, 0), (40, 40, 40)))
    ends = np.random.default_rng(0).uniform(-38, 38, (6000, 3))
    roots = np.array([[[0.0, 0.0, -38.0], [0.0, 0.0, -10.0]]])
    return grow(roots, 5.0, ball, ends[ball.at(ends) < -3], 60, np.empty((0, 8))), ball


def tubes(of: Body, structure: str) -> list[Tube]:
    return [t for t in of.tubes if t.structure == structure]


def distance(a: Tube, b: Tube) -> float:
    ends = (np.array(p) for p in (a.start_mm, a.stop_mm, b.start_mm, b.stop_mm))
    return float(segment_distance(*ends))


def sections(of: Body, structure: str) -> dict[tuple[float, ...], list[Tube]]:
    """Tubes by where they start."""
    found: dict[tuple[float, ...], list[Tube]] = {}
    for t in tubes(of, structure):
        found.setdefault(tuple(np.round(t.start_mm, 6)), []).append(t)
    return found


def test_a_tree_keeps_murrays_law_and_its_flow() -> None:
    tree, _ = ball_tree()
    forks = [(i, tree.children(i)) for i in range(len(tree.flow)) if len(tree.children(i))]
    assert len(forks) >= 55 and all(len(c) == 2 for _, c in forks)
    for i, c in forks:
        assert tree.radius[i] ** 3 == pytest.approx((tree.radius[c] ** 3).sum(), rel=1e-9)
        assert tree.flow[i] == tree.flow[c].sum()
        assert np.allclose(tree.stop[i], tree.start[c])
    assert tree.radius[0] == pytest.approx(5.0)


def test_a_tree_fills_its_organ_and_stays_inside() -> None:
    tree, ball = ball_tree()
    assert (ball.at(tree.stop) < 0).all()
    points = np.random.default_rng(1).uniform(-36, 36, (3000, 3))
    points = points[ball.at(points) < -4]
    away = [min(_point_segment(p, a, b) for a, b in zip(tree.start, tree.stop, strict=True)) for p in points[:300]]
    assert np.percentile(away, 95) < 14.0  # the room of an end branch is (268 ml / 61) ^ 1/3 = 16 mm wide


def _point_segment(p: NDArray[np.float64], a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    return float(segment_distance(p, p, a, b))


def test_a_tree_avoids_what_it_is_told_to() -> None:
    _, ball = ball_tree()
    wall = np.array([[0.0, -40.0, 12.0, 0.0, 40.0, 12.0, 6.0, 6.0]])
    ends = np.random.default_rng(2).uniform(-38, 38, (6000, 3))
    roots = np.array([[[0.0, 0.0, -38.0], [0.0, 0.0, -10.0]]])
    tree = grow(roots, 5.0, ball, ends[ball.at(ends) < -3], 40, wall)
    gaps = [
        segment_distance(a, b, wall[0, :3], wall[0, 3:6]) - r - 6.0
        for a, b, r in zip(tree.start, tree.stop, tree.radius, strict=True)
    ]
    assert min(gaps) > 0 and len(tree.flow) > 40


def test_territories_go_to_the_nearest_root() -> None:
    roots = np.array([[[0.0, 0, 0], [10, 0, 0]], [[0.0, 0, 0], [0, 10, 0]]])
    assert territories(roots, np.array([[12.0, 1, 0], [1, 12, 0]])).tolist() == [0, 1]


def test_distance_of_segments() -> None:
    p = [np.array(v, dtype=float) for v in ((0, 0, 0), (10, 0, 0), (5, -3, 4), (5, 3, 4), (12, 0, 0), (20, 0, 0))]
    assert segment_distance(p[0], p[1], p[2], p[3]) == pytest.approx(4.0)
    assert segment_distance(p[0], p[1], p[4], p[5]) == pytest.approx(2.0)


@pytest.mark.parametrize("seed", SEEDS)
def test_portal_and_hepatic_veins_never_touch(seed: int, coarse_body: Bodies) -> None:
    b = coarse_body(seed)
    ends = {
        name: np.array([[*t.start_mm, *t.stop_mm, max(t.start_radius_mm, t.stop_radius_mm)] for t in tubes(b, name)])
        for name in ("portal_vein", "hepatic_vein")
    }
    least = np.inf
    for row in ends["portal_vein"]:
        middle = 0.5 * (row[:3] + row[3:6])
        near = np.linalg.norm(0.5 * (ends["hepatic_vein"][:, :3] + ends["hepatic_vein"][:, 3:6]) - middle, axis=1) < 40
        for other in ends["hepatic_vein"][near]:
            least = min(least, segment_distance(row[:3], row[3:6], other[:3], other[3:6]) - row[6] - other[6])
    assert 0.5 < least < 10.0


@pytest.mark.parametrize("seed", SEEDS)
def test_trees_of_a_liver_have_murrays_radii(seed: int, coarse_body: Bodies) -> None:
    b = coarse_body(seed)
    main = max(t.start_radius_mm for t in tubes(b, "portal_vein"))
    assert 5.5 <= main <= 6.5
    for structure in ("portal_vein", "hepatic_vein"):
        starts = sections(b, structure)
        forks = 0
        for t in tubes(b, structure):
            after = starts.get(tuple(np.round(t.stop_mm, 6)), [])
            if len(after) == 2:
                forks += 1
                cubes = sum(u.start_radius_mm**3 for u in after)
                assert t.stop_radius_mm**3 == pytest.approx(cubes, rel=1e-6)
        assert forks >= 80
    roots = sorted((t.start_radius_mm for t in tubes(b, "hepatic_vein")), reverse=True)
    assert 3.5 < roots[0] < 6.5


@pytest.mark.parametrize("seed", SEEDS)
def test_forks_are_landmarks_inside_their_vessel(seed: int, coarse_body: Bodies) -> None:
    b = coarse_body(seed)
    for name, structure in (("portal", "portal_vein"), ("hepatic", "hepatic_vein")):
        points = [p.numpy() for key, p in b.landmarks.items() if key.startswith(f"{name}_bifurcation_")]
        assert len(points) >= 12
        stops = np.array([t.stop_mm for t in tubes(b, structure)])
        assert max(np.linalg.norm(stops - p, axis=1).min() for p in points) < 1e-6
        spread = np.ptp(np.array(points), axis=0)
        assert (spread > (80, 50, 60)).all()  # over the whole liver


def test_vessels_lie_in_the_liver(coarse_body: Bodies) -> None:
    b = coarse_body(0)
    affine = b.labels.grid.index_T_ct.numpy()
    stops = np.array([t.stop_mm for t in tubes(b, "hepatic_vein")])
    i, j, k = np.rint(stops @ affine[:3, :3].T + affine[:3, 3]).astype(int).T
    parts = ("liver", "hepatic_vein", "portal_vein", "lesion_hypoechoic", "lesion_hyperechoic", "lesion_cyst")
    assert b.inside(*parts, "inferior_vena_cava").numpy()[k, j, i].mean() > 0.99


def test_a_portal_vein_that_the_hepatic_veins_crowd_gets_its_tree_all_the_same() -> None:
    """In this body no branch finds room beside a first segment of the usual length."""
    body = make_body(1016, BodyConfig(spacing_mm=6.0, terminals=20))
    assert len(tubes(body, "portal_vein")) > 100 and len(tubes(body, "hepatic_vein")) > 100
