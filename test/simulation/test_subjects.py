# SPDX-License-Identifier: Apache-2.0
"""Subjects for learning: frames lie in their volume, the truth is where the liver lies, files keep every number."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from usreg.errors import ConfigError, FileFormatError, MissingFileError, NoOverlapError
from usreg.geometry import se3
from usreg.rendering.slicing import slice_volume
from usreg.simulation import subject_files, subjects
from usreg.simulation.body.types import ORGANS, VALUE, Body
from usreg.simulation.scanner import ScannerConfig
from usreg.simulation.scenario import default_config
from usreg.simulation.subject_files import read_subject, write_subject, write_subjects
from usreg.simulation.subjects import Subject, SubjectConfig, make_subject

SEED, FRAMES = 6, 4
LANDMARK = torch.tensor([-60.0, -10.0, 20.0], dtype=torch.float64)


def config(**changes: object) -> SubjectConfig:
    simulation = replace(
        default_config("volunteer"), scanner=ScannerConfig(lines=32, scatterers_mm3=0.2), sweep_hz=3.0,
        volume_spacing_mm=3.0,
    )  # fmt: skip
    return SubjectConfig(**({"simulation": simulation, "frames": FRAMES} | changes))


@pytest.fixture(scope="module", autouse=True)
def one_body(small_trunk: Body):
    body = replace(small_trunk, landmarks={"portal_bifurcation_1": LANDMARK, "hepatic_bifurcation_1": LANDMARK + 300.0})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subjects, "make_body", lambda *_: body)
        yield


@pytest.fixture(scope="module")
def subject() -> Subject:
    return make_subject(SEED, config())


def test_frames_lie_in_the_volume_and_show_its_liver(subject: Subject) -> None:
    assert len(subject.frames) == FRAMES == len(subject.world_T_cts) == len(subject.liver)
    assert subject.volume.modality == "US" and subject.volume.labels is not None
    liver = torch.zeros(256, dtype=torch.bool)
    liver[[VALUE[name] for name in ORGANS["liver"]]] = True
    known = replace(subject.volume, data=liver[subject.volume.labels.long()][None].float())
    for tracked, ct_T_image, shown in zip(subject.frames, subject.ct_T_images, subject.liver, strict=True):
        geometry = tracked.frame.geometry
        values, mask = slice_volume(known, ct_T_image, geometry.plane)
        sector = geometry.mask()
        assert float(mask[0, 0][sector].double().mean()) > 0.45  # asked for: half of it, at 81 points
        assert float(shown.double().mean()) >= 0.15 and not bool((shown & ~sector).any())
        inside = mask[0, 0] & sector & ((values[0, 0] < 0.01) | (values[0, 0] > 0.99))  # not at the liver's rim
        agree = (values[0, 0] > 0.5) == shown
        assert float(agree[inside].double().mean()) > 0.97


def test_the_volume_breathes(subject: Subject) -> None:
    moved = se3.transform_points(subject.world_T_cts, LANDMARK[None])[:, 0] - LANDMARK
    assert moved.norm(dim=-1).max() > 2.0 and moved.norm(dim=-1).max() < 40.0
    assert (moved[0] - moved[1]).norm() > 0.1


def test_landmarks_are_those_that_the_sweep_has_seen(subject: Subject) -> None:
    assert set(subject.landmarks) <= {"portal_bifurcation_1"}


def test_the_same_seed_gives_the_same_numbers(subject: Subject) -> None:
    again = make_subject(SEED, config())
    assert torch.equal(again.volume.data, subject.volume.data)
    assert torch.equal(again.world_T_cts, subject.world_T_cts) and torch.equal(again.liver, subject.liver)
    for a, b in zip(again.frames, subject.frames, strict=True):
        assert torch.equal(a.frame.image, b.frame.image) and torch.equal(a.world_T_image, b.world_T_image)


def test_files_keep_every_number(subject: Subject, tmp_path: Path) -> None:
    read = read_subject(write_subject(subject, tmp_path / "6"))
    assert read.seed == SEED and torch.equal(read.volume.data, subject.volume.data)
    assert torch.equal(read.volume.labels, subject.volume.labels) and torch.equal(read.volume.mask, subject.volume.mask)
    assert torch.equal(read.ct_T_images, subject.ct_T_images) and torch.equal(read.liver, subject.liver)
    assert read.landmarks.keys() == subject.landmarks.keys()
    for a, b in zip(read.frames, subject.frames, strict=True):
        assert torch.equal(a.frame.image, b.frame.image) and a.frame.geometry == b.frame.geometry
        assert a.frame.stamp_s == b.frame.stamp_s


def test_only_what_lacks_is_made(subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    make = lambda seed, *_: made.append(seed) or replace(subject, seed=seed)  # noqa: E731
    monkeypatch.setattr(subject_files, "make_subject", make)
    told: list[tuple[int, int]] = []
    write_subjects([6], tmp_path)
    write_subjects([6, 8], tmp_path, progress=lambda done, total: told.append((done, total)))
    assert made == [6, 8] and told[-1] == (200, 200)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_damaged_folders_are_told(subject: Subject, tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"holds no subject\.json"):
        read_subject(tmp_path)
    folder = write_subject(subject, tmp_path / "6")
    whole = (folder / "frames.npz").read_bytes()
    (folder / "frames.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FileFormatError, match="make it again"):
        read_subject(folder)
    (folder / "frames.npz").unlink()
    with pytest.raises(MissingFileError, match=r"lacks 'frames\.npz'"):
        read_subject(folder)
    (folder / "frames.npz").write_bytes(whole)
    content = json.loads((folder / "subject.json").read_text())
    (folder / "subject.json").write_text(json.dumps(content | {"format": 99}))
    with pytest.raises(FileFormatError, match="format 99"):
        read_subject(folder)


def test_a_body_that_shows_too_little(tmp_path: Path) -> None:
    with pytest.raises(NoOverlapError, match="lower least_overlap or least_liver"):
        make_subject(SEED, config(least_liver=0.99, frames=1))


@pytest.mark.parametrize("change", [{"frames": 0}, {"slide_mm": -1.0}, {"least_overlap": 1.5}, {"press_mm": 20.0}])
def test_settings_that_make_no_sense(change: dict) -> None:
    with pytest.raises(ConfigError):
        SubjectConfig(**change)
