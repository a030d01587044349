# SPDX-License-Identifier: Apache-2.0
"""Bodies from segmentations: the table of names, crisp labels from thick slices, what is filled, and bad input."""

import json

import numpy as np
import pytest
import torch

from usreg.data.types import Volume
from usreg.data.volumes import write_volume
from usreg.errors import ConfigError, FileFormatError, ShapeError
from usreg.geometry import rotation
from usreg.geometry.grid import VoxelGrid
from usreg.simulation.body.relabel import resample_labels
from usreg.simulation.body.sampling import regrid
from usreg.simulation.body.totalsegmentator import (
    LabelConfig,
    LabelTable,
    body_from_labels,
    load_label_table,
    map_labels,
    read_labelled,
)
from usreg.simulation.body.types import VALUE

TURN = rotation.exp(torch.tensor([0.3, 0.2, -0.5], dtype=torch.float64))
NAMES = {1: "liver", 2: "kidney_right", 3: "vertebrae_L1", 4: "hamster", 5: "adrenal_gland_left"}


def phantom(with_ct: bool = True, direction=None) -> Volume:
    """A trunk of 120 x 90 mm: ring of fat, wall of muscle, in fat liver, kidney, spine and gas; below it a couch."""
    d = torch.eye(3, dtype=torch.float64) if direction is None else direction
    grid = VoxelGrid((76, 66, 16), (2.0, 2.0, 4.0), (0.0, 0.0, 0.0), tuple(d.flatten().tolist()))
    z, y, x = np.meshgrid(np.arange(16) * 4.0 - 30, np.arange(66) * 2.0 - 55, np.arange(76) * 2.0 - 75, indexing="ij")
    depth = np.hypot(x / 60.0, y / 45.0)
    hu, labels = np.full(x.shape, -1000.0), np.zeros(x.shape)
    hu[depth < 1] = -105
    hu[(depth < 0.78)] = 55
    hu[(depth < 0.62)] = -98
    hu[(y > 60) & (y < 64)] = -100  # the couch
    for label, centre, radius, value in (
        (1, (-15, -4, 0), 16, 110),
        (2, (12, 10, 0), 11, 150),
        (3, (0, 24, 0), 9, 400),
    ):
        inside = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2 < radius**2
        labels[inside], hu[inside] = label, value
    for label, centre, value in ((4, (20, -12, 8), 60), (5, (20, -12, -8), 60), (0, (24, -4, -16), -900)):
        inside = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2 < 5.5**2
        labels[inside], hu[inside] = label, value
    marks = torch.from_numpy(labels.astype(np.int16))
    data = torch.from_numpy((hu if with_ct else labels).astype(np.int16))[None]
    return Volume(data, grid, "CT" if with_ct else "", labels=marks, label_names=dict(NAMES))


def test_table_knows_every_class_of_every_version():
    table = load_label_table()
    assert {version: len(names) for version, names in table.classes.items()} == {"v1": 104, "v2": 117, "mr": 50}
    for names in table.classes.values():
        assert len(set(names)) == len(names)
        assert [n for n in names if table.structure(n) is None] == []


@pytest.mark.parametrize(
    ("name", "structure"),
    [("lung_lower_lobe_left", "lung_left"), ("lung_right", "lung_right"), ("rib_left_12", "ribs"), ("liver", "liver"),
     ("vertebrae_T12", "spine"), ("portal_vein_and_splenic_vein", "portal_vein"),
     ("iliac_vena_left", "inferior_vena_cava"),
     ("kidney_left", "kidney_left_cortex"), ("iliac_artery_right", "aorta"), ("costal_cartilages", "costal_cartilage")],
)  # fmt: skip
def test_names_go_to_their_structures(name, structure):
    assert load_label_table().structure(name) == structure


def test_a_table_with_a_structure_that_is_not_there():
    with pytest.raises(ConfigError, match="antler"):
        LabelTable({"horn": "antler"}, {})
    with pytest.raises(ConfigError, match="v9"):
        load_label_table().names("v9")


def test_unknown_labels_are_named_and_counted():
    volume = phantom()
    mapped, unknown = map_labels(volume.labels, volume.label_names, load_label_table())
    assert unknown == [f"hamster ({int((volume.labels == 4).sum())} voxels)"]
    assert set(np.unique(mapped)) == {0, VALUE["liver"], VALUE["kidney_right_cortex"], VALUE["spine"]}


