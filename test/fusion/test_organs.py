# SPDX-License-Identifier: Apache-2.0
"""Organs of a labelled volume for a 3D view: which, how they look, where they lie, and what is kept on disk."""

import os
import stat
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from usreg.data.meshes import read_mesh
from usreg.data.types import Volume
from usreg.errors import ShapeError, WriteError
from usreg.fusion import label_colour, organs
from usreg.fusion.organ_cache import OrganCache, cache_folder, surfaces_key
from usreg.fusion.organs import COARSEST, FINEST, organ_files, organ_looks, organ_meshes
from usreg.geometry import rotation
from usreg.geometry.grid import VoxelGrid
from usreg.rendering.surface import enclosed_volume

TURN = rotation.exp(torch.tensor([0.3, -0.5, 0.2], dtype=torch.float64))
MIRROR = torch.diag(torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64))
SHAPE = (30, 50, 60)
NAMES = {1: "skin", 2: "visceral_fat", 3: "liver", 4: "portal_vein", 5: "spine", 6: "thing", 8: "kidney_left"}


def labelled(direction=TURN, names=None) -> Volume:
    """Slabs, a ball and a speck in fat."""
    labels = torch.full(SHAPE, 2, dtype=torch.int16)
    labels[:, :2] = 1
    z, y, x = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in SHAPE), indexing="ij")
    labels[(x - 30) ** 2 + (y - 25) ** 2 + (z - 15) ** 2 < 144] = 3
    labels[14:17, 10:40, 29:32] = 4
    labels[:, 44:, 25:35] = 5
    labels[5:9, 5:9, 5:9] = 6
    labels[10:20, 30:36, 50:58] = 8
    labels[1, 40, 1] = 7  # a speck: too small
    grid = VoxelGrid(SHAPE[::-1], (1.0, 1.0, 1.5), (10.0, -40.0, 300.0), tuple(direction.flatten().tolist()))
    return Volume(torch.zeros(1, *SHAPE, dtype=torch.uint8), grid, labels=labels, label_names=names or NAMES)


@pytest.fixture
def cache(tmp_path) -> OrganCache:
    return OrganCache(tmp_path / "surfaces")


def test_what_matters_comes_first_and_filling_tissue_not_at_all():
    looks = organ_looks(labelled())
    assert [look.name for look in looks] == ["liver", "portal_vein", "kidney_left", "thing", "spine", "skin"]
    assert {look.name: look.opacity for look in looks} == {
        "liver": 0.25, "portal_vein": 1.0, "kidney_left": 0.5, "thing": 0.5, "spine": 0.5, "skin": 0.12,
    }  # fmt: skip
    assert all(look.colour == label_colour(look.value) for look in looks)


@pytest.mark.parametrize(
    ("name", "opacity"),
    [
        ("Hepatic Vein", 1.0),
        ("vertebrae_L1", 0.5),
        ("rib_left_11", 0.5),
        ("lung_upper_lobe_left", 0.15),
        ("tribe", 0.5),
    ],
)
def test_names_in_the_wild(name, opacity):
    [look] = [look for look in organ_looks(labelled(names={**NAMES, 6: name})) if look.value == 6]
    assert look.opacity == opacity


def test_a_volume_without_labels_has_no_organs():
    volume = replace(labelled(), labels=None, label_names={})
    assert organ_looks(volume) == [] and list(organ_meshes(volume)) == [] and list(organ_files(volume)) == []
    with pytest.raises(ShapeError, match="no labels"):
        surfaces_key(volume)


def test_names_are_not_needed(cache):
    assert {look.name for look in organ_looks(replace(labelled(), label_names={}))} >= {"label 3", "label 4"}


@pytest.mark.parametrize("direction", [TURN, TURN @ MIRROR], ids=["oblique", "mirrored"])
def test_meshes_lie_where_the_voxels_do_with_normals_outward(direction, cache):
    volume = labelled(direction)
    [liver] = [organ for organ in organ_meshes(volume, cache) if organ.look.name == "liver"]
    assert COARSEST <= len(liver.triangles) <= FINEST
    index = (volume.labels == 3).nonzero().flip(1).double()
    voxels = index @ volume.grid.ct_T_index[:3, :3].T + volume.grid.ct_T_index[:3, 3]
    assert np.allclose(liver.vertices_mm.mean(0), voxels.mean(0), atol=0.7)
    volume_mm3 = enclosed_volume(liver.vertices_mm.astype(np.float64), liver.triangles)
    assert volume_mm3 == pytest.approx(len(voxels) * 1.5, rel=0.01)
    outward = liver.vertices_mm - liver.vertices_mm.mean(0)
    assert np.mean((outward * liver.normals).sum(1) > 0) > 0.95
    assert np.allclose(np.linalg.norm(liver.normals, axis=1), 1.0, atol=1e-5)


def test_a_wide_thin_sheet_is_taken_in_blocks_and_stays_in_place(cache, monkeypatch):
    monkeypatch.setattr(organs, "WIDE_CELLS", 1000)
    volume = labelled()
    [skin] = [organ for organ in organ_meshes(volume, cache) if organ.look.name == "skin"]
    index = (volume.labels == 1).nonzero().flip(1).double()
    voxels = index @ volume.grid.ct_T_index[:3, :3].T + volume.grid.ct_T_index[:3, 3]
    assert np.allclose(skin.vertices_mm.mean(0), voxels.mean(0), atol=1.6)
    nearest = torch.cdist(torch.from_numpy(skin.vertices_mm).double(), voxels).min(1).values
    assert nearest.max() < 3.5  # two voxels' diagonal


