# SPDX-License-Identifier: Apache-2.0
"""Volumes: any direction, types, channels, masks, labels, DICOM series; headers that lie and files that are cut off."""

import resource
import struct

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from hypothesis import given
from hypothesis import strategies as st

from usreg.data.describe import describe
from usreg.data.labels import read_label_names
from usreg.data.types import Volume
from usreg.data.volumes import (
    VolumeLimits,
    mask_path,
    read_labels,
    read_volume,
    with_labels,
    write_labels,
    write_volume,
)
from usreg.errors import ConfigError, FileFormatError, GeometryError, MissingFileError, ShapeError, WriteError
from usreg.geometry import rotation
from usreg.geometry.grid import VoxelGrid

ENDINGS = [".nii", ".nii.gz", ".mha", ".nrrd"]


def turned(reflect: bool = False) -> VoxelGrid:
    r = rotation.exp(torch.tensor([0.4, -0.8, 1.1], dtype=torch.float64))
    if reflect:
        r = r @ torch.diag(torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64))
    return VoxelGrid((5, 4, 3), (0.5, 1.25, 2.0), (-10.0, 20.0, 33.0), tuple(r.flatten().tolist()))


@pytest.fixture
def volume(generator):
    data = torch.randint(0, 256, (1, 3, 4, 5), dtype=torch.uint8, generator=generator)
    mask = torch.rand(3, 4, 5, generator=generator) > 0.5
    return Volume(data, turned(), "US", mask)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("reflect", [False, True])
def test_round_trip_of_grid_voxels_and_mask(volume, tmp_path, ending, reflect):
    made = Volume(volume.data, turned(reflect), "US", volume.mask)
    write_volume(made, tmp_path / f"v{ending}")
    read = read_volume(tmp_path / f"v{ending}", "US")
    assert torch.equal(read.data, made.data) and torch.equal(read.mask, made.mask)
    torch.testing.assert_close(read.grid.ct_T_index, made.grid.ct_T_index, atol=2e-5, rtol=0)
    assert read.modality == "US" and len(read.sha256) == 64
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([f"v{ending}", f"v.mask{ending}"])


def test_a_voxel_lies_where_itk_says(volume, tmp_path):
    write_volume(volume, tmp_path / "v.nii.gz")
    image = sitk.ReadImage(str(tmp_path / "v.nii.gz"))
    grid = read_volume(tmp_path / "v.nii.gz").grid
    for index in [(0, 0, 0), (4, 0, 0), (1, 3, 2)]:
        point = grid.ct_T_index @ torch.tensor([*index, 1.0], dtype=torch.float64)
        np.testing.assert_allclose(point[:3], image.TransformIndexToPhysicalPoint(index), atol=1e-9)
        assert volume.data[0, index[2], index[1], index[0]] == image[index]


def test_writing_without_mask_removes_an_older_one(volume, tmp_path):
    write_volume(volume, tmp_path / "v.mha")
    write_volume(Volume(volume.data, volume.grid), tmp_path / "v.mha")
    assert not mask_path(tmp_path / "v.mha").exists() and read_volume(tmp_path / "v.mha").mask is None


@pytest.mark.parametrize(
    ("stored", "values", "expected"),
    [
        (np.uint8, [0, 255], torch.uint8),
        (np.int16, [-1024, 3071], torch.int16),
        (np.uint16, [0, 4095], torch.int16),
        (np.uint16, [0, 65535], torch.float32),
        (np.int32, [-70000, 5], torch.float32),
        (np.float64, [0.25, -1e6], torch.float32),
        (np.int8, [-128, 127], torch.int16),
    ],
)
def test_types(tmp_path, stored, values, expected):
    array = np.array(values * 12, dtype=stored).reshape(2, 3, 4)
    sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / "v.mha"))
    read = read_volume(tmp_path / "v.mha")
    assert read.data.dtype == expected
    np.testing.assert_array_equal(read.data[0].numpy().astype(np.float64), array.astype(np.float64))


