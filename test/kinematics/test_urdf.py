# SPDX-License-Identifier: Apache-2.0
"""URDF: the same arm as by DH, the same poses as pytransform3d, and files that are refused."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from usreg.errors import FileFormatError, KinematicsError, MissingFileError, UsregError
from usreg.kinematics import load_arm
from usreg.kinematics.urdf import parse_urdf, read_urdf

KUKA = [
    ("0 0 0.1475", "0 0 1", 170),
    ("0 -0.0105 0.1925", "0 1 0", 120),
    ("0 0.0105 0.2075", "0 0 1", 170),
    ("0 0.0105 0.1925", "0 -1 0", 120),
    ("0 -0.0105 0.2075", "0 0 1", 170),
    ("0 -0.0707 0.1925", "0 1 0", 120),
    ("0 0.0707 0.091", "0 0 1", 175),
]
LIMIT = '<limit lower="-1" upper="1" velocity="1" effort="1"/>'


def joint(name: str, kind: str, parent: str, child: str, inner: str) -> str:
    return f'<joint name="{name}" type="{kind}"><parent link="{parent}"/><child link="{child}"/>{inner}</joint>'


def robot(joints: list[str], links: list[str]) -> str:
    return (
        '<?xml version="1.0"?><robot name="r">'
        + "".join(f'<link name="{n}"/>' for n in links)
        + "".join(joints)
        + "</robot>"
    )


def one(inner: str, kind: str = "revolute") -> str:
    """A robot of one joint from base to tip."""
    return robot([joint("x", kind, "base", "tip", inner)], ["base", "tip"])


def kuka_urdf() -> str:
    joints = []
    for i, (xyz, axis, deg) in enumerate(KUKA):
        limit = f'<limit lower="{-math.radians(deg)}" upper="{math.radians(deg)}" velocity="1.7" effort="200"/>'
        inner = f'<origin xyz="{xyz}" rpy="0 0 0"/><axis xyz="{axis}"/>{limit}'
        joints.append(joint(f"lbr_A{i + 1}", "revolute", f"l{i}", f"l{i + 1}", inner))
    joints.append(joint("ee", "fixed", "l7", "flange", '<origin xyz="0 0 0.035"/>'))
    return robot(joints, [*(f"l{i}" for i in range(8)), "flange"])


def mixed_urdf() -> str:
    """Every joint kind, oblique axes and a fixed joint in the middle."""
    turn = '<origin xyz="0.1 0.2 0.3" rpy="0.4 -0.5 0.6"/><axis xyz="1 2 3"/>'
    slide = '<origin xyz="0 0 0.1" rpy="1 0 0"/><axis xyz="0 1 1"/><limit lower="-0.2" upper="0.3" velocity="0.5"/>'
    joints = [
        joint("turn", "continuous", "base", "a", turn),
        joint("bolt", "fixed", "a", "b", '<origin xyz="0 0.05 0" rpy="0 0.3 0"/>'),
        joint("slide", "prismatic", "b", "c", slide),
        joint("swing", "revolute", "c", "tip", f'<origin rpy="0 0 0.2"/>{LIMIT}'),
    ]
    return robot(joints, ["base", "a", "b", "c", "tip"])


def test_urdf_equals_the_yaml_arm() -> None:
    chain, arm = parse_urdf(kuka_urdf(), "l0", "flange"), load_arm("iiwa7")
    q = torch.linspace(-1, 1, 7, dtype=torch.float64)
    torch.testing.assert_close(chain.links(q), arm.chain.links(q), rtol=0, atol=1e-9)
    assert chain.joint_names == arm.joint_names
    torch.testing.assert_close(torch.tensor(chain.limits.upper), torch.tensor(arm.chain.limits.upper))


@settings(max_examples=15, deadline=None)
@given(st.floats(-3, 3), st.floats(-150, 250), st.floats(-1, 1))
def test_parity_with_pytransform3d(turn: float, slide_mm: float, swing: float) -> None:
    urdf = pytest.importorskip("pytransform3d.urdf")
    manager = urdf.UrdfTransformManager()
    manager.load_urdf(mixed_urdf())
    for name, value in (("turn", turn), ("slide", slide_mm / 1000), ("swing", swing)):
        manager.set_joint(name, value)
    expected = torch.from_numpy(manager.get_transform("tip", "base"))
    expected[:3, 3] *= 1000.0
    found = parse_urdf(mixed_urdf(), "base", "tip").forward(torch.tensor([turn, slide_mm, swing], dtype=torch.float64))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-8)


def test_limits_of_every_kind() -> None:
    limits = parse_urdf(mixed_urdf(), "base", "tip").limits
    assert limits.lower == (-math.inf, -200.0, -1.0) and limits.upper == (math.inf, 300.0, 1.0)
    assert limits.velocity == (math.inf, 500.0, 1.0)


def test_an_arm_file_may_name_a_urdf_beside_it(tmp_path: Path) -> None:
    (tmp_path / "arm.urdf").write_text(kuka_urdf())
    (tmp_path / "arm.yaml").write_text(
        "name: mine\nsigma_rad: 1.0e-4\nurdf: arm.urdf\nurdf_base: l0\nurdf_tip: flange\n"
    )
    arm = load_arm(tmp_path / "arm.yaml")
    assert arm.joint_names[6] == "lbr_A7" and arm.link_names[-1] == "flange"
    with pytest.raises(KinematicsError, match="2 names"):
        load_arm(tmp_path / "arm.yaml", joint_names=["a", "b"])


LOOP = robot([joint("x", "fixed", "tip", "a", ""), joint("y", "fixed", "a", "tip", "")], ["base", "tip", "a"])
BOMB = '<!DOCTYPE r [<!ENTITY a "aaaaaaaa"><!ENTITY b "&a;&a;&a;">]><robot name="r">&b;</robot>'


@pytest.mark.parametrize(("text", "error", "match"), [
    (BOMB, FileFormatError, "document type"),
    ("<robot", FileFormatError, "XML"),
    ("<notarobot/>", FileFormatError, "notarobot"),
    (robot([], ["base", "tip"]), KinematicsError, "no path"),
    (one("", "fixed"), KinematicsError, "no movable"),
    (one("", "floating"), KinematicsError, "floating"),
    (one(""), KinematicsError, "no <limit>"),
    (one(LIMIT + '<mimic joint="y"/>'), KinematicsError, "mimics"),
    (one(LIMIT + '<axis xyz="0 0 0"/>'), KinematicsError, "axis"),
    (one(LIMIT + '<origin xyz="0 nan 0"/>'), FileFormatError, "finite"),
    (one(LIMIT + '<origin xyz="0 0"/>'), FileFormatError, "three"),
    (one(LIMIT.replace('"-1"', '"low"')), FileFormatError, "lower"),
    (LOOP, KinematicsError, "no path"),
    ('<robot><joint name="x" type="revolute"><child link="tip"/></joint></robot>', FileFormatError, "parent"),
])  # fmt: skip
def test_bad_urdf_is_refused_with_its_reason(text: str, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        parse_urdf(text, "base", "tip")


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.text(max_size=6))
def test_a_damaged_urdf_never_gives_another_error(cut: int, insert: str) -> None:
    text = mixed_urdf()
    at = cut % len(text)
    try:
        chain = parse_urdf(text[:at] + insert + text[at + len(insert) :], "base", "tip")
    except UsregError:
        return
    assert chain.count == 3


def test_missing_and_non_utf8_files(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError):
        read_urdf(tmp_path / "none.urdf", "a", "b")
    (tmp_path / "bad.urdf").write_bytes("<robot/>".encode("utf-16"))
    with pytest.raises(FileFormatError, match="UTF-8"):
        read_urdf(tmp_path / "bad.urdf", "a", "b")
