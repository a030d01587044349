# SPDX-License-Identifier: Apache-2.0
"""Subjects for learning 2D to 3D ultrasound: a motorised sweep in held breath, and live frames while the body breathes.

A live frame is no slice of the volume: it is taken from another direction, in another phase of the breath, with noise,
gain and contact of its own. The truth is where the liver lies.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ..config import check_range
from ..data.types import Frame, TrackedFrame, Volume
from ..data.volumes import with_labels
from ..errors import KinematicsError, NoOverlapError
from ..geometry import rotation, se3
from ..geometry.sector import SectorGeometry
from . import prior
from .body import Body, make_body
from .body.types import ORGANS, STRUCTURES
from .recording import Mount, Shot, images
from .scenario import Scene, SimulationConfig, default_config, make_scene
from .session import vessel_landmarks

PLACING, NOISE = 300, 301  # parts of the seed
ARMS = ("encoder6_tilt", "encoder6_slide")  # their motors tilt and translate the probe
TRIES = 20  # places that are looked at for one frame
BREATHING_S = 60.0  # the live frames fall into so much time of free breathing
POINTS = 9  # by 9: points of the sector that say how much of a frame lies in the volume
LIVE_S = 3.0  # of a session whose arm, motion and scanner are taken; its own frames are not made
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class SubjectConfig:
    """What a subject holds.

    Args:
        simulation: body, arm, probe, scanner and breathing, as in a session; `arm` is replaced, see `arms`.
        arms: one for each seed in turn. frames: live ones.
        slide_mm, press_mm, turn_deg: half widths of the draw that moves the probe from a place of the sweep: along the
            face, into the skin, and about the probe's x, y and z (the beam).
        least_overlap: share of a frame's sector that lies in known voxels.
        least_liver: share of its pixels that show the liver.
    """

    simulation: SimulationConfig = field(default_factory=partial(default_config, "volunteer"))
    arms: tuple[str, ...] = ARMS
    frames: int = 120
    slide_mm: float = 8.0
    press_mm: float = 2.0
    turn_deg: tuple[float, float, float] = (10.0, 10.0, 30.0)
    least_overlap: float = 0.5
    least_liver: float = 0.15

    def __post_init__(self) -> None:
        check_range("frames", self.frames, 1, 10_000)
        check_range("slide_mm", self.slide_mm, 0.0, 50.0)
        check_range("press_mm", self.press_mm, 0.0, 10.0)
        check_range("least_overlap", self.least_overlap, 0.0, 1.0)
        check_range("least_liver", self.least_liver, 0.0, 1.0)


@dataclass(frozen=True, eq=False)
class Subject:
    """A volume with live frames.

    Args:
        volume: 3D ultrasound (1, D, H, W) with mask and labels.
        frames: live ones; their world is the bed, their poses are where the planes truly lie.
        world_T_cts: (N, 4, 4), where the volume truly lies at each frame: it moves with the liver.
        liver: (N, h, w) bool, pixels that show the liver; what others show may move otherwise.
        landmarks: name -> (3,) in `ct`, mm: the liver's vessels where they branch, as far as the sweep has seen them.
    """

    seed: int
    volume: Volume
    frames: tuple[TrackedFrame, ...]
    world_T_cts: Tensor
    liver: Tensor
    landmarks: dict[str, Tensor]

    @property
    def ct_T_images(self) -> Tensor:
        """Where the image planes truly lie in the volume, (N, 4, 4)."""
        return se3.inverse(self.world_T_cts) @ torch.stack([f.world_T_image for f in self.frames])


def make_subject(seed: int, config: SubjectConfig | None = None, progress: Progress | None = None) -> Subject:
    """Make the subject of a seed: the same seed gives the same numbers.

    Args:
        progress: called with (frames and steps done, in all).

    Raises:
        ConfigError: a value out of its range. NoOverlapError: too few frames show the liver. KinematicsError: no arm of
            the configuration can make the sweep.
    """
    config = config or SubjectConfig()
    check_range("seed", seed, 0, 2**31 - 1)
    told = _Told(progress, config)
    body = make_body(seed, config.simulation.body, lambda done, _: told(done))
    scene = _scene(body, seed, config)
    swept = list(images(scene.sweep, scene.scanner))
    volume = prior.ultrasound_volume(
        prior.tracked_frames(scene.sweep, swept), config.simulation.volume_spacing_mm
    )  # fmt: skip
    told(20)
    shots, livers = zip(*_shots(body, scene, volume, seed, config), strict=True)
    recording = replace(scene.scan, shots=shots)
    made: list[TrackedFrame] = []
    poses: list[Tensor] = []
    for shot, image in images(recording, scene.scanner):
        made.append(TrackedFrame(Frame(image, shot.mount.geometry, shot.stamp_ns * 1e-9, len(made)), shot.bed_T_image))
        poses.append(scene.scan.motion.bed_T_organ("liver", shot.t_s))
        told(20 + len(made))
    present = {v: name for v, name in STRUCTURES.items() if v}
    labelled = with_labels(volume, prior.labels_on(volume.grid, body), present)
    landmarks = prior.seen(vessel_landmarks(body), volume)
    return Subject(seed, labelled, tuple(made), torch.stack(poses), torch.stack(livers), landmarks)


class _Told:
    """Progress in frames; the body and the sweep weigh as much as twenty."""

    def __init__(self, progress: Progress | None, config: SubjectConfig) -> None:
        self._progress, self._total = progress, 20 + config.frames

    def __call__(self, done: int) -> None:
        if self._progress is not None:
            self._progress(min(done, self._total), self._total)


def _scene(body: Body, seed: int, config: SubjectConfig) -> Scene:
    """With the arm of the seed's turn, or the next that can."""
    first = seed % len(config.arms)
    for arm in config.arms[first:] + config.arms[:first]:
        span = config.simulation.path.motor_span
        try:
            return make_scene("volunteer", body, seed, LIVE_S, _with_arm(config.simulation, arm, span))
        except KinematicsError as error:
            last = error
    raise KinematicsError(f"no arm of {config.arms} can sweep body {seed}: {last}")


