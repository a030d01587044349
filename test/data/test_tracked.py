# SPDX-License-Identifier: Apache-2.0
"""Tracked frames: the chain of poses, what is left out, and the residual latency."""

import logging
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from usreg.data.sequences import Sequence
from usreg.data.tracked import TrackedConfig, interpolate_poses, tracked_frames, world_trajectory
from usreg.data.types import Calibration, Trajectory
from usreg.errors import CalibrationError, ConfigError, GeometryError, MissingTransformError
from usreg.geometry import se3


def screw(n: int, rate: float = 1.0) -> torch.Tensor:
    """Poses along one screw motion, which screw-linear interpolation meets exactly."""
    twist = torch.tensor([1.0, -2.0, 3.0, 0.02, 0.01, -0.03], dtype=torch.float64) * rate
    return se3.exp(torch.arange(n, dtype=torch.float64)[:, None] * twist)


@pytest.fixture
def moving() -> Sequence:
    n = 10
    stamps = torch.arange(n, dtype=torch.float64) * 0.1 + 5
    tracked = {
        "ProbeToTracker": Trajectory(stamps, screw(n), torch.ones(n, dtype=torch.bool)),
        "ReferenceToTracker": Trajectory(stamps, screw(n, -0.5), torch.ones(n, dtype=torch.bool)),
    }
    images = torch.arange(n, dtype=torch.uint8)[:, None, None].expand(n, 3, 4).contiguous()
    return Sequence(images, torch.ones(n, dtype=torch.bool), stamps, tracked)


@pytest.fixture
def calibration() -> Calibration:
    probe_T_image = se3.exp(torch.tensor([10.0, 20.0, 30.0, 0.3, -0.2, 0.1], dtype=torch.float64))
    return Calibration(probe_T_image, ((0.1, 0.0), (0.0, 0.2)))


def test_chain(moving, calibration):
    frames = tracked_frames(moving, calibration)
    assert len(frames) == 10
    for i, tracked in enumerate(frames):
        expected = moving.transforms["ProbeToTracker"].poses[i] @ calibration.probe_T_image
        torch.testing.assert_close(tracked.world_T_image, expected, atol=1e-12, rtol=0)
        assert tracked.frame.index == i and tracked.frame.stamp_s == moving.stamps_s[i].item()
        assert torch.equal(tracked.frame.image, moving.images[i])


def test_world_by_name_with_an_inverse(moving, calibration):
    frames = tracked_frames(moving, replace(calibration, world_name="Reference"), slice(2, 8, 3))
    assert [f.frame.index for f in frames] == [2, 5]
    to_tracker = moving.transforms
    expected = (
        se3.inverse(to_tracker["ReferenceToTracker"].poses[5])
        @ to_tracker["ProbeToTracker"].poses[5]
        @ calibration.probe_T_image
    )
    torch.testing.assert_close(frames[1].world_T_image, expected, atol=1e-12, rtol=0)


def test_world_through_a_static(moving, calibration):
    static = se3.exp(torch.tensor([1.0, 2.0, 3.0, 0.1, 0.0, 0.0], dtype=torch.float64))
    room = replace(calibration, world_name="Room", statics={"TrackerToRoom": static})
    expected = static @ moving.transforms["ProbeToTracker"].poses
    torch.testing.assert_close(world_trajectory(moving, room).poses, expected)
    with pytest.raises(MissingTransformError, match="'Probe' to 'Moon'"):
        tracked_frames(moving, replace(calibration, world_name="Moon"))