@pytest.mark.parametrize("direction", [None, TURN], ids=["straight", "oblique"])
def test_a_body_with_all_its_layers(direction):
    volume = phantom(direction=direction)
    body, unknown = body_from_labels(volume, LabelConfig(spacing_mm=2.0))
    grid = body.labels.grid
    assert grid.size == (76, 66, 32) and grid.direction == volume.grid.direction
    assert torch.allclose(grid.centre_ct, volume.grid.centre_ct, atol=1e-9)
    assert len(unknown) == 1
    labels = body.labels.data[0].numpy()
    size = {name: (labels == value).sum() * 8.0 for name, value in VALUE.items()}
    assert size["liver"] == pytest.approx(4 / 3 * np.pi * 16**3, rel=0.04)
    assert size["kidney_right_cortex"] + size["kidney_right_medulla"] == pytest.approx(4 / 3 * np.pi * 11**3, rel=0.04)
    assert 0 < size["kidney_right_medulla"] < size["kidney_right_cortex"]
    middle = labels[16]
    row = middle[27]  # y = -1, from the left: air, skin, fat, muscle, fat, liver
    order = [int(v) for v in row[np.flatnonzero(np.diff(row, prepend=99))]][:6]
    names = ["outside", "skin", "subcutaneous_fat", "muscle", "visceral_fat", "liver"]
    assert order == [VALUE[n] for n in names]
    assert (labels[:, 58:] == 0).all()  # the couch is no body
    assert size["bowel_gas"] > 200
    assert labels[20, 21, 47] == VALUE["muscle"]  # unknown and soft tissue of 60 HU
    top = body.landmarks["liver_dome"] - body.landmarks["liver_lower_pole"]
    assert 24 < top[2].item() < 32
    assert torch.linalg.norm(body.landmarks["liver_centroid"] - volume.grid.centre_ct).item() < 40


def test_without_a_ct_the_outline_is_the_hull_of_the_labels():
    body, _ = body_from_labels(phantom(with_ct=False), LabelConfig(spacing_mm=2.0))
    inside = body.labels.data[0] > 0
    assert 0.05 < inside.double().mean().item() < 0.6
    assert bool(body.inside("skin").any()) and bool(body.inside("subcutaneous_fat").any())
    assert not bool(inside[:, 0].any())


def test_contrast_shows_the_vessels_of_the_liver():
    volume = phantom()
    grid = volume.grid
    z, y, x = np.meshgrid(np.arange(16) * 4.0 - 30, np.arange(66) * 2.0 - 55, np.arange(76) * 2.0 - 75, indexing="ij")
    vessel = ((x + 15) ** 2 + (y + 4) ** 2 < 3.1**2) & (np.abs(z) < 12)
    volume.data[0][torch.from_numpy(vessel)] = 190
    volume.labels[torch.from_numpy((np.abs(x + 15) < 4) & (np.abs(y + 4) < 4) & (z < -16) & (z > -26))] = 6
    named = Volume(
        volume.data, grid, "CT", labels=volume.labels, label_names={**NAMES, 6: "portal_vein_and_splenic_vein"}
    )
    body, _ = body_from_labels(named, LabelConfig(spacing_mm=2.0))
    p = body.inside("portal_vein")
    assert bool(p[16, 25, 30]) and not bool(body.inside("hepatic_vein").any())


def test_thick_slices_become_crisp_and_smooth():
    """A slanted rod through slices of 5 mm: interpolated shapes follow it, nearest neighbours make steps."""
    source = VoxelGrid((60, 40, 12), (1.0, 1.0, 5.0))
    target = regrid(source, (1.0, 1.0, 1.0))

    def rod(grid):
        d, h, w = grid.size[::-1]
        z, y, x = np.meshgrid(*(np.arange(n) for n in (d, h, w)), indexing="ij")
        z = z * grid.spacing_mm[2] + grid.origin_mm[2]
        return np.hypot(x - 12.0 - 0.6 * z, y - 20.0) < 8.0

    labels = rod(source).astype(np.uint8) * 10
    fine, truth = resample_labels(labels, source, target), rod(target)
    nearest = np.repeat(labels, 5, axis=0) > 0
    middle = slice(3, 57)  # the rod is known on both sides

    def dice(a):
        return 2 * (a & truth)[middle].sum() / (a[middle].sum() + truth[middle].sum())

    assert set(np.unique(fine)) == {0, 10}
    assert dice(fine > 0) > 0.97
    assert dice(fine > 0) > dice(nearest) + 0.02
    assert resample_labels(labels, source, source) is labels


