# SPDX-License-Identifier: Apache-2.0
"""When a scanner takes its frames and an arm reports its joints: clocks, latency, lost frames, a change of depth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..config import check_range
from ..errors import ConfigError
from ..geometry import rotation, se3
from ..geometry.sector import SectorGeometry
from ..kinematics import Arm
from .depth import image_in_probe
from .motion import Motion
from .paths import ScanPath
from .recording import Mount, Recording, Shot
from .robot import JointTrack

START_NS = 1_700_000_000 * 10**9  # stamps as large as a real clock's
FIRST_S = 0.1  # frames begin and end this much inside the joint states, which bracket them
GAP_S = (0.05, 0.4)  # before and after a change of depth the scanner gives no frames


@dataclass(frozen=True)
class TimingConfig:
    """Clocks of scanner and arm.

    Args:
        frame_hz, joint_hz: rates of images and joint states.
        jitter_s: half width of the draw around regular frame stamps.
        latency_s, latency_jitter_s: images reach the recorder this much after their acquisition, and a draw up to the
            second more; their stamps are those of acquisition.
        drop_share: of the frames that are lost on the way.
        calibration_mm, calibration_deg: standard deviation per axis of the error in probe_T_image as calibrated.
    """

    frame_hz: float = 15.0
    joint_hz: float = 100.0
    jitter_s: float = 0.002
    latency_s: float = 0.045
    latency_jitter_s: float = 0.01
    drop_share: float = 0.02
    calibration_mm: float = 0.2
    calibration_deg: float = 0.15

    def __post_init__(self) -> None:
        check_range("frame_hz", self.frame_hz, 1.0, 100.0)
        check_range("joint_hz", self.joint_hz, 100.0, 500.0)
        check_range("jitter_s", self.jitter_s, 0.0, 0.25 / self.frame_hz)
        check_range("latency_s", self.latency_s, 0.0, 1.0)
        check_range("latency_jitter_s", self.latency_jitter_s, 0.0, 0.5 / self.frame_hz)
        check_range("drop_share", self.drop_share, 0.0, 0.5)
        check_range("calibration_mm", self.calibration_mm, 0.0, 20.0)
        check_range("calibration_deg", self.calibration_deg, 0.0, 20.0)


@dataclass(frozen=True, eq=False)
class Depth:
    """An image geometry from a time on, s from the start of the path."""

    from_s: float
    geometry: SectorGeometry


def frame_times(
    config: TimingConfig, duration_s: float, changes_s: Sequence[float], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Times of acquisition and of arrival (N, 2), s, without the frames that are lost.

    Raises:
        ConfigError: the duration is too short for a single frame, or every frame is lost.
    """
    count = int((duration_s - 2 * FIRST_S) * config.frame_hz)
    if count < 1:
        raise ConfigError(f"{duration_s} s are too short for a frame; give {2 * FIRST_S + 1 / config.frame_hz:.1f} s")
    taken = FIRST_S + np.arange(count) / config.frame_hz + rng.uniform(-config.jitter_s, config.jitter_s, count)
    arrived = taken + config.latency_s + rng.uniform(0.0, config.latency_jitter_s, count)
    kept = rng.random(count) >= config.drop_share
    for change in changes_s:
        kept &= (taken < change - GAP_S[0]) | (taken > change + GAP_S[1])
    if not kept.any():
        raise ConfigError(
            f"not one of {count} frames in {duration_s} s is left: give more time, a higher frame_hz or less drop_share"
        )
    return np.stack([taken, arrived], 1)[kept]


def mounts(
    depths: Sequence[Depth], first_ns: int, start_ns: int, config: TimingConfig, calibration: np.random.Generator
) -> tuple[Mount, ...]:
    """Where the image of each depth lies in the probe; the calibration's error moves them all alike."""
    shift = config.calibration_mm * calibration.standard_normal(3)
    turn = np.radians(config.calibration_deg) * calibration.standard_normal(3)
    error = se3.from_parts(rotation.exp(torch.from_numpy(turn)), torch.from_numpy(shift))
    made = []
    for i, depth in enumerate(depths):
        stamp = first_ns if i == 0 else start_ns + _ns(depth.from_s)
        true = image_in_probe(depth.geometry)
        made.append(Mount(stamp, depth.geometry, true, error @ true))
    return tuple(made)


@dataclass(frozen=True, eq=False)
class Scan:
    """What is scanned, along which way, by which arm.

    Args:
        track: the arm's joints along the path. start_ns: stamp at the path's beginning, where the motion's time is 0.
        organs: whose true poses are told.
    """

    arm: Arm
    path: ScanPath
    track: JointTrack
    world_T_bed: Tensor
    motion: Motion
    start_ns: int = START_NS
    organs: tuple[str, ...] = ()


def record(
    scan: Scan, window_s: tuple[float, float], depths: Sequence[Depth], config: TimingConfig, seed: int, part: int,
    calibration: np.random.Generator,
) -> Recording:  # fmt: skip
    """The part of a scan within a window of time, ready for its images to be made.

    Args:
        depths: the first from the window's beginning on, the others from their own times. seed, part: of every draw.
        calibration: of the error of the probe's calibration; parts that share a calibration get equal generators.
    """
    begin, end = window_s
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, part))))
    times = begin + frame_times(config, end - begin, [d.from_s - begin for d in depths[1:]], rng)
    mounted = mounts(depths, scan.start_ns + _ns(begin), scan.start_ns, config, calibration)
    shots = []
    for i, (taken, arrived) in enumerate(times.tolist()):
        stamp = scan.start_ns + _ns(taken)
        mount = [m for m in mounted if m.stamp_ns <= stamp][-1]
        shots.append(
            Shot(
                stamp, scan.start_ns + _ns(arrived), taken, scan.path.bed_T_probe(taken) @ mount.probe_T_image, mount,
                max(0.0, scan.path.indentation_mm(taken)), scan.path.force_n(taken), (seed, part, i),
            )
        )  # fmt: skip
    inside = (scan.track.t_s >= begin - 1e-9) & (scan.track.t_s <= end + 1e-9)
    joint_ns = scan.start_ns + np.rint(scan.track.stamps_s[inside] * 1e6).astype(np.int64) * 1000
    measured = scan.track.measured[torch.from_numpy(inside)]
    return Recording(
        scan.arm, joint_ns, measured, mounted, tuple(shots), scan.world_T_bed, scan.motion, scan.organs
    )  # fmt: skip


def _ns(seconds: float) -> int:
    """Whole microseconds: what a stamp of a scanner resolves, and a double holds."""
    return round(seconds * 1e6) * 1000
