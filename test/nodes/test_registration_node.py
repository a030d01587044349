# SPDX-License-Identifier: Apache-2.0
"""registration: starts, statuses, services, the newest frame, time jumps, lifecycle. The system is a stub."""

import math
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("rclpy", reason="ROS 2 is not importable by this python: run through make test")
pytest.importorskip("usreg_msgs", reason="usreg_msgs is not built: run make build")
from geometry_msgs.msg import PoseWithCovarianceStamped  # noqa: E402
from rosgraph_msgs.msg import Clock  # noqa: E402
from std_srvs.srv import SetBool, Trigger  # noqa: E402
from usreg_msgs.msg import Hypotheses, Registration, VolumeInfo  # noqa: E402
from usreg_msgs.srv import Initialize, LoadVolume  # noqa: E402

from usreg import systems  # noqa: E402
from usreg.data.types import Estimate, Problem, Rigid, Volume  # noqa: E402
from usreg.data.volumes import write_volume  # noqa: E402
from usreg.errors import ConfigError, NoOverlapError  # noqa: E402
from usreg.geometry import se3  # noqa: E402
from usreg.geometry.grid import VoxelGrid  # noqa: E402
from usreg.geometry.plane import PlaneGrid  # noqa: E402
from usreg.geometry.sector import full_rectangle  # noqa: E402
from usreg.nodes import convert  # noqa: E402
from usreg.nodes.pose_smoothing import PoseSmoothingNode  # noqa: E402
from usreg.nodes.registration import RegistrationNode  # noqa: E402

GEOMETRY = full_rectangle(PlaneGrid(16, 20, ((0.5, 0.0), (0.0, 0.5))))
TRUTH = se3.exp(torch.tensor([30.0, -20.0, 10.0, 0.1, 0.2, 0.3], dtype=torch.float64))
BEGIN = se3.translation(torch.tensor([2.0, 1.0, 0.0], dtype=torch.float64)) @ TRUTH
WIDE = torch.diag(torch.tensor([4.0] * 3 + [0.001] * 3, dtype=torch.float64))
SHARP = torch.diag(torch.tensor([0.04] * 3 + [1e-5] * 3, dtype=torch.float64))
WORLD_T_IMAGE = se3.exp(torch.tensor([50.0, 0.0, 0.0, 0.0, 0.0, 0.5], dtype=torch.float64))


class Stub:
    """A registrar that finds the truth, or does what a test tells it."""

    def __init__(self) -> None:
        self.prepared: list[Volume] = []
        self.starts: list[Estimate] = []
        self.stamps: list[float] = []
        self.resets = 0
        self.action: Callable[[Estimate], Estimate] = lambda estimate: estimate

    def prepare(self, volume: Volume) -> None:
        self.prepared.append(volume)

    def reset(self) -> None:
        self.resets += 1

    def __call__(self, problem: Problem) -> Estimate:
        self.starts.append(problem.start)
        self.stamps.append(problem.fixed[0].frame.stamp_s)
        pivot = se3.transform_points(TRUTH, problem.moving.grid.centre_ct[None])[0]
        found = Estimate(Rigid(TRUTH), SHARP, pivot, 0.9, 0.95, True, system="stub", compute_s=0.01)
        return self.action(found)


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Stub:
    made = Stub()
    monkeypatch.setattr(systems, "build", lambda name, options, modality: made)
    return made


@pytest.fixture
def volume(tmp_path: Path) -> str:
    grid = VoxelGrid((12, 10, 8), (1.0, 1.0, 1.0), (-5.0, 3.0, 2.0))
    data = torch.arange(960).remainder(255).to(torch.uint8).reshape(1, 8, 10, 12)
    write_volume(Volume(data, grid, "US"), tmp_path / "volume.nii.gz")
    return str(tmp_path / "volume.nii.gz")


def known(pose: torch.Tensor = BEGIN) -> dict[str, Any]:
    return {"initial__world_T_ct": pose.flatten().tolist(), "initial__covariance": WIDE.flatten().tolist()}


def frame(bench: Any, stamp_s: float, pose: torch.Tensor = WORLD_T_IMAGE) -> None:
    image = torch.full((16, 20), 9, dtype=torch.uint8)
    bench.say("us/image", convert.image_to_msg(image, stamp_s, "us_image"))
    bench.say("us/geometry", convert.geometry_to_msg(GEOMETRY, stamp_s, "us_image"))
    bench.say("us/pose", convert.stamped_pose_to_msg(pose, SHARP, stamp_s, "world"))


def translation_mm(message: Any) -> list[float]:
    p = message.pose.pose.position
    return [1000 * p.x, 1000 * p.y, 1000 * p.z]


