# SPDX-License-Identifier: Apache-2.0
"""A session whose truth is known: an iiwa scans the phantom; bag, volume, labels and session.yaml in one folder."""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..acquisition.agreement import load_probe
from ..config import check_range
from ..data.sessions import InitialPose, SessionConfig, write_session
from ..data.types import Volume
from ..data.volumes import read_volume, write_volume
from ..errors import UsregError, WriteError
from ..geometry import rotation, se3
from ..geometry.sector import SectorGeometry
from ..kinematics import Arm, load_arm
from .arms import body_T_probe, check_speed, ct_T_body, follow
from .phantom import PhantomConfig, make_phantom
from .recording import Recording, Statics, write_recording
from .simple_scanner import Scanner, ScannerConfig

log = logging.getLogger(__name__)
Progress = Callable[[int, int], None]
START_NS = 1_700_000_000 * 10**9  # stamps as large as a real clock's
LICENCE = "Apache-2.0"
DESCRIPTION = "Simulated: an iiwa scans a rigid speckled phantom, sweep then fan. Not a patient."


@dataclass(frozen=True)
class SimulationConfig:
    """What is simulated.

    Args:
        arm, probe: names in config/arms and config/probes.
        frame_hz, joint_hz: rates of images and joint states. jitter_s: half width of the draw around regular frame
        stamps.
        latency_s: images reach the recorder this much after their acquisition; their stamps are those of acquisition.
        draw_mm, draw_deg: half widths, per axis, of the uniform draw that moves the initial world_T_ct off the truth.
        patient_mm: centre of the phantom in the world. patient_turn_deg: rotation vector away from lying straight.
    """

    arm: str = "iiwa7"
    probe: str = "phantom"
    frame_hz: float = 15.0
    joint_hz: float = 100.0
    jitter_s: float = 0.002
    latency_s: float = 0.045
    draw_mm: float = 10.0
    draw_deg: float = 5.0
    patient_mm: tuple[float, float, float] = (560.0, 40.0, 150.0)
    patient_turn_deg: tuple[float, float, float] = (5.0, -4.0, 12.0)
    phantom: PhantomConfig = field(default_factory=PhantomConfig)
    scanner: ScannerConfig = field(default_factory=ScannerConfig)

    def __post_init__(self) -> None:
        check_range("frame_hz", self.frame_hz, 1.0, 100.0)
        check_range("joint_hz", self.joint_hz, 20.0, 1000.0)
        check_range("jitter_s", self.jitter_s, 0.0, 0.25 / self.frame_hz)
        check_range("latency_s", self.latency_s, 0.0, 1.0)
        check_range("draw_mm", self.draw_mm, 0.0, 100.0)
        check_range("draw_deg", self.draw_deg, 0.0, 90.0)

    @property
    def world_T_body(self) -> Tensor:
        """True pose (4, 4) of the phantom: on its back, head towards the world's y, turned by `patient_turn_deg`."""
        lying = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]], dtype=torch.float64)
        turn = rotation.exp(torch.tensor([math.radians(a) for a in self.patient_turn_deg], dtype=torch.float64))
        return se3.from_parts(turn @ lying, torch.tensor(self.patient_mm, dtype=torch.float64))


