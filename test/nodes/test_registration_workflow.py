# SPDX-License-Identifier: Apache-2.0
"""The node and the Navigator with a registrar that keeps state: the same estimates, also after both began again."""

from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("rclpy", reason="ROS 2 is not importable by this python: run through make test")
pytest.importorskip("usreg_msgs", reason="usreg_msgs is not built: run make build")
from std_srvs.srv import Trigger  # noqa: E402
from usreg_msgs.msg import Registration  # noqa: E402

from usreg import systems  # noqa: E402
from usreg.data.types import Calibration, Estimate, Frame, Problem, Rigid, Volume  # noqa: E402
from usreg.data.volumes import read_volume, write_volume  # noqa: E402
from usreg.fusion import Fuser  # noqa: E402
from usreg.geometry import se3  # noqa: E402
from usreg.geometry.grid import VoxelGrid  # noqa: E402
from usreg.geometry.plane import PlaneGrid  # noqa: E402
from usreg.geometry.sector import full_rectangle  # noqa: E402
from usreg.navigator import Navigator  # noqa: E402
from usreg.nodes import convert  # noqa: E402
from usreg.nodes.registration import RegistrationNode  # noqa: E402
from usreg.registration.registrar import Registrar  # noqa: E402
from usreg.registration.temporal import Temporal, TemporalConfig  # noqa: E402
from usreg.smoothing import PoseFilter  # noqa: E402
from usreg.tracking import Tracker  # noqa: E402

GEOMETRY = full_rectangle(PlaneGrid(16, 20, ((0.5, 0.0), (0.0, 0.5))))
SHARP = torch.diag(torch.tensor([0.04] * 3 + [1e-5] * 3, dtype=torch.float64))
BEGIN = se3.exp(torch.tensor([30.0, -20.0, 10.0, 0.1, 0.2, 0.3], dtype=torch.float64))
TRUTH = se3.exp(torch.tensor([3.0, 1.0, -2.0, 0.02, 0.0, 0.03], dtype=torch.float64)) @ BEGIN


class Halfway:
    """A stage that goes half of the way: what it finds depends on all that came before."""

    def prepare(self, volume: Volume) -> None:
        """Nothing."""

    def __call__(self, problem: Problem, estimate: Estimate) -> Estimate:
        pose = se3.check_rigid(se3.interpolate(estimate.world_T_ct, TRUTH, 0.5), "halfway")
        pivot = se3.transform_points(pose, problem.moving.grid.centre_ct[None])[0]
        return Estimate(Rigid(pose), SHARP, pivot, 0.9, 1.0, True)


class Poses:
    """The probe turns from frame to frame."""

    def at(self, stamp_s: float) -> tuple[torch.Tensor, torch.Tensor]:
        twist = torch.tensor([50.0, 0.0, 3.0 * stamp_s, 0.0, 0.4 * stamp_s, 0.5], dtype=torch.float64)
        return se3.exp(twist), SHARP

    def reset(self) -> None:
        """Nothing to forget."""


def build(carry: Any) -> Temporal:
    return Temporal(Registrar([Halfway()]), TemporalConfig(carry))


@pytest.mark.parametrize("carry", ["start", "world", "image"])
def test_frame_by_frame_the_node_gives_the_navigators_estimates(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, carry: str
) -> None:
    path = tmp_path / "volume.nii.gz"
    data = torch.arange(960).remainder(255).to(torch.uint8).reshape(1, 8, 10, 12)
    write_volume(Volume(data, VoxelGrid((12, 10, 8), (1.0, 1.0, 1.0), (-5.0, 3.0, 2.0)), "US"), path)
    monkeypatch.setattr(systems, "build", lambda name, options, modality: build(carry))
    tracker = Tracker(Calibration(se3.identity(), ((0.5, 0.0), (0.0, 0.5))), Poses())
    navigator = Navigator(tracker, build(carry), PoseFilter(), Fuser(), read_volume(path))
    start = {"initial__world_T_ct": BEGIN.flatten().tolist(), "initial__covariance": SHARP.flatten().tolist()}
    heard = bench.hear(Registration, "registration/estimate")
    node = bench.add(RegistrationNode, volume=str(path), system="deep_s2v", **start)
    for stamps in ((5.0, 5.1, 5.2), (7.0, 7.1)):
        navigator.initialize(stamps[0], BEGIN, SHARP)
        for stamp_s in stamps:
            compare(bench, heard, navigator, stamp_s)
        navigator.reset()
        assert bench.call(Trigger, "registration/reset", Trigger.Request()).success
    assert node.config.system == "deep_s2v"


def compare(bench: Any, heard: list[Any], navigator: Navigator, stamp_s: float) -> None:
    """One frame through both."""
    image, count = torch.full((16, 20), 9, dtype=torch.uint8), len(heard)
    result = navigator.step(Frame(image, GEOMETRY, stamp_s))
    assert result.tracked is not None and result.estimate is not None, result.reason
    bench.say("us/image", convert.image_to_msg(image, stamp_s, "us_image"))
    bench.say("us/geometry", convert.geometry_to_msg(GEOMETRY, stamp_s, "us_image"))
    pose = convert.stamped_pose_to_msg(result.tracked.world_T_image, SHARP, stamp_s, "world")
    bench.say("us/pose", pose)
    bench.until(lambda: len(heard) > count)
    found = convert.decode_registration(heard[-1])
    assert found.stamp_s == stamp_s
    assert torch.allclose(found.estimate.world_T_ct, result.estimate.world_T_ct, atol=1e-8)
