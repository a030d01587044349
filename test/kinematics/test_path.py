# SPDX-License-Identifier: Apache-2.0
"""Inverse kinematics along a path: the compiled terms against the chain's, laws of the solution, errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from usreg.errors import ConfigError, KinematicsError
from usreg.geometry import se3
from usreg.kinematics import Chain, inverse, load_arm
from usreg.kinematics.dh import JointRow, chain_from_joints
from usreg.kinematics.path import PathIkConfig, inverse_path, kernel_terms
from usreg.kinematics.path_kernels import forward, twist_to

ARMS = ("iiwa7", "iiwa14", "encoder6", "encoder6_tilt", "encoder6_slide")


def draw(chain: Chain, seed: int) -> torch.Tensor:
    low, high = (torch.tensor(v, dtype=torch.float64) for v in (chain.limits.lower, chain.limits.upper))
    u = torch.rand(chain.count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return low + (high - low) * (0.2 + 0.6 * u)


@pytest.mark.parametrize("name", ARMS)
def test_compiled_terms_equal_the_chains(name: str) -> None:
    chain = load_arm(name).chain
    for seed in range(5):
        q = draw(chain, seed)
        pose, jacobian = np.eye(4), np.zeros((6, chain.count))
        forward(*kernel_terms(chain), q.numpy(), pose, jacobian)
        np.testing.assert_allclose(pose, chain.forward(q).numpy(), atol=1e-9)
        np.testing.assert_allclose(jacobian, chain.jacobian(q).numpy(), atol=1e-9)


@pytest.mark.parametrize("size", [1e-9, 0.3, 3.0])
def test_twist_leads_from_pose_to_target(size: float) -> None:
    w = torch.tensor([0.0, 0.0, 0.0, 0.6, -0.64, 0.48], dtype=torch.float64) * size
    pose = se3.exp(torch.tensor([1.0, 2.0, 3.0, 0.1, 0.2, 0.3], dtype=torch.float64))
    target = pose.clone()
    target[:3, :3] = se3.exp(w)[:3, :3] @ pose[:3, :3]
    target[:3, 3] += torch.tensor([4.0, 5.0, 6.0], dtype=torch.float64)
    out = np.zeros(6)
    twist_to(pose.numpy(), target.numpy(), out)
    np.testing.assert_allclose(out, [4, 5, 6, *w[3:].tolist()], atol=1e-9)


def test_one_pose_agrees_with_the_slow_inverse() -> None:
    chain = load_arm("encoder6").chain  # six joints: one solution near the start
    q = draw(chain, 3)
    target, start = chain.forward(q), q + 0.05
    slow = inverse(chain, target, start)
    fast = inverse_path(chain, target.numpy()[None], np.zeros(1), start)[0]
    torch.testing.assert_close(fast, slow, rtol=0, atol=1e-6)


def test_a_given_joint_keeps_its_plan() -> None:
    chain = load_arm("encoder6_slide").chain
    q = draw(chain, 1)
    plan = np.linspace(-30.0, 30.0, 50)
    target = np.repeat(chain.forward(q).numpy()[None], 50, 0)
    given = np.full((50, 7), np.nan)
    given[:, -1] = plan
    found = inverse_path(chain, target, np.arange(50) * 0.05, q, PathIkConfig(margin_rad=0.0), given)
    np.testing.assert_array_equal(found[:, -1].numpy(), plan)
    torch.testing.assert_close(chain.forward(found), torch.from_numpy(target), rtol=0, atol=1e-3)


def test_a_free_joint_goes_to_the_middle_of_its_range() -> None:
    """The elbow of a seven-joint arm that holds its flange still; without centring nothing moves."""
    chain = load_arm("iiwa7").chain
    q = torch.tensor([0.3, 0.8, 0.9, -1.4, 0.4, 0.9, 0.5], dtype=torch.float64)
    target, stamps = np.repeat(chain.forward(q).numpy()[None], 1000, 0), np.arange(1000) * 0.01
    led = inverse_path(chain, target, stamps, q)
    left = inverse_path(chain, target, stamps, q, PathIkConfig(centring_per_s=0.0))
    span = torch.tensor(chain.limits.upper, dtype=torch.float64) * 2
    way = (led / span).norm(dim=1)
    assert (torch.diff(way) < 1e-9).all()  # closer all the time, as far as the flange leaves it free
    assert float(led[-1, 2]) < float(led[0, 2]) - 0.1
    torch.testing.assert_close(left[-1], left[0], rtol=0, atol=1e-9)


def test_a_jump_is_refused_with_time_and_joint() -> None:
    chain = load_arm("iiwa7").chain
    q = torch.tensor([0.3, 0.8, 0.9, -1.4, 0.4, 0.9, 0.5], dtype=torch.float64)
    poses = torch.stack([chain.forward(q), chain.forward(q + 0.1)]).numpy()
    with pytest.raises(KinematicsError, match=r"joint 'lbr_A\d' at 0\.010 s, 95% of its limit"):
        inverse_path(chain, poses, np.array([0.0, 0.01]), q)


def test_prismatic_rows_slide_in_mm() -> None:
    rows = [JointRow(), JointRow(axis=(0, 1, 0), type="prismatic", limit_mm=(-40.0, 60.0), velocity_mm_s=30.0)]
    chain = chain_from_joints(rows, se3.identity(), ["turn", "slide"], ["a", "b", "c", "d"])
    assert chain.limits.lower[1] == -40.0 and chain.limits.upper[1] == 60.0 and chain.limits.velocity[1] == 30.0
    pose = chain.forward(torch.tensor([0.0, 25.0], dtype=torch.float64))
    torch.testing.assert_close(pose[:3, 3], torch.tensor([0.0, 25.0, 0.0], dtype=torch.float64))


def test_configuration_is_checked() -> None:
    with pytest.raises(ConfigError, match="speed_share"):
        PathIkConfig(speed_share=2.0)
    with pytest.raises(ConfigError, match="tolerance_mm"):
        PathIkConfig(tolerance_mm=0.0)
