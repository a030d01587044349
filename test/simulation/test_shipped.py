# SPDX-License-Identifier: Apache-2.0
"""The sessions that ship: unchanged, small, complete, and what their README says they are."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

import pytest
import torch

from usreg.data.bags import BagReader
from usreg.data.landmarks import read_landmarks
from usreg.data.session_events import FrameEvent, SkippedEvent, TruthEvent, session_frames
from usreg.data.sessions import read_session
from usreg.data.volumes import read_volume
from usreg.geometry import se3

BAGS = Path(__file__).resolve().parents[2] / "bags"
NAMES = ("phantom", "volunteer")
MAX_BYTES = 8_000_000


@cache
def shipped(name: str) -> list:
    return list(session_frames(read_session(BAGS / name)))


def frames(name: str) -> list:
    return [e.frame for e in shipped(name) if isinstance(e, FrameEvent)]


def test_checksums_are_those_of_the_list_and_nothing_is_missing() -> None:
    lines = [line.split("  ", 1) for line in (BAGS / "SHA256SUMS").read_text().splitlines()]
    listed = {name: digest for digest, name in lines}
    found = {p.relative_to(BAGS).as_posix() for name in NAMES for p in (BAGS / name).rglob("*") if p.is_file()}
    assert found == set(listed)
    for name, digest in listed.items():
        assert hashlib.sha256((BAGS / name).read_bytes()).hexdigest() == digest, f"{name} was changed"


@pytest.mark.parametrize("name", NAMES)
def test_it_is_small_and_long_enough(name: str) -> None:
    assert sum(p.stat().st_size for p in (BAGS / name).rglob("*") if p.is_file()) <= MAX_BYTES
    stamps = [f.stamp_s for f in frames(name)]
    assert stamps[-1] - stamps[0] >= 10.0


@pytest.mark.parametrize("name", NAMES)
def test_every_frame_can_be_used(name: str) -> None:
    assert len(frames(name)) > 150 and not [e for e in shipped(name) if isinstance(e, SkippedEvent)]
    assert all(tuple(f.image.shape) == (156, 208) for f in frames(name))


@pytest.mark.parametrize("name", NAMES)
def test_the_depth_changes_once_and_with_it_the_image_in_the_probe(name: str) -> None:
    depths = [f.geometry.depth_mm for f in frames(name)]
    assert set(depths) == {125.0, 110.0} and depths == sorted(depths, reverse=True)
    session = read_session(BAGS / name)
    with BagReader(session.bag_path) as bag:
        told = [[t.child_frame_id for t in m.transforms] for _, _, m in bag.messages(["/tf_static"])]
    assert len(told) == 2 and told[0][-1] == "us_image" and told[1] == ["us_image"]


@pytest.mark.parametrize("name", NAMES)
def test_landmarks_lie_in_the_known_part_of_the_volume(name: str) -> None:
    session = read_session(BAGS / name)
    volume, points = read_volume(session.volume_path), read_landmarks(session.landmarks_path)
    index = torch.stack([se3.transform_points(volume.grid.index_T_ct, p[None])[0] for p in points.values()])
    x, y, z = index.round().long().unbind(-1)
    assert len(points) >= 20 and bool(volume.mask[z, y, x].all())


@pytest.mark.parametrize("name", NAMES)
def test_frames_show_the_volume_at_the_true_pose_and_not_beside_it(name: str) -> None:
    """Three frames; 6 mm aside, across the image, they are less alike."""
    volume = read_volume(read_session(BAGS / name).volume_path)
    chosen = frames(name)[5::60][:3]
    aside = se3.translation(torch.tensor([0.0, 0.0, 6.0], dtype=torch.float64))
    for frame in chosen:
        truth = {e.child: e.parent_T_child for e in shipped(name)
                 if isinstance(e, TruthEvent) and e.stamp_s == frame.stamp_s}  # fmt: skip
        pose = se3.inverse(truth["ct"]) @ truth["us_image"]
        here, there = (correlation(volume, frame, p) for p in (pose, pose @ aside))
        assert here > 0.4 and here > there + 0.02


def correlation(volume, frame, ct_T_image: torch.Tensor) -> float:
    """Of the frame with the nearest voxels, inside the sector and what the volume knows."""
    mask = frame.geometry.mask()
    index = se3.transform_points(volume.grid.index_T_ct @ ct_T_image, frame.plane.points_mm()[mask]).round().long()
    inside = ((index >= 0) & (index < torch.tensor(volume.grid.size))).all(-1)
    x, y, z = index[inside].unbind(-1)
    known = volume.mask[z, y, x]
    pair = torch.stack([frame.image[mask][inside][known].double(), volume.data[0, z, y, x][known].double()])
    return torch.corrcoef(pair)[0, 1].item()
