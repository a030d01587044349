# SPDX-License-Identifier: Apache-2.0
"""A robot on a scan path: where the path is, within its limits; and what it says where it cannot."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from usreg.errors import ConfigError, KinematicsError
from usreg.geometry import se3
from usreg.kinematics import Arm, load_arm
from usreg.kinematics.path import PathIkConfig
from usreg.simulation.body.types import Body
from usreg.simulation.paths import PathConfig, ScanPath, phantom_path
from usreg.simulation.robot import JointTrack, RobotConfig, follow_path, sample_times


def lying(x: float, y: float, z: float) -> Tensor:
    """world_T_bed of a body on its back, head towards the world's y, its right side towards the arm."""
    turn = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]], dtype=torch.float64)
    return se3.from_parts(turn, torch.tensor([x, y, z], dtype=torch.float64))


def draws(seed: int = 1) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


@pytest.fixture(scope="module")
def path(small_trunk: Body) -> ScanPath:
    return phantom_path(small_trunk, 30.0)


def check_track(arm: Arm, path: ScanPath, world_T_bed: Tensor, track: JointTrack) -> None:
    """FK of the joints is the path within 1e-3 mm and 1e-6 rad; positions and velocities keep the limits."""
    wanted = world_T_bed @ torch.from_numpy(path.poses(track.t_s))
    off = se3.log(se3.inverse(wanted) @ arm.world_T_probe(track.joints))
    assert off[:, :3].norm(dim=1).max() < 1e-3
    assert off[:, 3:].norm(dim=1).max() < 1e-6
    arm.chain.check(track.joints)
    limits = arm.chain.limits
    q = track.joints.numpy()
    assert (q >= np.array(limits.lower)).all() and (q <= np.array(limits.upper)).all()
    speed = np.abs(np.diff(q, axis=0)) / np.diff(track.t_s)[:, None]
    assert (speed < np.array(limits.velocity)).all()


@pytest.mark.parametrize(("name", "place"), [("iiwa7", (700.0, 0.0, -100.0)), ("iiwa14", (760.0, 60.0, -60.0))])
def test_the_probe_is_where_the_path_says(path: ScanPath, name: str, place: tuple[float, float, float]) -> None:
    arm, world_T_bed = load_arm(name), lying(*place)
    track = follow_path(arm, path, world_T_bed, draws())
    check_track(arm, path, world_T_bed, track)
    assert np.diff(track.t_s) == pytest.approx(1 / 200.0, abs=1e-9)
    assert track.t_s[0] == 0.0 and track.t_s[-1] == 30.0


@pytest.mark.parametrize("hz", [100.0, 500.0])
def test_rates_of_joint_states(path: ScanPath, hz: float) -> None:
    track = follow_path(load_arm("iiwa7"), path, lying(700, 0, -100), draws(), RobotConfig(joint_hz=hz))
    assert len(track.stamps_s) == 30 * hz + 1
    np.testing.assert_allclose(np.diff(track.stamps_s), 1 / hz, atol=1e-9)


def test_encoders_have_the_arms_noise(path: ScanPath) -> None:
    arm = load_arm("iiwa7")
    track = follow_path(arm, path, lying(700, 0, -100), draws())
    noise = track.measured - track.joints
    torch.testing.assert_close(noise.std(0), arm.sigma_rad, rtol=0.05, atol=0)
    again = follow_path(arm, path, lying(700, 0, -100), draws())
    assert torch.equal(again.measured, track.measured)
    assert not torch.equal(follow_path(arm, path, lying(700, 0, -100), draws(2)).measured, track.measured)


def test_joints_run_smoothly(path: ScanPath) -> None:
    track = follow_path(load_arm("iiwa7"), path, lying(700, 0, -100), draws())
    step = torch.diff(track.joints, dim=0).abs().max()
    assert float(step) < 0.01  # no change of posture on the way


def test_a_path_out_of_reach_names_time_joint_and_remedy(path: ScanPath) -> None:
    with pytest.raises(KinematicsError, match=r"0\.000 s.*lbr_A\d.*move the arm's foot"):
        follow_path(load_arm("iiwa7"), path, lying(2500, 0, 0), draws())
    with pytest.raises(KinematicsError, match=r"lbr_A4.*limit at \d+\.\d+ s.*move the arm's foot"):
        follow_path(load_arm("iiwa7"), path, lying(500, 0, 50), draws())


def test_a_path_too_fast_names_the_joint(small_trunk: Body) -> None:
    fast = phantom_path(small_trunk, 6.0, PathConfig(speed_mm_s=100.0, turn_deg_s=90.0))
    slow = RobotConfig(inverse=PathIkConfig(speed_share=0.05))
    with pytest.raises(KinematicsError, match=r"joint 'lbr_A\d' at \d+\.\d+ s, 5% of its limit .* more time"):
        follow_path(load_arm("iiwa7"), fast, lying(700, 0, -100), draws(), slow)


def test_no_time_and_odd_rates_are_refused() -> None:
    for seconds in (0.0, -2.0, math.nan):
        with pytest.raises(ConfigError, match="more than zero"):
            sample_times(seconds, 200.0)
    for hz in (50.0, 1000.0):
        with pytest.raises(ConfigError, match="joint_hz"):
            RobotConfig(joint_hz=hz)
