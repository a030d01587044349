# SPDX-License-Identifier: Apache-2.0
"""Cases for registration: a body in held breath, its CT, and a robot's sweeps from several windows; truth known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ..config import check_range
from ..data.tissues import load_tissues
from ..data.types import TrackedFrame, Volume
from ..data.volumes import with_labels
from ..errors import KinematicsError, NoOverlapError
from ..geometry import rotation, se3
from ..geometry.sector import SectorGeometry
from ..kinematics import Arm
from . import prior
from .body import Body, make_body
from .body.ct import CtConfig, ct_image
from .body.types import ORGANS, STRUCTURES
from .motion import Still
from .paths import REST_S, stroke_path
from .recording import Recording, images
from .robot import RobotConfig, follow_path
from .scan import FIRST_S, START_NS, Depth, Scan, record
from .scanner import Scanner
from .scenario import SimulationConfig, default_config, load_devices
from .skin import Skin, find_skin
from .strokes import Stroke, StrokeConfig, find_strokes
from .windows import find_windows

PART, PLACING, STROKES, CT, ENCODERS, CALIBRATION = range(200, 206)  # parts of the seed
BREATH_NS = 30 * 10**9  # from one held breath to the next
ROOM_MM = 5.0  # the CT holds every frame and this much more
STEPS = 10  # of a case's progress: eight of the body, frames, CT
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class CaseConfig:
    """What a case holds.

    Args:
        simulation: body, arm, probe, scanner and errors of the tracking, as in a session. Its CT is of thick slices;
            `ct` stands in its place.
        frames: of a sweep. sweep_s: time over which they are taken. depth_mm: of the image.
        most_sweeps: those that show most of the liver's windows are kept; `least_sweeps`: fewer are an error.
        ct: how the CT is taken. ct_margin_mm: it holds the liver, this much more, and every frame.
        spread_mm, spread_deg: half widths, per axis, of the draw of where the patient lies.
    """

    simulation: SimulationConfig = field(default_factory=partial(default_config, "phantom"))
    strokes: StrokeConfig = field(default_factory=StrokeConfig)
    frames: int = 20
    sweep_s: float = 6.0
    depth_mm: float = 125.0
    most_sweeps: int = 4
    least_sweeps: int = 3
    ct: CtConfig = field(default_factory=partial(CtConfig, spacing_mm=(1.25, 1.25, 1.25)))
    ct_margin_mm: float = 40.0
    spread_mm: float = 15.0
    spread_deg: float = 4.0

    def __post_init__(self) -> None:
        check_range("frames", self.frames, 2, 500)
        check_range("sweep_s", self.sweep_s, self.frames / 90, 60.0)
        check_range("depth_mm", self.depth_mm, 10.0, 400.0)
        check_range("least_sweeps", self.least_sweeps, 1, 5)
        check_range("most_sweeps", self.most_sweeps, self.least_sweeps, 5)
        check_range("ct_margin_mm", self.ct_margin_mm, 0.0, 200.0)
        check_range("spread_mm", self.spread_mm, 0.0, 100.0)
        check_range("spread_deg", self.spread_deg, 0.0, 20.0)


@dataclass(frozen=True, eq=False)
class Sweep:
    """Frames of one held breath.

    Args:
        name: window and kind of the stroke.
        frames: with measured poses: constant error of the calibration, noise of the joints.
        world_T_ct: (4, 4), true.
        ct_T_images: (N, 4, 4), where each image plane truly lies; with `frames` it tells the tracking's error.
    """

    name: str
    frames: tuple[TrackedFrame, ...]
    world_T_ct: Tensor
    ct_T_images: Tensor


@dataclass(frozen=True, eq=False)
class Case:
    """A body, as registration meets it.

    Args:
        ct: with labels. landmarks: name -> (3,) in `ct`, mm: the liver's vessels where they branch.
    """

    seed: int
    ct: Volume
    sweeps: tuple[Sweep, ...]
    landmarks: dict[str, Tensor]


def make_case(seed: int, config: CaseConfig | None = None, progress: Progress | None = None) -> Case:
    """Make the case of a seed: the same seed gives the same numbers.

    Raises:
        ConfigError: a value out of its range. NoOverlapError: the liver is seen from fewer than `least_sweeps` ways.
        MissingFileError: no such arm or probe.
    """
    config = config or CaseConfig()
    check_range("seed", seed, 0, 2**31 - 1)
    arm, geometry, _ = load_devices(replace(config.simulation, depths_mm=(config.depth_mm,) * 2))

    def step(done: int, _: int = 0) -> None:
        if progress is not None:
            progress(done, STEPS)

    body = make_body(seed, config.simulation.body, step)
    recordings = _recordings(body, arm, geometry, seed, config)
    scanner = Scanner(body.labels, load_tissues(), geometry, config.simulation.scanner, seed)
    sweeps = tuple(_sweep(name, recording, scanner) for name, recording in recordings)
    step(STEPS - 1)
    case = Case(seed, _ct(body, sweeps, seed, config), sweeps, _branches(body))
    step(STEPS)
    return case


def _recordings(
    body: Body, arm: Arm, geometry: SectorGeometry, seed: int, config: CaseConfig
) -> list[tuple[str, Recording]]:  # fmt: skip
    """The sweeps before their images are made, the widest first; what the arm cannot do is left out."""
    skin, world_T_bed = find_skin(body.labels), _placed(body, seed, config)
    strokes = find_strokes(body, skin, find_windows(body, skin), _rng(seed, STROKES), config.strokes)
    made: list[tuple[str, Recording]] = []
    for number, stroke in enumerate(strokes):
        if len(made) == config.most_sweeps:
            break
        try:
            recording = _recorded(stroke, skin, arm, geometry, world_T_bed, seed, number, config)
        except KinematicsError:
            continue
        made.append((stroke.name, recording))
    if len(made) < config.least_sweeps:
        raise NoOverlapError(
            f"body {seed} shows its liver in {len(made)} sweeps that the arm can do, {config.least_sweeps} are asked "
            "for: lower least_sweeps or take another seed"
        )
    return made


def _placed(body: Body, seed: int, config: CaseConfig) -> Tensor:
    """world_T_bed: nobody lies exactly as the last patient did."""
    rng, known = _rng(seed, PLACING), config.simulation
    shift = config.spread_mm * rng.uniform(-1, 1, 3)
    turn = rotation.exp(torch.from_numpy(np.radians(config.spread_deg) * rng.uniform(-1, 1, 3)))
    bed = known.world_T_bed(body)
    pivot = se3.transform_points(bed, body.labels.grid.centre_ct[None])[0]
    moved = se3.from_parts(turn, torch.from_numpy(shift))
    return se3.check_rigid(se3.translation(pivot) @ moved @ se3.translation(-pivot) @ bed, "world_T_bed")


def _recorded(
    stroke: Stroke, skin: Skin, arm: Arm, geometry: SectorGeometry, world_T_bed: Tensor, seed: int, number: int,
    config: CaseConfig,
) -> Recording:  # fmt: skip
    """A stroke as the robot does it: frames from its first movement to its last."""
    known, total = config.simulation, config.sweep_s + 2 * REST_S
    path = stroke_path(skin, stroke.name, stroke.places, total, known.path, seed + number)
    track = follow_path(
        arm, path, world_T_bed, _rng(seed, ENCODERS, number), RobotConfig(joint_hz=known.timing.joint_hz)
    )
    scan = Scan(arm, path, track, world_T_bed, Still(), START_NS + number * BREATH_NS)
    timing = replace(known.timing, frame_hz=(config.frames + 0.5) / config.sweep_s, drop_share=0.0)
    window = (REST_S - FIRST_S, total - REST_S + FIRST_S)
    return record(
        scan, window, [Depth(0.0, geometry)], timing, seed, PART + number, _rng(seed, CALIBRATION, number)
    )  # fmt: skip


def _sweep(name: str, recording: Recording, scanner: Scanner) -> Sweep:
    exposed = list(images(recording, scanner))
    poses = torch.stack([shot.bed_T_image for shot, _ in exposed])  # who holds the breath lies in `bed` as in `ct`
    return Sweep(name, tuple(prior.world_frames(recording, exposed)), recording.world_T_bed, poses)


def _ct(body: Body, sweeps: tuple[Sweep, ...], seed: int, config: CaseConfig) -> Volume:
    """The liver, a margin and every frame, with labels."""
    index = body.inside(*ORGANS["liver"]).nonzero().flip(-1).double()
    ends = torch.cartesian_prod(*torch.stack([index.min(0).values, index.max(0).values], -1))
    reach = config.ct_margin_mm - ROOM_MM
    spread = torch.cartesian_prod(*[torch.tensor([-reach, reach], dtype=torch.float64)] * 3)
    direction = torch.tensor(body.labels.grid.direction, dtype=torch.float64).reshape(3, 3)
    corners = se3.transform_points(body.labels.grid.ct_T_index, ends) + spread @ direction.T
    seen = [corners]
    for sweep in sweeps:
        for tracked, ct_T_image in zip(sweep.frames, sweep.ct_T_images, strict=True):
            seen.append(se3.transform_points(ct_T_image, _outline(tracked)))
    part = replace(body, labels=prior.cropped_to(body.labels, torch.cat(seen), ROOM_MM))
    ct = ct_image(part, _rng(seed, CT), config.ct)
    present = {v: name for v, name in STRUCTURES.items() if v}
    return with_labels(ct, prior.labels_on(ct.grid, part), present)


def _outline(tracked: TrackedFrame) -> Tensor:
    """Points (N, 3) of the image frame over all of its sector."""
    geometry = tracked.frame.geometry
    assert isinstance(geometry, SectorGeometry)
    x0, y0, x1, y1 = geometry.clip_mm
    return torch.tensor([[x0, y0, 0], [x1, y0, 0], [x0, y1, 0], [x1, y1, 0]], dtype=torch.float64)


def _branches(body: Body) -> dict[str, Tensor]:
    return {name: point for name, point in body.landmarks.items() if "bifurcation" in name}


def _rng(seed: int, *part: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, *part))))
