# SPDX-License-Identifier: Apache-2.0
"""pose_smoothing: a pose at every frame until it is lost, late and broken estimates, the lagged pose."""

import math
from typing import Any

import pytest
import torch

pytest.importorskip("rclpy", reason="ROS 2 is not importable by this python: run through make test")
pytest.importorskip("usreg_msgs", reason="usreg_msgs is not built: run make build")
from geometry_msgs.msg import PoseWithCovarianceStamped  # noqa: E402
from usreg_msgs.msg import Breathing as BreathingMsg  # noqa: E402
from usreg_msgs.msg import Hypotheses  # noqa: E402

from usreg.data.types import Estimate, Rigid  # noqa: E402
from usreg.geometry import se3  # noqa: E402
from usreg.nodes import convert  # noqa: E402
from usreg.nodes.pose_smoothing import PoseSmoothingNode  # noqa: E402
from usreg.smoothing import Breathing  # noqa: E402

TRUTH = se3.exp(torch.tensor([30.0, -20.0, 10.0, 0.1, 0.2, 0.3], dtype=torch.float64))
BEGIN = se3.translation(torch.tensor([2.0, 1.0, 0.0], dtype=torch.float64)) @ TRUTH
WIDE = torch.diag(torch.tensor([4.0] * 3 + [0.001] * 3, dtype=torch.float64))
SHARP = torch.diag(torch.tensor([0.04] * 3 + [1e-5] * 3, dtype=torch.float64))
WORLD_T_IMAGE = se3.exp(torch.tensor([50.0, 0.0, 0.0, 0.0, 0.0, 0.5], dtype=torch.float64))


def translation_mm(message: Any) -> list[float]:
    p = message.pose.pose.position
    return [1000 * p.x, 1000 * p.y, 1000 * p.z]


@pytest.fixture
def smoothed(bench: Any) -> list[Any]:
    return bench.hear(PoseWithCovarianceStamped, "registration/smoothed")


def say_estimate(bench: Any, stamp_s: float, pose: torch.Tensor = TRUTH, status: str = "ACCEPTED") -> None:
    estimate = Estimate(Rigid(pose), SHARP, pose[:3, 3], 0.9, 0.9, status == "ACCEPTED", system="stub")
    bench.say("registration/estimate", convert.estimate_to_msg(estimate, stamp_s, "world", "ct", status))


def say_start(bench: Any) -> None:
    estimate = Estimate(Rigid(BEGIN), WIDE, BEGIN[:3, 3], accepted=True, reason="start")
    message = convert.estimate_to_msg(estimate, 0.0, "world", "ct", "ACCEPTED")
    bench.say("registration/hypotheses", Hypotheses(hypotheses=[message]), "latched")


def say_pose(bench: Any, stamp_s: float) -> None:
    bench.say("us/pose", convert.stamped_pose_to_msg(WORLD_T_IMAGE, SHARP, stamp_s, "world"))


def test_a_pose_is_given_at_every_frame_until_it_is_lost(bench: Any, smoothed: list[Any]) -> None:
    node = bench.add(PoseSmoothingNode)
    say_start(bench)
    bench.until(lambda: node.given is not None)
    say_pose(bench, 5.0)
    bench.until(lambda: len(smoothed) == 1)
    say_estimate(bench, 5.0)
    bench.until(lambda: "nis" in node.diagnostics.facts)
    for stamp_s in (5.1, 5.2, 5.29):
        say_pose(bench, stamp_s)
    bench.until(lambda: len(smoothed) == 4)
    assert translation_mm(smoothed[-1]) == pytest.approx(TRUTH[:3, 3].tolist(), abs=0.3)
    say_pose(bench, 5.5)
    bench.until(lambda: node.diagnostics.facts["status"] == "LOST")
    bench.spin(0.2)
    assert len(smoothed) == 4, "beyond its limit nothing is given out"
    say_estimate(bench, 5.5)
    say_pose(bench, 5.55)
    bench.until(lambda: len(smoothed) == 5)


