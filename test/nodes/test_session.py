# SPDX-License-Identifier: Apache-2.0
"""The phantom through the real nodes over the real middleware: the Navigator's poses, and a killed node.

Each run is a `usreg run` of its own, on a private domain, over the first seconds of the session that ships; the depth
changes within them.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("rclpy", reason="ROS 2 is not importable by this python: run through make test")
pytest.importorskip("usreg_msgs", reason="usreg_msgs is not built: run make build")
from usreg.data.bag_poses import RegistrationRecord, decode_registration, decode_stamped_pose  # noqa: E402
from usreg.data.bags import BagReader  # noqa: E402
from usreg.data.sessions import Session, read_session  # noqa: E402
from usreg.evaluation import tre_mm  # noqa: E402
from usreg.geometry import se3  # noqa: E402
from usreg.navigator import StepResult  # noqa: E402
from usreg.replay import build_navigator, fixed_threads, run_session  # noqa: E402

PATIENCE_S = 100.0


@pytest.fixture(scope="module")
def session(depth_change_session: Any) -> Session:
    """The first 4 s of the phantom session with a change of depth in them: some 50 frames."""
    return read_session(depth_change_session.folder)


@pytest.fixture(scope="module")
def expected(session: Session) -> dict[float, StepResult]:
    """What the Navigator says of every frame."""
    with fixed_threads():
        navigator, feed = build_navigator(session)
        return {step.stamp_s: step.result for step in run_session(session, navigator, feed)}


def start(session: Session, recording: Path, offset: int, *options: str) -> subprocess.Popen[str]:
    """`usreg run replay` in a session of its own."""
    code = "from usreg.cli import main; main()"
    command = [sys.executable, "-c", code, "run", "replay", "view:=false", "--bag", str(session.folder)]
    environment = os.environ | {"ROS_DOMAIN_ID": str(1 + (int(os.environ["ROS_DOMAIN_ID"]) + 40 + offset) % 101)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(
        [*command, "--record", str(recording), *options], env=environment, start_new_session=True, **pipes
    )


def finish(run: subprocess.Popen[str]) -> str:
    """Wait for the end; what it said."""
    try:
        said, _ = run.communicate(timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        run.send_signal(signal.SIGINT)
        said, _ = run.communicate(timeout=30)
        pytest.fail(f"the run did not end:\n{said}")
    return said


def recorded(recording: Path, topic: str, decode: Callable[[Any], Any]) -> list[Any]:
    with BagReader(recording) as bag:
        assert not bag.truncated and not bag.problems
        return [decode(message) for _, _, message in bag.messages([topic])]


TOLERANCE_MM = (
    0.01  # at which the climb ends: where the optimum is flat, the rounding of metres is drawn out to a part of it
)


def test_in_lockstep_the_nodes_give_the_navigators_poses(
    session: Session, expected: dict[float, StepResult], tmp_path: Path
) -> None:
    said = finish(start(session, tmp_path / "rec", 0, "--step", "--rate", "20"))
    estimates = recorded(tmp_path / "rec", "/registration/estimate", decode_registration)
    assert [r.stamp_s for r in estimates] == sorted(expected), said
    for record in estimates:
        assert_same(record, expected[record.stamp_s], TOLERANCE_MM)
    assert len({expected[r.stamp_s].frame.image.shape for r in estimates}) == 2, "both depths"
    smoothed = recorded(tmp_path / "rec", "/registration/smoothed", decode_stamped_pose)
    assert len(smoothed) >= 0.9 * len(expected)


def assert_same(record: RegistrationRecord, result: StepResult, limit_mm: float) -> None:
    """Tracking, estimate and its judgement are those of the library."""
    assert result.tracked is not None and result.estimate is not None
    assert torch.allclose(record.world_T_image, result.tracked.world_T_image, atol=1e-6)
    assert (record.status == "ACCEPTED") == result.estimate.accepted
    assert record.estimate.score == pytest.approx(result.estimate.score, abs=1e-3)
    found, wanted = (se3.inverse(e.world_T_ct) @ record.world_T_image for e in (record.estimate, result.estimate))
    assert tre_mm(found, wanted, result.frame.geometry) < limit_mm


def test_a_killed_node_is_started_again_and_the_others_go_on(
    session: Session, expected: dict[float, StepResult], tmp_path: Path
) -> None:
    """In real time; what was registered while fusion was dead agrees with the Navigator all the same."""
    run = start(session, tmp_path / "rec", 1, "--processes", "many", "--rate", "0.5")
    wait_for_frames(tmp_path / "rec", run)
    os.kill(child(run.pid, "usreg.nodes.fusion"), signal.SIGKILL)
    said = finish(run)
    assert run.returncode == 0, said
    assert "fusion has ended with -9" in said and "started again" in said
    estimates = recorded(tmp_path / "rec", "/registration/estimate", decode_registration)
    assert len(estimates) >= 0.8 * len(expected), said
    assert estimates[-1].stamp_s >= sorted(expected)[-3]
    accepted = [r for r in estimates[5:] if r.status == "ACCEPTED"]
    assert len(accepted) >= 0.7 * len(expected)
    for record in accepted:
        assert_same(record, expected[record.stamp_s], 0.1)


def wait_for_frames(recording: Path, run: subprocess.Popen[str]) -> None:
    """Until the bag being recorded holds frames: the graph is at work."""
    end = time.monotonic() + PATIENCE_S
    file = recording / f"{recording.name}_0.mcap"
    while not (file.exists() and file.stat().st_size > 300_000):
        assert run.poll() is None and time.monotonic() < end, "the graph did not begin"
        time.sleep(0.1)


def child(pid: int, word: str) -> int:
    """The child of a process whose command holds a word."""
    for other in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split():
        if word in Path(f"/proc/{other}/cmdline").read_text(encoding="utf-8"):
            return int(other)
    raise AssertionError(f"no child of {pid} runs {word}")