def _with_arm(simulation: SimulationConfig, arm: str, span: float) -> SimulationConfig:
    return replace(simulation, arm=arm, path=replace(simulation.path, motor_span=span, roam="sweep"))


def _shots(body: Body, scene: Scene, volume: Volume, seed: int, config: SubjectConfig) -> list[tuple[Shot, Tensor]]:
    """Live frames before their images are made, with the pixels that show the liver."""
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, PLACING))))
    begin = config.simulation.sweep_s + config.simulation.path.settle_s
    organ = body.inside(*ORGANS["liver"])  # and what moves with it
    found: list[tuple[Shot, Tensor]] = []
    for number in range(TRIES * config.frames):
        if len(found) == config.frames:
            return found
        mount = scene.scan.mounts[number % len(scene.scan.mounts)]
        t_s = begin + BREATHING_S * float(rng.random())
        bed_T_image = _placed(scene, mount, rng, config)
        press = max(0.0, config.press_mm * float(rng.uniform(0.5, 2.0)))
        ct_T_image = se3.inverse(scene.scan.motion.bed_T_organ("liver", t_s)) @ bed_T_image
        if _overlap(volume, ct_T_image, mount.geometry) < config.least_overlap:
            continue
        liver = _liver(organ, body.labels.grid.index_T_ct @ ct_T_image, mount.geometry)
        if float(liver.double().mean()) < config.least_liver:
            continue
        stamp = scene.scan.shots[0].stamp_ns + round(t_s * 1e6) * 1000
        found.append((Shot(stamp, stamp, t_s, bed_T_image, mount, press, 0.0, (seed, NOISE, number)), liver))
    if len(found) < config.frames:
        raise NoOverlapError(
            f"body {seed} shows its liver in {len(found)} frames of {TRIES * config.frames}, {config.frames} are asked "
            "for: lower least_overlap or least_liver, or take another seed"
        )
    return found


def _placed(scene: Scene, mount: Mount, rng: np.random.Generator, config: SubjectConfig) -> Tensor:
    """bed_T_image (4, 4): a place of the sweep, from which the hand has moved."""
    swept = scene.sweep.shots[int(rng.integers(len(scene.sweep.shots)))]
    bed_T_probe = swept.bed_T_image @ se3.inverse(swept.mount.probe_T_image)
    turn = rotation.exp(torch.from_numpy(np.radians(config.turn_deg) * rng.uniform(-1.0, 1.0, 3)))
    shift = np.array([config.slide_mm, config.slide_mm, config.press_mm]) * rng.uniform(-1.0, 1.0, 3)
    return se3.check_rigid(
        bed_T_probe @ se3.from_parts(turn, torch.from_numpy(shift)) @ mount.probe_T_image, "bed_T_image"
    )  # fmt: skip


def _overlap(volume: Volume, ct_T_image: Tensor, geometry: SectorGeometry) -> float:
    """Share of points of the sector that lie in known voxels."""
    known = torch.ones(volume.data.shape[1:], dtype=torch.bool) if volume.mask is None else volume.mask
    index = se3.transform_points(volume.grid.index_T_ct @ ct_T_image, geometry.sample_points_mm(POINTS))
    return float(_at(known, index).double().mean())


def _at(values: Tensor, index: Tensor) -> Tensor:
    """Values (N,) of (D, H, W) at the voxels nearest to index (N, 3) x y z; zero outside."""
    nearest = torch.floor(index + 0.5).long().flip(-1)
    limit = torch.tensor(values.shape)
    inside = ((nearest >= 0) & (nearest < limit)).all(-1)
    z, y, x = nearest.clamp(torch.zeros(3, dtype=torch.long), limit - 1).unbind(-1)
    return torch.where(inside, values[z, y, x], torch.zeros((), dtype=values.dtype))


def _liver(organ: Tensor, index_T_image: Tensor, geometry: SectorGeometry) -> Tensor:
    """Pixels (h, w) bool of the sector that show an organ, given as its voxels (D, H, W) bool."""
    points = geometry.plane.points_mm().reshape(-1, 3)
    shown = _at(organ, se3.transform_points(index_T_image, points))
    return shown.reshape(geometry.plane.height, geometry.plane.width) & geometry.mask()
