# SPDX-License-Identifier: Apache-2.0
"""The two kinds of session: an iiwa over a rigid phantom, an encoder arm over a volunteer who breathes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ..acquisition.agreement import load_probe
from ..config import check_range
from ..data.tissues import load_tissues
from ..errors import KinematicsError
from ..geometry import rotation, se3
from ..geometry.sector import SectorGeometry
from ..kinematics import Arm, load_arm
from .body import Body, BodyConfig
from .body.ct import CtConfig
from .breathing import BreathingConfig
from .depth import at_depth
from .encoder_arm import EncoderConfig, lead_arm
from .motion import BreathingMotion, Motion, Still
from .motor import motor_of
from .paths import PathConfig, phantom_path, volunteer_path
from .recording import Recording
from .robot import RobotConfig, follow_path
from .scan import START_NS, Depth, Scan, TimingConfig, record
from .scanner import Scanner, ScannerConfig

Kind = Literal["phantom", "volunteer"]
SWEEP, SCAN, ENCODERS, CALIBRATION = range(4)  # parts of the seed
PAUSE_NS = 60 * 10**9  # between the phantom's sweep and its scan


@dataclass(frozen=True)
class SimulationConfig:
    """What is simulated.

    Args:
        arm, probe: names in config/arms and config/probes.
        depths_mm: of the image at first, and from `change_share` of the scan on.
        sweep_s, sweep_hz: length and frame rate of the sweep that gives the 3D ultrasound.
        keep_sweep: whether the session holds the sweep's frames as a bag of its own.
        path, sweep_path: how the probe is led in the scan and in the phantom's sweep.
        encoder: of the passive arm; its joint states come at the rate of `timing`.
        breathing: of the volunteer; the hold during the sweep is added.
        volume_spacing_mm: of the 3D ultrasound. ct_margin_mm: the CT is cut to the ultrasound and this much more.
        draw_mm, draw_deg: half widths, per axis, of the uniform draw that moves the initial world_T_ct off the truth.
        patient_mm: middle of the body in the world. patient_turn_deg: rotation vector away from lying along the world's
            y; by default the feet point to the arm.
        options, smoothing: of the registration and of the filter, as session.yaml holds them.
    """

    arm: str = "iiwa7"
    probe: str = "phantom"
    depths_mm: tuple[float, float] = (125.0, 110.0)
    change_share: float = 0.55
    sweep_s: float = 24.0
    sweep_hz: float = 10.0
    keep_sweep: bool = False
    path: PathConfig = field(default_factory=PathConfig)
    sweep_path: PathConfig = field(default_factory=PathConfig)
    breathing: BreathingConfig = field(default_factory=BreathingConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    timing: TimingConfig = field(default_factory=TimingConfig)
    body: BodyConfig = field(default_factory=BodyConfig)
    scanner: ScannerConfig = field(default_factory=ScannerConfig)
    ct: CtConfig = field(default_factory=CtConfig)
    volume_spacing_mm: float = 1.0
    ct_margin_mm: float = 15.0
    draw_mm: float = 10.0
    draw_deg: float = 5.0
    patient_mm: tuple[float, float, float] = (600.0, 30.0, 60.0)
    patient_turn_deg: tuple[float, float, float] = (5.0, -4.0, -78.0)
    options: Mapping[str, Any] = field(default_factory=dict)
    smoothing: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_range("change_share", self.change_share, 0.05, 1.0)
        check_range("sweep_s", self.sweep_s, 1.0, 120.0)
        check_range("sweep_hz", self.sweep_hz, 1.0, 100.0)
        check_range("volume_spacing_mm", self.volume_spacing_mm, 0.3, 5.0)
        check_range("ct_margin_mm", self.ct_margin_mm, 0.0, 200.0)
        check_range("draw_mm", self.draw_mm, 0.0, 100.0)
        check_range("draw_deg", self.draw_deg, 0.0, 90.0)

    def world_T_bed(self, body: Body) -> Tensor:
        """True pose (4, 4) of the body at rest: on its back, head towards the world's y, then turned."""
        lying = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]], dtype=torch.float64)
        turn = rotation.exp(torch.tensor([math.radians(a) for a in self.patient_turn_deg], dtype=torch.float64))
        placed = se3.from_parts(turn @ lying, torch.tensor(self.patient_mm, dtype=torch.float64))
        return placed @ se3.translation(-body.labels.grid.centre_ct)


