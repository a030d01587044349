# SPDX-License-Identifier: Apache-2.0
"""Transforms of a bag as a pose source."""

from pathlib import Path

import pytest
import torch

from usreg.data.bag_messages import decode_joints, encode_joints
from usreg.data.bags import BagReader, BagWriter
from usreg.data.session_events import JointEvent, TransformEvent
from usreg.errors import StalePoseError, TimeError
from usreg.geometry import se3
from usreg.kinematics import load_arm
from usreg.replay.feed import JointFeed, TransformFeed
from usreg.tracking import JointBuffer, PoseBufferConfig


def pose(*twist: float) -> torch.Tensor:
    return se3.exp(torch.tensor(twist, dtype=torch.float64))


def moving(stamp_s: float, x: float, parent: str = "world", child: str = "us_probe") -> TransformEvent:
    return TransformEvent(stamp_s, parent, child, pose(x, 0, 0, 0.1, 0.2, 0.3))


def test_a_measured_edge_is_interpolated():
    feed = TransformFeed("world", "us_probe")
    feed.take(moving(1.0, 0.0))
    feed.take(moving(1.05, 10.0))
    found, covariance = feed.at(1.025)
    torch.testing.assert_close(found, se3.interpolate(pose(0, 0, 0, 0.1, 0.2, 0.3), pose(10, 0, 0, 0.1, 0.2, 0.3), 0.5))
    assert not covariance.any()


def test_edges_compose_from_the_world_to_the_probe():
    feed = TransformFeed("world", "us_probe")
    parts = [pose(1, 2, 3, 0.1, 0, 0), pose(4, 5, 6, 0, 0.2, 0), pose(7, 8, 9, 0, 0, 0.3)]
    feed.take(TransformEvent(0.0, "tool", "us_probe", parts[2], True))
    feed.take(TransformEvent(0.0, "world", "base", parts[0], True))
    for stamp in (1.0, 1.05):
        feed.take(TransformEvent(stamp, "base", "tool", parts[1]))
    feed.take(JointEvent(1.0, ("a",), (0.0,)))
    torch.testing.assert_close(feed.at(1.02)[0], parts[0] @ parts[1] @ parts[2])


def test_covariance_is_moved_to_the_probe():
    feed = TransformFeed("world", "us_probe", PoseBufferConfig(sigma_mm=0.3, sigma_rad=0.01))
    feed.take(TransformEvent(1.0, "world", "tool", pose(10, 0, 0, 0, 0, 1.0)))
    feed.take(TransformEvent(0.0, "tool", "us_probe", pose(100, 0, 0, 0, 0, 0), True))
    found, covariance = feed.at(1.0)
    lever = found[:3, 3] - pose(10, 0, 0, 0, 0, 1.0)[:3, 3]
    assert lever.norm() == pytest.approx(100.0)
    assert covariance[2, 2] == pytest.approx(0.09 + 1e-4 * 100**2)
    along = lever / lever.norm()
    assert along @ covariance[:3, :3] @ along == pytest.approx(0.09)


def test_missing_stale_and_circular_chains_are_refused():
    feed = TransformFeed("world", "us_probe")
    with pytest.raises(StalePoseError, match="no chain"):
        feed.at(1.0)
    feed.take(moving(1.0, 0.0))
    with pytest.raises(StalePoseError, match="newest"):
        feed.at(2.0)
    with pytest.raises(TimeError):
        feed.take(moving(0.5, 0.0))
    feed.reset()
    with pytest.raises(StalePoseError):
        feed.at(1.0)
    ring = TransformFeed("world", "us_probe")
    ring.take(TransformEvent(0.0, "a", "us_probe", pose(0, 0, 0, 0, 0, 0), True))
    ring.take(TransformEvent(0.0, "us_probe", "a", pose(0, 0, 0, 0, 0, 0), True))
    with pytest.raises(StalePoseError, match="no chain"):
        ring.at(0.0)


def test_a_sliding_joint_is_in_metres_in_the_bag_and_in_mm_here(tmp_path: Path):
    arm = load_arm("encoder6_slide")
    written = [[0.3, 0.2, -0.4, 0.1, 0.5, -0.2, -47.5 + 5.0 * k] for k in range(4)]
    with BagWriter(tmp_path / "bag") as bag:
        bag.add_topic("/joint_states", "sensor_msgs/msg/JointState")
        for k, q in enumerate(written):
            stamp_s = 1.0 + 0.01 * k
            message = encode_joints(stamp_s, arm.joint_names, q, sliding=arm.sliding)
            assert list(message.position) == pytest.approx([*q[:6], q[6] / 1000], abs=1e-15)
            bag.write("/joint_states", round(stamp_s * 1e9), message)
    feed = JointFeed(JointBuffer(arm))
    with BagReader(tmp_path / "bag") as bag:
        for _, _, message in bag.messages(["/joint_states"]):
            feed.take(JointEvent(*decode_joints(message)))
    for k, q in enumerate(written):
        expected = arm.world_T_probe(torch.tensor(q, dtype=torch.float64))
        assert (feed.at(1.0 + 0.01 * k)[0] - expected).abs().max() < 1e-6