def test_the_second_time_meshes_come_from_the_disk(cache, monkeypatch):
    volume = labelled()
    first = list(organ_meshes(volume, cache))
    monkeypatch.setattr(organs, "closed_mesh", None)  # would fail
    again = list(organ_meshes(replace(volume, label_names={**NAMES, 3: "Leber"}), cache))
    assert {organ.look.name for organ in again} >= {"Leber"}
    by_value = {organ.look.value: organ for organ in again}
    for organ in first:
        assert np.array_equal(organ.vertices_mm, by_value[organ.look.value].vertices_mm)
        assert np.array_equal(organ.normals, by_value[organ.look.value].normals)


def test_another_label_or_grid_has_another_key():
    volume = labelled()
    changed = volume.labels.clone()
    changed[0, 0, 0] = 3
    keys = {
        surfaces_key(volume), surfaces_key(replace(volume, labels=changed)), surfaces_key(volume, 1),
        surfaces_key(replace(volume, grid=replace(volume.grid, origin_mm=(0.0, 0.0, 0.0)))),
    }  # fmt: skip
    assert len(keys) == 4 and surfaces_key(replace(volume, label_names={}, sha256="x")) in keys


@pytest.mark.parametrize("damage", [b"", b"ply\nnonsense", None], ids=["empty", "other", "cut off"])
def test_a_damaged_file_is_made_again(cache, damage):
    volume = labelled()
    whole = {organ.look.value: organ for organ in organ_meshes(volume, cache)}
    path = next(cache.folder.glob("*/3.ply"))
    path.write_bytes(path.read_bytes()[:-5] if damage is None else damage)
    again = {organ.look.value: organ for organ in organ_meshes(volume, cache)}
    assert np.array_equal(whole[3].vertices_mm, again[3].vertices_mm)
    assert len(read_mesh(path)[0]) == len(whole[3].vertices_mm)


def test_a_cache_that_cannot_be_written_only_costs_time(tmp_path):
    (tmp_path / "file").write_text("no folder")
    cache = OrganCache(tmp_path / "file" / "surfaces")
    assert len(list(organ_meshes(labelled(), cache))) == 6
    with pytest.raises(WriteError, match="cache"):
        list(organ_files(labelled(), cache))


def test_the_cache_is_bounded_and_forgets_what_was_used_longest_ago(tmp_path):
    volume, cache = labelled(), OrganCache(tmp_path / "surfaces", max_bytes=400_000)
    for number in range(4):
        old = cache.folder / f"{number:032d}"
        old.mkdir(parents=True)
        (old / "1.ply").write_bytes(bytes(150_000))
        os.utime(old, (time.time() - 1000 + number,) * 2)
    organ = next(organ_meshes(volume, cache))
    kept = {shelf.name for shelf in cache.folder.iterdir()}
    key = surfaces_key(volume, FINEST, COARSEST, organs.TRIANGLE_MM2, organs.RAW)
    assert kept == {key, f"{3:032d}", f"{2:032d}"} and organ.look.name == "liver"
    assert sum(f.stat().st_size for f in cache.folder.rglob("*.ply")) < 400_000


def test_the_cache_is_its_users_alone_and_names_nobody(cache):
    list(organ_meshes(replace(labelled(), uri="/x/Doe_Jane.nii.gz"), cache))
    assert stat.S_IMODE(cache.folder.stat().st_mode) == 0o700
    assert all(path.stem.isdigit() for path in cache.folder.glob("*/*"))


def test_the_users_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "usreg"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # the standard says: ignore
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home" / ".cache" / "usreg"


def test_files_for_rviz_are_written_once_and_again_where_damaged(cache):
    volume = labelled()
    paths = [path for _, path in organ_files(volume, cache)]
    times = [path.stat().st_mtime_ns for path in paths]
    paths[0].write_bytes(b"cut off")
    assert [path for _, path in organ_files(volume, cache)] == paths
    again = [path.stat().st_mtime_ns for path in paths]
    assert again[0] != times[0] and again[1:] == times[1:] and paths[0].stat().st_size > 84


def test_files_for_rviz_are_binary_stl_in_metres(cache):
    volume = labelled()
    meshes = {organ.look.value: organ for organ in organ_meshes(volume, cache)}
    found = list(organ_files(volume, cache))
    assert [look.value for look, _ in found] == [look.value for look in organ_looks(volume)]
    for look, path in found:
        assert isinstance(path, Path) and path.as_uri().startswith("file:///") and path.suffix == ".stl"
        content = path.read_bytes()
        count = int.from_bytes(content[80:84], "little")
        assert len(content) == 84 + 50 * count == 84 + 50 * len(meshes[look.value].triangles)
        assert not content.startswith(b"solid")  # would be read as text
        facets = np.frombuffer(content[84:], np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("a", "<u2")]))
        corners = meshes[look.value].vertices_mm[meshes[look.value].triangles]
        assert np.allclose(facets["corners"], corners * 1e-3, atol=1e-6)
        sides = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        assert ((facets["normal"] * sides).sum(1) >= 0).all()
