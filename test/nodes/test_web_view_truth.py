# SPDX-License-Identifier: Apache-2.0
"""The error that the page shows is the one that a replay reports, from the truth in the bag's file alone."""

import math
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch

pytest.importorskip("rclpy", reason="ROS 2 is not importable by this python: run through make test")
pytest.importorskip("usreg_msgs", reason="usreg_msgs is not built: run make build")
from usreg.data.session_events import FrameEvent, TruthEvent, session_frames  # noqa: E402
from usreg.data.sessions import Session, read_session  # noqa: E402
from usreg.data.types import Frame, TrackedFrame  # noqa: E402
from usreg.geometry import se3  # noqa: E402
from usreg.navigator import StepResult  # noqa: E402
from usreg.nodes.web_view_truth import Truth  # noqa: E402
from usreg.replay.build import session_geometry, session_landmarks  # noqa: E402
from usreg.replay.step import Step  # noqa: E402

NEAR = se3.exp(torch.tensor([0.5, 0.3, -0.4, 0.0, 0.01, 0.0], dtype=torch.float64))  # of the tracking
OFF = se3.exp(torch.tensor([3.0, -2.0, 1.0, 0.02, 0.0, -0.03], dtype=torch.float64))


def frames(session: Session, count: int) -> list[tuple[Frame, dict[tuple[str, str], torch.Tensor]]]:
    """The first frames with what is true at their stamps."""

    def all_of_them():
        truth = {}
        for event in session_frames(session, session_geometry(session)):
            if isinstance(event, TruthEvent):
                truth[event.parent, event.child] = event.parent_T_child
            elif isinstance(event, FrameEvent):
                yield event.frame, dict(truth)

    return list(islice(all_of_them(), count))


@pytest.mark.parametrize("name", ["phantom", "volunteer"])
@pytest.mark.parametrize("with_landmarks", [True, False])
def test_the_error_is_that_of_a_replay(top: Path, name: str, with_landmarks: bool) -> None:
    session = read_session(top / "bags" / name)
    truth, points = Truth(session), session_landmarks(session)
    assert truth and (points is None) == (not truth.landmarks)
    if not with_landmarks:
        truth._points = points = None
    for frame, known in frames(session, 8)[2:]:
        tracked = TrackedFrame(frame, NEAR @ se3.check_rigid(known["world", "us_image"], "image"))
        step = Step(StepResult(frame, tracked=tracked), session.config.frames, known, landmarks=points)
        shown = OFF @ se3.check_rigid(known["world", "ct"], "ct")
        expected = step.error_mm(shown) if points is None else step.landmark_mm(shown)
        assert 0.5 < expected < 30.0
        assert truth.tre_mm(frame, tracked.world_T_image, shown) == pytest.approx(expected, rel=1e-6)


def test_nothing_is_claimed_where_nobody_knows(top: Path) -> None:
    session = read_session(top / "bags" / "phantom")
    truth, ((frame, known), *_) = Truth(session), frames(session, 1)
    pose = se3.check_rigid(known["world", "ct"], "ct")
    assert math.isnan(truth.tre_mm(frame, None, None))
    early = Frame(frame.image, frame.geometry, frame.stamp_s - 100.0)
    assert math.isnan(truth.tre_mm(early, pose, pose))
    truth._points = None
    assert math.isnan(truth.tre_mm(frame, None, pose))


def test_a_bag_without_truth_has_none(top: Path) -> None:
    session = read_session(top / "bags" / "phantom")
    topics = replace(session.config.topics, truth="/nowhere")
    assert not Truth(Session(session.folder, replace(session.config, topics=topics, landmarks="")))
