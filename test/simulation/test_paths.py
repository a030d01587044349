# SPDX-License-Identifier: Apache-2.0
"""Skin, windows and scan paths: on the skin, within speeds, with the liver in view, without jumps."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from usreg.data.types import Volume
from usreg.errors import ConfigError, GeometryError, KinematicsError, NoOverlapError
from usreg.simulation import paths
from usreg.simulation.body.types import VALUE, Body
from usreg.simulation.motor import Motor
from usreg.simulation.paths import PathConfig, ScanPath, phantom_path, volunteer_path
from usreg.simulation.skin import SMOOTH_MM, Skin, find_skin
from usreg.simulation.windows import Sight, Window, find_windows, poses_at

TILT = Motor("tilt", np.array([1.0, 0.0, 0.0]), np.zeros(3))
SLIDE = Motor("slide", np.array([0.0, 1.0, 0.0]), np.zeros(3), (-50.0, 50.0))


@pytest.fixture(scope="module")
def skin(small_trunk: Body) -> Skin:
    return find_skin(small_trunk.labels)


@pytest.fixture(scope="module")
def trunk_windows(small_trunk: Body, skin: Skin) -> tuple[Window, ...]:
    return find_windows(small_trunk, skin)


@pytest.fixture(autouse=True)
def sought_once(
    monkeypatch: pytest.MonkeyPatch, small_trunk: Body, skin: Skin, trunk_windows: tuple[Window, ...]
) -> None:
    """Skin and windows of the trunk are the same for every path: they are sought once."""
    trunk = small_trunk
    monkeypatch.setattr(paths, "find_skin", lambda labels: skin if labels is trunk.labels else find_skin(labels))
    monkeypatch.setattr(paths, "find_windows", lambda b, s: trunk_windows if b is trunk else find_windows(b, s))


def speeds(path: ScanPath, step_s: float = 0.02) -> tuple[np.ndarray, np.ndarray]:
    """Speed of the contact, mm/s, and of the orientation, deg/s."""
    poses = path.poses(np.arange(0.0, path.duration_s, step_s))
    way = np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1)
    trace = np.einsum("nij,nij->n", poses[1:, :3, :3], poses[:-1, :3, :3])
    return way / step_s, np.degrees(np.arccos(np.clip(0.5 * (trace - 1), -1, 1))) / step_s


def test_skin_of_an_ellipse(skin: Skin) -> None:
    """The trunk is an ellipse of 160 x 110 mm in voxels of 4 mm: the surface within half a voxel; a step of a voxel,
    smoothed over 8 mm, turns the normal by 4 / (8 sqrt(2 pi)) rad at most."""
    angle = np.linspace(-math.pi, math.pi, 50)
    points, normals = skin.point(angle, 10.0), skin.normal(angle, 10.0)
    radius = np.hypot(points[:, 0] / 160.0, points[:, 1] / 110.0)
    assert np.abs(radius - 1).max() * 110 < 2.5
    true = points * [1 / 160**2, 1 / 110**2, 0]
    true /= np.linalg.norm(true, axis=1, keepdims=True)
    off = np.degrees(np.arccos((normals * true).sum(1).clip(-1, 1)))
    assert off.max() < math.degrees(4 / (SMOOTH_MM * math.sqrt(2 * math.pi)))
    assert off.mean() < 2.5


def test_skin_by_place_and_by_ray(skin: Skin) -> None:
    point, normal = skin.at(-50.0, 20.0)
    assert point[[0, 2]] == pytest.approx([-50.0, 20.0], abs=0.01)
    assert point[1] < 0 and normal[1] < 0
    hit = skin.hit(np.array([0.0, 0.0, 0.0]), np.array([-1.0, -1.0, 0.3]))
    assert abs(skin.depth(hit)) < 1e-6
    assert skin.depth(point - 5.0 * normal) == pytest.approx(5.0, abs=0.5)


def test_normals_are_those_of_the_surface(skin: Skin) -> None:
    angle, z, h = -0.7, 15.0, 1e-4
    along = skin.point(angle + h, z) - skin.point(angle - h, z)
    up = skin.point(angle, z + h) - skin.point(angle, z - h)
    normal = skin.normal(angle, z)
    assert abs(normal @ along) < 1e-6 and abs(normal @ up) < 1e-6


def test_beside_the_body_there_is_no_skin(skin: Skin, small_trunk: Body) -> None:
    with pytest.raises(NoOverlapError, match="outside the body"):
        skin.point(0.0, 5000.0)
    with pytest.raises(NoOverlapError, match="beside the body"):
        skin.at(300.0, 0.0)
    with pytest.raises(NoOverlapError, match="inside"):
        skin.hit(np.array([400.0, 0.0, 0.0]), np.array([1.0, 0.0, 0.0]))
    empty = Volume(torch.zeros_like(small_trunk.labels.data), small_trunk.labels.grid)
    with pytest.raises(GeometryError, match="no body"):
        find_skin(empty)


def test_poses_look_into_the_body_with_the_marked_side_to_the_right(skin: Skin) -> None:
    plain, turned, tilted = poses_at(
        skin, np.array([[0, 0, 0, 0, 0], [0, 0, 0.3, 0, 0], [0, 0, 0, 0.4, 0]], float), 4.0
    )
    np.testing.assert_allclose(plain[:3, :3], [[-1, 0, 0], [0, 0, 1], [0, 1, 0]], atol=0.02)
    assert turned[2, 0] == pytest.approx(math.sin(0.3), abs=0.01)  # the marked side goes up
    assert tilted[2, 2] == pytest.approx(math.sin(0.4), abs=0.01)  # the beam goes towards the head
    assert skin.depth(plain[:3, 3]) == pytest.approx(4.0, abs=0.1)
    for pose in (plain, turned, tilted):
        np.testing.assert_allclose(pose[:3, :3].T @ pose[:3, :3], np.eye(3), atol=1e-12)
        assert np.linalg.det(pose[:3, :3]) == pytest.approx(1.0)


def test_ribs_and_lungs_hide_what_lies_behind_them(small_trunk: Body, skin: Skin) -> None:
    place = np.array([[-0.7, -12.0, 0.0, 0.0, 0.0]])
    poses = poses_at(skin, place, 4.0)
    free = Sight(small_trunk).liver_share(poses)[0]
    data = small_trunk.labels.data.clone()
    data[data == VALUE["muscle"]] = VALUE["ribs"]
    caged = Body(Volume(data, small_trunk.labels.grid))
    assert free > 0.4
    assert Sight(caged).liver_share(poses)[0] == 0.0


def test_windows_lie_where_their_names_say(small_trunk: Body, skin: Skin) -> None:
    windows = {w.name: w for w in find_windows(small_trunk, skin)}
    assert set(windows) == {"subcostal", "intercostal", "epigastric"}
    angle = {name: math.degrees(w.place[0]) for name, w in windows.items()}
    assert -70 < angle["subcostal"] < -20 and angle["intercostal"] < -60 and abs(angle["epigastric"]) < 20
    assert min(w.liver_share for w in windows.values()) > 0.4


@pytest.mark.parametrize("seconds", [0.5, 12.0, 25.0, 60.0, 150.0])
def test_a_robots_path_keeps_its_speeds_and_the_skin(small_trunk: Body, skin: Skin, seconds: float) -> None:
    path = phantom_path(small_trunk, seconds)
    config = PathConfig()
    speed, turn = speeds(path)
    assert speed.max() < 1.1 * config.speed_mm_s
    assert turn.max() < 1.1 * config.turn_deg_s
    depth = np.array([skin.depth(p) for p in path.poses(np.linspace(0, seconds, 50))[:, :3, 3]])
    pressed = np.array([path.indentation_mm(t) for t in np.linspace(0, seconds, 50)])
    assert np.abs(depth - pressed).max() < 0.5  # depth is measured from the axis, indentation along the normal
    assert path.windows[0][0] == "subcostal"


def test_enough_time_gives_all_three_sweeps_and_sees_liver(small_trunk: Body) -> None:
    path = phantom_path(small_trunk, 45.0)
    assert [name for name, _, _ in path.windows] == ["subcostal", "intercostal", "epigastric"]
    starts = [a for _, a, _ in path.windows]
    assert starts == sorted(starts)
    share = Sight(small_trunk).liver_share(path.poses(np.linspace(0, 45, 200)))
    assert np.median(share) > 0.4


def test_force_is_indentation_times_stiffness_about_the_set_point(small_trunk: Body) -> None:
    config = PathConfig(force_n=6.0, ripple_n=1.0, stiffness_n_mm=2.0)
    path = phantom_path(small_trunk, 20.0, config)
    times = np.linspace(0, 20, 400)
    force = np.array([path.force_n(t) for t in times])
    np.testing.assert_allclose(force, [2.0 * path.indentation_mm(t) for t in times])
    assert force.mean() == pytest.approx(6.0, abs=0.2)
    assert 0.2 < np.ptp(force) < 2.0


@pytest.mark.parametrize("motor", [TILT, SLIDE])
def test_a_volunteers_path_sweeps_with_the_hand_locked_then_scans_freely(small_trunk: Body, motor: Motor) -> None:
    config = PathConfig()
    path = volunteer_path(small_trunk, 22.0, motor, config, seed=3)
    times = np.arange(0.0, 22.0, 0.05)
    hand, locked, position = path.hand(times), path.locked(times), path.motor_position(times)
    assert np.ptp(hand[locked], axis=0).max() == 0.0
    assert times[locked].max() == pytest.approx(config.sweep_s + config.settle_s, abs=0.06)
    reach = motor.from_span(config.motor_span)
    sweep = times <= config.sweep_s
    assert position[sweep][0] == -reach and position[sweep][-1] == pytest.approx(reach)
    assert (np.diff(position[sweep]) >= 0).all()
    assert np.abs(position[~locked]).max() < 1e-12
    assert np.linalg.norm(np.ptp(hand[~locked][:, :3, 3], axis=0)) > 5.0
    np.testing.assert_allclose(path.poses(times), hand @ motor.moved(position), atol=1e-12)
    speed, turn = speeds(path)
    assert speed.max() < 1.3 * config.speed_mm_s and turn.max() < 1.4 * config.turn_deg_s  # with the tremor
    assert path.windows[0] == ("sweep", 0.0, config.sweep_s)


def test_a_hand_that_stays_over_the_sweep_visits_one_window(small_trunk: Body) -> None:
    far, near = (
        volunteer_path(small_trunk, 60.0, TILT, PathConfig(roam=roam), seed=3) for roam in ("windows", "sweep")
    )
    assert len({name for name, *_ in far.windows}) > 2 and len({name for name, *_ in near.windows}) == 2
    times = np.arange(12.0, 60.0, 0.5)
    away = [np.linalg.norm(path.hand(times)[:, :3, 3] - path.hand(times[:1])[0, :3, 3], axis=1) for path in (far, near)]
    assert away[1].max() < 20.0 < away[0].max()


def test_a_tilt_leaves_the_contact_where_it_is(small_trunk: Body) -> None:
    poses = volunteer_path(small_trunk, 12.0, TILT).poses(np.linspace(0, 8, 20))
    np.testing.assert_allclose(poses[:, :3, 3] - poses[0, :3, 3], 0.0, atol=1e-9)


def test_tremor_is_as_large_as_asked(small_trunk: Body) -> None:
    quiet = volunteer_path(small_trunk, 40.0, TILT, PathConfig(tremor_mm=0.0, tremor_deg=0.0), seed=3)
    shaky = volunteer_path(small_trunk, 40.0, TILT, PathConfig(tremor_mm=0.8, tremor_deg=0.0), seed=3)
    times = np.linspace(12, 40, 500)
    off = shaky.poses(times)[:, :3, 3] - quiet.poses(times)[:, :3, 3]
    assert 0.4 < np.sqrt((off[:, 2] ** 2).mean()) < 1.2


def test_same_seed_same_path(small_trunk: Body) -> None:
    times = np.linspace(0, 20, 100)
    a, b, c = (volunteer_path(small_trunk, 20.0, TILT, seed=s).poses(times) for s in (4, 4, 5))
    np.testing.assert_array_equal(a, b)
    assert (a != c).any()


@pytest.mark.parametrize("seconds", [0.0, -1.0, math.nan, math.inf])
def test_no_time_is_refused(small_trunk: Body, seconds: float) -> None:
    with pytest.raises(ConfigError):
        phantom_path(small_trunk, seconds)
    with pytest.raises(ConfigError):
        volunteer_path(small_trunk, seconds, TILT)


def test_what_cannot_be_scanned_is_refused(small_trunk: Body) -> None:
    with pytest.raises(ConfigError, match="too short for a volunteer"):
        volunteer_path(small_trunk, 5.0, TILT)
    with pytest.raises(KinematicsError, match="motor cannot sweep"):
        volunteer_path(small_trunk, 20.0, SLIDE, PathConfig(motor_span=70.0))
    data = small_trunk.labels.data.clone()
    data[data == VALUE["liver"]] = VALUE["visceral_fat"]
    with pytest.raises(NoOverlapError, match="no liver"):
        phantom_path(Body(Volume(data, small_trunk.labels.grid)), 20.0)
    with pytest.raises(ConfigError, match="speed_mm_s"):
        PathConfig(speed_mm_s=0.0)
