# SPDX-License-Identifier: Apache-2.0
"""The field of a breathing body: rigid in organs, still where it must be, without folds, and its inverse."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch

from usreg.errors import ConfigError, GeometryError, ShapeError
from usreg.geometry import rotation
from usreg.simulation.body import BodyConfig, make_body
from usreg.simulation.body.types import Body
from usreg.simulation.breathing import BreathingConfig
from usreg.simulation.motion import BreathingMotion, Still

DEEP_S = 5.9  # near the end of an inspiration of seed 4


@pytest.fixture(scope="module")
def body(small_trunk: Body) -> Body:
    return small_trunk


@pytest.fixture(scope="module")
def made_body() -> Body:
    return make_body(1, BodyConfig(spacing_mm=3.0))


@pytest.fixture(scope="module")
def deep(body: Body) -> Callable[[float], BreathingMotion]:
    """Breathing by 25 mm with a deformation of an amplitude, made once each."""
    return cache(
        lambda deformation_mm: BreathingMotion(
            body, BreathingConfig(lattice_mm=6.0, si_mm=25.0, deformation_mm=deformation_mm), 4
        )
    )


@pytest.fixture(scope="module")
def motion(body: Body) -> BreathingMotion:
    return BreathingMotion(body, BreathingConfig(lattice_mm=4.0, si_mm=18.0), 4)


def points_in(body: Body, *structures: str, count: int = 4000) -> np.ndarray:
    """Points anywhere in the voxels of structures, mm."""
    rng = np.random.Generator(np.random.PCG64(1))
    index = torch.nonzero(body.inside(*structures)).numpy()[:, ::-1]
    picked = index[rng.integers(0, len(index), count)] + rng.uniform(-0.5, 0.5, (count, 3))
    matrix = body.labels.grid.ct_T_index.numpy()
    return picked @ matrix[:3, :3].T + matrix[:3, 3]


def moved(motion: BreathingMotion, organ: str, points: np.ndarray, t_s: float) -> np.ndarray:
    pose = motion.bed_T_organ(organ, t_s).numpy()
    return points @ pose[:3, :3].T + pose[:3, 3]


@pytest.mark.parametrize("t_s", [0.3, DEEP_S, 77.7])
def test_the_liver_moves_exactly_as_its_rigid_motion(body: Body, motion: BreathingMotion, t_s: float) -> None:
    points = points_in(body, "liver")
    np.testing.assert_allclose(
        points + motion.displacement(points, t_s), moved(motion, "liver", points, t_s), atol=1e-9
    )


def test_a_turned_grid_changes_nothing_in_the_liver(
    motion: BreathingMotion, trunk_maker: Callable[[torch.Tensor], Body]
) -> None:
    turn = rotation.exp(torch.tensor([0.2, -0.1, 0.3], dtype=torch.float64))
    turned = trunk_maker(turn)
    other = BreathingMotion(turned, BreathingConfig(lattice_mm=4.0, si_mm=18.0), 4)
    points = points_in(turned, "liver")
    np.testing.assert_allclose(
        points + other.displacement(points, DEEP_S), moved(other, "liver", points, DEEP_S), atol=1e-9
    )
    np.testing.assert_allclose(other.lattice.centroids[0], motion.lattice.centroids[0], atol=1.0)


@pytest.mark.parametrize("organ", ["kidney_right", "kidney_left", "spleen"])
def test_other_organs_are_rigid_away_from_the_liver(body: Body, motion: BreathingMotion, organ: str) -> None:
    structure = organ if organ == "spleen" else f"{organ}_cortex"
    points = points_in(body, structure, count=500)
    error = np.linalg.norm(points + motion.displacement(points, DEEP_S) - moved(motion, organ, points, DEEP_S), axis=1)
    others = [n for n in ("liver", "kidney_right_cortex", "kidney_left_cortex", "spleen") if n != structure]
    near = points_in(body, *others, count=8000)
    gap = np.array([np.abs(near - p).max(1).min() for p in points])
    assert error[gap > 20.0].max() < 1e-9  # 8 mm go over into the liver's motion; voxels and cells are of 4 mm here
    assert np.median(error) < 1e-9


def test_size_and_directions_are_those_of_the_configuration(motion: BreathingMotion) -> None:
    config = motion.config
    times = np.arange(0.0, 60.0, 0.1)
    centre = motion.lattice.centroids[:1]
    path = np.array([moved(motion, "liver", centre, float(t))[0] - centre[0] for t in times])
    level = np.array([motion.breathing.level(float(t)) for t in times])
    np.testing.assert_allclose(path[:, 2], -config.si_mm * level, atol=1e-9)
    assert path[:, 1].min() == pytest.approx(-config.ap_share * config.si_mm * level.max(), rel=0.05)
    assert np.abs(path[:, 0]).max() <= 1.01 * config.lr_share * config.si_mm * level.max()


def test_front_lags_behind_feet_so_that_the_way_is_a_loop(body: Body, motion: BreathingMotion) -> None:
    times = np.arange(0.0, 40.0, 0.04)
    centre = motion.lattice.centroids[:1]
    path = np.array([moved(motion, "liver", centre, float(t))[0] for t in times])
    y, z = path[:, 1], path[:, 2]
    half = 0.5 * (z.min() + z.max())
    speed = np.gradient(z)
    down, up = (np.abs(z - half) < 1.0) & (speed < 0), (np.abs(z - half) < 1.0) & (speed > 0)
    assert y[down].mean() - y[up].mean() > 0.5  # on the way down the liver lies farther back than on the way up
    line = BreathingMotion(body, BreathingConfig(lattice_mm=6.0, si_mm=18.0, lag_s=0.0), 4)
    path = np.array([moved(line, "liver", centre, float(t))[0] for t in times])
    np.testing.assert_allclose(path[:, 1] - centre[0, 1], 0.25 * (path[:, 2] - centre[0, 2]), atol=0.03)


def test_skin_and_spine_are_still(body: Body, motion: BreathingMotion) -> None:
    skin = points_in(body, "skin")
    assert np.abs(motion.displacement(skin, DEEP_S)).max() < 2.5  # its inner side, at the lattice's 4 mm
    assert np.abs(motion.displacement(skin, DEEP_S)).mean() < 0.3
    assert np.abs(motion.displacement(points_in(body, "spine"), DEEP_S)[:, 2]).mean() < 0.15 * 18.0
    far = np.array([[500.0, 0.0, 0.0], [0.0, -300.0, 20.0]])
    assert np.abs(motion.displacement(far, DEEP_S)).max() == 0.0


def test_bones_of_a_made_body_keep_still_while_its_liver_is_rigid(made_body: Body) -> None:
    motion = BreathingMotion(made_body, BreathingConfig(waveform="cos4", lag_s=0.0), 0)
    deepest = motion.config.period_s * (0.06 + 0.88 * 0.42)  # the end of an inspiration: level 1
    assert motion.breathing.level(deepest) == pytest.approx(1.0, abs=1e-3)
    # Bones within a cell or two of an organ, and those closely ahead of one, are taken along: 3 to 15 mm of them.
    for name, mean in {"ribs": 1.5, "costal_cartilage": 3.5, "spine": 0.3, "skin": 0.05}.items():
        points = points_in(made_body, name)
        assert np.linalg.norm(motion.displacement(points, deepest), axis=1).mean() < mean
    assert motion.jacobian_determinant(deepest).min() > 0.2
    matrix = made_body.labels.grid.ct_T_index.numpy()
    size = np.array(made_body.labels.grid.size)
    index = np.random.Generator(np.random.PCG64(3)).uniform(0, size, (100_000, 3))
    motion.reference(index @ matrix[:3, :3].T + matrix[:3, 3], deepest)  # raises where it is not undone
    liver = points_in(made_body, "liver", "portal_vein")
    np.testing.assert_allclose(
        liver + motion.displacement(liver, deepest), moved(motion, "liver", liver, deepest), atol=1e-9
    )


def test_the_belly_moves_when_it_is_told_to(body: Body, motion: BreathingMotion) -> None:
    with_belly = BreathingMotion(body, BreathingConfig(lattice_mm=6.0, si_mm=18.0, belly_share=1.0), 4)
    front = np.array([[-40.0, -107.0, -10.0]])
    assert motion.displacement(front, DEEP_S)[0, 1] > -1.0
    assert with_belly.displacement(front, DEEP_S)[0, 1] < -2.0


@pytest.mark.parametrize(("si_mm", "lattice_mm"), [(5.0, 6.0), (14.0, 4.0), (25.0, 6.0)])
def test_nothing_folds(body: Body, si_mm: float, lattice_mm: float) -> None:
    motion = BreathingMotion(
        body, BreathingConfig(lattice_mm=lattice_mm, si_mm=si_mm, coughs_s=(3.0,), deformation_mm=2.0), 2
    )
    for t_s in (1.0, 1.6, 2.6, 3.0, 3.2):
        assert motion.jacobian_determinant(t_s).min() > 0.2


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("deformation_mm", [0.0, 2.0])
def test_reference_undoes_displacement(
    body: Body, deep: Callable[[float], BreathingMotion], kind: type, deformation_mm: float
) -> None:
    motion = deep(deformation_mm)
    rng = np.random.Generator(np.random.PCG64(2))
    points = rng.uniform((-165, -115, -180), (165, 115, 180), (20_000, 3)).astype(kind)
    found = motion.reference(points, DEEP_S)
    assert found.dtype == kind
    assert np.abs(found + motion.displacement(found, DEEP_S) - points).max() < 0.05
    liver = points_in(body, "liver")
    back = motion.reference(liver + motion.displacement(liver, DEEP_S), DEEP_S)
    assert np.abs(back - liver).max() < 0.05


def test_deformation_bends_the_liver_by_its_amplitude(body: Body, motion: BreathingMotion) -> None:
    soft = BreathingMotion(body, BreathingConfig(lattice_mm=4.0, si_mm=18.0, deformation_mm=2.0), 4)
    points = points_in(body, "liver")
    level = soft.breathing.level(DEEP_S)
    off = soft.displacement(points, DEEP_S) - motion.displacement(points, DEEP_S)
    assert 0.3 * 2.0 * level < np.sqrt((off**2).mean()) < 2.0 * 2.0 * level
    still = soft.displacement(points, 0.0)
    assert np.abs(still).max() < 0.05 * 18.0


def test_same_seed_same_bits_and_rest_is_rest(body: Body) -> None:
    config = BreathingConfig(lattice_mm=6.0, waveform="cos4", holds_s=((8.0, 20.0),), hold_drift_mm_s=0.0)
    a, b = BreathingMotion(body, config, 9), BreathingMotion(body, config, 9)
    points = points_in(body, "liver", "visceral_fat", "muscle")
    first = a.displacement(points, 2.0)
    a.displacement(points, 5.0)
    np.testing.assert_array_equal(first, b.displacement(points, 2.0))
    np.testing.assert_array_equal(first, a.displacement(points, 2.0))
    assert np.abs(a.displacement(points, 12.0)).max() < 1e-9  # held at the end of expiration: the reference state


def test_still_is_still() -> None:
    points = np.ones((3, 3))
    assert (Still().displacement(points, 1.0) == 0).all()
    assert (Still().reference(points, 1.0) == points).all()
    assert (Still().bed_T_organ("liver", 1.0) == torch.eye(4)).all()


def test_bad_input_is_named(body: Body, motion: BreathingMotion) -> None:
    with pytest.raises(ShapeError, match="points"):
        motion.displacement(np.zeros((3, 2)), 0.0)
    with pytest.raises(GeometryError, match="time"):
        motion.displacement(np.zeros((3, 3)), math.nan)
    with pytest.raises(ConfigError, match="organ 'heart'"):
        motion.bed_T_organ("heart", 0.0)
    bare = Body(type(body.labels)(torch.ones_like(body.labels.data), body.labels.grid))
    with pytest.raises(ConfigError, match="none of the organs"):
        BreathingMotion(bare)
