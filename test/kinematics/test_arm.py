# SPDX-License-Identifier: Apache-2.0
"""Arms from YAML: names, covariance, bad files; inverse kinematics."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from usreg.errors import ConfigError, KinematicsError, MissingFileError, UsregError
from usreg.geometry import se3
from usreg.kinematics import InverseConfig, inverse, load_arm

BENT = torch.tensor([0.2, 0.6, -0.3, -1.3, 0.4, 0.9, -0.5], dtype=torch.float64)
MINI = """
name: mini
joint_names: [a, b]
dh:
  - {d_mm: 10, alpha_deg: 90}
  - {a_mm: 20}
sigma_rad: [1.0e-3, 2.0e-3]
"""


def test_names_can_be_those_of_another_driver() -> None:
    arm = load_arm(
        "iiwa7",
        joint_names=[f"iiwa_joint_{i}" for i in range(1, 8)],
        link_names=[f"iiwa_link_{i}" for i in [*range(8), "ee"]],
    )
    assert arm.joint_names[0] == "iiwa_joint_1" and arm.link_names[-1] == "iiwa_link_ee"
    with pytest.raises(KinematicsError, match="one name per row"):
        load_arm("iiwa7", joint_names=["only", "two"])


def test_limits_of_a_sliding_joint_are_told_in_mm() -> None:
    arm = load_arm("encoder6_slide")
    assert arm.sliding == {"scanner_slide"}
    with pytest.raises(KinematicsError, match=r"'scanner_slide' is at 61.500 mm, .*\[-50.000, 50.000\] mm"):
        arm.chain.check(torch.tensor([0.0] * 6 + [61.5], dtype=torch.float64))
    with pytest.raises(KinematicsError, match=r"'arm_joint_1' is at 3.5000 \(200.5 deg\)"):
        arm.chain.check(torch.tensor([3.5] + [0.0] * 6, dtype=torch.float64))


def test_arm_from_a_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mini.yaml"
    path.write_text(MINI)
    arm = load_arm(path)
    assert arm.sigma_rad.tolist() == [1e-3, 2e-3] and arm.link_names == ("base", "link_1", "link_2", "flange")
    torch.testing.assert_close(
        arm.chain.forward(torch.zeros(2))[:3, 3], torch.tensor([20.0, 0.0, 10.0], dtype=torch.float64)
    )


@pytest.mark.parametrize(("change", "error", "match"), [
    (("dh:", "dhh:"), ConfigError, "unknown key"),
    (("sigma_rad: [1.0e-3, 2.0e-3]", "sigma_rad: [1.0e-3]"), KinematicsError, "2 joints but 1"),
    (("sigma_rad: [1.0e-3, 2.0e-3]", "sigma_rad: -1.0"), ConfigError, "sigma_rad"),
    (("name: mini", "name: mini\nurdf: x.urdf"), ConfigError, "exactly one"),
    (("joint_names: [a, b]", "joint_names: [a]"), KinematicsError, "one name per row"),
    (("d_mm: 10", "d_mm: .nan"), UsregError, "NaN|finite"),
])  # fmt: skip
def test_a_bad_arm_file_says_what_is_wrong(
    tmp_path: Path, change: tuple[str, str], error: type[Exception], match: str
) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(MINI.replace(*change))
    with pytest.raises(error, match=match):
        load_arm(path)


def test_unknown_arm_and_urdf_outside_its_folder(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError):
        load_arm("no_such_arm")
    path = tmp_path / "arm.yaml"
    path.write_text("name: x\nsigma_rad: 0.001\nurdf: ../../etc/robot.urdf\nurdf_base: a\nurdf_tip: b\n")
    with pytest.raises(ConfigError, match="inside the folder"):
        load_arm(path)


def test_covariance_at_the_probe_against_monte_carlo() -> None:
    arm = load_arm("iiwa7")
    generator = torch.Generator().manual_seed(7)
    noise = torch.randn(20_000, 7, generator=generator, dtype=torch.float64) * arm.sigma_rad
    mean = arm.world_T_probe(BENT)
    errors = se3.error_at_pivot(mean, arm.world_T_probe(BENT + noise), mean[:3, 3])
    stated = arm.covariance_at_probe(BENT)
    scale = stated.diagonal().sqrt()
    torch.testing.assert_close(
        errors.T.cov() / torch.outer(scale, scale), stated / torch.outer(scale, scale), rtol=0, atol=0.03
    )


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(["iiwa7", "iiwa14"]))
def test_inverse_reaches_what_forward_gives(seed: int, name: str) -> None:
    chain = load_arm(name).chain
    generator = torch.Generator().manual_seed(seed)
    goal = BENT + 0.5 * (torch.rand(7, generator=generator, dtype=torch.float64) - 0.5)
    target = chain.forward(goal)
    found = inverse(chain, target, BENT)
    chain.check(found)
    torch.testing.assert_close(chain.forward(found), target, rtol=0, atol=2e-6)


def test_inverse_keeps_the_limits_and_refuses_what_is_out_of_reach() -> None:
    chain = load_arm("iiwa7").chain
    far = se3.translation(torch.tensor([2000.0, 0.0, 300.0], dtype=torch.float64))
    with pytest.raises(KinematicsError, match="cannot reach"):
        inverse(chain, far, BENT)
    beyond = BENT.clone()
    beyond[5] = math.radians(150)  # A6 ends at 120 deg: another posture or nothing, never this one
    try:
        chain.check(inverse(chain, chain.forward(beyond), BENT))
    except KinematicsError as error:
        assert "cannot reach" in str(error)


def test_inverse_refuses_a_wrong_start_and_a_bad_configuration() -> None:
    chain = load_arm("iiwa7").chain
    with pytest.raises(KinematicsError, match="7 joints"):
        inverse(chain, se3.identity(), torch.zeros(6))
    with pytest.raises(ConfigError, match="max_iterations"):
        InverseConfig(max_iterations=0)
