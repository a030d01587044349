# SPDX-License-Identifier: Apache-2.0
"""A body's folder: what is written comes back, the same seed gives the same volumes, bad input leaves nothing."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from usreg import cli
from usreg.config import from_mapping
from usreg.data.meshes import read_mesh
from usreg.data.types import Volume
from usreg.data.volumes import read_volume, write_volume
from usreg.errors import ConfigError, FileFormatError, MissingFileError, WriteError
from usreg.geometry.grid import VoxelGrid
from usreg.rendering.surface import enclosed_volume
from usreg.simulation.body import BodyFolderConfig, make_body, read_body, read_body_file, simulate_body
from usreg.simulation.body.config import BodyConfig
from usreg.simulation.body.surfaces import GROUPS
from usreg.simulation.body.types import VALUE

SPACING = 5.0
SMALL = from_mapping(
    BodyFolderConfig,
    {
        "body": {"spacing_mm": SPACING, "terminals": 20},
        "labels": {"spacing_mm": SPACING},
        "surfaces": {"triangles": 2000},
    },
)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    steps = []
    out = tmp_path_factory.mktemp("bodies") / "one"
    assert simulate_body(out, 7, config=SMALL, progress=lambda done, total: steps.append((done, total))) == out
    assert steps == sorted(steps) and steps[-1][0] == steps[-1][1]
    return out


def write_segmentation(folder: Path, names: dict[str, int]) -> Path:
    """A box of liver in a CT of muscle, a second label beside it; names in a JSON list."""
    labels = np.zeros((12, 16, 16), np.uint8)
    labels[3:9, 4:12, 3:8] = 1
    labels[3:9, 4:12, 9:13] = 2
    grid = VoxelGrid((16, 16, 12), (6.0, 6.0, 8.0))
    write_volume(Volume(torch.from_numpy(labels)[None], grid), folder / "seg.nii.gz")
    hu = np.full(labels.shape, -1000, np.int16)
    hu[:, 2:14, 2:14] = 60
    write_volume(Volume(torch.from_numpy(hu)[None], grid), folder / "ct.nii.gz")
    (folder / "seg.json").write_text(json.dumps(names), encoding="utf-8")
    return folder / "seg.nii.gz"


def test_the_folder_holds_what_body_yaml_says(made):
    content = read_body_file(made)
    assert content.seed == 7 and content.contrast == "portal" and content.licence
    assert set(content.files) == {"labels", "ct", "t1", "t2", "landmarks", "markups", "vessels"}
    listed = {"body.yaml", *content.files.values(), *content.surfaces.values()}
    assert {str(p.relative_to(made)) for p in made.rglob("*") if p.is_file()} == listed
    assert {"skin", "liver", "spine", "ribs", "kidney_left"} <= set(content.surfaces)
    assert "liver_volume_ml" in content.measures
    grids = [read_volume(made / content.files[name]).grid for name in ("labels", "ct", "t1", "t2")]
    assert all(grid == grids[0] for grid in grids)


def test_the_body_comes_back(made):
    body, again = make_body(7, BodyConfig(spacing_mm=SPACING, terminals=20)), read_body(made)
    assert torch.equal(body.labels.data, again.labels.data)
    assert torch.allclose(body.labels.grid.corners_ct, again.labels.grid.corners_ct, atol=1e-3)
    assert set(again.landmarks) == set(body.landmarks)
    assert all(torch.allclose(again.landmarks[n], p, atol=1e-3) for n, p in body.landmarks.items())
    assert again.tubes and [vars(t) for t in again.tubes] == [vars(t) for t in body.tubes]
    assert again.seed == 7 and again.measures == pytest.approx(body.measures, abs=1e-3)


def test_images_show_the_organs(made):
    body = read_body(made)
    ct, t2 = (read_volume(made / f"{name}.nii.gz").data[0].double() for name in ("ct", "t2"))
    mean = {n: ct[body.inside(n)].mean().item() for n in ("outside", "visceral_fat", "liver", "lung_right", "spine")}
    assert mean["outside"] < mean["lung_right"] < mean["visceral_fat"] < 0 < mean["liver"] < mean["spine"]
    assert t2[body.inside("liver")].mean() < t2[body.inside("spleen")].mean()


def test_surfaces_lie_on_the_organs(made):
    body, content = read_body(made), read_body_file(made)
    for name in set(content.surfaces) - {"liver"}:  # which also takes the vessels inside it
        structures = GROUPS[name]
        vertices, triangles = read_mesh(made / content.surfaces[name])
        voxels = body.inside(*structures).sum().item() * SPACING**3
        assert enclosed_volume(vertices.double().numpy(), triangles.numpy()) == pytest.approx(voxels, rel=0.03)
        low, high = body.labels.grid.corners_ct.aminmax(dim=0)
        assert bool((vertices > low - SPACING).all()) and bool((vertices < high + SPACING).all())


def test_same_seed_same_volumes(made, tmp_path):
    again = simulate_body(tmp_path / "two", 7, config=SMALL)
    for file in sorted(p.relative_to(made) for p in made.rglob("*") if p.is_file()):
        if file.name.endswith(".nii.gz"):
            assert torch.equal(read_volume(made / file).data, read_volume(again / file).data), file
        else:
            assert (made / file).read_bytes() == (again / file).read_bytes(), file


def test_markups_are_slicer_s(made):
    points = json.loads((made / "landmarks.mrk.json").read_text(encoding="utf-8"))["markups"][0]
    assert points["coordinateSystem"] == "LPS"
    assert len(points["controlPoints"]) == len(read_body(made).landmarks)


def test_a_segmentation_gives_a_folder_with_its_own_ct(tmp_path):
    labels = write_segmentation(tmp_path, {"liver": 1, "hamster": 2})
    out = simulate_body(tmp_path / "body", 1, labels, tmp_path / "ct.nii.gz", config=SMALL)
    content, body = read_body_file(out), read_body(out)
    assert content.contrast == "given" and content.seed == -1
    assert content.unknown_labels == ("hamster (192 voxels)",)
    ct = read_volume(out / "ct.nii.gz")
    assert ct.data.min().item() == -1000 and ct.data.max().item() == 60
    litres = body.inside("liver").sum().item() * SPACING**3
    assert litres == pytest.approx(240 * 6 * 6 * 8, rel=0.05)
    assert body.landmarks["liver_centroid"].shape == (3,)


def test_bad_input_leaves_nothing(made, tmp_path):
    before = sorted(p.name for p in tmp_path.iterdir())
    with pytest.raises(WriteError, match="exists"):
        simulate_body(made, 7, config=SMALL)
    with pytest.raises(ConfigError, match="labels"):
        simulate_body(tmp_path / "body", 7, ct=tmp_path / "ct.nii.gz", config=SMALL)
    with pytest.raises(ConfigError, match="seed"):
        simulate_body(tmp_path / "body", -1, config=SMALL)
    with pytest.raises(MissingFileError):
        simulate_body(tmp_path / "body", 7, tmp_path / "none.nii.gz", config=SMALL)
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_a_failure_in_the_middle_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("usreg.simulation.body.folder.write_mesh", fail)
    labels = write_segmentation(tmp_path, {"liver": 1})
    before = sorted(p.name for p in tmp_path.iterdir())
    with pytest.raises(WriteError, match="No space left"):
        simulate_body(tmp_path / "body", 1, labels, config=SMALL)
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_folders_that_are_no_body(made, tmp_path):
    with pytest.raises(MissingFileError):
        read_body(tmp_path)
    copy = tmp_path / "copy"
    copy.mkdir()
    text = (made / "body.yaml").read_text(encoding="utf-8")
    (copy / "body.yaml").write_text(text.replace("labels.nii.gz", "../labels.nii.gz"), encoding="utf-8")
    with pytest.raises(ConfigError, match="inside the folder"):
        read_body(copy)
    (copy / "body.yaml").write_text(text.replace(": liver\n", ": lever\n"), encoding="utf-8")
    with pytest.raises(FileFormatError, match="make it again"):
        read_body(copy)
    (copy / "body.yaml").write_text(text, encoding="utf-8")
    wrong = torch.full((1, 4, 4, 4), 99, dtype=torch.uint8)
    write_volume(Volume(wrong, VoxelGrid((4, 4, 4), (1.0, 1.0, 1.0))), copy / "labels.nii.gz")
    with pytest.raises(FileFormatError, match="no labels of a body"):
        read_body(copy)


@pytest.mark.parametrize("text", ["{", "{}", '[{"start_mm": 3}]'])
def test_vessels_that_cannot_be_read(made, tmp_path, text):
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("body.yaml", "labels.nii.gz", "landmarks.yaml"):
        (copy / name).write_bytes((made / name).read_bytes())
    (copy / "vessels.json").write_text(text, encoding="utf-8")
    with pytest.raises((FileFormatError, ConfigError), match="vessels.json"):
        read_body(copy)


def test_config_with_swapped_weightings():
    with pytest.raises(ConfigError, match="swap"):
        from_mapping(BodyFolderConfig, {"t1": {"weighting": "t2"}})


@pytest.fixture
def usreg(monkeypatch, capsys):
    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["usreg", *map(str, words)])
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def test_command_makes_a_body_of_a_segmentation(usreg, tmp_path):
    labels = write_segmentation(tmp_path, {"liver": 1, "hamster": 2})
    options = ("--labels", labels, "--ct", tmp_path / "ct.nii.gz", "--spacing", "6")
    code, out, err = usreg("simulate", "body", "--seed", "2", "--out", tmp_path / "body", *options)
    assert code == 0, err
    assert "wrote" in out and "hamster (192 voxels)" in err
    assert int((read_body(tmp_path / "body").labels.data == VALUE["liver"]).sum()) > 100


@pytest.mark.parametrize(
    ("options", "words"),
    [(("--contrast", "venous"), "venous"), (("--spacing", "0"), "spacing_mm"), (("--labels", "none.nii.gz"), "none"),
     (("--names", "v1"), "--labels"), (("--seed", "-3"), "seed")],
)  # fmt: skip
def test_command_with_bad_input_is_one_line(usreg, tmp_path, options, words):
    code, _, err = usreg("simulate", "body", "--out", tmp_path / "body", *options)
    lines = [line for line in err.strip().splitlines() if line.startswith("usreg:")]
    assert code == 2 and len(lines) == 1 and words in lines[0]
    assert list(tmp_path.iterdir()) == []


def test_command_refuses_a_folder_that_exists(usreg, tmp_path):
    code, _, err = usreg("simulate", "body", "--out", tmp_path)
    assert code == 2 and tmp_path.name in err and "exists" in err
