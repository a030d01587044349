# SPDX-License-Identifier: Apache-2.0
"""A change of depth in mid-session: frames before and after it get the poses that are right for them."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from usreg.data.calibration import write_calibration
from usreg.data.session_events import TransformEvent
from usreg.data.sessions import Session, read_session
from usreg.data.types import Calibration
from usreg.geometry import se3
from usreg.replay import build_navigator, run_session
from usreg.replay.build import session_calibrations
from usreg.replay.feed import TransformFeed


@pytest.fixture(scope="module", params=["statics", "calibration file"])
def session(request: pytest.FixtureRequest, depth_change_session: Any) -> Session:
    """The image's place in the probe is told by the bag, or by a file for the first geometry alone."""
    made = read_session(depth_change_session.folder)
    if request.param == "statics":
        return made
    geometry = depth_change_session.geometry
    calibration = Calibration(depth_change_session.probe_T_image, geometry.pixel_to_mm, geometry)
    write_calibration(calibration, made.folder / "calibration.yaml")
    return replace(made, config=replace(made.config, calibration="calibration.yaml"))


def test_the_navigator_places_frames_before_and_after_it(session: Session, depth_change_session: Any) -> None:
    navigator, feed = build_navigator(session)
    before, after = [], []
    for step in run_session(session, navigator, feed):
        world_T_probe, _ = feed.at(step.stamp_s)  # the arm's pose is not in question, where the image lies on it is
        expected = world_T_probe @ depth_change_session.probe_T_image_at(step.stamp_s)
        assert step.result.tracked is not None, step.result.reason
        assert (step.result.tracked.world_T_image - expected).abs().max() < 1e-6
        assert step.result.status == "TRACKING"
        (before if step.stamp_s < depth_change_session.change_s else after).append(step)
    assert len(before) > 12 and len(after) > 12
    # the session begins with a view that shows little but liver; a wrong static would put later frames 10 mm off
    assert all(s.error_mm(s.smoothed) < 2.0 for s in before[11:] + after)
    assert after[0].stamp_s - before[-1].stamp_s > 0.3
    sizes = {tuple(s.result.frame.image.shape) for s in before}, {tuple(s.result.frame.image.shape) for s in after}
    assert sizes[0].isdisjoint(sizes[1])


def test_without_the_second_static_the_frames_after_it_would_be_off(depth_change_session: Any) -> None:
    """So the test above can fail."""
    session = read_session(depth_change_session.folder)
    (_, first), (since_s, second) = session_calibrations(session)
    assert since_s == pytest.approx(depth_change_session.change_s, abs=1e-6)
    assert (second.probe_T_image - first.probe_T_image)[:3, 3].norm() > 3.0


def test_statics_of_the_chain_hold_from_their_stamps() -> None:
    def pose(x: float) -> torch.Tensor:
        return se3.translation(torch.tensor([x, 0.0, 0.0], dtype=torch.float64))

    feed = TransformFeed("world", "us_probe")
    for stamp_s in (1.0, 1.05, 1.1):
        feed.take(TransformEvent(stamp_s, "world", "tool", pose(stamp_s)))
    feed.take(TransformEvent(1.07, "tool", "us_probe", pose(30.0), True))
    feed.take(TransformEvent(1.02, "tool", "us_probe", pose(20.0), True))
    found = [feed.at(s)[0][0, 3].item() - s for s in (1.0, 1.02, 1.0699, 1.07, 1.1)]
    assert found == pytest.approx([20.0, 20.0, 20.0, 30.0, 30.0])
