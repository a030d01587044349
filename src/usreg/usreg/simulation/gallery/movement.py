# SPDX-License-Identifier: Apache-2.0
"""How the probe is led over the skin, what the arms' joints do, and how the organs move."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from matplotlib.axes import Axes
from numpy.typing import NDArray

from ...evaluation.figures import BLUE, ORANGE, RED, draw
from ...geometry import se3
from ...kinematics import Arm, load_arm
from ..body.types import ORGANS, Body
from ..breathing import Breathing, BreathingConfig
from ..encoder_arm import EncoderConfig, lead_arm
from ..motion import BreathingMotion
from ..motor import motor_of
from ..paths import ScanPath, phantom_path, volunteer_path
from ..robot import JointTrack, RobotConfig, follow_path
from ..scenario import SimulationConfig, default_config
from ..skin import Skin
from .config import GalleryConfig
from .numbers import OTHER_COLOUR, finish
from .pictures import NOTICE

COLOURS = {"subcostal": BLUE, "intercostal": ORANGE, "epigastric": OTHER_COLOUR, "sweep": RED}
JOINTS = ("#3d85c6", "#e08a1e", "#d04a3a", "#3a9d6e", "#8a63c9", "#c96a9f", "#7a8794")
PATH_HZ, JOINT_HZ, BREATH_HZ = 50.0, 100.0, 50.0
ENCODERS = 6  # tells the arms' noise from other streams of the seed


@dataclass(frozen=True, eq=False)
class Ride:
    """An arm that leads the probe along a path. world_T_bed: (4, 4), where the body lies."""

    name: str
    arm: Arm
    path: ScanPath
    track: JointTrack
    world_T_bed: torch.Tensor


def rides(body: Body, seed: int, config: GalleryConfig) -> list[Ride]:
    """A robot's sweeps over a phantom, and an encoder arm led by a hand over a volunteer, as sessions have them.

    Raises:
        KinematicsError: an arm cannot follow. NoOverlapError: the liver is seen from nowhere.
    """
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, ENCODERS))))
    return [_robot(body, seed, config, rng), _hand(body, seed, config, rng)]


def _robot(body: Body, seed: int, config: GalleryConfig, rng: np.random.Generator) -> Ride:
    made = default_config("phantom")
    arm, bed = load_arm(made.arm), made.world_T_bed(body)
    path = phantom_path(body, config.seconds, made.path, seed)
    return Ride("phantom", arm, path, follow_path(arm, path, bed, rng, RobotConfig(joint_hz=JOINT_HZ)), bed)


def _hand(body: Body, seed: int, config: GalleryConfig, rng: np.random.Generator) -> Ride:
    made: SimulationConfig = default_config("volunteer")
    arm, bed = load_arm(made.arm), made.world_T_bed(body)
    path = volunteer_path(body, made.sweep_s + made.path.settle_s + config.seconds, motor_of(arm), made.path, seed)
    return Ride("volunteer", arm, path, lead_arm(arm, path, bed, rng, EncoderConfig(joint_hz=JOINT_HZ)), bed)


def unrolled_plot(ride: Ride, skin: Skin) -> str:
    """The probe's way on the skin, unrolled: arc from the middle of the front over height."""
    t = np.arange(0.0, ride.path.duration_s, 1.0 / PATH_HZ)
    points = ride.path.poses(t)[:, :3, 3]
    spots = np.array([skin.coordinates(p) for p in points])
    radius = np.linalg.norm(points[:, :2] - skin.axis_mm, axis=-1)

    def plot(axes: Axes) -> None:
        named: set[str] = set()
        for name, start, stop in ride.path.windows:
            part = (t >= start) & (t <= stop)
            label = None if name in named else name
            colour = COLOURS.get(name, "#888888")
            axes.plot((spots[:, 0] * radius)[part], spots[part, 1], color=colour, label=label, linewidth=1.2)
            named.add(name)
        axes.set(xlabel="along the skin from the middle, left positive / mm", ylabel="towards the head / mm")
        axes.set_aspect("equal", "datalim")
        finish(axes, NOTICE)

    return draw(plot, 5.0, 3.6)


