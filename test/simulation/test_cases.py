# SPDX-License-Identifier: Apache-2.0
"""Cases for registration: what was measured lies near the truth, frames inside the CT, and files keep every number."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from usreg.errors import ConfigError, FileFormatError, MissingFileError, NoOverlapError
from usreg.evaluation.metrics import pose_error, sample_points
from usreg.geometry import se3
from usreg.simulation import case_files, cases
from usreg.simulation.body.ct import CtConfig
from usreg.simulation.body.types import VALUE, Body
from usreg.simulation.case_files import read_case, write_case, write_cases
from usreg.simulation.cases import Case, CaseConfig, make_case
from usreg.simulation.scanner import ScannerConfig
from usreg.simulation.scenario import default_config
from usreg.simulation.skin import find_skin
from usreg.simulation.windows import find_windows

SEED = 7
LANDMARK = torch.tensor([-60.0, -10.0, 20.0], dtype=torch.float64)


def config(**changes: object) -> CaseConfig:
    simulation = replace(default_config("phantom"), scanner=ScannerConfig(lines=32, scatterers_mm3=0.2))
    given = {"simulation": simulation, "frames": 3, "sweep_s": 2.0, "most_sweeps": 2, "least_sweeps": 2,
             "ct": CtConfig(spacing_mm=(3.0, 3.0, 3.0)), "ct_margin_mm": 10.0}  # fmt: skip
    return CaseConfig(**(given | changes))


@pytest.fixture(scope="module")
def body(small_trunk: Body) -> Body:
    return replace(small_trunk, landmarks={"portal_bifurcation": LANDMARK, "liver_top": LANDMARK})


@pytest.fixture(scope="module", autouse=True)
def one_body(body: Body):
    """One body, whose skin and windows are sought once."""
    skin = find_skin(body.labels)
    windows = find_windows(body, skin)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cases, "make_body", lambda *_: body)
        patch.setattr(cases, "find_skin", lambda *_: skin)
        patch.setattr(cases, "find_windows", lambda *_: windows)
        yield


@pytest.fixture(scope="module")
def case() -> Case:
    return make_case(SEED, config())


def test_a_case_holds_sweeps_of_one_body_from_several_windows(case: Case) -> None:
    assert len(case.sweeps) == 2 and len({s.name for s in case.sweeps}) == 2
    for sweep in case.sweeps:
        stamps = [f.frame.stamp_s for f in sweep.frames]
        assert len(sweep.frames) == 3 and stamps == sorted(set(stamps))
        assert 1.0 < stamps[-1] - stamps[0] < 2.0  # the sweep's time, without the rest at both ends
        assert len({f.frame.image.sum().item() for f in sweep.frames}) == 3
        assert torch.equal(sweep.world_T_ct, case.sweeps[0].world_T_ct)
    turn = case.sweeps[0].world_T_ct[:3, :3]
    assert turn.abs().max() < 0.999 and (turn.abs() > 0.01).all()  # no axis of the room is an axis of the volume
    assert list(case.landmarks) == ["portal_bifurcation"]


def test_poses_are_off_by_the_calibration_and_the_noise_of_the_joints(case: Case) -> None:
    for sweep in case.sweeps:
        errors = []
        for tracked, true in zip(sweep.frames, sweep.ct_T_images, strict=True):
            measured = se3.inverse(sweep.world_T_ct) @ tracked.world_T_image
            errors.append(pose_error(measured, true, tracked.frame.geometry))
            assert tracked.covariance.diagonal().min() > 0
        tre = np.array([e.tre_mm for e in errors])
        assert 0.02 < tre.min() and tre.max() < 3.0  # three standard deviations of 0.2 mm and 0.15 degrees at 200 mm
        assert 0 < np.ptp(tre) < 1.0 and max(e.rotation_deg for e in errors) < 1.2
    first, second = (se3.inverse(s.ct_T_images[0]) @ se3.inverse(s.world_T_ct) @ s.frames[0].world_T_image
                     for s in case.sweeps)  # fmt: skip
    assert (first - second).abs().max() > 0.01  # each sweep has a calibration of its own


def test_the_ct_holds_every_frame_and_its_labels_fit_its_grey_levels(case: Case, body: Body) -> None:
    grid, labels = case.ct.grid, case.ct.labels
    assert labels is not None and case.ct.modality == "CT" and case.ct.data.dtype == torch.int16
    assert case.ct.data[0][labels == VALUE["liver"]].double().mean() == pytest.approx(110, abs=15)
    edges = se3.transform_points(body.labels.grid.index_T_ct, grid.corners_ct)
    for sweep in case.sweeps:
        for tracked, true in zip(sweep.frames, sweep.ct_T_images, strict=True):
            points = se3.transform_points(true, sample_points(tracked.frame.geometry))
            index = se3.transform_points(grid.index_T_ct, points)
            inside = (index >= 0) & (index <= torch.tensor(grid.size) - 1)
            of_body = se3.transform_points(body.labels.grid.index_T_ct, points)
            known = (of_body >= 1) & (of_body <= torch.tensor(body.labels.grid.size) - 2)
            assert bool((inside.all(-1) | ~known.all(-1)).all())
    assert (edges.amax(0) - edges.amin(0) < torch.tensor(body.labels.grid.size) - 3).any()  # something was cut off


def test_the_same_seed_gives_the_same_case_and_another_one_another(case: Case) -> None:
    again, other = (make_case(seed, config()) for seed in (SEED, SEED + 1))
    assert torch.equal(again.ct.data, case.ct.data) and not torch.equal(other.ct.data, case.ct.data)
    for a, b, c in zip(again.sweeps, case.sweeps, other.sweeps, strict=True):
        assert torch.equal(a.ct_T_images, b.ct_T_images) and not torch.equal(a.ct_T_images, c.ct_T_images)
        for x, y in zip(a.frames, b.frames, strict=True):
            assert torch.equal(x.frame.image, y.frame.image) and torch.equal(x.world_T_image, y.world_T_image)
    assert (other.sweeps[0].world_T_ct - case.sweeps[0].world_T_ct).abs().max() > 0.1


def test_a_case_on_the_disk_keeps_every_number(case: Case, tmp_path: Path) -> None:
    read = read_case(write_case(case, tmp_path / "7"))
    assert read.seed == SEED and [s.name for s in read.sweeps] == [s.name for s in case.sweeps]
    assert torch.equal(read.ct.data, case.ct.data) and torch.equal(read.ct.labels, case.ct.labels)
    assert read.ct.grid.size == case.ct.grid.size and read.ct.modality == "CT"
    assert (read.ct.grid.ct_T_index - case.ct.grid.ct_T_index).abs().max() < 1e-9
    assert read.ct.label_names[VALUE["liver"]] == "liver"
    for a, b in zip(read.sweeps, case.sweeps, strict=True):
        assert torch.equal(a.ct_T_images, b.ct_T_images) and torch.equal(a.world_T_ct, b.world_T_ct)
        for x, y in zip(a.frames, b.frames, strict=True):
            assert torch.equal(x.frame.image, y.frame.image) and x.frame.geometry == y.frame.geometry
            assert x.frame.stamp_s == y.frame.stamp_s and x.frame.index == y.frame.index
            assert torch.equal(x.world_T_image, y.world_T_image) and torch.equal(x.covariance, y.covariance)
    assert torch.equal(read.landmarks["portal_bifurcation"], LANDMARK)


def test_cases_that_a_folder_holds_are_kept(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, int]] = []
    monkeypatch.setattr(case_files, "make_case", lambda *_: case)
    (first,) = write_cases([SEED], tmp_path / "all")
    before = (first / "case.json").stat().st_mtime_ns
    made = write_cases([SEED], tmp_path / "all", config(), lambda *x: told.append(x))
    assert made == [first] and (first / "case.json").stat().st_mtime_ns == before and told[-1] == (1, 1)


@pytest.mark.parametrize("damage", ["format", "array", "missing", "json"])
def test_a_damaged_case_is_told(case: Case, tmp_path: Path, damage: str) -> None:
    folder = write_case(replace(case, sweeps=case.sweeps[:1]), tmp_path / "7")
    described, sweep = folder / "case.json", folder / "sweep_0.npz"
    if damage == "format":
        described.write_text(json.dumps(json.loads(described.read_text()) | {"format": 99}))
    elif damage == "array":
        sweep.write_bytes(sweep.read_bytes()[:200])
    elif damage == "json":
        described.write_text("{")
    else:
        sweep.unlink()
    with pytest.raises(MissingFileError if damage == "missing" else FileFormatError):
        read_case(folder)


def test_what_cannot_be_made_is_told(body: Body, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="most_sweeps"):
        CaseConfig(most_sweeps=1)
    with pytest.raises(ConfigError, match="seed"):
        make_case(-1, config())
    few = [w for w in cases.find_windows(body, None) if w.name == "intercostal"]
    monkeypatch.setattr(cases, "find_windows", lambda *_: tuple(few))
    with pytest.raises(NoOverlapError, match="least_sweeps"):
        make_case(SEED, config())
    with pytest.raises(MissingFileError, match="case"):
        read_case("nowhere")