@pytest.fixture
def estimates(bench: Any) -> list[Any]:
    return bench.hear(Registration, "registration/estimate")


@pytest.fixture
def accepted(bench: Any) -> list[Any]:
    return bench.hear(PoseWithCovarianceStamped, "registration/pose")


@pytest.fixture
def smoothed(bench: Any) -> list[Any]:
    return bench.hear(PoseWithCovarianceStamped, "registration/smoothed")


def test_a_frame_is_registered_from_the_given_start(
    bench: Any, stub: Stub, volume: str, estimates: list[Any], accepted: list[Any]
) -> None:
    bench.add(RegistrationNode, volume=volume, **known())
    frame(bench, 5.0)
    bench.until(lambda: estimates and accepted)
    assert torch.allclose(stub.starts[0].world_T_ct, BEGIN, atol=1e-9)
    assert not stub.starts[0].accepted
    record = convert.decode_registration(estimates[0])
    assert (record.stamp_s, record.status, record.world, record.child) == (5.0, "ACCEPTED", "world", "ct")
    assert torch.allclose(record.estimate.world_T_ct, TRUTH, atol=1e-9)
    assert torch.allclose(record.estimate.covariance, SHARP, rtol=1e-5, atol=1e-9)
    assert torch.allclose(record.world_T_image, WORLD_T_IMAGE, atol=1e-9)
    assert translation_mm(accepted[0]) == pytest.approx(TRUTH[:3, 3].tolist())
    assert accepted[0].header == estimates[0].header


def test_the_next_frame_is_searched_from_the_filters_state(
    bench: Any, stub: Stub, volume: str, estimates: list[Any]
) -> None:
    bench.add(RegistrationNode, volume=volume, **known())
    frame(bench, 5.0)
    bench.until(lambda: len(estimates) == 1)
    frame(bench, 5.1)
    bench.until(lambda: len(estimates) == 2)
    before, after = ((s.world_T_ct - TRUTH)[:3, 3].norm().item() for s in stub.starts)
    assert before == pytest.approx(5**0.5, rel=0.2)
    assert after < 0.1


def test_without_start_or_volume_the_status_says_what_to_do(
    bench: Any, stub: Stub, volume: str, estimates: list[Any], accepted: list[Any]
) -> None:
    bench.add(RegistrationNode, volume=volume)
    frame(bench, 5.0)
    bench.until(lambda: len(estimates) == 1)
    assert (estimates[0].status, accepted) == (Registration.STATUS_LOST, [])
    assert "registration/initialize" in estimates[0].reason
    assert math.isnan(estimates[0].pose.pose.position.x)


def test_results_that_are_not_accepted_carry_status_and_reason(
    bench: Any, stub: Stub, volume: str, estimates: list[Any], accepted: list[Any]
) -> None:
    def outside(estimate: Estimate) -> Estimate:
        raise NoOverlapError("the frame lies outside the volume")

    actions = [(lambda e: e.refused("score 0.1 below 0.5"), "REJECTED"), (outside, "NO_OVERLAP")]
    bench.add(RegistrationNode, volume=volume, **known())
    for k, (action, status) in enumerate(actions):
        stub.action = action
        frame(bench, 5.0 + k)
        bench.until(lambda k=k: len(estimates) == k + 1)
        assert estimates[k].status == getattr(Registration, f"STATUS_{status}")
        assert estimates[k].reason
    assert accepted == []


@pytest.mark.parametrize("break_it", ["pose", "geometry", "image"])
def test_bad_input_is_counted_and_the_next_frame_is_registered(
    bench: Any, stub: Stub, volume: str, estimates: list[Any], break_it: str
) -> None:
    node = bench.add(RegistrationNode, volume=volume, **known())
    pose = convert.stamped_pose_to_msg(WORLD_T_IMAGE, SHARP, 5.0, "world")
    geometry = convert.geometry_to_msg(GEOMETRY, 5.0, "us_image")
    image = convert.image_to_msg(torch.zeros(16, 20, dtype=torch.uint8), 5.0, "us_image")
    if break_it == "pose":
        pose.pose.pose.position.x = math.nan
    elif break_it == "geometry":
        geometry.clip[0] = math.inf
    else:
        image.width = 19
    for topic, message in (("us/image", image), ("us/geometry", geometry), ("us/pose", pose)):
        bench.say(topic, message)
    bench.until(lambda: sum(node.diagnostics.drops.values()) == 1)
    frame(bench, 5.1)
    bench.until(lambda: len(estimates) == 1)
    assert convert.stamp_to_s(estimates[0].header.stamp) == 5.1