@pytest.mark.parametrize("ending", ENDINGS)
def test_vector_voxels_are_channels(tmp_path, ending, rng):
    data = torch.from_numpy(rng.standard_normal((3, 2, 4, 5)).astype(np.float32))
    write_volume(Volume(data, VoxelGrid((5, 4, 2), (1, 1, 1))), tmp_path / f"v{ending}")
    assert torch.equal(read_volume(tmp_path / f"v{ending}").data, data)


def test_four_axes_with_one_time_are_three(tmp_path):
    array = np.arange(24, dtype=np.uint8).reshape(1, 2, 3, 4)
    sitk.WriteImage(sitk.GetImageFromArray(array, isVector=False), str(tmp_path / "v.nii"))
    assert read_volume(tmp_path / "v.nii").data.shape == (1, 2, 3, 4)
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((2, 2, 3, 4), np.uint8), isVector=False), str(tmp_path / "w.nii"))
    with pytest.raises(FileFormatError, match="three axes"):
        read_volume(tmp_path / "w.nii")


def test_dicom_series(tmp_path):
    folder = tmp_path / "series"
    folder.mkdir()
    array = np.arange(60, dtype=np.int16).reshape(3, 4, 5) - 1000
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for k in range(3):
        image = sitk.GetImageFromArray(array[k])
        image.SetSpacing((0.5, 0.8))
        tags = {"0008|0060": "CT", "0020|000e": "1.2.3.4", "0020|000d": "1.2.3", "0008|0018": f"1.2.3.4.{k + 1}"}
        tags |= {"0020|0032": f"-10\\20\\{2.5 * k}", "0020|0037": "1\\0\\0\\0\\1\\0", "0020|0013": str(k + 1)}
        tags |= {"0008|0016": "1.2.840.10008.5.1.4.1.1.2"}
        for key, value in tags.items():
            image.SetMetaData(key, value)
        writer.SetFileName(str(folder / f"{9 - k}.dcm"))  # names in another order than positions
        writer.Execute(image)
    read = read_volume(folder)
    np.testing.assert_array_equal(read.data[0].numpy(), array)
    assert read.modality == "CT" and read.grid.spacing_mm == pytest.approx((0.5, 0.8, 2.5))
    assert read.grid.origin_mm == pytest.approx((-10, 20, 0))
    assert describe(folder)["kind"] == "volume"
    with pytest.raises(FileFormatError, match="more than 2 files"):
        read_volume(folder, limits=VolumeLimits(max_files=2))


def test_folder_without_series(tmp_path, capfd):
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(FileFormatError, match="holds no DICOM series"):
        read_volume(tmp_path)
    assert capfd.readouterr().err == ""


META = "ObjectType = Image\nNDims = 3\nDimSize = {dims}\nElementSpacing = {spacing}\nOffset = {offset}\n"
META += "TransformMatrix = {matrix}\nElementType = MET_UCHAR\nElementDataFile = LOCAL\n"


@pytest.mark.parametrize(
    ("change", "kind", "match"),
    [
        ({"spacing": "1 1 0"}, GeometryError, "spacing"),
        ({"spacing": "1 -1 1"}, GeometryError, "spacing"),
        ({"spacing": "nan 1 1"}, GeometryError, "finite"),
        ({"offset": "0 inf 0"}, GeometryError, "Offset"),
        ({"offset": "0 x 0"}, GeometryError, "Offset"),
        ({"matrix": "1 0.5 0 0 1 0 0 0 1"}, GeometryError, "orthonormal"),
        ({"matrix": "0 0 0 0 0 0 0 0 0"}, GeometryError, "direction"),
        ({"dims": "60000 60000 60000"}, FileFormatError, "at most"),
        ({"dims": "0 3 4"}, FileFormatError, "at least one voxel"),
        ({"dims": "-2 3 4"}, FileFormatError, "declares|voxel"),
        ({"dims": "2 3 5"}, FileFormatError, "cut off or damaged"),
    ],
)
def test_metaimage_headers_that_lie(tmp_path, change, kind, match):
    header = {"dims": "2 3 4", "spacing": "1 1 1", "offset": "0 0 0", "matrix": "1 0 0 0 1 0 0 0 1"} | change
    (tmp_path / "v.mha").write_bytes(META.format(**header).encode() + bytes(24))
    with pytest.raises(kind, match=match):
        read_volume(tmp_path / "v.mha")