def simulate_phantom(
    folder: str | Path,
    seed: int = 0,
    seconds: float = 12.0,
    progress: Progress | None = None,
    config: SimulationConfig | None = None,
) -> Path:
    """Make a session: the same seed gives the same bytes.

    Args:
        folder: to be made; it appears only when everything in it is written.
        progress: called with (frames done, frames in all).

    Returns:
        The folder.

    Raises:
        WriteError: the folder exists, or cannot be written. ConfigError: a value out of its range.
    """
    folder = Path(folder)
    check_range("seed", seed, 0, 2**31 - 1)
    check_range("seconds", seconds, 3.0, 600.0)  # faster than the joints of an iiwa can follow below
    if folder.exists():
        raise WriteError(f"'{folder.name}' exists already: choose another name or remove it; nothing was changed")
    partial = folder.with_name(f".{folder.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        _write_session(partial, seed, seconds, progress, config or SimulationConfig())
        partial.rename(folder)
    except UsregError:
        raise  # some are OSErrors too, and say already what is wrong
    except OSError as error:
        raise WriteError(f"cannot write the session '{folder.name}': {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _write_session(
    folder: Path, seed: int, seconds: float, progress: Progress | None, config: SimulationConfig
) -> None:
    streams = np.random.SeedSequence(seed).spawn(4)
    tissue, scan, encoders, draw = (np.random.Generator(np.random.PCG64(s)) for s in streams)
    phantom = make_phantom(config.phantom, tissue)
    volume = _write_volumes(folder, phantom.volume)
    world_T_ct = config.world_T_body @ se3.inverse(ct_T_body(volume.grid))
    arm, geometry = load_arm(config.arm), load_probe(config.probe).geometry
    recording = _scan(config, arm, geometry, world_T_ct, volume, seconds, scan, encoders)
    scanner = Scanner(phantom.echo, volume.grid, geometry, config.scanner)
    write_recording(folder / "bag", recording, scanner, config.latency_s, scan, progress)
    write_session(folder, _session_config(config, seed, volume, world_T_ct, draw))


def _write_volumes(folder: Path, volume: Volume) -> Volume:
    """Write the volume and its labels; what comes back is as a reader sees it (NIfTI keeps a rounded geometry)."""
    write_volume(volume, folder / "volume.nii.gz")
    if volume.labels is not None:
        labels = volume.labels.to(torch.uint8)[None]
        write_volume(replace(volume, data=labels, labels=None, label_names={}), folder / "labels.nii.gz")
    return replace(read_volume(folder / "volume.nii.gz", volume.modality), label_names=volume.label_names)


def _scan(
    config: SimulationConfig, arm: Arm, geometry: SectorGeometry, world_T_ct: Tensor, volume: Volume, seconds: float,
    scan: np.random.Generator, encoders: np.random.Generator,
) -> Recording:  # fmt: skip
    """When frames and joints are measured, where the image truly is, and what the encoders say."""
    joint_ns = np.rint(np.arange(int(seconds * config.joint_hz) + 1) * 1e9 / config.joint_hz).astype(np.int64)
    count = int((seconds - 0.2) * config.frame_hz)
    jitter = scan.uniform(-config.jitter_s, config.jitter_s, count)
    frame_ns = np.rint((0.1 + np.arange(count) / config.frame_hz + jitter) * 1e6).astype(np.int64) * 1000
    world_T_body = world_T_ct @ ct_T_body(volume.grid)

    def probe(ns: int) -> Tensor:
        return world_T_body @ body_T_probe(ns * 1e-9 / seconds)

    q = follow(arm, (probe(int(ns)) for ns in joint_ns))
    check_speed(arm, torch.from_numpy(joint_ns * 1e-9), q)
    measured = q + torch.from_numpy(encoders.standard_normal(q.shape)) * arm.sigma_rad
    probe_T_image = image_in_probe(geometry)
    poses = torch.stack([probe(int(ns)) @ probe_T_image for ns in frame_ns])
    statics = Statics(arm, probe_T_image, geometry)
    return Recording(START_NS + joint_ns, measured, START_NS + frame_ns, poses, world_T_ct, statics)


def image_in_probe(geometry: SectorGeometry) -> Tensor:
    """probe_T_image (4, 4): origin in the middle of the face, z along the beam, slightly turned as in a real holder."""
    face = torch.tensor([geometry.apex_mm[0], geometry.apex_mm[1] + geometry.radius_mm[0], 0.0], dtype=torch.float64)
    axes = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]], dtype=torch.float64)  # image's y along z
    turn = rotation.exp(torch.tensor([math.radians(a) for a in (1.5, -2.0, 1.0)], dtype=torch.float64))
    return se3.from_parts(turn @ axes, -(turn @ axes @ face))


def _session_config(
    config: SimulationConfig, seed: int, volume: Volume, world_T_ct: Tensor, draw: np.random.Generator
) -> SessionConfig:
    limit_rad = math.radians(config.draw_deg)
    shift = torch.from_numpy(draw.uniform(-config.draw_mm, config.draw_mm, 3))
    turn = rotation.exp(torch.from_numpy(draw.uniform(-limit_rad, limit_rad, 3)))
    pivot = se3.transform_points(world_T_ct, volume.grid.centre_ct[None])[0]
    start = se3.translation(pivot) @ se3.from_parts(turn, shift) @ se3.translation(-pivot) @ world_T_ct
    variance = torch.tensor([config.draw_mm**2 / 3] * 3 + [limit_rad**2 / 3] * 3, dtype=torch.float64)
    return SessionConfig(
        bag="bag", volume="volume.nii.gz", modality="US", labels="labels.nii.gz",
        label_names={str(k): v for k, v in volume.label_names.items()},
        initial=InitialPose.of(start, torch.diag(variance), config.draw_mm, config.draw_deg),
        arm=config.arm, probe=config.probe, latency_applied_s=config.latency_s, seed=seed, truth=True,
        description=DESCRIPTION, licence=LICENCE,
    )  # fmt: skip
