# SPDX-License-Identifier: Apache-2.0
"""The session that ships: unchanged, small, complete, and what its README says it is."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch

from usreg.data.session_events import FrameEvent, SkippedEvent, TruthEvent, session_frames
from usreg.data.sessions import read_session
from usreg.data.volumes import read_volume
from usreg.geometry import se3

MAX_BYTES = 8_000_000


@pytest.fixture(scope="module")
def bags() -> Path:
    return Path(__file__).resolve().parents[2] / "bags"


@pytest.fixture(scope="module")
def shipped(bags: Path) -> list:
    return list(session_frames(read_session(bags / "phantom")))


def test_checksums_are_those_of_the_list_and_nothing_is_missing(bags: Path) -> None:
    lines = [line.split("  ", 1) for line in (bags / "SHA256SUMS").read_text().splitlines()]
    listed = {name: digest for digest, name in lines}
    found = {p.relative_to(bags).as_posix() for p in (bags / "phantom").rglob("*") if p.is_file()}
    assert found == set(listed)
    for name, digest in listed.items():
        assert hashlib.sha256((bags / name).read_bytes()).hexdigest() == digest, f"{name} was changed"


def test_it_is_small(bags: Path) -> None:
    assert sum(p.stat().st_size for p in (bags / "phantom").rglob("*") if p.is_file()) <= MAX_BYTES


def test_every_frame_can_be_used(shipped: list) -> None:
    frames = [e.frame for e in shipped if isinstance(e, FrameEvent)]
    assert len(frames) == 177 and not [e for e in shipped if isinstance(e, SkippedEvent)]
    assert all(tuple(f.image.shape) == (192, 256) for f in frames)


@pytest.mark.parametrize("axis", range(6))
def test_a_frame_sees_every_degree_of_freedom(bags: Path, shipped: list, axis: int) -> None:
    """3 mm or 5 degrees off the truth, about the middle of the sector, cost at least a tenth of the correlation."""
    volume = read_volume(read_session(bags / "phantom").volume_path)
    frame = [e.frame for e in shipped if isinstance(e, FrameEvent)][60]
    truth = {e.child: e.parent_T_child for e in shipped if isinstance(e, TruthEvent) and e.stamp_s == frame.stamp_s}
    pose = se3.inverse(truth["ct"]) @ truth["us_image"]
    shift, turn = torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    (shift if axis < 3 else turn)[axis % 3] = 3.0 if axis < 3 else 0.0873
    moved = se3.right_at_centre(pose, shift, turn, frame.plane.centre_mm)
    scores = [correlation(volume, frame, p) for p in (pose, moved)]
    assert scores[0] > 0.85 and scores[0] - scores[1] > 0.1


def correlation(volume, frame, ct_T_image: torch.Tensor) -> float:
    """Of the frame with the nearest voxels, inside the sector and the volume."""
    mask = frame.geometry.mask()
    index = se3.transform_points(volume.grid.index_T_ct @ ct_T_image, frame.plane.points_mm()[mask]).round().long()
    inside = ((index >= 0) & (index < torch.tensor(volume.grid.size))).all(-1)
    x, y, z = index[inside].unbind(-1)
    pair = torch.stack([frame.image[mask][inside].double(), volume.data[0, z, y, x].double()])
    return torch.corrcoef(pair)[0, 1].item()