def test_a_late_estimate_is_taken_at_its_own_stamp(bench: Any, smoothed: list[Any]) -> None:
    node = bench.add(PoseSmoothingNode)
    say_start(bench)
    bench.until(lambda: node.given is not None)
    for stamp_s in (5.0, 5.1, 5.2):
        say_pose(bench, stamp_s)
    bench.until(lambda: len(smoothed) == 3)
    say_estimate(bench, 5.0)
    bench.until(lambda: "nis" in node.diagnostics.facts)
    say_pose(bench, 5.25)
    bench.until(lambda: len(smoothed) == 4)
    assert translation_mm(smoothed[-1]) == pytest.approx(TRUTH[:3, 3].tolist(), abs=0.3)


def test_estimates_that_were_not_accepted_or_are_broken_change_nothing(bench: Any, smoothed: list[Any]) -> None:
    node = bench.add(PoseSmoothingNode)
    say_start(bench)
    bench.until(lambda: node.given is not None)
    say_pose(bench, 5.0)
    say_estimate(bench, 5.0, status="REJECTED")
    broken = convert.estimate_to_msg(Estimate(Rigid(TRUTH), SHARP, TRUTH[:3, 3]), 5.0, "world", "ct", "ACCEPTED")
    broken.pose.pose.position.y = math.nan
    bench.say("registration/estimate", broken)
    bench.until(lambda: node.diagnostics.drops.get("GeometryError") == 1)
    say_pose(bench, 5.1)
    bench.until(lambda: len(smoothed) == 2)
    assert translation_mm(smoothed[-1]) == pytest.approx(BEGIN[:3, 3].tolist(), abs=1e-6)


def test_the_lagged_pose_comes_with_the_stamps_of_the_frames(bench: Any) -> None:
    lagged = bench.hear(PoseWithCovarianceStamped, "registration/lagged")
    node = bench.add(PoseSmoothingNode, **{"filter.lag_s": 0.2})
    bench.until(lambda: node.lagged_out.get_subscription_count() == 1)
    say_start(bench)
    bench.until(lambda: node.given is not None)
    for k in range(6):
        say_pose(bench, 5.0 + 0.1 * k)
        say_estimate(bench, 5.0 + 0.1 * k)
    bench.until(lambda: len(lagged) >= 3)
    stamps = [convert.stamp_to_s(m.header.stamp) for m in lagged]
    assert stamps == pytest.approx([5.0 + 0.1 * k for k in range(len(stamps))])
    assert translation_mm(lagged[2]) == pytest.approx(TRUTH[:3, 3].tolist(), abs=0.3)


def test_the_breath_is_published_while_one_is_followed_and_somebody_listens(
    bench: Any, smoothed: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    node = bench.add(PoseSmoothingNode)
    say_start(bench)
    bench.until(lambda: node.given is not None)
    asked: list[float] = []
    known = {5.1: Breathing(1.0, 12.0, 4.0), 5.2: None, 5.3: Breathing(1.3, 12.0, 4.0)}
    monkeypatch.setattr(node.filter, "breathing", lambda stamp_s: (asked.append(stamp_s), known[stamp_s])[1])
    say_pose(bench, 5.0)
    bench.until(lambda: len(smoothed) == 1)
    assert asked == [], "nobody listens"
    heard = bench.hear(BreathingMsg, "registration/breathing")
    bench.until(lambda: node.breathing_out.get_subscription_count() == 1)
    say_estimate(bench, 5.0)
    for stamp_s in known:
        say_pose(bench, stamp_s)
    bench.until(lambda: len(smoothed) == 4 and len(heard) == 2)
    assert [convert.stamp_to_s(m.header.stamp) for m in heard] == [5.1, 5.3]
    assert (heard[0].phase, heard[0].depth, heard[0].period) == (1.0, 0.012, 4.0)
