# SPDX-License-Identifier: Apache-2.0
"""Volume and labels as the page's slices get them: the right voxels in the right place, in RAS."""

import gzip
import struct
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from usreg.data.types import Volume
from usreg.errors import MissingFileError
from usreg.geometry import rotation
from usreg.geometry.grid import VoxelGrid
from usreg.web.files import VolumeFiles, nifti

TURN = rotation.exp(torch.tensor([0.3, -0.5, 0.2], dtype=torch.float64))
MIRROR = torch.diag(torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64))
CORNER = (11, 7, 5)  # i, j, k of the one bright voxel: no symmetry hides a swapped or mirrored axis


def phantom(direction=TURN, dtype=np.int16, size=(24, 18, 12)) -> Volume:
    data = np.zeros(size[::-1], dtype)
    data[CORNER[::-1]] = 200
    data[0, 0, 1:4] = 50
    grid = VoxelGrid(size, (0.7, 1.1, 2.3), (-31.0, 12.0, 240.0), tuple(direction.flatten().tolist()))
    labels = torch.from_numpy((data > 100).astype(np.int16) * 7)
    return Volume(torch.from_numpy(data)[None], grid, "CT", labels=labels, label_names={7: "lesion"}, sha256="ab")


def read(content: bytes, folder) -> sitk.Image:
    path = folder / "read.nii.gz"
    path.write_bytes(content)
    return sitk.ReadImage(str(path))


@pytest.mark.parametrize("direction", [torch.eye(3).double(), TURN, TURN @ MIRROR], ids=["straight", "oblique", "flip"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_read_back_every_voxel_lies_where_it_was(direction, dtype, tmp_path):
    volume = phantom(direction, dtype)
    image = read(nifti(volume.data[0].numpy(), volume.grid), tmp_path)
    assert np.array_equal(sitk.GetArrayFromImage(image), volume.data[0].numpy())
    assert sitk.GetArrayFromImage(image).dtype == dtype
    expected = (volume.grid.ct_T_index @ torch.tensor([*map(float, CORNER), 1.0], dtype=torch.float64))[:3]
    assert np.allclose(image.TransformIndexToPhysicalPoint(CORNER), expected, atol=1e-4)


def test_the_affine_in_the_file_is_ras(tmp_path):
    """As a reader that knows nothing of ITK sees it: rows of the sform, with x and y of LPS turned round."""
    volume = phantom()
    header = gzip.decompress(nifti(volume.data[0].numpy(), volume.grid))[:348]
    assert struct.unpack_from("<h", header, 254)[0] > 0  # sform_code
    sform = np.array(struct.unpack_from("<12f", header, 280)).reshape(3, 4)
    ras = np.diag([-1.0, -1.0, 1.0]) @ volume.grid.ct_T_index.numpy()[:3]
    assert np.allclose(sform, ras, atol=1e-4)


def test_what_is_too_large_is_thinned_and_stays_in_place(tmp_path):
    volume = phantom(size=(40, 30, 20))
    image = read(nifti(volume.data[0].numpy(), volume.grid, max_bytes=8000), tmp_path)
    step = 2
    assert image.GetSize() == (20, 15, 10)
    last = tuple((n - 1) * step for n in image.GetSize())
    expected = (volume.grid.ct_T_index @ torch.tensor([*map(float, last), 1.0], dtype=torch.float64))[:3]
    assert np.allclose(image.TransformIndexToPhysicalPoint([n - 1 for n in image.GetSize()]), expected, atol=1e-4)
    assert np.array_equal(sitk.GetArrayFromImage(image), volume.data[0].numpy()[::2, ::2, ::2])


def test_files_follow_the_volume_and_are_made_once(tmp_path):
    shown: list[Volume | None] = [None]
    routes = VolumeFiles(lambda: shown[0]).routes()
    with pytest.raises(MissingFileError, match="no volume"):
        routes["/volume.nii.gz"]()
    shown[0] = phantom()
    kind, content = routes["/volume.nii.gz"]()
    assert kind == "application/gzip" and routes["/volume.nii.gz"]()[1] is content
    labels = sitk.GetArrayFromImage(read(routes["/labels.nii.gz"]()[1], tmp_path))
    assert labels[CORNER[::-1]] == 7 and (labels > 0).sum() == 1
    shown[0] = replace(phantom(torch.eye(3).double()), labels=None)
    assert routes["/volume.nii.gz"]()[1] != content
    with pytest.raises(MissingFileError, match="no labels"):
        routes["/labels.nii.gz"]()


def test_nothing_in_the_file_names_the_patient(tmp_path):
    volume = replace(phantom(), uri="/home/somebody/Doe_Jane_19700101.nii.gz")
    _, content = VolumeFiles(lambda: volume).routes()["/volume.nii.gz"]()
    assert b"Doe" not in gzip.decompress(content) and b"Doe" not in content
