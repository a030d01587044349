# SPDX-License-Identifier: Apache-2.0
"""The main flow with parts that answer as told: every failure becomes a status, never a crash and never an old pose."""

from dataclasses import replace

import pytest
import torch

from usreg.data.types import Calibration, Estimate, Frame, Rigid, Volume
from usreg.errors import GeometryError, NoOverlapError, StalePoseError
from usreg.fusion import Fuser
from usreg.geometry import se3
from usreg.geometry.grid import VoxelGrid
from usreg.geometry.plane import PlaneGrid
from usreg.geometry.sector import full_rectangle
from usreg.navigator import Navigator, as_start, status_of
from usreg.smoothing import FilterConfig, NoSmoothing, PoseFilter
from usreg.tracking import Tracker

WORLD_T_CT = se3.translation(torch.tensor([5.0, 6.0, -7.0], dtype=torch.float64))
WIDE = torch.diag(torch.tensor([36.0] * 3 + [0.01] * 3, dtype=torch.float64))
SHARP = torch.diag(torch.tensor([0.04] * 3 + [1e-6] * 3, dtype=torch.float64))


class Poses:
    """A pose source that may have nothing to say."""

    broken = False

    def at(self, stamp_s):
        if self.broken:
            raise StalePoseError("the newest pose is 0.4 s older than the frame")
        return se3.identity(), torch.zeros(6, 6, dtype=torch.float64)

    def reset(self):
        self.was_reset = True


class Registrar:
    """Finds `pose`, refuses, or raises."""

    def __init__(self):
        self.pose, self.accepted, self.error, self.starts, self.prepared = WORLD_T_CT, True, None, [], []

    def reset(self):
        self.was_reset = True

    def prepare(self, volume):
        self.prepared.append(volume)

    def __call__(self, problem):
        self.starts.append(problem.start)
        if self.error is not None:
            raise self.error
        pivot = se3.transform_points(self.pose, problem.moving.grid.centre_ct[None])[0]
        reason = "" if self.accepted else "score 0.2 below 0.6"
        return Estimate(Rigid(self.pose), SHARP, pivot, 0.9, 1.0, self.accepted, reason)


def frame(stamp_s: float) -> Frame:
    geometry = full_rectangle(PlaneGrid(48, 64, ((0.5, 0.0), (0.0, 0.5))))
    return Frame(torch.full((48, 64), 40, dtype=torch.uint8), geometry, stamp_s)


@pytest.fixture
def navigator() -> Navigator:
    volume = Volume(torch.full((1, 40, 50, 60), 90, dtype=torch.uint8), VoxelGrid((60, 50, 40), (1.0, 1.0, 1.0)))
    tracker = Tracker(Calibration(se3.identity(), ((0.5, 0.0), (0.0, 0.5))), Poses())
    made = Navigator(tracker, Registrar(), PoseFilter(), Fuser(), volume)
    made.prepare()
    return made


def test_a_frame_that_registers_is_tracked_and_drawn(navigator):
    navigator.initialize(1.0, WORLD_T_CT, WIDE)
    result = navigator.step(frame(1.0))
    assert (result.status, result.reason) == ("TRACKING", "") and result.update.accepted
    torch.testing.assert_close(result.prediction.world_T_ct, WORLD_T_CT)
    assert result.prediction.age_s == 0.0 and result.overlay.mask.any()
    assert set(result.seconds) == {"tracking", "prediction", "registration", "smoothing", "fusion"}
    assert navigator.registrar.prepared == [navigator.volume]


def test_registration_starts_from_the_prediction_with_its_covariance(navigator):
    navigator.initialize(1.0, WORLD_T_CT, WIDE)
    navigator.step(frame(1.0))
    navigator.step(frame(1.1))
    first, second = navigator.registrar.starts
    assert not first.accepted and not second.accepted and second.reason == "start"
    assert first.covariance[0, 0] > 36 and second.covariance[0, 0] < 1
    torch.testing.assert_close(second.pivot, navigator.volume.grid.centre_ct + WORLD_T_CT[:3, 3])


def test_an_uncertain_start_is_searched_from_but_never_shown(navigator):
    navigator.initialize(1.0, WORLD_T_CT, WIDE)
    navigator.registrar.accepted = False
    result = navigator.step(frame(1.0))
    assert result.status == "LOST" and result.prediction is None and result.start is not None
    assert "score 0.2" in result.reason and "uncertain" in result.reason
    assert result.overlay.status == "LOST" and not result.overlay.mask.any()


