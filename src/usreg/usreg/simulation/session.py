# SPDX-License-Identifier: Apache-2.0
"""Sessions of the digital patient: the scan, what was known before it, session.yaml; in one folder or as a stream."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..config import check_range
from ..data.atomic import atomic_folder
from ..data.landmarks import write_landmarks
from ..data.sessions import InitialPose, SessionConfig, write_session
from ..data.types import Volume
from ..data.volumes import write_volume
from ..geometry import rotation, se3
from . import prior
from .body import make_body
from .body.ct import ct_image
from .body.types import ORGANS, STRUCTURES, Body
from .recording import Shot, images, write_recording
from .scenario import Kind, Scene, SimulationConfig, default_config, load_devices, make_scene

Progress = Callable[[int, int], None]
LICENCE = "Apache-2.0"
DESCRIPTIONS = {
    "phantom": "Simulated: an iiwa scans a rigid abdomen below and between the ribs. Not a patient.",
    "volunteer": "Simulated: a breathing abdomen, an encoder arm with a motorised scanner. Not a patient.",
}
BODY_SHARE = 40  # what the body weighs in the progress, in frames
BODY, SWEEP, SCAN = range(3)  # parts of the progress


def simulate_phantom(
    folder: str | Path, seed: int = 0, seconds: float = 12.0, progress: Progress | None = None,
    config: SimulationConfig | None = None,
) -> Path:  # fmt: skip
    """An iiwa scans a rigid body: subcostal, intercostal and epigastric. See `simulate`."""
    return simulate("phantom", folder, seed, seconds, progress, config)


def simulate_volunteer(
    folder: str | Path, seed: int = 0, seconds: float = 12.0, progress: Progress | None = None,
    config: SimulationConfig | None = None,
) -> Path:  # fmt: skip
    """An encoder arm scans a breathing body: a sweep in breath-hold, then by free hand. See `simulate`."""
    return simulate("volunteer", folder, seed, seconds, progress, config)


def simulate(
    kind: Kind, folder: str | Path, seed: int = 0, seconds: float = 12.0, progress: Progress | None = None,
    config: SimulationConfig | None = None,
) -> Path:  # fmt: skip
    """Make a session: the same seed gives the same bytes.

    Args:
        folder: to be made; it appears only when everything in it is written.
        seconds: length of the scan, without the sweep before it.
        progress: called with (steps done, steps in all).

    Returns:
        The folder.

    Raises:
        WriteError: the folder exists, or cannot be written. ConfigError: a value out of its range. MissingFileError: no
            such arm or probe. KinematicsError: the arm cannot follow. NoOverlapError: the sweep sees no landmark.
    """
    with atomic_folder(folder) as partial:
        prepare(kind, seed, seconds, progress, config).write(partial, bag=True)
    return Path(folder)


@dataclass(frozen=True, eq=False)
class Prepared:
    """A session whose scan has not been made yet: its images come when the bag is written, or one by one.

    Args:
        ultrasound, ct: what was known before; labels (D, H, W) int16 on the grid of the ultrasound.
        swept: the sweep's shots with their images.
    """

    kind: Kind
    seed: int
    config: SimulationConfig
    body: Body
    scene: Scene
    ultrasound: Volume
    ct: Volume
    labels: Tensor
    landmarks: dict[str, Tensor]
    swept: tuple[tuple[Shot, Tensor], ...]
    progress: Steps

    def write(self, folder: Path, bag: bool) -> SessionConfig:
        """Volumes, landmarks and session.yaml; with `bag` also the scan and the sweep before it."""
        write_volume(self.ultrasound, folder / "volume.nii.gz")
        labels = replace(self.ultrasound, data=self.labels.to(torch.uint8)[None], mask=None)
        write_volume(labels, folder / "labels.nii.gz")
        write_volume(self.ct, folder / "ct.nii.gz")
        write_landmarks(folder / "landmarks.yaml", self.landmarks)
        config = self._session_config()
        if bag:
            if config.sweep:
                write_recording(folder / config.sweep, self.scene.sweep, self.swept)
            scan = self.scene.scan
            write_recording(folder / "bag", scan, images(scan, self.scene.scanner), self.progress.part(SCAN))
            write_session(folder, config)
        return config

    def _session_config(self) -> SessionConfig:
        c, values = self.config, sorted(set(self.labels.unique().tolist()) - {0})
        return SessionConfig(
            bag="bag", volume="volume.nii.gz", modality="US", labels="labels.nii.gz",
            label_names={str(v): STRUCTURES[v] for v in values}, volumes={"ct": "ct.nii.gz"},
            landmarks="landmarks.yaml", sweep="sweep" if c.keep_sweep else "", initial=self._initial(), arm=c.arm,
            latency_applied_s=c.timing.latency_s, seed=self.seed, options=self._options(), smoothing=dict(c.smoothing),
            still=self.kind == "phantom", truth=True, description=DESCRIPTIONS[self.kind], licence=LICENCE,
        )  # fmt: skip

    def _options(self) -> dict[str, Any]:
        """Of the registration: where the body breathes, the liver alone is followed."""
        options = dict(self.config.options)
        if self.kind == "volunteer":
            present = {STRUCTURES[v] for v in self.labels.unique().tolist()}
            options["structures"] = [name for name in ORGANS["liver"] if name in present]
        return options

    def _initial(self) -> InitialPose:
        """Off the truth at the first frame, by a uniform draw about the middle of the volume."""
        draw = _stream(self.seed, 4)
        c, limit = self.config, math.radians(self.config.draw_deg)
        shift = torch.from_numpy(draw.uniform(-c.draw_mm, c.draw_mm, 3))
        turn = rotation.exp(torch.from_numpy(draw.uniform(-limit, limit, 3)))
        truth = self.scene.scan.world_T_ct(self.scene.scan.shots[0].t_s)
        pivot = se3.transform_points(truth, self.ultrasound.grid.centre_ct[None])[0]
        start = se3.translation(pivot) @ se3.from_parts(turn, shift) @ se3.translation(-pivot) @ truth
        variance = torch.tensor([c.draw_mm**2 / 3] * 3 + [limit**2 / 3] * 3, dtype=torch.float64)
        return InitialPose.of(start, torch.diag(variance), c.draw_mm, c.draw_deg)


class Steps:
    """Progress over the parts of a simulation, in frames: what is done only grows, what is to be done stays.

    Args:
        weights: what each part weighs, whatever the number of its own steps.
    """

    def __init__(self, progress: Progress | None, *weights: float) -> None:
        self._progress, self._weights = progress, [max(1, round(w)) for w in weights]

    def part(self, index: int) -> Progress:
        """Progress of a part by its own steps."""
        before, weight = sum(self._weights[:index]), self._weights[index]

        def tell(done: int, total: int) -> None:
            if self._progress is not None:
                self._progress(before + weight * done // max(1, total), sum(self._weights))

        return tell


def prepare(
    kind: Kind, seed: int, seconds: float, progress: Progress | None = None, config: SimulationConfig | None = None
) -> Prepared:
    """The body, the scan that is to be made, and what was known before: the sweep is made here.

    Raises:
        ConfigError, MissingFileError, KinematicsError, NoOverlapError: see `simulate`.
    """
    check_range("seed", seed, 0, 2**31 - 1)
    check_range("seconds", seconds, 3.0, 600.0)
    config = config or default_config(kind)
    load_devices(config)  # names that are wrong are told before the minutes that a body takes
    steps = Steps(progress, BODY_SHARE, config.sweep_s * config.sweep_hz, seconds * config.timing.frame_hz)
    body = make_body(seed, config.body, steps.part(BODY))
    scene = make_scene(kind, body, seed, seconds, config)
    swept = tuple(_counted(images(scene.sweep, scene.scanner), len(scene.sweep.shots), steps.part(SWEEP)))
    ultrasound = prior.ultrasound_volume(prior.tracked_frames(scene.sweep, swept), config.volume_spacing_mm)
    ct = ct_image(body, _stream(seed, 5), config.ct)
    ct = prior.cropped(ct, ultrasound.grid, config.ct_margin_mm)
    landmarks = prior.seen(vessel_landmarks(body), ultrasound)
    labels = prior.labels_on(ultrasound.grid, body)
    return Prepared(kind, seed, config, body, scene, ultrasound, ct, labels, landmarks, swept, steps)


def _counted(shots: Iterator[tuple[Shot, Tensor]], total: int, progress: Progress) -> Iterator[tuple[Shot, Tensor]]:
    for done, shot in enumerate(shots, 1):
        yield shot
        progress(done, total)


def vessel_landmarks(body: Body) -> dict[str, Tensor]:
    """Bifurcations of the liver's vessels: points that move with the liver."""
    return {name: p for name, p in body.landmarks.items() if "bifurcation" in name}


def _stream(seed: int, index: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, index))))
