# SPDX-License-Identifier: Apache-2.0
"""Ways of a probe over the skin: sweeps of a robot, a motor's sweep in a breath-hold, a sonographer's free hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator
from torch import Tensor

from ..config import check_range
from ..errors import ConfigError, NoOverlapError
from .body.types import Body
from .motor import Motor
from .skin import Skin, find_skin
from .windows import Sight, Window, costal_margin, find_windows, poses_at

Places = NDArray[np.float64]  # (N, 5), see windows.Window
TREMOR_HZ = (0.15, 0.4, 0.7, 1.1, 4.5, 6.0, 8.0)  # hand and physiological tremor
RIPPLE_HZ = (0.23, 0.6, 1.3)
SMALLEST = 0.3  # a sweep is not made smaller than this share before another one is left out
REST_S = 0.4  # both ends of a path are still for this long: an arm starts and stops from rest


@dataclass(frozen=True)
class PathConfig:
    """How the probe is led.

    Args:
        speed_mm_s, turn_deg_s: largest speeds of the contact and of the probe's orientation.
        force_n: set point of the contact force; ripple_n: its amplitude. stiffness_n_mm: force per mm of indentation.
        slide_mm: half length of a sweep along the skin. fan_deg: half angle of a fan.
        tremor_mm, tremor_deg: root mean square of a free hand's unrest.
        motor_span: half range of the motor, in degrees (tilt) or mm (slide).
        sweep_s: duration of the motor's sweep; the hand is locked until then and for settle_s more.
        roam: where the free hand goes after the sweep: to all "windows" of the liver, also to parts of it that the
            sweep has not seen, or about the window of the "sweep" alone.
    """

    speed_mm_s: float = 25.0
    turn_deg_s: float = 18.0
    force_n: float = 5.0
    ripple_n: float = 0.6
    stiffness_n_mm: float = 1.25
    slide_mm: float = 22.0
    fan_deg: float = 12.0
    tremor_mm: float = 0.5
    tremor_deg: float = 0.4
    motor_span: float = 28.0
    sweep_s: float = 8.0
    settle_s: float = 2.5
    roam: Literal["windows", "sweep"] = "windows"

    def __post_init__(self) -> None:
        ranges = {
            "speed_mm_s": (1.0, 100.0), "turn_deg_s": (1.0, 90.0), "force_n": (0.0, 30.0), "ripple_n": (0.0, 10.0),
            "stiffness_n_mm": (0.1, 20.0), "slide_mm": (0.0, 80.0), "fan_deg": (0.0, 40.0), "tremor_mm": (0.0, 3.0),
            "tremor_deg": (0.0, 3.0), "motor_span": (1.0, 80.0), "sweep_s": (1.0, 120.0), "settle_s": (0.5, 20.0),
        }  # fmt: skip
        for name, (low, high) in ranges.items():
            check_range(name, getattr(self, name), low, high)


@dataclass(frozen=True, eq=False)
class ScanPath:
    """Where the probe is, over time from 0 to duration_s; before and after, at its ends.

    Args:
        windows: (name, from s, to s).
        hand: times (N,) -> poses bed_T_probe (N, 4, 4) with the motor at zero.
        position: times (N,) -> position of the motor (N,), rad or mm; zeros without one.
        indentation: times (N,) -> (N,) mm. stiffness_n_mm: contact force per mm of it.
        locked_s: (from, to) while the arm's brake holds the hand.
    """

    duration_s: float
    windows: tuple[tuple[str, float, float], ...]
    hand: Callable[[NDArray[np.float64]], NDArray[np.float64]]
    indentation: Callable[[NDArray[np.float64]], NDArray[np.float64]]
    stiffness_n_mm: float
    motor: Motor | None = None
    position: Callable[[NDArray[np.float64]], NDArray[np.float64]] | None = None
    locked_s: tuple[float, float] = (0.0, 0.0)

    def poses(self, t_s: Any) -> NDArray[np.float64]:
        """Poses bed_T_probe (N, 4, 4) at times (N,)."""
        t = self._clipped(t_s)
        hand = self.hand(t)
        return hand if self.motor is None else np.asarray(hand @ self.motor.moved(self.motor_position(t)))

    def bed_T_probe(self, t_s: float) -> Tensor:
        """Pose (4, 4) float64 at a time."""
        return torch.from_numpy(self.poses([t_s])[0])

    def motor_position(self, t_s: Any) -> NDArray[np.float64]:
        """Positions (N,) of the motor, rad or mm."""
        t = self._clipped(t_s)
        return np.zeros_like(t) if self.position is None else self.position(t)

    def locked(self, t_s: Any) -> NDArray[np.bool_]:
        """Whether the brake holds the hand, (N,)."""
        t = np.atleast_1d(np.asarray(t_s, float))
        return np.asarray((self.locked_s[0] <= t) & (t < self.locked_s[1]))

    def indentation_mm(self, t_s: float) -> float:
        """How far the middle of the face is pressed below the skin at rest, mm; negative: it is off the skin."""
        return float(self.indentation(self._clipped([t_s]))[0])

    def force_n(self, t_s: float) -> float:
        """Contact force, N; zero off the skin."""
        return max(0.0, self.stiffness_n_mm * self.indentation_mm(t_s))

    def _clipped(self, t_s: Any) -> NDArray[np.float64]:
        t = np.atleast_1d(np.asarray(t_s, float))
        if not np.isfinite(t).all():
            raise ConfigError("a time on the path is not finite")
        return np.clip(t, 0.0, self.duration_s)


def phantom_path(body: Body, duration_s: float, config: PathConfig | None = None, seed: int = 0) -> ScanPath:
    """Subcostal, intercostal and epigastric sweeps one after another, without lifting the probe.

    Where the time is too short for all of them they get smaller, then the last ones are left out; where it is ample
    they are repeated.

    Raises:
        ConfigError: no time. NoOverlapError: the liver is seen from nowhere.
    """
    config = config or PathConfig()
    _check_duration(duration_s)
    skin = find_skin(body.labels)
    sweeps = [(w.name, _sweep(w, body, skin, config)) for w in find_windows(body, skin)]
    return _led(skin, _fitted(skin, sweeps, duration_s, config), duration_s, config, seed)


def volunteer_path(
    body: Body, duration_s: float, motor: Motor, config: PathConfig | None = None, seed: int = 0
) -> ScanPath:
    """A sweep of the motor with the hand locked, then free scanning about the windows of the liver.

    Raises:
        ConfigError: no time for the sweep. NoOverlapError: the liver is seen from nowhere.
    """
    config = config or PathConfig()
    _check_duration(duration_s)
    start_s = config.sweep_s + config.settle_s
    if duration_s < start_s:
        raise ConfigError(f"{duration_s} s are too short for a volunteer: the sweep takes {config.sweep_s} s and the "
                          f"motor's return {config.settle_s} s; ask for more or lower sweep_s")  # fmt: skip
    skin = find_skin(body.labels)
    windows = find_windows(body, skin)
    best = _widest(windows, body, skin, motor, config)
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, 23))))
    roam = [("sweep", np.array([best.place]))] + _roam(windows, best, skin, duration_s - start_s, config, rng)
    plan = _fitted(skin, roam, max(duration_s - start_s, 1e-3), config, cut=True)
    free = _led(skin, plan, max(duration_s - start_s, 1e-3), config, seed, _tremor(config, rng))

    def hand(t: NDArray[np.float64]) -> NDArray[np.float64]:
        return free.hand(np.maximum(t - start_s, 0.0))

    def position(t: NDArray[np.float64]) -> NDArray[np.float64]:
        return motor.from_span(config.motor_span) * _there_and_back(t, config.sweep_s, config.settle_s)

    def indentation(t: NDArray[np.float64]) -> NDArray[np.float64]:
        moved = hand(t) @ motor.moved(position(t))
        return np.array([skin.depth(p) for p in moved[:, :3, 3]])

    names = [("sweep", 0.0, config.sweep_s)] + [
        (n, a + start_s, b + start_s) for n, a, b in free.windows if n != "sweep"
    ]
    return ScanPath(duration_s, tuple(names), hand, indentation, config.stiffness_n_mm, motor, position, (0.0, start_s))


def stroke_path(
    skin: Skin, name: str, places: Places, duration_s: float, config: PathConfig | None = None, seed: int = 0
) -> ScanPath:
    """One stroke through places (N, 5), at rest for REST_S at both ends.

    Raises:
        ConfigError: no time. NoOverlapError: it leaves what is known of the skin.
    """
    _check_duration(duration_s)
    return _led(skin, [(name, places)], duration_s, config or PathConfig(), seed)


def _widest(windows: tuple[Window, ...], body: Body, skin: Skin, motor: Motor, config: PathConfig) -> Window:
    """The window from which a sweep of the motor sees most of the liver."""
    sight, reach = Sight(body), motor.from_span(config.motor_span)
    moved = motor.moved(np.linspace(-reach, reach, 9))
    depth = config.force_n / config.stiffness_n_mm
    seen = [sight.liver_share(poses_at(skin, np.array([w.place]), depth) @ moved).mean() for w in windows]
    return windows[int(np.argmax(seen))]


def _check_duration(duration_s: float) -> None:
    if not (math.isfinite(duration_s) and duration_s > 0):
        raise ConfigError(f"a path of {duration_s} s is none: ask for more than zero seconds")


def _sweep(window: Window, body: Body, skin: Skin, config: PathConfig) -> Places:
    """Places of one sweep: along the skin and back, then a fan about the best place."""
    best = np.array(window.place)
    fan = math.radians(config.fan_deg)
    slide = config.slide_mm * (0.5 if window.name == "intercostal" else 1.0)
    along = np.zeros((3, 5))
    if window.name == "epigastric":  # towards the feet, then turned from transverse to sagittal
        along[:, 1] = (0.3 * slide, -0.7 * slide, 0.0)
        turned = best + np.array([[0, 0, 0, -fan, 0], [0, 0, 0.4, 0, 0], [0, 0, 1.2, 0.3 * fan, 0], [0, 0, 0, 0, 0]])
        return np.concatenate([best + along, turned])
    radius = float(np.linalg.norm(skin.point(best[0], best[1])[:2] - skin.axis_mm))
    step = np.array((-slide, slide, 0.0)) / radius
    along[:, 0] = step
    if window.name == "subcostal":  # along the costal margin, at the same distance below it
        margin = costal_margin(body, skin)
        z = np.interp(best[0] + step, margin[:, 0], margin[:, 1]) - np.interp(best[0], margin[:, 0], margin[:, 1])
        along[:, 1] = np.clip(z, -slide, slide)
    else:  # along the ribs, as the probe is turned
        along[:, 0] = -np.cos(best[2]) * step
        along[:, 1] = np.sin(best[2]) * step * radius
    fans = np.zeros((4, 5))
    fans[:, 3] = (-fan, fan, 0.0, 0.0)
    return np.asarray(np.concatenate([best + along, best + fans]))


def _roam(
    windows: tuple[Window, ...], best: Window, skin: Skin, seconds: float, config: PathConfig, rng: np.random.Generator
) -> list[tuple[str, Places]]:
    """Places about the windows in a random order, the best one first; enough for the time at half the speed."""
    out = []
    order = [best, *(w for w in windows if w is not best and config.roam == "windows")]
    for i in range(max(1, int(seconds / 3.0))):
        window = order[i % len(order)]
        radius = float(np.linalg.norm(skin.point(window.place[0], window.place[1])[:2] - skin.axis_mm))
        spread = np.array([8.0 / radius, 6.0, 0.12, 0.8 * math.radians(config.fan_deg), 0.06])
        out.append((window.name, np.array(window.place) + spread * rng.uniform(-1, 1, (4, 5))))
    return out


def _fitted(
    skin: Skin, sweeps: list[tuple[str, Places]], seconds: float, config: PathConfig, cut: bool = False
) -> list[tuple[str, Places]]:
    """As many sweeps as there is time for, the only one smaller where even it takes too long."""
    low, high = skin.z_range_mm
    for name, places in sweeps:
        if places[:, 1].min() < low or places[:, 1].max() > high:
            raise NoOverlapError(
                f"the {name} sweep leaves the body, which is known from z = {low:.0f} to {high:.0f} mm"
            )
    time = max(seconds - 2 * REST_S, 0.2 * seconds)
    kept = list(sweeps)
    while len(kept) > 1 + cut and _needs_s(skin, kept if cut else _scaled(kept, SMALLEST), config) > time:
        kept.pop()
    for share in np.arange(1.0, SMALLEST, -0.05) if not cut else ():
        if _needs_s(skin, kept, config) > time:
            kept = _scaled(sweeps[: len(kept)], float(share))
    if not cut and len(kept) == len(sweeps):
        once = kept
        while _needs_s(skin, kept + once, config) < 0.7 * time:
            kept = kept + once
    last, places = kept[-1]
    centre, share = places[:1], 1.0
    if cut and len(kept) > 1:
        centre = kept[-2][1][-1:]
    while _needs_s(skin, kept, config) > time and share > 1e-4:
        share *= 0.85
        kept[-1] = (last, centre + share * (places - centre))
    return kept


def _scaled(sweeps: list[tuple[str, Places]], share: float) -> list[tuple[str, Places]]:
    """Smaller sweeps about their best places, which come last in each."""
    return [(name, places[-1] + share * (places - places[-1])) for name, places in sweeps]


def _needs_s(skin: Skin, sweeps: list[tuple[str, Places]], config: PathConfig) -> float:
    return float(_times(skin, np.concatenate([p for _, p in sweeps]), config)[-1])


def _times(skin: Skin, places: Places, config: PathConfig) -> NDArray[np.float64]:
    """Earliest times (N,) at which the places can be passed: cubic pieces peak at 1.5 times their mean speed."""
    if len(places) == 1:
        return np.zeros(1)
    u = np.linspace(0.0, 1.0, 6)[None, :, None]
    fine = places[:-1, None] + u * (places[1:, None] - places[:-1, None])
    poses = poses_at(skin, fine.reshape(-1, 5)).reshape(*fine.shape[:2], 4, 4)
    way = np.linalg.norm(np.diff(poses[..., :3, 3], axis=1), axis=-1).sum(1)
    turn = np.einsum("nkij,nkij->nk", poses[:, :-1, :3, :3], poses[:, 1:, :3, :3])
    angle = np.arccos(np.clip(0.5 * (turn - 1.0), -1.0, 1.0)).sum(1)
    needs = 1.6 * np.maximum(way / config.speed_mm_s, np.degrees(angle) / config.turn_deg_s)
    return np.asarray(np.concatenate([[0.0], np.cumsum(np.maximum(needs, 1e-3))]))


def _led(
    skin: Skin, sweeps: list[tuple[str, Places]], seconds: float, config: PathConfig, seed: int,
    unrest: Callable[[NDArray[np.float64]], NDArray[np.float64]] | None = None,
) -> ScanPath:  # fmt: skip
    """Path through the places: monotone cubic pieces, at rest at both ends."""
    places = np.concatenate([p for _, p in sweeps])
    rest = min(REST_S, 0.4 * seconds)
    at = _times(skin, places, config)
    at = rest + at * (seconds - 2 * rest) / max(at[-1], 1e-9) if at[-1] > 0 else np.array([rest])
    track = PchipInterpolator([0.0, *at, seconds + 1e-9], np.concatenate([places[:1], places, places[-1:]]))
    counts = np.cumsum([0] + [len(p) for _, p in sweeps])
    ends = np.append(at, seconds)
    windows = tuple(
        (n, float(at[a]), float(ends[b])) for (n, _), a, b in zip(sweeps, counts[:-1], counts[1:], strict=True)
    )
    press = _pressing(config, np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, 29)))))

    def hand(t: NDArray[np.float64]) -> NDArray[np.float64]:
        where = track(t)
        if unrest is not None:
            where = where + unrest(t)
        return poses_at(skin, where, press(t))

    return ScanPath(seconds, windows, hand, press, config.stiffness_n_mm)


def _pressing(config: PathConfig, rng: np.random.Generator) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """Indentation over time: the set point of the force with a slow ripple, over the stiffness."""
    phase = rng.uniform(0, 2 * math.pi, len(RIPPLE_HZ))

    def press(t: NDArray[np.float64]) -> NDArray[np.float64]:
        waves = np.sin(2 * math.pi * np.asarray(t)[:, None] * RIPPLE_HZ + phase).mean(-1)
        return np.asarray((config.force_n + config.ripple_n * waves) / config.stiffness_n_mm)

    return press


def _tremor(config: PathConfig, rng: np.random.Generator) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """Unrest of a free hand as offsets of places (N, 5); zero at t = 0 and grown after half a second."""
    count = len(TREMOR_HZ)
    hz = np.array(TREMOR_HZ) * rng.uniform(0.85, 1.15, (5, count))
    phase = rng.uniform(0, 2 * math.pi, (5, count))
    share = 1.0 / np.array(TREMOR_HZ)
    share *= math.sqrt(2.0) / np.linalg.norm(share)
    turn = math.radians(config.tremor_deg)
    size = np.array([config.tremor_mm / 130.0, config.tremor_mm, turn, turn, turn])

    def unrest(t: NDArray[np.float64]) -> NDArray[np.float64]:
        waves = (share * np.sin(2 * math.pi * t[:, None, None] * hz + phase)).sum(-1)
        grown = np.clip(2.0 * t, 0.0, 1.0)
        return np.asarray(size * waves * (grown * grown * (3 - 2 * grown))[:, None])

    return unrest


def _there_and_back(t: NDArray[np.float64], sweep_s: float, settle_s: float) -> NDArray[np.float64]:
    """The motor from -1 to 1 at even speed, rounded at both ends, then back to 0."""
    ramp = 0.08
    u = np.clip(t / sweep_s, 0.0, 1.0)
    edge = np.minimum(u, 1.0 - u)
    short = np.where(edge < ramp, 0.5 * edge**2 / ramp, edge - 0.5 * ramp) / (1.0 - ramp)
    there = np.where(u < 0.5, short, 1.0 - short)
    v = np.clip((t - sweep_s) / (0.9 * settle_s), 0.0, 1.0)
    return np.asarray(2.0 * there - 1.0 - v * v * (3.0 - 2.0 * v))