def test_a_refused_frame_keeps_the_prediction_for_a_while_then_it_is_lost(navigator):
    navigator.initialize(1.0, WORLD_T_CT, WIDE)
    navigator.step(frame(1.0))
    navigator.registrar.accepted = False
    shown = navigator.step(frame(1.2))
    assert shown.status == "REJECTED" and shown.prediction.age_s == pytest.approx(0.2) and shown.overlay.mask.any()
    lost = navigator.step(frame(1.4))
    assert lost.status == "LOST" and lost.prediction is None and not lost.overlay.mask.any()
    navigator.registrar.accepted = True
    assert navigator.step(frame(5.0)).status == "TRACKING"


@pytest.mark.parametrize(
    ("error", "status"), [(NoOverlapError("nothing in common"), "NO_OVERLAP"), (GeometryError("bad"), "ERROR")]
)
def test_an_error_of_the_registration_becomes_a_status(navigator, error, status):
    navigator.initialize(1.0, WORLD_T_CT, WIDE)
    navigator.step(frame(1.0))
    navigator.registrar.error = error
    result = navigator.step(frame(1.1))
    assert result.status == status and str(error) in result.reason and result.estimate is None
    assert result.prediction is not None and result.overlay.mask.any()
    assert navigator.step(frame(1.5)).status == "LOST"


def test_without_a_measured_pose_the_frame_stands_alone(navigator):
    navigator.initialize(1.0, WORLD_T_CT, WIDE)
    navigator.step(frame(1.0))
    navigator.tracker.buffer.broken = True
    result = navigator.step(frame(1.1))
    assert result.status == "NO_POSE" and result.tracked is None and result.overlay.status == "NO_POSE"
    assert not result.overlay.mask.any() and len(navigator.registrar.starts) == 1


def test_before_initialize_every_frame_says_what_to_do(navigator):
    result = navigator.step(frame(1.0))
    assert result.status == "UNINITIALISED" and "initialize" in result.reason
    assert result.prediction is None and result.estimate is None and result.overlay.image.shape == (48, 64, 3)


def test_an_outlier_is_gated_and_a_jump_is_followed(navigator):
    navigator.pose_filter = PoseFilter(FilterConfig(jump_count=3, max_prediction_s=1.0))
    navigator.initialize(1.0, WORLD_T_CT, WIDE)
    navigator.step(frame(1.0))
    navigator.registrar.pose = se3.translation(torch.tensor([45.0, 6.0, -7.0], dtype=torch.float64))
    first = navigator.step(frame(1.1))
    assert first.status == "REJECTED" and first.estimate.accepted
    torch.testing.assert_close(first.prediction.world_T_ct, WORLD_T_CT)
    navigator.step(frame(1.2))
    third = navigator.step(frame(1.3))
    assert third.status == "TRACKING" and "re-initialised" in third.update.reason
    torch.testing.assert_close(third.prediction.world_T_ct, navigator.registrar.pose)


def test_a_frame_that_comes_twice_or_too_late_is_not_used_twice(navigator):
    navigator.initialize(1.0, WORLD_T_CT, WIDE)
    navigator.step(frame(3.0))
    assert "come before" in navigator.step(frame(3.0)).reason
    assert "late" in navigator.step(frame(1.5)).reason


def test_geometry_may_change_in_mid_session(navigator):
    navigator.initialize(1.0, WORLD_T_CT, WIDE)
    navigator.step(frame(1.0))
    geometry = full_rectangle(PlaneGrid(30, 90, ((0.3, 0.01), (0.0, 0.9))))
    result = navigator.step(replace(frame(1.1), image=torch.zeros(30, 90, dtype=torch.uint8), geometry=geometry))
    assert result.status == "TRACKING" and result.overlay.image.shape == (30, 90, 3)


def test_reset_forgets_every_pose(navigator):
    navigator.initialize(1.0, WORLD_T_CT, WIDE)
    navigator.step(frame(1.0))
    navigator.reset()
    assert navigator.tracker.buffer.was_reset and navigator.registrar.was_reset
    assert navigator.step(frame(0.1)).status == "UNINITIALISED"
    navigator.initialize(0.1, WORLD_T_CT, WIDE)
    assert navigator.step(frame(0.2)).status == "TRACKING"


def test_no_smoothing_has_the_same_place(navigator):
    navigator.pose_filter = NoSmoothing()
    navigator.initialize(1.0, WORLD_T_CT, WIDE)
    assert navigator.step(frame(1.0)).status == "TRACKING"
    torch.testing.assert_close(navigator.step(frame(1.1)).prediction.covariance, SHARP)


def test_a_start_can_never_pass_for_a_result(navigator):
    navigator.initialize(1.0, WORLD_T_CT, WIDE)
    start = as_start(navigator.pose_filter.search_start(1.0))
    assert not start.accepted
    assert not navigator.pose_filter.update(1.0, start).accepted
    assert status_of(GeometryError("x")) == "ERROR"
