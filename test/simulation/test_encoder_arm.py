# SPDX-License-Identifier: Apache-2.0
"""The encoder arm: follows the hand, stands still under its brake, and what its encoders make of that."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from usreg.errors import ConfigError, KinematicsError
from usreg.geometry import se3
from usreg.kinematics import load_arm
from usreg.simulation.body.types import Body
from usreg.simulation.encoder_arm import EncoderConfig, encode, lead_arm, with_play
from usreg.simulation.motor import motor_of
from usreg.simulation.paths import ScanPath, phantom_path, volunteer_path

ARMS = ("encoder6_tilt", "encoder6_slide")
EXACT = EncoderConfig(
    bits=32, slide_step_mm=1e-6, bias_deg=0.0, slide_bias_mm=0.0, backlash_deg=0.0, slide_backlash_mm=0.0
)


def lying() -> Tensor:
    turn = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]], dtype=torch.float64)
    return se3.from_parts(turn, torch.tensor([560.0, 0.0, 50.0], dtype=torch.float64))


def draws() -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(1))


@pytest.fixture(scope="module", params=ARMS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def path(name: str, small_trunk: Body) -> ScanPath:
    return volunteer_path(small_trunk, 16.0, motor_of(load_arm(name)), seed=2)


@pytest.mark.parametrize("arm_name", ARMS)
def test_the_motor_is_the_arms_last_joint(arm_name: str) -> None:
    arm = load_arm(arm_name)
    motor = motor_of(arm)
    low, high = (torch.tensor(v, dtype=torch.float64) for v in (arm.chain.limits.lower, arm.chain.limits.upper))
    q = low + 0.4 * (high - low)
    zero = q.clone()
    zero[-1] = 0.0
    expected = se3.inverse(arm.world_T_probe(zero)) @ arm.world_T_probe(q)
    np.testing.assert_allclose(motor.moved([float(q[-1])])[0], expected.numpy(), atol=1e-9)
    assert motor.kind == arm_name.split("_")[1]


def test_the_probe_is_where_the_path_says(name: str, path: ScanPath) -> None:
    arm = load_arm(name)
    track = lead_arm(arm, path, lying(), draws(), EXACT)
    wanted = lying() @ torch.from_numpy(path.poses(track.t_s))
    off = se3.log(se3.inverse(wanted) @ arm.world_T_probe(track.joints))
    assert off[:, :3].norm(dim=1).max() < 1e-3
    assert off[:, 3:].norm(dim=1).max() < 1e-6
    arm.chain.check(track.joints)
    speed = torch.diff(track.joints, dim=0).abs().numpy() / np.diff(track.t_s)[:, None]
    assert (speed < np.array(arm.chain.limits.velocity)).all()
    measured = (track.measured - track.joints).abs()
    assert measured[:, :-1].max() < 1e-8 and measured[:, -1].max() < 1e-6


def test_under_the_brake_only_the_motor_turns(name: str, path: ScanPath) -> None:
    track = lead_arm(load_arm(name), path, lying(), draws())
    locked = torch.from_numpy(path.locked(track.t_s))
    for joints in (track.joints, track.measured):
        assert (joints[locked][:, :-1] == joints[0, :-1]).all()
        assert len(joints[locked][:, -1].unique()) > 200
    free = track.measured[~locked]
    assert all(len(free[:, i].unique()) > 3 for i in range(6))
    assert len(free[:, -1].unique()) == 1


def test_counts_are_exact(name: str) -> None:
    """Every reported position is a whole number of counts, and a slow motion passes each of them."""
    arm = load_arm(name)
    config = EncoderConfig(bits=13, slide_step_mm=0.05, bias_deg=0.3, backlash_deg=0.0, slide_backlash_mm=0.0)
    ramp = torch.linspace(0.0, 0.05, 5000, dtype=torch.float64)[:, None].repeat(1, 7)
    measured = encode(arm, ramp, draws(), config).numpy()
    steps = np.full(7, 2 * math.pi / 8192)
    if name.endswith("slide"):
        steps[-1] = 0.05
    counts = measured / steps
    np.testing.assert_allclose(counts, np.rint(counts), atol=1e-9)
    change = np.diff(np.rint(counts), axis=0)
    assert change.min() == 0 and change.max() == 1


def test_bias_is_constant_per_joint_and_as_large_as_configured() -> None:
    arm = load_arm("encoder6_tilt")
    config = replace(EXACT, bias_deg=0.5)
    still = torch.zeros(10, 7, dtype=torch.float64)
    biases = torch.stack([encode(arm, still, np.random.Generator(np.random.PCG64(s)), config) for s in range(300)])
    assert (biases == biases[:, :1]).all()
    assert float(biases[:, 0].std()) == pytest.approx(math.radians(0.5), rel=0.1)


def test_backlash_is_a_loop_of_its_full_width() -> None:
    there = np.linspace(0.0, 1.0, 501)
    joints = np.concatenate([there, there[::-1]])[:, None]
    shaft = with_play(joints, np.array([0.1]))[:, 0]
    up, down = shaft[:501], shaft[501:][::-1]
    assert np.ptp(shaft) == pytest.approx(0.95)
    np.testing.assert_allclose((down - up)[100:450], 0.1, atol=1e-12)
    np.testing.assert_array_equal(with_play(joints, np.zeros(1)), joints)


def test_joint_states_run_on_their_own_clock(small_trunk: Body) -> None:
    arm = load_arm("encoder6_tilt")
    path = volunteer_path(small_trunk, 12.0, motor_of(arm))
    config = EncoderConfig(joint_hz=500.0, jitter_s=0.0003, offset_s=0.02, drift_ppm=50.0)
    track = lead_arm(arm, path, lying(), draws(), config)
    assert len(track.t_s) == 6001
    assert (np.diff(track.stamps_s) > 0).all()
    assert np.diff(track.stamps_s).mean() == pytest.approx(1 / 500.0, rel=1e-3)
    assert 1e-4 < np.diff(track.stamps_s).std() < 4e-4
    np.testing.assert_allclose(track.stamps_s, track.t_s * (1 + 50e-6) + 0.02, atol=1e-9)
    again = lead_arm(arm, path, lying(), draws(), config)
    assert torch.equal(track.measured, again.measured)
    np.testing.assert_array_equal(track.stamps_s, again.stamps_s)


def test_wrong_paths_and_places_are_named(small_trunk: Body) -> None:
    tilt, slide = (load_arm(n) for n in ARMS)
    path = volunteer_path(small_trunk, 12.0, motor_of(tilt))
    with pytest.raises(ConfigError, match="another motor"):
        lead_arm(slide, path, lying(), draws())
    with pytest.raises(ConfigError, match="no motor"):
        lead_arm(tilt, phantom_path(small_trunk, 12.0), lying(), draws())
    with pytest.raises(KinematicsError, match=r"out of reach at 0\.\d+ s.*arm_joint"):
        lead_arm(tilt, path, se3.translation(torch.tensor([0.0, 0.0, 3000.0], dtype=torch.float64)) @ lying(), draws())
    with pytest.raises(ConfigError, match="bits"):
        EncoderConfig(bits=2)
