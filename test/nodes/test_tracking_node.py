# SPDX-License-Identifier: Apache-2.0
"""arm_tracking: every frame gets its measured pose or a reason; TF has one authority for each edge."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("rclpy", reason="ROS 2 is not importable by this python: run through make test")
pytest.importorskip("usreg_msgs", reason="usreg_msgs is not built: run make build")
from geometry_msgs.msg import PoseWithCovarianceStamped  # noqa: E402
from sensor_msgs.msg import JointState  # noqa: E402
from tf2_msgs.msg import TFMessage  # noqa: E402

from usreg.data.calibration import write_calibration  # noqa: E402
from usreg.data.types import Calibration  # noqa: E402
from usreg.errors import UsregError  # noqa: E402
from usreg.geometry import se3  # noqa: E402
from usreg.geometry.plane import PlaneGrid  # noqa: E402
from usreg.geometry.sector import full_rectangle  # noqa: E402
from usreg.kinematics import load_arm  # noqa: E402
from usreg.nodes import convert  # noqa: E402
from usreg.nodes.arm_tracking import ArmTrackingNode  # noqa: E402
from usreg.tracking import JointBuffer, Tracker  # noqa: E402

GEOMETRY = full_rectangle(PlaneGrid(16, 20, ((0.5, 0.0), (0.0, 0.5))))
PROBE_T_IMAGE = se3.exp(torch.tensor([5.0, -3.0, 40.0, 0.1, 0.2, -0.3], dtype=torch.float64))
SHIFT = se3.translation(torch.tensor([3.0, -4.0, 0.0], dtype=torch.float64))
ARM = load_arm("iiwa7")


def joints(t: float) -> list[float]:
    return [0.2 * math.sin(t + k) for k in range(7)]


def state(stamp_s: float, names: tuple[str, ...] = ARM.joint_names, values: list[float] | None = None) -> JointState:
    message = JointState(name=list(names), position=joints(stamp_s) if values is None else values)
    message.header.stamp = convert.s_to_stamp(stamp_s)
    return message


def frame(bench: Any, stamp_s: float) -> None:
    bench.say("us/geometry", convert.geometry_to_msg(GEOMETRY, stamp_s, "us_image"))


@pytest.fixture
def calibration(tmp_path: Path) -> str:
    path = tmp_path / "calibration.yaml"
    write_calibration(Calibration(PROBE_T_IMAGE, ((0.5, 0.0), (0.0, 0.5)), GEOMETRY), path)
    return str(path)


@pytest.fixture
def poses(bench: Any) -> list[Any]:
    return bench.hear(PoseWithCovarianceStamped, "us/pose")


def frames_of(bench: Any) -> dict[str, Any]:
    """Frame names of this test alone: /tf is shared by all tests of a process."""
    n = bench.namespace
    return {"probe_frame": f"{n}_probe", "image_frame": f"{n}_image", "world_frame": f"{n}_world"}


def test_poses_are_those_of_the_library(bench: Any, poses: list[Any], calibration: str) -> None:
    bench.add(ArmTrackingNode, calibration=calibration)
    tracker = Tracker(Calibration(PROBE_T_IMAGE, ((0.5, 0.0), (0.0, 0.5))), JointBuffer(ARM))
    for k in range(8):
        stamp_s = 5.0 + 0.01 * k
        tracker.buffer.add(stamp_s, ARM.joint_names, joints(stamp_s))
        bench.say("joint_states", state(stamp_s))
    for stamp_s in (5.013, 5.05):
        frame(bench, stamp_s)
    bench.until(lambda: len(poses) == 2)
    for message, stamp_s in zip(poses, (5.013, 5.05), strict=True):
        expected, covariance = tracker.pose_at(stamp_s)
        found_s, world, pose, spread = convert.decode_stamped_pose(message)
        assert (found_s, world) == (stamp_s, "world")
        assert torch.allclose(pose, expected, atol=1e-9)
        assert torch.allclose(spread, covariance, rtol=1e-6, atol=1e-12)


def test_a_sliding_joint_comes_in_metres(bench: Any, poses: list[Any], calibration: str) -> None:
    arm = load_arm("encoder6_slide")
    bench.add(ArmTrackingNode, arm="encoder6_slide", calibration=calibration)
    for k in range(3):
        bench.say("joint_states", state(5.0 + 0.01 * k, arm.joint_names, [0.1, 0.2, -0.3, 0.4, 0.5, 0.6, 0.04]))
    frame(bench, 5.01)
    bench.until(lambda: len(poses) == 1)
    q = torch.tensor([0.1, 0.2, -0.3, 0.4, 0.5, 0.6, 40.0], dtype=torch.float64)
    expected = arm.world_T_probe(q) @ PROBE_T_IMAGE
    assert (convert.decode_stamped_pose(poses[0])[2] - expected).abs().max() < 1e-6


def test_a_frame_waits_for_the_joints_after_it(bench: Any, poses: list[Any], calibration: str) -> None:
    bench.add(ArmTrackingNode, calibration=calibration, hold_s=5.0)
    bench.say("joint_states", state(5.0))
    frame(bench, 5.005)
    bench.spin(0.2)
    assert not poses
    bench.say("joint_states", state(5.01))
    bench.until(lambda: len(poses) == 1)


def test_a_frame_whose_joints_do_not_come_is_refused_with_the_reason(
    bench: Any, poses: list[Any], calibration: str
) -> None:
    node = bench.add(ArmTrackingNode, calibration=calibration, hold_s=0.05)
    bench.say("joint_states", state(5.0))
    frame(bench, 5.5)
    bench.until(lambda: node.diagnostics.drops.get("StalePoseError") == 1)
    level, text = node.diagnostics.condition
    assert level == "ERROR" and "older than the frame" in text
    assert not poses


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        (state(5.02, tuple(f"panda_joint{k}" for k in range(7))), "KinematicsError"),
        (state(5.02, ARM.joint_names[:6], joints(5.02)[:6]), "KinematicsError"),
        (state(5.02, values=[math.nan] * 7), "KinematicsError"),
        (state(5.02, values=[math.inf] + [0.0] * 6), "KinematicsError"),
        (state(5.02, values=[9.0] * 7), "KinematicsError"),
        (state(5.02, values=[0.0] * 5), "FileFormatError"),
        (state(5.0), "TimeError"),
        (state(4.9), "TimeError"),
    ],
)
def test_bad_joint_states_are_counted_and_the_graph_goes_on(
    bench: Any, poses: list[Any], calibration: str, message: JointState, kind: str
) -> None:
    node = bench.add(ArmTrackingNode, calibration=calibration)
    for stamp_s in (4.99, 5.0, 5.01):
        bench.say("joint_states", state(stamp_s))
    bench.say("joint_states", message)
    for stamp_s in (5.03, 5.04):
        bench.say("joint_states", state(stamp_s))
    frame(bench, 5.035)
    bench.until(lambda: len(poses) == 1)
    assert node.diagnostics.drops == {kind: 1}
    frame(bench, 5.025)  # beside the bad sample nothing is interpolated
    if kind == "KinematicsError":
        bench.until(lambda: node.diagnostics.drops.get("StalePoseError") == 1)


def test_without_a_calibration_the_statics_of_others_count(bench: Any, poses: list[Any]) -> None:
    names = frames_of(bench)
    node = bench.add(ArmTrackingNode, hold_s=0.05, **names)
    for stamp_s in (5.0, 5.01):
        bench.say("joint_states", state(stamp_s))
    frame(bench, 5.005)
    bench.until(lambda: node.diagnostics.drops.get("MissingTransformError") == 1)
    assert not poses
    static = convert.transform_to_msg(PROBE_T_IMAGE, 1.0, names["probe_frame"], names["image_frame"])
    bench.say("/tf_static", TFMessage(transforms=[static]), "tf_static")
    bench.until(lambda: node.tracker is not None)
    frame(bench, 5.006)
    bench.until(lambda: len(poses) == 1)
    expected = ARM.world_T_probe(node.buffer.joints_at(5.006)) @ PROBE_T_IMAGE
    assert torch.allclose(convert.decode_pose(poses[0].pose.pose), expected, atol=1e-9)


def test_statics_that_change_hold_for_the_frames_after_the_change(bench: Any, poses: list[Any]) -> None:
    """The new static comes before a frame that was taken earlier is due: that frame keeps the old place."""
    names = frames_of(bench)
    node = bench.add(ArmTrackingNode, hold_s=5.0, **names)
    places = [(4.0, PROBE_T_IMAGE), (5.02, PROBE_T_IMAGE @ SHIFT)]
    for since_s, place in places:
        static = convert.transform_to_msg(place, since_s, names["probe_frame"], names["image_frame"])
        other = convert.transform_to_msg(se3.identity(), 99.0, names["world_frame"], "elsewhere")
        bench.say("/tf_static", TFMessage(transforms=[static, other]), "tf_static")
    bench.until(lambda: node.tracker is not None and torch.equal(pose_in_probe(node, 6.0), pose_in_probe(node, 5.02)))
    for stamp_s in (5.0, 5.01, 5.02, 5.03):
        bench.say("joint_states", state(stamp_s))
    for stamp_s in (5.005, 5.0199, 5.02, 5.025):
        frame(bench, stamp_s)
    bench.until(lambda: len(poses) == 4)
    for message, place in zip(poses, (PROBE_T_IMAGE,) * 2 + (PROBE_T_IMAGE @ SHIFT,) * 2, strict=True):
        stamp_s = convert.stamp_to_s(message.header.stamp)
        expected = ARM.world_T_probe(node.buffer.joints_at(stamp_s)) @ place
        assert (convert.decode_pose(message.pose.pose) - expected).abs().max() < 1e-6


def pose_in_probe(node: ArmTrackingNode, stamp_s: float) -> torch.Tensor:
    assert node.tracker is not None
    found = node.tracker.calibration_at(stamp_s).probe_T_image
    return found if torch.allclose(found, PROBE_T_IMAGE @ SHIFT, atol=1e-9) else torch.zeros(1)


def test_statics_that_were_known_come_again_after_a_jump(bench: Any, poses: list[Any]) -> None:
    names = frames_of(bench)
    node = bench.add(ArmTrackingNode, hold_s=5.0, **names)
    for since_s, place in ((4.0, PROBE_T_IMAGE), (5.02, PROBE_T_IMAGE @ SHIFT), (4.0, PROBE_T_IMAGE)):
        static = convert.transform_to_msg(place, since_s, names["probe_frame"], names["image_frame"])
        node.on_tf_static(TFMessage(transforms=[static]))
    assert torch.allclose(node.tracker.calibration_at(5.0).probe_T_image, PROBE_T_IMAGE, atol=1e-9)
    assert torch.allclose(node.tracker.calibration_at(5.02).probe_T_image, PROBE_T_IMAGE @ SHIFT, atol=1e-9)


def test_with_a_calibration_file_the_frames_geometry_moves_the_image(
    bench: Any, poses: list[Any], calibration: str
) -> None:
    """The centre of the array stays where it is in the probe; TF is told of the image's new origin."""
    names = frames_of(bench)
    fixed = bench.hear(TFMessage, "/tf_static", "tf_static_in")
    node = bench.add(ArmTrackingNode, calibration=calibration, **names)
    for stamp_s in (5.0, 5.01, 5.02):
        bench.say("joint_states", state(stamp_s))
    frame(bench, 5.005)
    x, y = GEOMETRY.apex_mm
    deeper = replace(GEOMETRY, apex_mm=(x - 3.0, y + 4.0))
    bench.say("us/geometry", convert.geometry_to_msg(deeper, 5.015, "us_image"))
    bench.until(lambda: len(poses) == 2)
    for message, place in zip(poses, (PROBE_T_IMAGE, PROBE_T_IMAGE @ SHIFT), strict=True):
        expected = ARM.world_T_probe(node.buffer.joints_at(convert.stamp_to_s(message.header.stamp))) @ place
        assert (convert.decode_pose(message.pose.pose) - expected).abs().max() < 1e-6

    def told() -> list[torch.Tensor]:
        mine = [t for m in fixed for t in m.transforms if t.child_frame_id == names["image_frame"]]
        return [convert.transform_from_msg(t) for t in mine]

    bench.until(lambda: bool(told()) and torch.allclose(told()[-1], PROBE_T_IMAGE @ SHIFT, atol=1e-6))
    other = replace(GEOMETRY, kind="phased", radius_mm=(0.0, 8.0), angle_rad=(-0.5, 0.5))
    bench.say("us/geometry", convert.geometry_to_msg(other, 5.017, "us_image"))
    bench.until(lambda: node.diagnostics.drops == {"CalibrationError": 1})
    assert "linear probe" in node.diagnostics.condition[1] and len(poses) == 2


