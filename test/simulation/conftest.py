# SPDX-License-Identifier: Apache-2.0
"""A small body for tests: an elliptic trunk with ribs, lungs, liver and the other organs that breathe, at 4 mm.

And small sessions: a procedural body at 3 mm, few lines and scatterers, a few seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from usreg.data.session_events import FrameEvent, session_events
from usreg.data.sessions import Session, read_session
from usreg.data.types import Volume
from usreg.data.volumes import read_volume
from usreg.geometry.grid import VoxelGrid
from usreg.simulation import SimulationConfig, make_body, session, simulate
from usreg.simulation.body import BodyConfig
from usreg.simulation.body.types import STRUCTURES, VALUE, Body
from usreg.simulation.breathing import BreathingConfig
from usreg.simulation.paths import PathConfig
from usreg.simulation.scan import TimingConfig
from usreg.simulation.scanner import ScannerConfig

SPACING_MM = 4.0
SEED, SECONDS = 5, 4.0


def make_trunk(direction: torch.Tensor | None = None) -> Body:
    """The trunk stands along z; `direction` (3, 3) turns the voxel axes, not the body."""
    size = (86, 62, 90) if direction is None else (92, 72, 72)
    turn = torch.eye(3, dtype=torch.float64) if direction is None else direction
    half = turn @ torch.tensor([(n - 1) / 2 * SPACING_MM for n in size], dtype=torch.float64)
    grid = VoxelGrid(size, (SPACING_MM,) * 3, tuple((-half).tolist()), tuple(turn.flatten().tolist()))
    index = np.stack(np.meshgrid(*map(np.arange, size), indexing="ij"), -1).transpose(2, 1, 0, 3)
    matrix = grid.ct_T_index.numpy()
    x, y, z = np.moveaxis(index @ matrix[:3, :3].T + matrix[:3, 3], -1, 0)
    labels = np.zeros(x.shape, np.uint8)

    def ball(centre: tuple[float, float, float], radii: tuple[float, float, float]) -> np.ndarray:
        return sum(((p - c) / r) ** 2 for p, c, r in zip((x, y, z), centre, radii, strict=True)) < 1

    def tube(rx: float, ry: float) -> np.ndarray:
        return (x / rx) ** 2 + (y / ry) ** 2 < 1

    cavity = tube(134, 84)
    for name, (rx, ry) in {"skin": (160, 110), "subcutaneous_fat": (156, 106), "muscle": (146, 96)}.items():
        labels[tube(rx, ry)] = VALUE[name]
    labels[cavity] = VALUE["visceral_fat"]
    ribs = tube(143, 93) & ~cavity & (np.mod(z - 0.4 * np.abs(y), 28) < 9) & (z > 30 - 0.6 * np.abs(x))
    labels[ribs] = VALUE["ribs"]
    labels[ball((0, 88, 0), (22, 20, 1000))] = VALUE["spine"]
    lung = ball((0, -5, 180), (130, 80, 100)) & cavity
    labels[lung & (x < 0)], labels[lung & (x >= 0)] = VALUE["lung_right"], VALUE["lung_left"]
    liver = (ball((-60, -10, 20), (85, 75, 75)) | ball((20, -40, 35), (60, 35, 35))) & cavity & ~lung
    labels[liver] = VALUE["liver"]
    labels[ball((-70, 45, -60), (28, 25, 50)) & cavity & ~liver] = VALUE["kidney_right_cortex"]
    labels[ball((70, 45, -35), (28, 25, 50)) & cavity & ~liver] = VALUE["kidney_left_cortex"]
    labels[ball((95, 20, 50), (30, 35, 50)) & cavity & ~liver & ~lung] = VALUE["spleen"]
    return Body(Volume(torch.from_numpy(labels)[None], grid, label_names=dict(STRUCTURES)))


@pytest.fixture(scope="session")
def trunk_maker() -> Callable[..., Body]:
    return make_trunk


@pytest.fixture(scope="session")
def small_trunk() -> Body:
    return make_trunk()


def small_config(kind: str) -> SimulationConfig:
    """A session that takes seconds to make; its frames keep their coarse grain, its clocks and truth are the usual."""
    way = PathConfig(speed_mm_s=40.0, turn_deg_s=30.0, slide_mm=14.0, fan_deg=9.0, settle_s=1.0)
    common: dict[str, Any] = {
        "body": BodyConfig(spacing_mm=3.0, tilt_deg=(4.0, -3.0, 6.0)), "volume_spacing_mm": 2.5, "path": way,
        "scanner": ScannerConfig(lines=64, scatterers_mm3=0.5), "timing": TimingConfig(frame_hz=6.0, drop_share=0.15),
    }  # fmt: skip
    if kind == "phantom":
        return SimulationConfig(**common, sweep_path=way, sweep_s=3.0, sweep_hz=5.0)
    breathing = BreathingConfig(waveform="cos4", period_s=2.0)
    return SimulationConfig(
        **common, arm="encoder6_tilt", sweep_s=2.5, sweep_hz=6.0, keep_sweep=True, breathing=breathing
    )


@dataclass(eq=False)
class Made:
    """A session on the disk, and what the simulation knew when it wrote it."""

    folder: Path
    config: SimulationConfig
    prepared: session.Prepared
    progress: list[tuple[int, int]]

    @cached_property
    def session(self) -> Session:
        return read_session(self.folder)

    @cached_property
    def volume(self) -> Volume:
        return read_volume(self.session.volume_path)

    @cached_property
    def all_events(self) -> list[Any]:
        return list(session_events(self.session))

    def events(self, kind: type) -> list[Any]:
        return [e for e in self.all_events if isinstance(e, kind)]

    @cached_property
    def frames(self) -> list[Any]:
        return [e.frame for e in self.events(FrameEvent)]


class Workshop:
    """Makes small sessions of a body that is made once; `bodies` are the seeds of the bodies that were asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.bodies = folder, []
        self._body: Body | None = None
        self._made: dict[str, Made] = {}

    def body(self, seed: int, config: BodyConfig, progress: Callable[[int, int], None] | None = None) -> Body:
        """Stands for `make_body`."""
        self.bodies.append(seed)
        self._body = self._body or make_body(SEED, config)
        if progress is not None:
            progress(1, 2)
            progress(2, 2)
        return self._body

    def __call__(self, kind: str) -> Made:
        """The session of a kind, seed SEED, SECONDS long."""
        if kind not in self._made:
            self._made[kind] = self.make(kind, self.folder / kind, SEED)
        return self._made[kind]

    def make(self, kind: str, folder: Path, seed: int, **changes: Any) -> Made:
        """Another one."""
        kept: list[session.Prepared] = []
        told: list[tuple[int, int]] = []

        def prepare(*args: Any) -> session.Prepared:
            kept.append(whole(*args))
            return kept[0]

        config, whole = replace(small_config(kind), **changes), session.prepare
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(session, "make_body", self.body)
            patch.setattr(session, "prepare", prepare)
            simulate(kind, folder, seed, SECONDS, lambda *x: told.append(x), config)
        return Made(folder, config, kept[0], told)


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    yield Workshop(tmp_path_factory.mktemp("sessions"))


@pytest.fixture(params=["phantom", "volunteer"])
def made(request: pytest.FixtureRequest, workshop: Workshop) -> Made:
    """A small session of each kind, made once."""
    return workshop(request.param)


@pytest.fixture
def phantom(workshop: Workshop) -> Made:
    return workshop("phantom")


@pytest.fixture
def volunteer(workshop: Workshop) -> Made:
    return workshop("volunteer")
