# SPDX-License-Identifier: Apache-2.0
"""register_sweep over the real middleware: a small speckled volume, frames cut from it, feedback, cancel, refusals."""

import math
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

pytest.importorskip("rclpy", reason="ROS 2 is not importable by this python: run through make test")
pytest.importorskip("usreg_msgs", reason="usreg_msgs is not built: run make build")
from action_msgs.msg import GoalStatus  # noqa: E402
from rclpy.action import ActionClient  # noqa: E402
from std_srvs.srv import SetBool  # noqa: E402
from usreg_msgs.action import RegisterSweep  # noqa: E402
from usreg_msgs.msg import Hypotheses, Registration  # noqa: E402

from usreg.data.types import Volume, start_estimate  # noqa: E402
from usreg.data.volumes import write_volume  # noqa: E402
from usreg.geometry import se3  # noqa: E402
from usreg.geometry.grid import VoxelGrid  # noqa: E402
from usreg.geometry.plane import PlaneGrid  # noqa: E402
from usreg.geometry.sector import full_rectangle  # noqa: E402
from usreg.nodes import convert, sweep_registration  # noqa: E402
from usreg.nodes.pose_smoothing import PoseSmoothingNode  # noqa: E402
from usreg.nodes.registration import RegistrationNode  # noqa: E402
from usreg.registration.registrar import Registrar  # noqa: E402
from usreg.rendering import slice_volume  # noqa: E402

GEOMETRY = full_rectangle(PlaneGrid(40, 44, ((0.8, 0.0), (0.0, 0.8))))
TRUTH = se3.exp(torch.tensor([30.0, -20.0, 10.0, 0.1, 0.2, 0.3], dtype=torch.float64))
BEGIN = se3.exp(torch.tensor([1.5, -1.0, 1.0, 0.0, 0.0, 0.02], dtype=torch.float64)) @ TRUTH
WIDE = torch.diag(torch.tensor([9.0] * 3 + [0.001] * 3, dtype=torch.float64))
SHARP = torch.diag(torch.tensor([1e-4] * 3 + [1e-8] * 3, dtype=torch.float64))
OPTIONS = (
    "{levels: [{sigma_mm: 2.0, step_mm: 2.0}, {sigma_mm: 1.0, step_mm: 1.6}], structure_level: 0, spread: {count: 0}}"
)


@pytest.fixture(scope="module")
def volume() -> Volume:
    """44^3 voxels of 1 mm: speckle over tissue."""
    rng = np.random.default_rng(7)
    fine, coarse = (gaussian_filter(rng.standard_normal((44, 44, 44)), s) for s in (1.2, 4.0))
    data = np.clip(128 + 25 * fine / fine.std() + 25 * coarse / coarse.std(), 0, 255).astype(np.uint8)
    return Volume(torch.from_numpy(data)[None], VoxelGrid((44, 44, 44), (1.0, 1.0, 1.0), (-5.0, 3.0, 2.0)), "US")


@pytest.fixture(scope="module")
def path(volume: Volume, tmp_path_factory: pytest.TempPathFactory) -> str:
    where: Path = tmp_path_factory.mktemp("volume") / "volume.nii.gz"
    write_volume(volume, where)
    return str(where)


def show(bench: Any, volume: Volume, number: int) -> None:
    """Publish one frame of the sweep, cut from the volume where it truly lies."""
    middle = se3.translation(volume.grid.centre_ct)
    tilt = torch.tensor([0.0, 0.0, -8.0 + 2.0 * (number % 9), 0.02 * number, 0.05 * (number % 3), 0.0])
    ct_T_image = middle @ se3.exp(tilt.double()) @ se3.translation(-GEOMETRY.plane.centre_mm)
    image, _ = slice_volume(volume, ct_T_image, GEOMETRY.plane)
    stamp_s = 5.0 + 0.1 * number
    bench.say("us/image", convert.image_to_msg(image[0, 0].round().to(torch.uint8), stamp_s, "us_image"))
    bench.say("us/geometry", convert.geometry_to_msg(GEOMETRY, stamp_s, "us_image"))
    bench.say("us/pose", convert.stamped_pose_to_msg(TRUTH @ ct_T_image, SHARP, stamp_s, "world"))