@pytest.mark.parametrize("target", ["/etc/hostname", "../x.raw", "LIST", "slice%03d.raw 1 4 1", "sub/x.raw"])
def test_data_files_elsewhere_are_not_opened(tmp_path, target):
    header = {"dims": "2 3 4", "spacing": "1 1 1", "offset": "0 0 0", "matrix": "1 0 0 0 1 0 0 0 1"}
    (tmp_path / "v.mhd").write_text(META.format(**header).replace("LOCAL", target))
    text = "NRRD0004\ntype: uint8\ndimension: 3\nsizes: 2 3 4\nencoding: raw\n"
    (tmp_path / "v.nhdr").write_text(f"{text}data file: {target}\n")
    for name in ("v.mhd", "v.nhdr"):
        with pytest.raises(FileFormatError, match="only a plain file name|several data files"):
            read_volume(tmp_path / name)


def spoil_nifti(path, edit):
    content = bytearray(path.read_bytes())
    edit(content)
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    ("edit", "kind", "match"),
    [
        (lambda c: struct.pack_into("<f", c, 76 + 12, 0.0), GeometryError, "spacing"),
        (lambda c: struct.pack_into("<f", c, 76 + 4, float("nan")), GeometryError, "spacing"),
        (lambda c: struct.pack_into("<f", c, 280, float("nan")), GeometryError, "sform"),
        (lambda c: struct.pack_into("<3h", c, 42, 30000, 30000, 30000), FileFormatError, "at most"),
        (lambda c: struct.pack_into("<h", c, 42, -3), FileFormatError, "damaged"),
        (lambda c: struct.pack_into("<h", c, 40, 0), FileFormatError, "damaged"),
        (lambda c: c.__delitem__(slice(380, None)), FileFormatError, "cut off: 380 of"),
        (lambda c: c.__delitem__(slice(100, None)), FileFormatError, "no NIfTI header"),
        (lambda c: c.__setitem__(slice(0, 4), b"abcd"), FileFormatError, "no NIfTI header"),
    ],
)
def test_nifti_headers_that_lie(volume, tmp_path, edit, kind, match):
    path = tmp_path / "v.nii"
    write_volume(volume, path)
    spoil_nifti(path, edit)
    with pytest.raises(kind, match=match):
        read_volume(path)


@pytest.mark.parametrize("ending", ENDINGS)
def test_cut_off_anywhere(tmp_path, ending, generator):
    data = torch.randint(0, 256, (1, 8, 9, 10), dtype=torch.uint8, generator=generator)
    path = tmp_path / f"v{ending}"
    write_volume(Volume(data, VoxelGrid((10, 9, 8), (1, 1, 1))), path)
    content = path.read_bytes()
    for end in (0, 10, len(content) // 2, len(content) - 30):
        path.write_bytes(content[:end])
        with pytest.raises((FileFormatError, GeometryError)):
            read_volume(path)


def test_what_is_no_volume(tmp_path):
    with pytest.raises(MissingFileError, match="check the name"):
        read_volume(tmp_path / "absent.nii")
    (tmp_path / "v.png").write_bytes(b"x")
    with pytest.raises(FileFormatError, match="expected one of"):
        read_volume(tmp_path / "v.png")
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((3, 4), np.uint8)), str(tmp_path / "flat.nrrd"))
    with pytest.raises(FileFormatError, match="three axes"):
        read_volume(tmp_path / "flat.nrrd")
    with pytest.raises(ConfigError):
        VolumeLimits(max_bytes=0)