def test_the_newest_frame_wins_and_the_executor_never_waits(
    bench: Any, stub: Stub, volume: str, estimates: list[Any]
) -> None:
    gate = threading.Event()

    def slow(estimate: Estimate) -> Estimate:
        gate.wait(20)
        return estimate

    stub.action = slow
    node = bench.add(RegistrationNode, volume=volume, **known())
    frame(bench, 5.0)
    bench.until(lambda: bool(stub.stamps))
    for k in range(1, 5):
        frame(bench, 5.0 + 0.1 * k)
        bench.spin(0.1)
    answer = bench.call(SetBool, "registration/accept", SetBool.Request(data=True))
    assert answer.success and not estimates, "a service was answered while the first frame is being registered"
    gate.set()
    bench.until(lambda: len(estimates) == 2)
    assert stub.stamps == pytest.approx([5.0, 5.4])
    assert node.diagnostics.drops == {}


def test_an_unexpected_error_is_told_and_the_node_goes_on(
    bench: Any, stub: Stub, volume: str, estimates: list[Any]
) -> None:
    def broken(estimate: Estimate) -> Estimate:
        raise ZeroDivisionError("a defect")

    stub.action = broken
    bench.add(RegistrationNode, volume=volume, **known())
    frame(bench, 5.0)
    bench.until(lambda: bool(stub.stamps))
    stub.action = lambda estimate: estimate
    bench.spin(0.1)
    frame(bench, 5.1)
    bench.until(lambda: bool(estimates))
    assert convert.stamp_to_s(estimates[-1].header.stamp) == 5.1


def test_initialize_tells_both_nodes(
    bench: Any, stub: Stub, volume: str, estimates: list[Any], smoothed: list[Any]
) -> None:
    bench.add(RegistrationNode, volume=volume)
    bench.add(PoseSmoothingNode)
    heard = bench.hear(Hypotheses, "registration/hypotheses", "latched")
    request = Initialize.Request(pose=convert.stamped_pose_to_msg(BEGIN, WIDE, 0.0, "world"))
    answer = bench.call(Initialize, "registration/initialize", request)
    assert answer.success
    bench.until(lambda: bool(heard))
    start = convert.decode_registration(heard[0].hypotheses[0])
    assert (start.rank, start.estimate.reason) == (0, "start")
    assert torch.allclose(start.estimate.world_T_ct, BEGIN, atol=1e-9)
    bench.spin(0.1)
    frame(bench, 5.0)
    bench.until(lambda: len(estimates) == 1 and len(smoothed) >= 1)
    assert torch.allclose(stub.starts[0].world_T_ct, BEGIN, atol=1e-9)
    bench.spin(0.1)
    frame(bench, 5.1)
    bench.until(lambda: len(smoothed) == 2)
    assert translation_mm(smoothed[1]) == pytest.approx(TRUTH[:3, 3].tolist(), abs=0.2)


@pytest.mark.parametrize(
    ("frame_id", "covariance", "x", "words"),
    [
        ("us_probe", WIDE, 0.0, "us_probe"),
        ("world", torch.zeros(6, 6, dtype=torch.float64), 0.0, "positive definite"),
        ("world", WIDE, math.nan, "not finite"),
    ],
)
def test_a_start_that_cannot_be_used_is_refused(
    bench: Any, stub: Stub, volume: str, frame_id: str, covariance: torch.Tensor, x: float, words: str
) -> None:
    node = bench.add(RegistrationNode, volume=volume)
    pose = convert.stamped_pose_to_msg(BEGIN, covariance, 0.0, frame_id)
    pose.pose.pose.position.x += x
    answer = bench.call(Initialize, "registration/initialize", Initialize.Request(pose=pose))
    assert not answer.success and words in answer.message
    assert node.start_pose is None


def test_acceptance_can_be_switched_off(
    bench: Any, stub: Stub, volume: str, estimates: list[Any], accepted: list[Any]
) -> None:
    bench.add(RegistrationNode, volume=volume, **known())
    assert bench.call(SetBool, "registration/accept", SetBool.Request(data=False)).success
    frame(bench, 5.0)
    bench.until(lambda: len(estimates) == 1)
    assert estimates[0].status == Registration.STATUS_REJECTED and "registration/accept" in estimates[0].reason
    assert bench.call(SetBool, "registration/accept", SetBool.Request(data=True)).success
    frame(bench, 5.1)
    bench.until(lambda: bool(accepted))


def test_reset_begins_again_from_the_start(bench: Any, stub: Stub, volume: str, estimates: list[Any]) -> None:
    bench.add(RegistrationNode, volume=volume, **known())
    for k in range(2):
        frame(bench, 5.0 + k)
        bench.until(lambda k=k: len(estimates) == k + 1)
        assert bench.call(Trigger, "registration/reset", Trigger.Request()).success
    for start in stub.starts:
        assert torch.allclose(start.world_T_ct, BEGIN, atol=1e-9)


