# SPDX-License-Identifier: Apache-2.0
"""TUM trajectory files: round trip, units, broken files."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from usreg.data.trajectories import read_tum, write_tum
from usreg.data.types import Trajectory
from usreg.errors import FileFormatError, MissingFileError, UsregError, WriteError
from usreg.geometry import se3


def _trajectory(count: int) -> Trajectory:
    generator = torch.Generator().manual_seed(count)
    poses = se3.exp(
        torch.randn(count, 6, generator=generator, dtype=torch.float64) * torch.tensor([90.0] * 3 + [1.0] * 3)
    )
    return Trajectory(1.7e9 + torch.arange(count, dtype=torch.float64) / 15, poses, torch.ones(count, dtype=torch.bool))


def test_round_trip(tmp_path):
    path = _trajectory(7)
    write_tum(tmp_path / "a.tum", path)
    again = read_tum(tmp_path / "a.tum", "image", "world")
    assert (again.stamps_s - path.stamps_s).abs().max() < 1e-6 and (again.poses - path.poses).abs().max() < 1e-5
    assert (again.source, again.target) == ("image", "world")


def test_metres_and_quaternions_xyzw(tmp_path):
    pose = se3.translation(torch.tensor([1000.0, -250, 0], dtype=torch.float64))
    one = Trajectory(torch.tensor([2.5], dtype=torch.float64), pose[None], torch.tensor([True]))
    write_tum(tmp_path / "a.tum", one)
    numbers = [float(x) for x in (tmp_path / "a.tum").read_text().splitlines()[1].split()]
    assert numbers == [2.5, 1.0, -0.25, 0.0, 0.0, 0.0, 0.0, 1.0]


def test_poses_that_are_not_valid_are_left_out(tmp_path):
    path = _trajectory(4)
    bad = path.poses.clone()
    bad[2] = float("nan")
    write_tum(tmp_path / "a.tum", Trajectory(path.stamps_s, bad, torch.tensor([True, True, False, True])))
    assert len(read_tum(tmp_path / "a.tum").stamps_s) == 3


def test_empty(tmp_path):
    write_tum(tmp_path / "a.tum", _trajectory(0))
    assert read_tum(tmp_path / "a.tum").poses.shape == (0, 4, 4)


@pytest.mark.parametrize(
    "text",
    [
        "1 2 3",
        "1 0 0 0 0 0 0 0",
        "1 0 0 0 0 0 0 nan",
        "1 0 inf 0 0 0 0 1",
        "a b c d e f g h",
        "2 0 0 0 0 0 0 1\n1 0 0 0 0 0 0 1",
        "\x00\xff",
    ],
)
def test_broken_files(tmp_path, text):
    (tmp_path / "a.tum").write_bytes(text.encode("latin-1"))
    with pytest.raises(FileFormatError, match="a.tum"):
        read_tum(tmp_path / "a.tum")


@given(st.binary(max_size=200))
def test_any_bytes_give_a_trajectory_or_our_error(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("tum") / "a.tum"
    path.write_bytes(content)
    try:
        read = read_tum(path)
    except UsregError:
        return
    assert torch.isfinite(read.poses).all()


def test_missing_and_unwritable(tmp_path):
    with pytest.raises(MissingFileError):
        read_tum(tmp_path / "none.tum")
    with pytest.raises(WriteError, match="cannot be written"):
        write_tum(tmp_path / "none" / "a.tum", _trajectory(1))
