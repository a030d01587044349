# SPDX-License-Identifier: Apache-2.0
"""Poses and joints at a frame's stamp: interpolation, covariance, refusals."""

from __future__ import annotations

import array
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from usreg.data.types import Calibration, Frame
from usreg.errors import CalibrationError, GeometryError, KinematicsError, ShapeError, StalePoseError, TimeError
from usreg.geometry import se3
from usreg.geometry.plane import PlaneGeometry, PlaneGrid
from usreg.geometry.sector import SectorGeometry
from usreg.kinematics import load_arm
from usreg.tracking import History, JointBuffer, JointBufferConfig, PoseBuffer, PoseBufferConfig, Tracker

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


# --- a change of depth ---

FAN = SectorGeometry(
    "convex", PlaneGrid(40, 60, ((0.5, 0.0), (0.0, 0.5))), (15.0, -30.0), (32.0, 50.0), (-0.4, 0.4),
    (0.0, 0.0, 29.5, 19.5), 18.0,
)  # fmt: skip


def still(*stamps: float) -> PoseBuffer:
    buffer = PoseBuffer(PoseBufferConfig(max_frozen_s=None, max_gap_s=10.0))
    for stamp_s in stamps:
        buffer.add(stamp_s, se3.identity())
    return buffer


def test_the_centre_of_the_array_stays_in_the_probe() -> None:
    """Any point given from the apex lies at the same place in the probe, whatever the depth."""
    tracker = Tracker(Calibration(PROBE_T_IMAGE, FAN.pixel_to_mm, FAN), still(1.0, 2.0))
    plane = PlaneGrid(40, 60, ((0.8, 0.0), (0.0, 0.8)))
    deeper = replace(FAN, plane=plane, apex_mm=(24.0, -25.5), radius_mm=(32.0, 70.0), depth_mm=38.0)
    for geometry in (FAN, deeper):
        world_T_image, _ = tracker.pose_at(1.5, geometry)
        from_apex = torch.tensor([[geometry.apex_mm[0] + 3.0, geometry.apex_mm[1] + 40.0, 0.0]], dtype=torch.float64)
        found = se3.transform_points(world_T_image, from_apex)
        expected = se3.transform_points(PROBE_T_IMAGE, torch.tensor([[18.0, 10.0, 0.0]], dtype=torch.float64))
        assert (found - expected).abs().max() < 1e-9
    assert torch.equal(tracker.pose_at(1.5, FAN)[0], tracker.pose_at(1.5)[0])


def test_the_covariance_is_about_the_origin_of_the_frames_own_image() -> None:
    buffer = PoseBuffer(PoseBufferConfig(max_frozen_s=None, sigma_rad=0.01))
    for stamp_s in (1.0, 1.05):
        buffer.add(stamp_s, se3.identity())
    tracker = Tracker(Calibration(PROBE_T_IMAGE, FAN.pixel_to_mm, FAN), buffer)
    world_T_image, covariance = tracker.pose_at(1.02, replace(FAN, apex_mm=(15.0, 30.0)))
    expected = se3.move_pivot(buffer.at(1.02)[1], world_T_image[:3, 3])
    torch.testing.assert_close(covariance, expected, rtol=1e-9, atol=1e-12)


def test_a_calibration_of_another_probe_is_refused() -> None:
    tracker = Tracker(Calibration(PROBE_T_IMAGE, FAN.pixel_to_mm, FAN), still(1.0, 2.0))
    with pytest.raises(CalibrationError, match="convex probe.*linear"):
        tracker.pose_at(1.5, replace(FAN, kind="linear"))
    with pytest.raises(CalibrationError, match="60x40.*6x4.*no sector"):
        tracker.track(frame(1.5))
    alike = PlaneGeometry(PlaneGrid(40, 60, ((0.5, 0.0), (0.0, 0.5 + 1e-12))))
    assert torch.equal(tracker.pose_at(1.5, alike)[0], PROBE_T_IMAGE)


def test_calibrations_hold_from_their_stamps_also_after_a_reset() -> None:
    tracker = Tracker(calibration(), still(1.0, 2.0, 3.0), since_s=1.5)
    other = PROBE_T_IMAGE @ PROBE_T_IMAGE
    tracker.recalibrate(2.0, Calibration(other, ((0.5, 0.0), (0.0, 0.5))))
    for stamp_s, expected in ((1.0, PROBE_T_IMAGE), (1.999, PROBE_T_IMAGE), (2.0, other), (3.0, other)):
        torch.testing.assert_close(tracker.track(frame(stamp_s)).world_T_image, expected, rtol=0, atol=1e-12)
    tracker.reset()
    tracker.buffer = still(1.0, 2.0)
    torch.testing.assert_close(tracker.track(frame(1.2)).world_T_image, PROBE_T_IMAGE, rtol=0, atol=1e-12)


def test_a_history_keeps_its_order_and_replaces_equal_stamps() -> None:
    history: History[str] = History()
    with pytest.raises(TimeError, match="nothing"):
        history.at(1.0)
    for stamp_s, value in ((3.0, "c"), (1.0, "a"), (2.0, "wrong"), (2.0, "b")):
        history.add(stamp_s, value)
    assert [history.at(s) for s in (0.0, 1.0, 1.9, 2.0, 2.9, 3.0, 9.0)] == ["a", "a", "a", "b", "b", "c", "c"]
    assert len(history) == 3
    with pytest.raises(TimeError, match="finite"):
        history.add(math.nan, "x")