def test_another_volume_can_be_loaded_and_a_bad_one_leaves_the_present_one(
    bench: Any, stub: Stub, volume: str, tmp_path: Path
) -> None:
    told = bench.hear(VolumeInfo, "volume", "latched")
    node = bench.add(RegistrationNode, volume=volume, **known())
    bench.until(lambda: len(told) == 1)
    missing = bench.call(LoadVolume, "load_volume", LoadVolume.Request(uri=str(tmp_path / "none.nii.gz")))
    assert not missing.success and "none.nii.gz" in missing.message
    remote = bench.call(LoadVolume, "load_volume", LoadVolume.Request(uri="https://example.org/ct.nii.gz"))
    assert not remote.success and "path" in remote.message
    assert str(node.volume.uri).endswith("volume.nii.gz") and len(told) == 1
    other = Volume(torch.zeros(1, 4, 4, 4, dtype=torch.uint8), VoxelGrid((4, 4, 4), (2.0, 2.0, 2.0)), "CT")
    write_volume(other, tmp_path / "other.nii.gz")
    request = LoadVolume.Request(uri=(tmp_path / "other.nii.gz").as_uri(), modality="CT")
    answer = bench.call(LoadVolume, "load_volume", request)
    assert answer.success and list(answer.info.size) == [4, 4, 4]
    bench.until(lambda: len(told) == 2)
    assert told[1].sha256 == answer.info.sha256 != told[0].sha256
    assert len(stub.prepared) == 2


def test_a_volume_that_is_not_there_leaves_the_node_unconfigured(bench: Any, stub: Stub) -> None:
    node = bench.add(RegistrationNode, volume="nowhere.nii.gz", **known())
    level, text = node.diagnostics.condition
    assert level == "ERROR" and "nowhere.nii.gz" in text
    assert bench.probe.count_subscribers(f"/{bench.namespace}/us/image") == 0


@pytest.mark.parametrize(
    "values",
    [
        {"options": "- 1"},
        {"options": "{a: ["},
        {"options": "{unheard_of: 1}"},
        {"initial.world_T_ct": [1.0] * 15},
        {"niceness": 50},
        {"system": "magic"},
        {"similarity": "likeness"},
        {"optimizer": "guess"},
    ],
)
def test_parameters_that_cannot_be_used_are_refused(bench: Any, values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        bench.add(RegistrationNode, **values)


def test_a_backward_jump_begins_again(
    bench: Any, stub: Stub, volume: str, estimates: list[Any], smoothed: list[Any]
) -> None:
    node = bench.add(RegistrationNode, volume=volume, use_sim_time=True, **known())
    smoother = bench.add(PoseSmoothingNode, use_sim_time=True)
    bench.say("/clock", Clock(clock=convert.s_to_stamp(105.0)))
    bench.until(lambda: node.now_s() == 105.0 and smoother.now_s() == 105.0 and smoother.given is not None)
    frame(bench, 104.9)
    bench.until(lambda: len(estimates) == 1)
    bench.say("/clock", Clock(clock=convert.s_to_stamp(5.0)))
    bench.until(lambda: node.now_s() == 5.0 and smoother.now_s() == 5.0)
    frame(bench, 4.9)
    bench.until(lambda: len(estimates) == 2 and len(smoothed) == 2)
    assert torch.allclose(stub.starts[1].world_T_ct, BEGIN, atol=1e-9)
    assert translation_mm(smoothed[1]) == pytest.approx(BEGIN[:3, 3].tolist(), abs=1e-3)


def test_lifecycle_output_stops_and_comes_back(bench: Any, stub: Stub, volume: str, estimates: list[Any]) -> None:
    node = bench.add(RegistrationNode, volume=volume, autostart=False, **known())
    assert bench.probe.count_subscribers(f"/{bench.namespace}/us/image") == 0
    assert stub.prepared == []
    node.trigger_configure()
    assert len(stub.prepared) == 1
    node.trigger_activate()
    frame(bench, 5.0)
    bench.until(lambda: len(estimates) == 1)
    node.trigger_deactivate()
    bench.until(lambda: bench.probe.count_subscribers(f"/{bench.namespace}/us/image") == 0)
    node.trigger_activate()
    bench.until(lambda: bench.probe.count_subscribers(f"/{bench.namespace}/us/image") == 1)
    bench.spin(0.2)
    frame(bench, 5.1)
    bench.until(lambda: len(estimates) == 2)
    node.trigger_deactivate()
    node.trigger_cleanup()
    assert node.volume is None
