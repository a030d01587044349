# SPDX-License-Identifier: Apache-2.0
"""Meshes in PLY: round trip, and files that are no such mesh."""

import pytest
import torch

from usreg.data.meshes import read_mesh, write_mesh
from usreg.errors import FileFormatError, MissingFileError, ShapeError, UsregError

VERTICES = torch.tensor([[0.0, 0.0, 0.0], [1.5, 0.0, 0.0], [0.0, -2.0, 0.0], [0.0, 0.0, 3.25]])
TRIANGLES = torch.tensor([[0, 2, 1], [0, 1, 3], [1, 2, 3], [2, 0, 3]])


def test_round_trip(tmp_path):
    write_mesh(tmp_path / "a.ply", VERTICES, TRIANGLES)
    vertices, triangles = read_mesh(tmp_path / "a.ply")
    assert torch.equal(vertices, VERTICES) and torch.equal(triangles, TRIANGLES)
    head = (tmp_path / "a.ply").read_bytes()[:300]
    assert head.startswith(b"ply\nformat binary_little_endian 1.0\n") and b"element face 4\n" in head


def test_every_damage_is_an_error(tmp_path):
    path = tmp_path / "a.ply"
    write_mesh(path, VERTICES, TRIANGLES)
    good = path.read_bytes()
    for bad in (
        good[:-1],
        good + b"x",
        good[:40],
        b"",
        good.replace(b"vertex 4", b"vertex 5"),
        good.replace(b"3.25", b""),
    ):
        path.write_bytes(bad)
        if bad != good:
            with pytest.raises(UsregError):
                read_mesh(path)
    path.write_bytes(good[:-4] + b"\x09\x00\x00\x00")  # a vertex that is not there
    with pytest.raises(FileFormatError, match="indices"):
        read_mesh(path)
    path.write_bytes(good.replace(b"\x00\x00\xc0?", b"\x00\x00\xc0\x7f"))
    with pytest.raises(FileFormatError, match="finite"):
        read_mesh(path)


def test_what_cannot_be_written_or_found(tmp_path):
    with pytest.raises(ShapeError):
        write_mesh(tmp_path / "b.ply", VERTICES, TRIANGLES + 1)
    with pytest.raises(ShapeError):
        write_mesh(tmp_path / "b.ply", VERTICES[:, :2], TRIANGLES)
    assert not (tmp_path / "b.ply").exists()
    with pytest.raises(MissingFileError):
        read_mesh(tmp_path / "b.ply")