class Client:
    """Sends goals and keeps what comes back."""

    def __init__(self, bench: Any) -> None:
        self.bench, self.feedback = bench, []
        self.client = ActionClient(bench.probe, RegisterSweep, "register_sweep")
        bench.until(self.client.server_is_ready)

    def send(self, **goal: Any) -> Any:
        """A goal's handle; `accepted` says whether it was taken."""
        future = self.client.send_goal_async(RegisterSweep.Goal(**goal), lambda m: self.feedback.append(m.feedback))
        self.bench.until(future.done)
        return future.result()

    def result(self, handle: Any, seconds: float = 20.0) -> tuple[int, Any]:
        """Status and result."""
        future = handle.get_result_async()
        self.bench.until(future.done, seconds)
        return future.result().status, future.result().result

    def cancel(self, handle: Any) -> None:
        future = handle.cancel_goal_async()
        self.bench.until(future.done)

    def frames_heard(self, count: int) -> bool:
        return bool(self.feedback) and self.feedback[-1].frames >= count


@pytest.fixture
def node(bench: Any, path: str) -> RegistrationNode:
    return bench.add(RegistrationNode, volume=path, options=OPTIONS, sweep__goal__feedback_s=0.05)


@pytest.fixture
def client(bench: Any, node: RegistrationNode) -> Any:
    made = Client(bench)
    yield made
    made.client.destroy()


def given() -> dict[str, Any]:
    return {"use_initial_pose": True, "initial_pose": convert.stamped_pose_to_msg(BEGIN, WIDE, 0.0, "world")}


def collect(bench: Any, client: Client, volume: Volume, count: int) -> None:
    """Show frames one by one, each when the one before was counted."""
    for k in range(count):
        show(bench, volume, k)
        if k + 1 < count:
            bench.until(lambda k=k: client.frames_heard(k + 1))


def test_a_sweep_is_registered_and_both_nodes_begin_from_it(
    bench: Any, node: RegistrationNode, client: Client, volume: Volume
) -> None:
    smoother = bench.add(PoseSmoothingNode)
    heard = bench.hear(Hypotheses, "registration/hypotheses", "latched")
    handle = client.send(frames=5, max_keyframes=3, **given())
    assert handle.accepted
    collect(bench, client, volume, 5)
    status, result = client.result(handle)
    assert status == GoalStatus.STATUS_SUCCEEDED and result.success, result.message
    assert (result.frames, result.keyframes) == (5, 3)
    record = convert.decode_registration(result.registration)
    assert record.stamp_s == pytest.approx(5.4) and record.status == "ACCEPTED"
    apart = se3.log(se3.inverse(TRUTH) @ record.estimate.world_T_ct)
    assert apart[:3].norm() < 0.3 and apart[3:].norm() < 0.01
    seen = [f.frames for f in client.feedback]
    assert seen == sorted(seen) and client.feedback[0].stage == RegisterSweep.Feedback.STAGE_COLLECTING
    bench.until(lambda: bool(heard) and smoother.given is not None)
    assert [h.hypothesis_rank for h in heard[-1].hypotheses] == [0]
    assert torch.allclose(smoother.given.estimate.world_T_ct, record.estimate.world_T_ct, atol=1e-6)
    assert torch.allclose(node.start_pose.world_T_ct, record.estimate.world_T_ct, atol=1e-6)
    estimates = bench.hear(Registration, "registration/estimate")
    bench.spin(0.1)
    show(bench, volume, 5)
    bench.until(lambda: bool(estimates))
    assert estimates[0].status == Registration.STATUS_ACCEPTED, estimates[0].reason