def joint_plot(ride: Ride) -> str:
    """True joints over time: turning ones in degrees."""
    joints, kinds = ride.track.joints.numpy(), ride.arm.chain.kinds

    def plot(axes: Axes) -> None:
        for i, name in enumerate(ride.arm.chain.joint_names):
            turning = kinds[i] != "prismatic"
            values = np.degrees(joints[:, i]) if turning else joints[:, i]
            axes.plot(ride.track.t_s, values, color=JOINTS[i % len(JOINTS)], label=name, linewidth=1.2)
        unit = "joint / degrees" + ("" if all(k != "prismatic" for k in kinds) else ", slide / mm")
        axes.set(xlabel="time / s", ylabel=unit)
        finish(axes, NOTICE)

    return draw(plot, 10.0, 3.4)


def probe_track(ride: Ride) -> tuple[NDArray[np.float64], list[str]]:
    """Poses world_T_probe (N, 4, 4) along the path, and the colour of the window of each."""
    t = np.arange(0.0, ride.path.duration_s, 1.0 / PATH_HZ)
    colours = ["#888888"] * len(t)
    for name, start, stop in ride.path.windows:
        for i in np.flatnonzero((t >= start) & (t <= stop)):
            colours[i] = COLOURS.get(name, "#888888")
    return ride.world_T_bed.numpy() @ ride.path.poses(t), colours


def arm_points(ride: Ride, t_s: float) -> NDArray[np.float64]:
    """Origins (n, 3) of the arm's links in `world` at a time, base to flange."""
    row = int(np.argmin(np.abs(ride.track.t_s - t_s)))
    links = ride.arm.world_T_base @ ride.arm.chain.links(ride.track.joints[row])
    return np.asarray(links[:, :3, 3].numpy())


@dataclass(frozen=True, eq=False)
class Breath:
    """Motion of the liver's middle over time: towards the feet, the front and the patient's right, mm."""

    name: str
    t_s: NDArray[np.float64]
    down_mm: NDArray[np.float64]
    front_mm: NDArray[np.float64]
    right_mm: NDArray[np.float64]


def breaths(body: Body, seed: int, config: GalleryConfig) -> list[Breath]:
    """A regular patient, an irregular one, and one who holds his breath and coughs.

    Raises:
        ConfigError: the body has no organ that breathes, or breathes so deeply that it folds.
    """
    span, base = config.breathing_s, config.breathing
    held = replace(base, holds_s=((0.3 * span, 0.55 * span),), coughs_s=(0.8 * span,))
    kinds = {"regular (cos⁴)": replace(base, waveform="cos4"), "irregular": base, "hold and cough": held}
    motion = BreathingMotion(body, base, seed)
    t = np.arange(0.0, span, 1.0 / BREATH_HZ)
    return [_breath(name, motion, seed, t, c) for name, c in kinds.items()]


def _breath(name: str, like: BreathingMotion, seed: int, t: NDArray[np.float64], config: BreathingConfig) -> Breath:
    motion = copy.copy(like)  # how an organ moves does not need the lattice made anew
    motion.config, motion.breathing = config, Breathing(config, seed)
    organ = next(o for o in ORGANS if o in motion.lattice.organs)
    centre = torch.from_numpy(motion.lattice.centroids[motion.lattice.organs.index(organ)])
    moved = np.stack([se3.transform_points(motion.bed_T_organ(organ, s), centre[None])[0].numpy() for s in t])
    way = moved - centre.numpy()
    return Breath(name, t, -way[:, 2], -way[:, 1], -way[:, 0])


def breathing_plot(breath: Breath) -> str:
    """Motion over time."""

    def plot(axes: Axes) -> None:
        for label, values, colour in _ways(breath):
            axes.plot(breath.t_s, values, color=colour, label=label)
        axes.set(xlabel="time / s", ylabel="middle of the liver / mm")
        axes.set_title(breath.name, fontsize=9, loc="right")
        finish(axes, NOTICE)

    return draw(plot, 10.0, 2.4)


def _ways(b: Breath) -> list[tuple[str, NDArray[np.float64], str]]:
    return [("towards the feet", b.down_mm, BLUE), ("front", b.front_mm, ORANGE), ("right", b.right_mm, OTHER_COLOUR)]


def loop_plot(breath_list: Sequence[Breath]) -> str:
    """Hysteresis: breathing in takes another way than breathing out."""

    def plot(axes: Axes) -> None:
        for b, colour in zip(breath_list, (BLUE, ORANGE, RED), strict=False):
            axes.plot(b.down_mm, b.front_mm, color=colour, label=b.name, linewidth=1.0)
        axes.set(xlabel="towards the feet / mm", ylabel="towards the front / mm")
        finish(axes, NOTICE)

    return draw(plot, 5.0, 3.4)
