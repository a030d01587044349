# SPDX-License-Identifier: Apache-2.0
"""Clocks of a scan: when frames are taken and arrive, which are lost, and where their images lie in the probe."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from usreg.acquisition.agreement import load_probe
from usreg.errors import ConfigError
from usreg.geometry import se3
from usreg.kinematics import load_arm
from usreg.simulation.depth import at_depth, image_in_probe
from usreg.simulation.motion import Still
from usreg.simulation.robot import JointTrack
from usreg.simulation.scan import FIRST_S, GAP_S, START_NS, Depth, Scan, TimingConfig, frame_times, mounts, record

WHOLE = TimingConfig(frame_hz=20.0, drop_share=0.0, jitter_s=0.004, latency_s=0.03, latency_jitter_s=0.02)


@pytest.fixture(scope="module")
def depths() -> list[Depth]:
    geometry = load_probe("phantom").geometry
    return [Depth(0.0, at_depth(geometry, 125.0)), Depth(6.0, at_depth(geometry, 80.0))]


def test_frames_come_at_their_rate_with_bounded_jitter_and_arrive_later_in_order(rng: np.random.Generator) -> None:
    taken, arrived = frame_times(WHOLE, 60.0, [], rng).T
    off = taken - FIRST_S - np.arange(len(taken)) / 20.0
    assert len(taken) == int(59.8 * 20)
    assert np.abs(off).max() <= 0.004 and off.std() == pytest.approx(0.004 / math.sqrt(3), rel=0.05)
    late = arrived - taken
    assert 0.03 <= late.min() < 0.031 and 0.049 < late.max() <= 0.05
    assert (np.diff(taken) > 0).all() and (np.diff(arrived) > 0).all()
    assert taken[0] > 0.09 and taken[-1] < 60.0 - 0.09  # inside the joint states


def test_the_stated_share_of_frames_is_lost_and_the_others_keep_their_times() -> None:
    whole, some = (
        frame_times(replace(WHOLE, drop_share=share), 200.0, [], np.random.default_rng(3)) for share in (0.0, 0.2)
    )
    assert len(some) / len(whole) == pytest.approx(0.8, abs=0.02)
    assert set(some[:, 0]) < set(whole[:, 0])


def test_a_change_of_depth_leaves_a_gap(rng: np.random.Generator) -> None:
    taken = frame_times(WHOLE, 10.0, [4.0], rng)[:, 0]
    early, late = taken[taken < 4.0], taken[taken > 4.0]
    assert 4.0 - GAP_S[0] - 0.06 < early[-1] < 4.0 - GAP_S[0] and 4.0 + GAP_S[1] < late[0] < 4.0 + GAP_S[1] + 0.06


@pytest.mark.parametrize("seconds", [0.2, 0.24, 0.0, -1.0])
def test_too_short_for_a_frame(seconds: float, rng: np.random.Generator) -> None:
    with pytest.raises(ConfigError, match="too short"):
        frame_times(WHOLE, seconds, [], rng)


def test_all_frames_lost(rng: np.random.Generator) -> None:
    with pytest.raises(ConfigError, match="not one of 2 frames"):
        frame_times(WHOLE, 0.32, [0.1], rng)


def errors(depths: list[Depth], config: TimingConfig, seed: int) -> list[torch.Tensor]:
    made = mounts(depths, START_NS, START_NS, config, np.random.default_rng(seed))
    return [m.calibrated @ se3.inverse(m.probe_T_image) for m in made]


def test_the_calibration_is_wrong_by_the_stated_size_alike_at_every_depth(depths: list[Depth]) -> None:
    config = TimingConfig(calibration_mm=0.4, calibration_deg=0.3)
    twists = []
    for seed in range(300):
        near, far = errors(depths, config, seed)
        assert torch.allclose(near, far, rtol=0, atol=1e-9)
        twists.append(torch.cat([near[:3, 3], se3.log(near)[3:]]))
    spread = torch.stack(twists).square().mean(0).sqrt()
    assert torch.allclose(spread[:3], torch.tensor(0.4, dtype=torch.float64), rtol=0.15)
    assert torch.allclose(spread[3:], torch.tensor(math.radians(0.3), dtype=torch.float64), rtol=0.15)


def test_mounts_hold_the_true_place_of_each_depth_from_its_time_on(depths: list[Depth]) -> None:
    none = TimingConfig(calibration_mm=0.0, calibration_deg=0.0)
    near, far = mounts(depths, START_NS + 7, START_NS, none, np.random.default_rng(0))
    assert (near.stamp_ns, far.stamp_ns) == (START_NS + 7, START_NS + 6 * 10**9)
    for mount, depth in zip((near, far), depths, strict=True):
        assert torch.equal(mount.probe_T_image, image_in_probe(depth.geometry))
        torch.testing.assert_close(mount.calibrated, mount.probe_T_image, rtol=0, atol=1e-12)
        g = depth.geometry
        face = torch.tensor([[g.apex_mm[0], g.apex_mm[1] + g.radius_mm[0], 0.0]], dtype=torch.float64)
        assert se3.transform_points(mount.probe_T_image, face).norm() < 1e-9  # the face is the probe's origin
    assert (near.probe_T_image - far.probe_T_image).abs().max() > 1.0


class Line:
    """Stands for a path: 1 mm per second along x."""

    def bed_T_probe(self, t_s: float) -> torch.Tensor:
        return se3.translation(torch.tensor([t_s, 0.0, 0.0], dtype=torch.float64))

    def indentation_mm(self, t_s: float) -> float:
        return 5.0 - t_s

    def force_n(self, t_s: float) -> float:
        return 2.0 * max(0.0, 5.0 - t_s)


def test_a_window_of_a_scan_is_recorded_with_the_poses_at_its_frames(depths: list[Depth]) -> None:
    t = np.arange(1201) / 100.0
    joints = torch.arange(1201, dtype=torch.float64)[:, None].repeat(1, 7)
    track = JointTrack(t, t + 0.002, joints, joints + 0.5)
    path: Any = Line()
    scan = Scan(load_arm("iiwa7"), path, track, se3.identity(), Still())
    made = record(scan, (3.0, 9.0), depths, WHOLE, 1, 2, np.random.default_rng(0))
    assert made.joint_ns[0] == START_NS + 3_002_000_000 and made.joint_ns[-1] == START_NS + 9_002_000_000
    assert made.joints[0, 0] == 300.5 and len(made.joints) == len(made.joint_ns) == 601
    assert 3.0 < made.shots[0].t_s < 3.2 and 8.8 < made.shots[-1].t_s < 9.0
    for number, shot in enumerate(made.shots):
        assert shot.mount is made.mounts[shot.t_s > 6.0] and shot.seed[:2] == (1, 2) and shot.seed[2] == number
        torch.testing.assert_close(shot.bed_T_image, path.bed_T_probe(shot.t_s) @ shot.mount.probe_T_image)
        assert abs(shot.stamp_ns - START_NS - shot.t_s * 1e9) <= 501 and shot.stamp_ns % 1000 == 0
        assert shot.indentation_mm == max(0.0, 5.0 - shot.t_s) and shot.arrival_ns > shot.stamp_ns
