# SPDX-License-Identifier: Apache-2.0
"""Forward kinematics and Jacobian: hand-made values, published DH tables, finite differences, a peer's URDF reader."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from usreg.errors import KinematicsError
from usreg.geometry import se3
from usreg.kinematics import Chain, JointLimits, load_arm
from usreg.kinematics.dh import DhRow, JointRow, chain_from_dh, chain_from_joints, rpy_pose

ARMS = ("iiwa7", "iiwa14", "med7", "med14", "encoder6")
KUKA_ALPHA_DEG = (-90, 90, 90, -90, -90, 90, 0)
KUKA_D_MM = {"iiwa7": (340, 0, 400, 0, 400, 0, 126), "iiwa14": (360, 0, 420, 0, 400, 0, 126)}
KUKA_D_MM |= {"med7": KUKA_D_MM["iiwa7"], "med14": KUKA_D_MM["iiwa14"]}


def draw_q(chain: Chain, seed: int, count: int = 1) -> torch.Tensor:
    """Joint positions (count, n) inside the limits."""
    low, high = (torch.tensor(x, dtype=torch.float64) for x in (chain.limits.lower, chain.limits.upper))
    u = torch.rand(count, chain.count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return low + (high - low) * u


def kuka_dh(name: str) -> Chain:
    rows = [DhRow(d_mm=d, alpha_deg=a) for d, a in zip(KUKA_D_MM[name], KUKA_ALPHA_DEG, strict=True)]
    return chain_from_dh(rows, [f"j{i}" for i in range(7)], [f"l{i}" for i in range(9)])


@pytest.mark.parametrize("name", KUKA_D_MM)
def test_kuka_arms_equal_their_dh_table(name: str) -> None:
    arm = load_arm(name)
    q = draw_q(arm.chain, 3, 20)
    torch.testing.assert_close(arm.chain.forward(q), kuka_dh(name).forward(q), rtol=0, atol=1e-9)


@pytest.mark.parametrize(("name", "height"), [("iiwa7", 1266.0), ("iiwa14", 1306.0)])
def test_kuka_stands_upright_at_zero(name: str, height: float) -> None:
    expected = se3.translation(torch.tensor([0.0, 0.0, height], dtype=torch.float64))
    torch.testing.assert_close(load_arm(name).chain.forward(torch.zeros(7)), expected, rtol=0, atol=1e-9)


def test_iiwa7_with_a_right_angle_at_the_elbow() -> None:
    """A4 = -90 deg: the forearm lies forward (towards -x by lbr_description's axis -y: turned by +90 deg about +y)."""
    q = torch.zeros(7, dtype=torch.float64)
    q[3] = -math.pi / 2
    pose = load_arm("iiwa7").chain.forward(q)
    torch.testing.assert_close(pose[:3, 3], torch.tensor([526.0, 0.0, 740.0], dtype=torch.float64), rtol=0, atol=1e-9)
    torch.testing.assert_close(pose[:3, 2], torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64), rtol=0, atol=1e-12)


def test_media_flange_moves_the_flange_along_its_z() -> None:
    q = draw_q(load_arm("med7").chain, 5)[0]
    bare, long = load_arm("med7").chain.forward(q), load_arm("med7", media_flange_mm=35.0).chain.forward(q)
    torch.testing.assert_close(long[:3, 3], bare[:3, 3] + 35.0 * bare[:3, 2], rtol=0, atol=1e-9)


def test_planar_two_link_dh_by_hand() -> None:
    chain = chain_from_dh([DhRow(a_mm=100.0), DhRow(a_mm=50.0, offset_deg=90.0)], ["a", "b"], ["0", "1", "2", "f"])
    links = chain.links(torch.tensor([math.pi / 2, 0.0], dtype=torch.float64))
    torch.testing.assert_close(links[1, :3, 3], torch.tensor([0.0, 100.0, 0.0], dtype=torch.float64), rtol=0, atol=1e-9)
    torch.testing.assert_close(
        links[-1, :3, 3], torch.tensor([-50.0, 100.0, 0.0], dtype=torch.float64), rtol=0, atol=1e-9
    )


