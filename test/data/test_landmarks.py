# SPDX-License-Identifier: Apache-2.0
import json

import pytest
import torch

from usreg.data.landmarks import read_landmarks, write_landmarks
from usreg.errors import FileFormatError, MissingFileError, WriteError

POINTS = {"portal_bifurcation_01": torch.tensor([1.25, -3.5, 240.0], dtype=torch.float64),
          "xiphoid": torch.tensor([0.0, 0.001, -7.125], dtype=torch.float64)}  # fmt: skip


def test_what_is_written_is_read(tmp_path):
    write_landmarks(tmp_path / "landmarks.yaml", POINTS)
    read = read_landmarks(tmp_path / "landmarks.yaml")
    assert list(read) == list(POINTS)
    assert all(torch.equal(read[name], POINTS[name]) for name in POINTS)


def test_slicer_markups_are_lps_millimetres(tmp_path):
    write_landmarks(tmp_path / "landmarks.mrk.json", POINTS)
    markup = json.loads((tmp_path / "landmarks.mrk.json").read_text())["markups"][0]
    assert (markup["type"], markup["coordinateSystem"], markup["coordinateUnits"]) == ("Fiducial", "LPS", "mm")
    assert [p["label"] for p in markup["controlPoints"]] == list(POINTS)
    assert markup["controlPoints"][0]["position"] == [1.25, -3.5, 240.0]


@pytest.mark.parametrize("text", ["", "a: [1, 2]", "a: [1, 2, .nan]", "a: [1, 2, x]", "a: 3", "a: [true, 1, 2]", "- 1"])
def test_what_is_no_list_of_points_is_refused(tmp_path, text):
    (tmp_path / "l.yaml").write_text(text)
    with pytest.raises(FileFormatError, match="l.yaml"):
        read_landmarks(tmp_path / "l.yaml")


def test_a_missing_file_and_folder_are_named(tmp_path):
    with pytest.raises(MissingFileError, match="none.yaml"):
        read_landmarks(tmp_path / "none.yaml")
    with pytest.raises(WriteError, match="a.yaml"):
        write_landmarks(tmp_path / "no" / "a.yaml", POINTS)