@dataclass(frozen=True, eq=False)
class Scene:
    """A body in front of a scanner, and the recordings that are to be made of it.

    Args:
        sweep: of the 3D ultrasound, before the scan.
    """

    scanner: Scanner
    sweep: Recording
    scan: Recording


# Views of one place through different windows differ in gain, shadow and contact, so the frames are compared in local
# contrast; and the wall of the belly fills a third of them, so less of them overlaps with the liver.
OPTIONS: dict[str, Any] = {
    "contrast_mm": 6.0,
    "margin_mm": 2.0,
    "min_overlap": 0.2,
    "gate": {"min_overlap": 0.2, "min_score": 0.2, "min_structure": 0.7, "clear_overlap": 0.3, "min_contrast": 0.55},
}


# An estimate says how far noise lets it be off; views of one place differ by more than that.
FLOOR: dict[str, Any] = {"floor_mm": 1.0, "floor_rad": 0.012}

# In breathing the start lags behind, and NCC is drawn to the neighbouring vessel; LNCC that keeps to the prediction as
# far as its covariance says is not. The limits of its scores are those of seeds 0, 1 and 3.
FOLLOWED: dict[str, Any] = OPTIONS | {
    "similarity": "lncc",
    "prior": 0.01,
    "levels": [
        {"sigma_mm": 4.0, "step_mm": 4.0, "tolerance_mm": 0.2},
        {"sigma_mm": 2.0, "step_mm": 2.5, "tolerance_mm": 0.1},
        {"sigma_mm": 1.0, "step_mm": 1.9, "tolerance_mm": 0.05},
    ],
    "min_overlap": 0.15,
    "gate": {
        "min_overlap": 0.15,
        "min_score": 0.06,
        "min_structure": 0.1,
        "clear_overlap": 0.2,
        "min_contrast": 0.5,
        "max_sigma_mm": 3.0,
    },
}
# A stream skips frames, and the learnt breath is foretold better half a second ahead (1.1 to 1.6 mm off, at noise of
# 0.3 to 1 mm) than by constant velocity 0.3 s ahead (1.9 to 3.0 mm).
BREATHING: dict[str, Any] = {
    "model": "breathing", "acceleration_mm": [25.0, 25.0, 25.0], "floor_mm": 0.4, "floor_rad": 0.01,
    "jump_count": 3, "regain_count": 3, "max_prediction_s": 0.5,
}  # fmt: skip


def default_config(kind: Kind) -> SimulationConfig:
    """As the sessions that ship were made."""
    grid = BodyConfig(tilt_deg=(4.0, -3.0, 6.0))  # so that nothing may assume an identity direction
    ct = CtConfig(spacing_mm=(2.5, 2.5, 2.5))
    if kind == "phantom":
        way = PathConfig(speed_mm_s=40.0, turn_deg_s=30.0, slide_mm=14.0, fan_deg=9.0)
        wide = replace(way, slide_mm=20.0, fan_deg=14.0)
        return SimulationConfig(
            body=grid,
            ct=ct,
            path=way,
            sweep_path=wide,
            sweep_s=40.0,
            timing=TimingConfig(frame_hz=10.0),
            options=OPTIONS,
            smoothing=FLOOR,
        )
    timing = TimingConfig(joint_hz=100.0)
    return SimulationConfig(
        arm="encoder6_tilt", patient_mm=(660.0, 0.0, 50.0),
        sweep_s=8.0, sweep_hz=12.0, keep_sweep=True, timing=timing, ct=ct, body=grid,
        encoder=EncoderConfig(joint_hz=timing.joint_hz), options=FOLLOWED, smoothing=BREATHING,
    )  # fmt: skip


