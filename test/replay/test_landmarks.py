# SPDX-License-Identifier: Apache-2.0
"""What a replay says of errors at a session's landmarks."""

import json
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from usreg.data.bag_poses import RegistrationRecord, encode_registration, encode_stamped_pose
from usreg.data.bags import BagWriter
from usreg.data.landmarks import write_landmarks
from usreg.data.sessions import Session, read_session
from usreg.errors import ConfigError
from usreg.geometry import se3
from usreg.replay import ReplayConfig, build_navigator, run_session
from usreg.replay.build import session_filter, session_landmarks
from usreg.replay.recorded import report_recording
from usreg.replay.report import Collector
from usreg.smoothing import FilterConfig

POINTS = {"portal_1": [10.0, 20.0, 30.0], "hepatic_2": [-40.0, 5.0, 0.0], "gallbladder": [500.0, 0.0, 0.0]}


@pytest.fixture
def session(depth_change_session: Any) -> Session:
    made = read_session(depth_change_session.folder)
    write_landmarks(made.folder / "landmarks.yaml", {k: torch.tensor(v) for k, v in POINTS.items()})
    return replace(made, config=replace(made.config, landmarks="landmarks.yaml"))


def by_hand(world_T_ct: torch.Tensor, truth: torch.Tensor) -> float:
    points = torch.tensor([POINTS["portal_1"], POINTS["hepatic_2"]], dtype=torch.float64)
    return (se3.transform_points(world_T_ct, points) - se3.transform_points(truth, points)).norm(dim=-1).mean().item()


def test_rows_and_summary_hold_the_errors_at_the_bifurcations(session: Session) -> None:
    navigator, feed = build_navigator(session)
    steps = list(islice(run_session(session, navigator, feed), 5))
    collector = Collector(5, 0)
    for step in steps:
        collector.take(step)
        assert step.true_world_T_ct is not None and step.result.estimate is not None
        expected = by_hand(step.result.estimate.world_T_ct, step.true_world_T_ct)
        assert step.row().landmark_tre_mm == pytest.approx(expected)
    summary, shown = (collector.content("t", "world", "ct")["result"][k] for k in ("summary", "shown"))
    smoothed = [by_hand(s.smoothed, s.true_world_T_ct) for s in steps]
    assert shown["smoothed"]["landmark_tre_mm"] == pytest.approx(smoothed, rel=1e-6)
    assert summary["smoothed_landmark_tre_mm"]["mean"] == pytest.approx(sum(smoothed) / 5, rel=1e-6)
    assert summary["smoothed_landmark_tre_mm"]["max"] == pytest.approx(max(smoothed), rel=1e-6)
    assert summary["output_share"] == 1.0 and summary["gross_among_accepted"] == 0
    assert 0 < summary["landmark_tre_mm"]["mean"] < 10.0


def test_the_report_of_a_running_graph_holds_them_too(session: Session, tmp_path: Path) -> None:
    """From what the nodes would have recorded of three frames."""
    navigator, feed = build_navigator(session)
    steps = list(islice(run_session(session, navigator, feed), 3))
    with BagWriter(tmp_path / "recording") as bag:
        for step in steps:
            r, ns = step.result, round(step.stamp_s * 1e9)
            assert r.tracked is not None and r.estimate is not None and r.prediction is not None
            record = RegistrationRecord(step.stamp_s, r.estimate, "ACCEPTED", r.tracked.world_T_image)
            bag.write("/registration/estimate", ns, encode_registration(record))
            bag.write("/us/pose", ns, encode_stamped_pose(step.stamp_s, r.tracked.world_T_image))
            bag.write("/registration/smoothed", ns, encode_stamped_pose(step.stamp_s, r.prediction.world_T_ct))
    summary = report_recording(tmp_path / "recording", session, tmp_path / "report", snapshots=0)
    result = json.loads((tmp_path / "report" / "result.json").read_text(encoding="utf-8"))
    found = [row["landmark_tre_mm"] for row in result["starts"][:3]]
    assert found == pytest.approx([s.row().landmark_tre_mm for s in steps], abs=1e-6)
    assert summary["output_share"] == pytest.approx(3 / len(result["starts"]))
    assert summary["smoothed_landmark_tre_mm"]["max"] == pytest.approx(
        max(s.landmark_mm(s.smoothed) for s in steps), abs=1e-6
    )


def test_output_is_a_registered_frame_with_a_pose(session: Session) -> None:
    navigator, feed = build_navigator(session)
    steps = list(islice(run_session(session, navigator, feed), 4))
    steps[1].result.status, steps[2].result.prediction = "REJECTED", None
    collector = Collector(4, 0)
    for step in steps:
        collector.take(step)
    assert collector.content("t", "world", "ct")["result"]["summary"]["output_share"] == 0.5


def test_without_landmarks_nothing_is_said(session: Session) -> None:
    bare = replace(session, config=replace(session.config, landmarks=""))
    assert session_landmarks(bare) is None
    navigator, feed = build_navigator(bare)
    collector = Collector(2, 0)
    for step in islice(run_session(bare, navigator, feed), 2):
        collector.take(step)
    summary = collector.content("t", "world", "ct")["result"]["summary"]
    assert "smoothed_landmark_tre_mm" not in summary and summary["landmark_tre_mm"]["mean"] is None


def test_the_session_changes_the_filter(session: Session) -> None:
    changed = replace(session, config=replace(session.config, smoothing={"model": "constant_velocity", "lag_s": 2}))
    found = session_filter(changed, FilterConfig(floor_mm=0.5))
    assert (found.model, found.lag_s, found.floor_mm) == ("constant_velocity", 2.0, 0.5)
    navigator, _ = build_navigator(changed, ReplayConfig())
    assert navigator.pose_filter.config.model == "constant_velocity"
    with pytest.raises(ConfigError, match="modl"):
        session_filter(replace(session, config=replace(session.config, smoothing={"modl": 1})), FilterConfig())
