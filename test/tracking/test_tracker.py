# SPDX-License-Identifier: Apache-2.0
"""Poses and joints at a frame's stamp: interpolation, covariance, refusals."""

from __future__ import annotations

import array
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from usreg.data.types import Calibration, Frame
from usreg.errors import GeometryError, KinematicsError, ShapeError, StalePoseError, TimeError
from usreg.geometry import se3
from usreg.geometry.plane import PlaneGeometry, PlaneGrid
from usreg.kinematics import load_arm
from usreg.tracking import JointBuffer, JointBufferConfig, PoseBuffer, PoseBufferConfig, Tracker

BENT = torch.tensor([0.2, 0.6, -0.3, -1.3, 0.4, 0.9, -0.5], dtype=torch.float64)
PROBE_T_IMAGE = se3.exp(torch.tensor([-40.0, 3.0, 60.0, 0.4, -0.2, 1.3], dtype=torch.float64))
twists = st.lists(st.floats(-1, 1), min_size=6, max_size=6).map(lambda x: torch.tensor(x, dtype=torch.float64))


def frame(stamp_s: float) -> Frame:
    return Frame(
        torch.zeros(4, 6, dtype=torch.uint8), PlaneGeometry(PlaneGrid(4, 6, ((0.5, 0.0), (0.0, 0.5)))), stamp_s
    )


def calibration() -> Calibration:
    return Calibration(PROBE_T_IMAGE, ((0.5, 0.0), (0.0, 0.5)))


@settings(max_examples=30, deadline=None)
@given(twists, st.floats(0.01, 0.99))
def test_poses_are_interpolated_along_the_screw(twist: torch.Tensor, u: float) -> None:
    start = se3.exp(torch.tensor([10.0, 20.0, 30.0, 0.1, 0.2, 0.3], dtype=torch.float64))
    buffer = PoseBuffer()
    buffer.add(1.0, start)
    buffer.add(1.05, start @ se3.exp(twist))
    pose, _ = buffer.at(1.0 + 0.05 * u)
    torch.testing.assert_close(pose, start @ se3.exp(u * twist), rtol=0, atol=1e-9)


def test_pose_is_exact_on_a_sample_and_covariance_follows() -> None:
    buffer = PoseBuffer(PoseBufferConfig(sigma_mm=0.3, sigma_rad=0.01))
    buffer.add(1.0, PROBE_T_IMAGE)
    buffer.add(1.05, PROBE_T_IMAGE @ PROBE_T_IMAGE, covariance=torch.eye(6, dtype=torch.float64))
    pose, covariance = buffer.at(1.0)
    torch.testing.assert_close(pose, PROBE_T_IMAGE, rtol=0, atol=1e-12)
    assert covariance.diagonal().tolist() == pytest.approx([0.09] * 3 + [1e-4] * 3)
    assert buffer.at(1.025)[1][0, 0].item() == pytest.approx((0.09 + 1.0) / 2)


@pytest.mark.parametrize(("pose", "error"), [
    (torch.full((4, 4), math.nan), GeometryError),
    (2 * torch.eye(4, dtype=torch.float64), GeometryError),
    (torch.eye(3, dtype=torch.float64), ShapeError),
])  # fmt: skip
def test_bad_poses_are_refused_and_not_bridged(pose: torch.Tensor, error: type[Exception]) -> None:
    buffer = PoseBuffer()
    buffer.add(1.0, se3.identity())
    with pytest.raises(error):
        buffer.add(1.02, pose)
    buffer.add(1.04, PROBE_T_IMAGE)
    with pytest.raises(StalePoseError, match="not usable"):
        buffer.at(1.03)


def test_invalid_status_is_refused_whatever_the_pose() -> None:
    buffer = PoseBuffer()
    buffer.add(1.0, se3.identity())
    buffer.add(1.02, torch.full((4, 4), math.nan), status="INVALID")
    with pytest.raises(StalePoseError, match="INVALID"):
        buffer.at(1.01)


def test_a_tracker_that_repeats_itself_is_frozen_by_default() -> None:
    buffer = PoseBuffer()
    for i in range(60):
        buffer.add(1 + i * 0.02, PROBE_T_IMAGE)
    with pytest.raises(StalePoseError, match="frozen"):
        buffer.at(2.0)


def joint_stream(arm_name: str = "iiwa7", count: int = 30, step: float = 0.01) -> JointBuffer:
    arm = load_arm(arm_name)
    buffer = JointBuffer(arm)
    for i in range(count):
        buffer.add(1 + i * step, arm.joint_names, (BENT[: arm.chain.count] + 0.001 * i).tolist())
    return buffer


def test_joints_are_interpolated_linearly_and_reordered() -> None:
    arm = load_arm("iiwa7")
    buffer = JointBuffer(arm)
    names = [*reversed(arm.joint_names), "gripper"]
    for stamp, shift in ((1.0, 0.0), (1.01, 0.1)):
        buffer.add(stamp, names, array.array("d", [*reversed((BENT + shift).tolist()), 99.0]))
    torch.testing.assert_close(buffer.joints_at(1.0025), BENT + 0.025, rtol=0, atol=1e-9)
    torch.testing.assert_close(buffer.at(1.0)[0], arm.world_T_probe(BENT), rtol=0, atol=1e-12)