@pytest.mark.parametrize("name", ARMS)
def test_jacobian_against_finite_differences(name: str) -> None:
    chain = load_arm(name).chain
    q = draw_q(chain, 11, 4)
    jacobian = chain.jacobian(q)
    step = 1e-6
    for i in range(chain.count):
        d = torch.zeros(chain.count, dtype=torch.float64)
        d[i] = step
        ahead, behind = chain.forward(q + d), chain.forward(q - d)
        v = (ahead[..., :3, 3] - behind[..., :3, 3]) / (2 * step)
        w = se3.log(ahead @ se3.inverse(behind))[..., 3:] / (2 * step)
        torch.testing.assert_close(jacobian[..., i], torch.cat([v, w], -1), rtol=1e-6, atol=1e-5)


def test_prismatic_joint_slides_along_its_axis() -> None:
    limits = JointLimits((0.0,), (200.0,), (100.0,))
    axis = torch.tensor([[0.0, 1.0, 0.0]], dtype=torch.float64)
    chain = Chain(
        ("slide",), ("base", "cart", "tip"), ("prismatic",), se3.identity()[None], axis, se3.identity(), limits
    )
    assert chain.forward(torch.tensor([70.0]))[:3, 3].tolist() == [0.0, 70.0, 0.0]
    assert chain.jacobian(torch.tensor([70.0]))[:, 0].tolist() == [0.0, 1.0, 0.0, 0.0, 0.0, 0.0]


def test_batches_of_any_shape_equal_single_poses() -> None:
    chain = load_arm("iiwa14").chain
    q = draw_q(chain, 1, 6).reshape(2, 3, 7)
    assert chain.links(q).shape == (2, 3, 9, 4, 4) and chain.jacobian(q).shape == (2, 3, 6, 7)
    torch.testing.assert_close(chain.forward(q)[1, 2], chain.forward(q[1, 2]), rtol=0, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(ARMS))
def test_links_stay_rigid(seed: int, name: str) -> None:
    links = load_arm(name).chain.links(draw_q(load_arm(name).chain, seed))
    r = links[..., :3, :3]
    torch.testing.assert_close(
        r @ r.transpose(-1, -2), torch.eye(3, dtype=torch.float64).expand_as(r), rtol=0, atol=1e-12
    )


def test_rpy_turns_about_fixed_axes_as_urdf_says() -> None:
    roll, pitch, yaw = 0.3, -0.7, 1.1
    cr, sr, cp, sp, cy, sy = (f(a) for a in (roll, pitch, yaw) for f in (math.cos, math.sin))
    expected = np.array([[cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
                         [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
                         [-sp, cp * sr, cp * cr]])  # fmt: skip
    np.testing.assert_allclose(rpy_pose((0, 0, 0), (roll, pitch, yaw))[:3, :3].numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("q", [torch.zeros(6), torch.full((7,), math.nan), torch.tensor([0, 0, math.inf, 0, 0, 0, 0])])
def test_wrong_count_and_values_that_are_not_finite_are_refused(q: torch.Tensor) -> None:
    with pytest.raises(KinematicsError):
        load_arm("iiwa7").chain.forward(q)


def test_limits_name_the_joint_and_its_range() -> None:
    chain = load_arm("iiwa7").chain
    q = torch.zeros(7, dtype=torch.float64)
    chain.check(q)
    q[3] = math.radians(119.9)
    chain.check(q)
    q[3] = math.radians(121)
    with pytest.raises(KinematicsError, match=r"lbr_A4.*121\.0 deg.*2\.0944"):
        chain.check(q)


def test_velocity_limits_are_those_of_the_class() -> None:
    slow, fast = load_arm("iiwa14").chain, load_arm("iiwa7").chain
    speeds = [0.0, 0.0, 0.0, math.radians(100), 0.0, 0.0, 0.0]
    fast.limits.check_velocity(speeds, fast.joint_names)
    with pytest.raises(KinematicsError, match="lbr_A4"):
        slow.limits.check_velocity(speeds, slow.joint_names)
    with pytest.raises(KinematicsError, match="lbr_A1"):
        slow.limits.check_velocity([math.nan] * 7, slow.joint_names)


def test_a_chain_with_repeated_or_missing_names_is_refused() -> None:
    with pytest.raises(KinematicsError, match="names"):
        chain_from_dh([DhRow(), DhRow()], ["a", "a"], ["0", "1", "2", "f"])
    with pytest.raises(KinematicsError, match="one name per row"):
        chain_from_dh([DhRow(), DhRow()], ["a"], ["0", "1", "f"])
    with pytest.raises(KinematicsError, match="axis"):
        chain_from_joints([JointRow(axis=(0.0, 0.0, 0.0))], se3.identity(), ["a"], ["0", "1", "f"])