def load_devices(config: SimulationConfig) -> tuple[Arm, SectorGeometry, SectorGeometry]:
    """The arm, and the probe's image at both depths.

    Raises:
        MissingFileError: no such arm or probe. ConfigError: a depth that no image has.
    """
    geometry = load_probe(config.probe).geometry
    near, far = (at_depth(geometry, depth) for depth in config.depths_mm)
    return load_arm(config.arm), near, far


def make_scene(kind: Kind, body: Body, seed: int, seconds: float, config: SimulationConfig) -> Scene:
    """Scanner, arm, path and clocks of a session.

    Raises:
        KinematicsError: the arm cannot follow. NoOverlapError: the liver is seen from nowhere.
    """
    arm, near, far = load_devices(config)
    make = _phantom if kind == "phantom" else _volunteer
    motion, sweep, scan = make(body, arm, (near, far), seed, seconds, config)
    scanner = Scanner(body.labels, load_tissues(), near, config.scanner, seed, motion)
    return Scene(scanner, sweep, scan)


def _phantom(
    body: Body, arm: Arm, images: tuple[SectorGeometry, SectorGeometry], seed: int, seconds: float,
    config: SimulationConfig,
) -> tuple[Motion, Recording, Recording]:  # fmt: skip
    bed, still = config.world_T_bed(body), Still()
    robot = RobotConfig(joint_hz=config.timing.joint_hz)
    near, far = images
    sweep_path = phantom_path(body, config.sweep_s, config.sweep_path, seed + 1)
    sweep_scan = Scan(
        arm, sweep_path, follow_path(arm, sweep_path, bed, _rng(seed, SWEEP, ENCODERS), robot), bed, still,
        START_NS - PAUSE_NS,
    )  # fmt: skip
    sweep = record(
        sweep_scan, (0.0, config.sweep_s), [Depth(0.0, near)], _sweep_timing(config), seed, SWEEP,
        _rng(seed, CALIBRATION),
    )  # fmt: skip
    path = phantom_path(body, seconds, config.path, seed)
    scan = Scan(arm, path, follow_path(arm, path, bed, _rng(seed, SCAN, ENCODERS), robot), bed, still)
    depths = [Depth(0.0, near), Depth(config.change_share * seconds, far)]
    return still, sweep, record(scan, (0.0, seconds), depths, config.timing, seed, SCAN, _rng(seed, CALIBRATION))


def _volunteer(
    body: Body, arm: Arm, images: tuple[SectorGeometry, SectorGeometry], seed: int, seconds: float,
    config: SimulationConfig,
) -> tuple[Motion, Recording, Recording]:  # fmt: skip
    way = replace(config.path, sweep_s=config.sweep_s)
    begin = way.sweep_s + way.settle_s  # of the free scanning
    total = begin + seconds
    hold = (-10.0, way.sweep_s + 0.3)
    motion = BreathingMotion(body, replace(config.breathing, holds_s=(hold, *config.breathing.holds_s)), seed)
    near, far = images
    path = volunteer_path(body, total, motor_of(arm), way, seed)
    bed = config.world_T_bed(body)
    encoder = replace(config.encoder, joint_hz=config.timing.joint_hz)
    try:
        track = lead_arm(arm, path, bed, _rng(seed, ENCODERS), encoder)
    except KinematicsError as error:
        raise KinematicsError(f"{error}; a shorter scan, or one over the sweep alone, asks less of the arm") from error
    scan = Scan(arm, path, track, bed, motion, START_NS, tuple(motion.lattice.organs))
    sweep = record(
        scan, (0.0, way.sweep_s), [Depth(0.0, near)], _sweep_timing(config), seed, SWEEP, _rng(seed, CALIBRATION)
    )  # fmt: skip
    depths = [Depth(begin, near), Depth(begin + config.change_share * seconds, far)]
    return motion, sweep, record(scan, (begin, total), depths, config.timing, seed, SCAN, _rng(seed, CALIBRATION))


def _sweep_timing(config: SimulationConfig) -> TimingConfig:
    return replace(config.timing, frame_hz=config.sweep_hz)


def _rng(seed: int, *part: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, 100, *part))))
