# SPDX-License-Identifier: Apache-2.0
"""Names of labels in a NIfTI header extension."""

import gzip
import struct

import pytest

from usreg.data.nifti_labels import embedded_label_names
from usreg.errors import FileFormatError, MissingFileError

TABLE = b"""<?xml version="1.0"?><CaretExtension><LabelTable>
<Label Key="1" Red="0.0" Green="1.0" Blue="0.0" Alpha="1"><![CDATA[spleen]]></Label>
<Label Key="27" Red="0.1">vertebrae_L5</Label></LabelTable></CaretExtension>"""


def nifti(text: bytes, order: str = "<", size: int | None = None) -> bytes:
    length = 8 + len(text) if size is None else size
    flag = bytes([1 if text else 0, 0, 0, 0])
    return struct.pack(order + "i", 348) + bytes(344) + flag + struct.pack(order + "2i", length, 0) + text


@pytest.mark.parametrize("order", ["<", ">"])
def test_names_are_found(tmp_path, order):
    (tmp_path / "a.nii").write_bytes(nifti(TABLE, order))
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(nifti(TABLE, order)))
    for name in ("a.nii", "a.nii.gz"):
        assert embedded_label_names(tmp_path / name) == {1: "spleen", 27: "vertebrae_L5"}


def test_files_without_names(tmp_path):
    for name, content in (("a.nii", nifti(b"")), ("b.nii", b"short"), ("c.nii", nifti(b"<x/>")), ("d.nrrd", b"NRRD")):
        (tmp_path / name).write_bytes(content)
        assert embedded_label_names(tmp_path / name) == {}


def test_files_that_cannot_be_used(tmp_path):
    (tmp_path / "a.nii").write_bytes(nifti(TABLE, size=2**30))
    with pytest.raises(FileFormatError, match="extension"):
        embedded_label_names(tmp_path / "a.nii")
    (tmp_path / "b.nii.gz").write_bytes(b"no gzip")
    with pytest.raises(FileFormatError, match="unpacked"):
        embedded_label_names(tmp_path / "b.nii.gz")
    with pytest.raises(MissingFileError):
        embedded_label_names(tmp_path / "c.nii")


def test_names_of_the_real_segmentations(data_dir):
    assert embedded_label_names(data_dir / "ct_labels" / "labels.nii.gz")[117] == "costal_cartilages"
    assert len(embedded_label_names(data_dir / "mr_labels" / "labels.nii.gz")) == 50