def test_links_and_statics_are_in_tf(bench: Any, poses: list[Any], calibration: str) -> None:
    from usreg.nodes import tf

    names = frames_of(bench)
    moving, fixed = bench.hear(TFMessage, "/tf", "tf"), bench.hear(TFMessage, "/tf_static", "tf_static_in")
    bench.add(ArmTrackingNode, calibration=calibration, **names)
    for stamp_s in (5.0, 5.01):
        bench.say("joint_states", state(stamp_s))
    frame(bench, 5.005)
    bench.until(lambda: len(poses) == 1)
    buffer = tf.TransformBuffer()

    found: list[torch.Tensor] = []

    def whole() -> bool:
        for transform in (t for m in moving for t in m.transforms):
            buffer.set_transform(transform, "test")
        for transform in (t for m in fixed for t in m.transforms):
            buffer.set_transform_static(transform, "test")
        try:
            found.append(tf.pose(buffer, names["world_frame"], names["image_frame"], 5.005)[0])
        except UsregError:
            return False
        return True

    bench.until(whole)
    assert torch.allclose(found[-1], convert.decode_pose(poses[0].pose.pose), atol=1e-6)


def test_poses_can_come_from_tf(bench: Any, poses: list[Any], calibration: str) -> None:
    names = frames_of(bench)
    node = bench.add(ArmTrackingNode, pose_source="tf", calibration=calibration, hold_s=0.05, **names)
    frame(bench, 4.0)
    bench.until(lambda: node.diagnostics.drops == {"StalePoseError": 1})
    at = [se3.exp(torch.tensor([k * 1.0, 0, 0, 0, 0, k * 0.1], dtype=torch.float64)) for k in range(4)]
    for k, pose in enumerate(at):
        sent = convert.transform_to_msg(pose, 5 + 0.05 * k, names["world_frame"], names["probe_frame"])
        bench.say("/tf", TFMessage(transforms=[sent]), "tf")
    frame(bench, 5.075)
    bench.until(lambda: len(poses) == 1)
    expected = se3.interpolate(at[1], at[2], 0.5) @ PROBE_T_IMAGE
    assert torch.allclose(convert.decode_pose(poses[0].pose.pose), expected, atol=1e-6)
    broken = convert.transform_to_msg(at[0], 5.2, names["world_frame"], names["probe_frame"])
    broken.transform.translation.x = math.nan
    bench.say("/tf", TFMessage(transforms=[broken]), "tf")
    bench.until(lambda: node.diagnostics.drops.get("GeometryError") == 1)


def test_a_backward_jump_of_time_forgets_the_joints(bench: Any, poses: list[Any], calibration: str) -> None:
    from rosgraph_msgs.msg import Clock

    node = bench.add(ArmTrackingNode, calibration=calibration, use_sim_time=True)
    bench.say("/clock", Clock(clock=convert.s_to_stamp(100.0)))
    bench.until(lambda: node.now_s() == 100.0)
    bench.say("joint_states", state(100.0))
    bench.until(lambda: node.buffer.newest_s == 100.0)
    bench.say("/clock", Clock(clock=convert.s_to_stamp(5.0)))
    bench.until(lambda: math.isnan(node.buffer.newest_s))
    for stamp_s in (5.0, 5.01):
        bench.say("joint_states", state(stamp_s))
    frame(bench, 5.005)
    bench.until(lambda: len(poses) == 1)