@pytest.mark.parametrize("ending", ENDINGS)
def test_full_disk_leaves_the_older_file(tmp_path, ending, generator):
    path = tmp_path / f"v{ending}"
    grid = VoxelGrid((32, 32, 32), (1, 1, 1))
    write_volume(Volume(torch.zeros(1, 32, 32, 32, dtype=torch.uint8), grid), path)
    before = path.read_bytes()
    noise = Volume(torch.randint(0, 256, (1, 32, 32, 32), dtype=torch.uint8, generator=generator), grid)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (9000, hard))
    try:
        with pytest.raises(WriteError, match="could not be written"):
            write_volume(noise, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_unknown_ending_is_not_written(volume, tmp_path):
    with pytest.raises(FileFormatError, match="written as"):
        write_volume(volume, tmp_path / "v.stl")


def test_labels(tmp_path):
    array = np.zeros((2, 3, 4), np.uint8)
    array[0, 0, :2] = (1, 5)
    image = sitk.GetImageFromArray(array)
    sitk.WriteImage(image, str(tmp_path / "l.nii.gz"))
    labels, names = read_labels(tmp_path / "l.nii.gz", {1: "liver"})
    assert labels.dtype == torch.int16 and labels.shape == (2, 3, 4) and names == {1: "liver", 5: "label 5"}
    volume = Volume(torch.zeros(1, 2, 3, 4), VoxelGrid((4, 3, 2), (1, 1, 1)))
    assert with_labels(volume, labels, names).label_names[1] == "liver"
    with pytest.raises(ShapeError, match="resample"):
        with_labels(volume, labels[:1])
    write_labels(with_labels(volume, labels), tmp_path / "again.mha")
    assert torch.equal(read_labels(tmp_path / "again.mha")[0], labels)
    with pytest.raises(ShapeError, match="no labels"):
        write_labels(volume, tmp_path / "none.mha")
    sitk.WriteImage(sitk.Cast(image, sitk.sitkFloat32) * 0.5, str(tmp_path / "f.nii.gz"))
    with pytest.raises(FileFormatError, match="whole number"):
        read_labels(tmp_path / "f.nii.gz")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("n.json", '{"1": "liver", "2": "left kidney"}'),
        ("n.json", '{"labels": {"liver": 1, "left kidney": 2}}'),
        ("n.yaml", "1: liver\n2: left kidney\n"),
        ("n.csv", "label,name\n1,liver\n2,left kidney\n"),
        ("n.tsv", "index\tname\tr\tg\tb\n1\tliver\t10\t20\t30\n2\tleft kidney\t1\t2\t3\n"),
        ("n.txt", '# ITK-SNAP\n1 255 0 0 1 1 1 "liver"\n2 0 255 0 1 1 1 "left kidney"\n'),
    ],
)
def test_names_of_labels(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert read_label_names(tmp_path / name) == {1: "liver", 2: "left kidney"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("n.json", "[1]"),
        ("n.json", "{"),
        ("n.yaml", "a: b\n"),
        ("n.txt", ""),
        ("n.txt", "1 liver\n1 spleen\n"),
        ("n.csv", "1,\n"),
    ],
)
def test_lists_that_are_no_labels(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(FileFormatError):
        read_label_names(tmp_path / name)


@given(text=st.text(max_size=40))
def test_any_table_gives_names_or_a_clear_error(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("t") / "n.txt"
    path.write_text(text, encoding="utf-8")
    try:
        names = read_label_names(path)
    except FileFormatError as error:
        assert "n.txt" in str(error)
    else:
        assert names and all(isinstance(k, int) and v for k, v in names.items())


def test_real_ct_and_its_labels(data_dir):
    folder = data_dir / "ct_labels"
    ct = read_volume(folder / "ct.nii.gz", "CT")
    labels, _ = read_labels(folder / "labels.nii.gz")
    assert ct.data.shape == (1, 30, 101, 122) and ct.data.dtype == torch.int16
    assert ct.grid.spacing_mm == pytest.approx((3, 3, 3)) and ct.grid.direction[0] == -1
    liver = ct.data[0][labels == 5].double()
    assert 0 < liver.median() < 150  # soft tissue in Hounsfield units