def test_neighbours_leave_no_gap_between_them():
    source = VoxelGrid((20, 20, 8), (3.0, 3.0, 6.0))
    labels = np.full((8, 20, 20), 10, np.uint8)
    labels[:, :, 9:] = 20
    fine = resample_labels(labels, source, regrid(source, (1.0, 1.0, 1.0)))
    assert (fine > 0).all()
    assert (fine[:, :, :27] == 10).all() and (fine[:, :, 27:] == 20).all()


def write_pair(folder, names_file=None):
    volume = phantom()
    write_volume(Volume(volume.labels[None], volume.grid), folder / "seg.nii.gz")
    write_volume(Volume(volume.data, volume.grid), folder / "ct.nii.gz")
    if names_file:
        (folder / names_file).write_text(json.dumps({name: value for value, name in NAMES.items()}), encoding="utf-8")
    return folder / "seg.nii.gz", folder / "ct.nii.gz"


def test_reads_names_beside_the_file_or_given(tmp_path):
    labels, ct = write_pair(tmp_path, "seg.json")
    volume = read_labelled(labels, ct)
    assert volume.modality == "CT" and volume.label_names == NAMES
    assert volume.data.min().item() == -1000
    assert read_labelled(labels, None, "v2").label_names[1] == "spleen"
    assert read_labelled(labels, None, tmp_path / "seg.json").label_names[4] == "hamster"


def test_labels_that_say_nowhere_what_they_mean(tmp_path):
    labels, _ = write_pair(tmp_path)
    with pytest.raises(FileFormatError, match="--names"):
        read_labelled(labels)


def test_a_ct_on_other_voxels(tmp_path):
    labels, _ = write_pair(tmp_path, "seg.json")
    other = tmp_path / "other.nii.gz"
    write_volume(
        Volume(torch.zeros((1, 16, 66, 76), dtype=torch.int16), VoxelGrid((76, 66, 16), (2.0, 2.0, 5.0))), other
    )
    with pytest.raises(ShapeError, match="other.nii.gz"):
        read_labelled(labels, other)


def test_labels_with_nothing_to_make_a_body_of():
    volume = phantom()
    empty = Volume(volume.data, volume.grid, "CT", labels=torch.zeros_like(volume.labels))
    with pytest.raises(ShapeError, match="no labelled voxel"):
        body_from_labels(empty)
    strange = Volume(volume.data, volume.grid, "CT", labels=volume.labels, label_names={v: f"x{v}" for v in NAMES})
    with pytest.raises(ShapeError, match=r"x1 \(\d+ voxels\)"):
        body_from_labels(strange)
    with pytest.raises(ConfigError):
        LabelConfig(spacing_mm=0.0)


def test_real_ct_with_its_labels(data_dir):
    """The abdominal CT: names from the file, plausible volumes, layers where the CT shows them."""
    folder = data_dir / "ct_labels"
    volume = read_labelled(folder / "labels.nii.gz", folder / "ct.nii.gz")
    body, unknown = body_from_labels(volume, LabelConfig(spacing_mm=2.0))
    assert unknown == []
    litres = {n: body.inside(n).sum().item() * 8e-6 for n in VALUE}
    counted = int(torch.isin(volume.labels, torch.tensor([5, 64])).sum()) * 27e-6  # liver, portal and splenic vein
    assert litres["liver"] + litres["portal_vein"] == pytest.approx(counted, rel=0.02)
    assert litres["subcutaneous_fat"] > 0.8 and litres["visceral_fat"] > 0.4 and litres["muscle"] > 1.0
    outside = body.labels.data[0] == 0
    assert bool(outside[:, 0].all())  # above the couch side: nothing but air and couch
    assert {"liver_centroid", "gallbladder_lower_pole", "spleen_centroid"} <= set(body.landmarks)
    assert body.landmarks["liver_centroid"][0] < body.landmarks["spleen_centroid"][0]  # LPS: the right side is negative


def test_real_mr_labels_without_a_ct(data_dir):
    body, unknown = body_from_labels(
        read_labelled(data_dir / "mr_labels" / "labels.nii.gz"), LabelConfig(spacing_mm=3.0)
    )
    assert unknown == []
    assert bool(body.inside("liver").any()) and bool(body.inside("skin").any())