def test_links_come_in_the_order_of_their_names() -> None:
    buffer = joint_stream()
    links = buffer.links_at(1.05)
    assert links.shape[0] == len(buffer.arm.link_names) == 9
    torch.testing.assert_close(links[-1] @ buffer.arm.flange_T_probe, buffer.at(1.05)[0], rtol=0, atol=1e-9)


def test_a_continuous_joint_takes_the_short_way(tmp_path) -> None:
    path = tmp_path / "wheel.yaml"
    path.write_text("name: w\nsigma_rad: 0.001\njoint_names: [a]\njoints: [{type: continuous}]\n")
    buffer = JointBuffer(load_arm(path))
    buffer.add(1.0, ["a"], [3.1])
    buffer.add(1.01, ["a"], [-3.1])
    assert abs(abs(buffer.joints_at(1.005).item()) - math.pi) < 1e-9


@pytest.mark.parametrize(("names", "positions", "match"), [
    ([f"joint_{i}" for i in range(7)], [0.0] * 7, "missing"),
    ([f"lbr_A{i}" for i in range(1, 7)], [0.0] * 6, "lbr_A7"),
    ([f"lbr_A{i}" for i in (1, 2, 3, 4, 5, 6, 7, 7)], [0.0] * 8, "repeat"),
    ([f"lbr_A{i}" for i in range(1, 8)], [0.0] * 6, "6 positions"),
    ([], [], "missing"),
    ([f"lbr_A{i}" for i in range(1, 8)], [0.0] * 6 + [math.nan], "lbr_A7.*not finite"),
    ([f"lbr_A{i}" for i in range(1, 8)], [0.0, math.inf, 0.0, -math.inf, 0.0, 0.0, 0.0], "not finite"),
    ([f"lbr_A{i}" for i in range(1, 8)], [0.0, 90.0, 0.0, 0.0, 0.0, 0.0, 0.0], "radians"),
])  # fmt: skip
def test_wrong_joints_are_refused_and_not_bridged(names: list[str], positions: list[float], match: str) -> None:
    buffer = joint_stream(count=2)
    with pytest.raises(KinematicsError, match=match):
        buffer.add(1.02, names, positions)
    buffer.add(1.03, buffer.arm.joint_names, BENT.tolist())
    with pytest.raises(StalePoseError, match="not usable"):
        buffer.at(1.025)


def test_a_first_message_without_joints_is_refused() -> None:
    with pytest.raises(KinematicsError, match="missing"):
        JointBuffer(load_arm("iiwa7")).add(1.0, [], [])


def test_stamps_of_joints_must_rise_until_reset() -> None:
    buffer = joint_stream()
    with pytest.raises(TimeError, match="backwards"):
        buffer.add(1.0, buffer.arm.joint_names, BENT.tolist())
    buffer.reset()
    buffer.add(0.5, buffer.arm.joint_names, BENT.tolist())
    assert buffer.newest_s == 0.5


def test_frozen_joints_follow_the_arm() -> None:
    active, passive = load_arm("iiwa7"), load_arm("encoder6")
    for arm, refused in ((active, True), (passive, False)):
        buffer = JointBuffer(arm)
        for i in range(300):
            buffer.add(1 + i * 0.01, arm.joint_names, BENT[: arm.chain.count].tolist())
        if refused:
            with pytest.raises(StalePoseError, match="frozen"):
                buffer.at(3.0)
        else:
            torch.testing.assert_close(buffer.at(3.0)[0], arm.world_T_probe(BENT[:6]), rtol=0, atol=1e-9)
    assert JointBufferConfig.for_arm(active).max_frozen_s == active.max_frozen_s == 1.0


def test_tracked_frame_has_the_pose_of_the_image_at_its_stamp() -> None:
    buffer = joint_stream()
    tracked = Tracker(calibration(), buffer).track(frame(1.123))
    torch.testing.assert_close(tracked.world_T_image, buffer.at(1.123)[0] @ PROBE_T_IMAGE, rtol=0, atol=1e-12)
    assert tracked.frame.stamp_s == 1.123


@pytest.mark.parametrize("name", ["iiwa14", "encoder6"])
def test_covariance_of_the_image_pose_against_monte_carlo(name: str) -> None:
    arm = load_arm(name)
    q = BENT[: arm.chain.count]
    buffer = JointBuffer(arm)
    buffer.add(1.0, arm.joint_names, q.tolist())
    tracked = Tracker(calibration(), buffer).track(frame(1.0))
    noise = (
        torch.randn(20_000, arm.chain.count, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        * arm.sigma_rad
    )
    drawn = arm.world_T_probe(q + noise) @ PROBE_T_IMAGE
    errors = se3.error_at_pivot(tracked.world_T_image, drawn, tracked.world_T_image[:3, 3])
    scale = tracked.covariance.diagonal().sqrt()
    torch.testing.assert_close(
        errors.T.cov() / torch.outer(scale, scale), tracked.covariance / torch.outer(scale, scale), rtol=0, atol=0.03
    )


def test_tracker_refuses_late_frames_and_resets_its_buffer() -> None:
    tracker = Tracker(calibration(), joint_stream())
    with pytest.raises(StalePoseError, match="older than the frame"):
        tracker.track(frame(2.0))
    tracker.reset()
    with pytest.raises(StalePoseError, match="no joint state of iiwa7"):
        tracker.track(frame(1.1))