def test_what_cannot_be_used_is_none_and_reported(moving, calibration, caplog):
    probe = moving.transforms["ProbeToTracker"]
    poses, valid = probe.poses.clone(), probe.valid.clone()
    valid[1] = False  # INVALID
    poses[2], valid[2] = torch.nan, False  # missing
    poses[3, 0, 0] += 0.1  # not rigid
    image_valid = moving.image_valid.clone()
    image_valid[4] = False  # no pixels
    stamps = moving.stamps_s.clone()
    stamps[5] = stamps[4]  # repeats
    stamps[6] = torch.nan
    spoiled = replace(
        moving,
        image_valid=image_valid,
        stamps_s=stamps,
        transforms={"ProbeToTracker": Trajectory(stamps, poses, valid)},
    )
    with caplog.at_level(logging.WARNING, logger="usreg.data"):
        frames = tracked_frames(spoiled, calibration)
    assert [i for i, f in enumerate(frames) if f is None] == [1, 2, 3, 4, 5, 6]
    assert "6 of 10 frames" in caplog.text and "not rigid" in caplog.text


def test_poses_that_all_carry_a_scale_are_an_error(moving, calibration):
    probe = moving.transforms["ProbeToTracker"]
    scaled = {"ProbeToTracker": Trajectory(probe.stamps_s, probe.poses * 0.1, probe.valid)}
    with pytest.raises(GeometryError, match="not rigid"):
        tracked_frames(replace(moving, transforms=scaled), calibration)


def test_images_must_be_there_and_fit(moving, calibration):
    with pytest.raises(CalibrationError, match="without images"):
        tracked_frames(replace(moving, images=None), calibration)
    sector = tracked_frames(moving, calibration)[0].frame.geometry
    wide = replace(calibration, geometry=replace(sector, plane=replace(sector.plane, width=9)))
    with pytest.raises(CalibrationError, match="9x3, these are 4x3"):
        tracked_frames(moving, wide)


@given(latency_s=st.floats(-0.35, 0.35).filter(lambda x: abs(x) > 1e-3))
def test_latency_moves_stamp_and_pose_together(latency_s):
    """Along one screw the pose at any stamp is known; outside the measured poses there is none."""
    n = 10
    stamps = torch.arange(n, dtype=torch.float64) * 0.1 + 5
    tracked = {"ProbeToTracker": Trajectory(stamps, screw(n), torch.ones(n, dtype=torch.bool))}
    images = torch.zeros(n, 2, 2, dtype=torch.uint8)
    sequence = Sequence(images, torch.ones(n, dtype=torch.bool), stamps, tracked)
    calibration = Calibration(torch.eye(4, dtype=torch.float64), ((1.0, 0.0), (0.0, 1.0)), latency_s=latency_s)
    frames = tracked_frames(sequence, calibration)
    twist = se3.log(screw(2)[1])
    for i, each in enumerate(frames):
        stamp = stamps[i].item() - latency_s
        inside = stamps[0] <= stamp <= stamps[-1]
        assert (each is not None) == bool(inside)
        if each is not None:
            assert each.frame.stamp_s == stamp
            expected = se3.exp((stamp - 5) / 0.1 * twist)
            torch.testing.assert_close(each.world_T_image, expected, atol=1e-9, rtol=0)


def test_interpolation_bridges_short_gaps_only():
    stamps = torch.tensor([0.0, 0.1, 0.2, 0.3, 0.6, 0.7], dtype=torch.float64)
    usable = torch.tensor([True, False, True, True, True, True])
    at = torch.tensor([-0.01, 0.0, 0.1, 0.25, 0.45, 0.3, 0.7, 0.71], dtype=torch.float64)
    poses, valid = interpolate_poses(stamps, screw(6), usable, at, max_gap_s=0.25)
    assert valid.tolist() == [False, True, True, True, False, True, True, False]
    torch.testing.assert_close(poses[2], se3.interpolate(screw(6)[0], screw(6)[2], 0.5))
    torch.testing.assert_close(poses[5], screw(6)[3])
    nothing = interpolate_poses(stamps, screw(6), torch.zeros(6, dtype=torch.bool), at, 0.25)[1]
    assert not nothing.any()


def test_config_is_checked():
    for wrong in (0.0, -1.0, math.nan, 1e3):
        with pytest.raises(ConfigError):
            TrackedConfig(max_gap_s=wrong)