def test_a_global_search_tells_its_hypotheses_and_the_best_is_taken(
    bench: Any, node: RegistrationNode, client: Client, volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = se3.translation(torch.tensor([30.0, 0.0, 0.0], dtype=torch.float64)) @ TRUTH
    starts = [start_estimate(pose, volume, WIDE) for pose in (wrong, BEGIN)]
    monkeypatch.setattr(sweep_registration, "find_starts", lambda frames, searched, progress: starts)
    smoother = bench.add(PoseSmoothingNode)
    heard = bench.hear(Hypotheses, "registration/hypotheses", "recorder_latched")
    handle = client.send(frames=3, use_global_start=True)
    collect(bench, client, volume, 3)
    status, result = client.result(handle)
    assert status == GoalStatus.STATUS_SUCCEEDED and result.success, result.message
    assert [h.hypothesis_rank for h in result.hypotheses] == [0, 1]
    bench.until(lambda: len(heard) == 2 and smoother.given is not None)
    searched, taken = (m.hypotheses for m in heard)
    assert [h.hypothesis_rank for h in searched] == [0, 1] and [h.hypothesis_rank for h in taken] == [0, 1, 2]
    used = [h.status == Registration.STATUS_ACCEPTED for h in (*searched, *taken)]
    assert used == [False, False, True, False, False]
    apart = se3.log(se3.inverse(TRUTH) @ smoother.given.estimate.world_T_ct)
    assert apart[:3].norm() < 0.5


def test_a_goal_may_end_by_its_duration(bench: Any, client: Client, volume: Volume) -> None:
    handle = client.send(duration=0.15, **given())
    collect(bench, client, volume, 3)
    _, result = client.result(handle)
    assert result.frames == 3 and result.success, result.message


def test_cancelled_while_collecting(bench: Any, node: RegistrationNode, client: Client, volume: Volume) -> None:
    handle = client.send(frames=5, **given())
    show(bench, volume, 0)
    bench.until(lambda: client.frames_heard(1))
    client.cancel(handle)
    status, result = client.result(handle)
    assert (status, result.success, result.message) == (GoalStatus.STATUS_CANCELED, False, "cancelled")
    assert node.start_pose is None
    assert client.send(frames=1, **given()).accepted


def test_cancelled_while_registering(
    bench: Any, node: RegistrationNode, client: Client, volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, begun, real = threading.Event(), threading.Event(), Registrar.__call__

    def slow(self: Registrar, *arguments: Any) -> Any:
        begun.set()
        gate.wait(20)
        return real(self, *arguments)

    monkeypatch.setattr(Registrar, "__call__", slow)
    handle = client.send(frames=2, **given())
    collect(bench, client, volume, 2)
    bench.until(begun.is_set)
    told = len(client.feedback)
    bench.until(lambda: len(client.feedback) > told + 3)  # the executor goes on while the worker is busy
    assert client.feedback[-1].stage == RegisterSweep.Feedback.STAGE_REGISTERING
    client.cancel(handle)
    status, result = client.result(handle)
    assert status == GoalStatus.STATUS_CANCELED and not result.success
    gate.set()
    assert node.worker is not None and node.worker.idle(20)
    bench.spin(0.1)
    assert node.start_pose is None


@pytest.mark.parametrize(
    "goal",
    [
        {},
        {"duration": -1.0},
        {"duration": math.nan},
        {"frames": 2, "use_initial_pose": True},
        {"frames": 2, "use_global_start": True, **given()},
    ],
)
def test_goals_that_cannot_be_served_are_rejected(bench: Any, client: Client, goal: dict[str, Any]) -> None:
    assert not client.send(**goal).accepted


def test_one_goal_at_a_time(bench: Any, client: Client) -> None:
    assert client.send(frames=2, **given()).accepted
    assert not client.send(frames=2, **given()).accepted


def test_without_a_volume_no_goal_is_taken(bench: Any) -> None:
    bench.add(RegistrationNode, options=OPTIONS)
    client = Client(bench)
    assert not client.send(frames=2, **given()).accepted
    client.client.destroy()


def test_a_goal_without_frames_is_given_up(bench: Any, path: str) -> None:
    bench.add(RegistrationNode, volume=path, options=OPTIONS, sweep__goal__patience_s=0.3)
    client = Client(bench)
    status, result = client.result(client.send(frames=2, **given()))
    assert status == GoalStatus.STATUS_ABORTED and "no tracked frame" in result.message
    client.client.destroy()


def test_a_refused_sweep_changes_no_start(bench: Any, node: RegistrationNode, client: Client, volume: Volume) -> None:
    assert bench.call(SetBool, "registration/accept", SetBool.Request(data=False)).success
    heard = bench.hear(Hypotheses, "registration/hypotheses", "latched")
    handle = client.send(frames=2, **given())
    collect(bench, client, volume, 2)
    status, result = client.result(handle)
    assert status == GoalStatus.STATUS_SUCCEEDED and not result.success and "registration/accept" in result.message
    assert result.registration.status == Registration.STATUS_REJECTED
    assert node.start_pose is None and heard == []


def test_without_any_start_the_goal_says_what_to_do(bench: Any, client: Client, volume: Volume) -> None:
    handle = client.send(frames=2)
    collect(bench, client, volume, 2)
    status, result = client.result(handle)
    assert status == GoalStatus.STATUS_ABORTED and "registration/initialize" in result.message
    assert result.registration.status == Registration.STATUS_LOST


def test_a_deactivated_node_gives_its_goal_up(bench: Any, node: RegistrationNode, client: Client) -> None:
    handle = client.send(frames=2, **given())
    node.trigger_deactivate()
    status, result = client.result(handle)
    assert status == GoalStatus.STATUS_ABORTED and "deactivated" in result.message
    assert not client.send(frames=2, **given()).accepted
