# SPDX-License-Identifier: Apache-2.0
"""A streamed scan holds the messages of the recorded one, its images as functions, and no truth."""

from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from usreg.data.sessions import SessionConfig, read_session
from usreg.errors import WriteError
from usreg.geometry import se3
from usreg.geometry.plane import PlaneGrid
from usreg.geometry.sector import full_rectangle
from usreg.kinematics import load_arm
from usreg.simulation.live import LiveScan, stream_session
from usreg.simulation.motion import Still
from usreg.simulation.recording import TOPICS, Mount, Recording, Shot, entries, images

SHALLOW = full_rectangle(PlaneGrid(6, 8, ((0.5, 0.0), (0.0, 0.5))))
DEEP = replace(SHALLOW, plane=PlaneGrid(6, 8, ((0.8, 0.0), (0.0, 0.8))))
START_NS = 10**12


@dataclass(frozen=True)
class Camera:
    """Stands for a scanner: noise whose seed is the frame's own."""

    geometry: Any = SHALLOW

    def with_geometry(self, geometry: Any) -> "Camera":
        return Camera(geometry)

    def frame(self, bed_T_image: torch.Tensor, t_s: float, rng: np.random.Generator, depth_mm: float) -> torch.Tensor:
        noise = rng.integers(0, 100, (6, 8)).astype(np.uint8)
        return torch.from_numpy(noise) + int(self.geometry.pixel_to_mm[0][0] * 10)


@pytest.fixture
def recording() -> Recording:
    arm, eye = load_arm("iiwa7"), se3.identity()
    mounts = (Mount(START_NS, SHALLOW, eye, eye), Mount(START_NS + 25_000_000, DEEP, eye, eye))
    shots = tuple(
        Shot(START_NS + ns, START_NS + ns + 9_000_000, ns * 1e-9, eye, mounts[ns > 25_000_000], 0.0, 1.0, (7, k))
        for k, ns in enumerate((0, 10_000_000, 40_000_000, 50_000_000))
    )
    joint_ns = START_NS + np.arange(8) * 10_000_000
    return Recording(arm, joint_ns, torch.zeros(8, 7, dtype=torch.float64), mounts, shots, eye, Still())


def test_it_holds_what_a_recording_holds_but_the_truth(recording: Recording) -> None:
    scanner: Any = Camera()
    recorded = [e for e in entries(recording, images(recording, scanner)) if not e.topic.startswith("/truth")]
    streamed = list(LiveScan(recording, scanner).entries())
    assert [e[:3] for e in streamed] == [e[:3] for e in recorded] and len(streamed) == 2 + 8 + 2 * 4
    for here, there in zip(streamed, recorded, strict=True):
        assert callable(here.message) == (here.topic == TOPICS.image)
        if here.topic == TOPICS.image:
            assert np.array_equal(here.message().data, there.message.data)
        else:
            assert repr(here.message) == repr(there.message)


def test_what_a_live_graph_needs_is_written_beside_the_stream(recording: Recording, tmp_path: Path) -> None:
    def write(folder: Path, bag: bool) -> SessionConfig:
        assert not bag
        (folder / "volume.nii.gz").touch()
        return SessionConfig(volume="volume.nii.gz", sweep="sweep", arm="iiwa7", truth=True)

    def make(kind: str, seed: int, seconds: float, progress: Any) -> Any:
        return SimpleNamespace(write=write, scene=SimpleNamespace(scan=recording, scanner=Camera()))

    scan = stream_session("phantom", 3, 5.0, tmp_path / "live", make=make)
    assert scan.recording is recording
    config = read_session(tmp_path / "live").config
    assert (config.bag, config.sweep, config.truth, config.volume) == ("", "", False, "volume.nii.gz")
    with pytest.raises(WriteError, match="exists already"):
        stream_session("phantom", 3, 5.0, tmp_path / "live", make=make)
