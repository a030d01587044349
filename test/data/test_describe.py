# SPDX-License-Identifier: Apache-2.0
"""`usreg info`: counts of a sequence, values that JSON can hold, files of no kind; whole files or none."""

import json
from dataclasses import replace

import pytest
import torch

from usreg.data.atomic import atomic_file, atomic_path, write_text
from usreg.data.bag_messages import encode_geometry
from usreg.data.bags import BagWriter, qos_profile
from usreg.data.describe import describe, describe_stamps
from usreg.data.landmarks import write_landmarks
from usreg.data.sequences import write_sequence
from usreg.data.sessions import SessionConfig, write_session
from usreg.data.types import Volume
from usreg.data.volumes import write_volume
from usreg.errors import FileFormatError, MissingFileError, WriteError
from usreg.geometry.grid import VoxelGrid
from usreg.geometry.plane import PlaneGrid
from usreg.geometry.sector import full_rectangle


def test_sequence(sequence, tmp_path):
    write_sequence(sequence, tmp_path / "x.igs.mha")
    told = describe(tmp_path / "x.igs.mha")
    assert told["kind"] == "sequence" and told["frames"] == 6 and told["size"] == [5, 4] and told["images_missing"] == 1
    assert told["transforms"]["ProbeToTracker"] == {"poses": 5, "invalid": 1, "missing": 1}
    assert told["transforms"]["ReferenceToTracker"] == {"poses": 6, "invalid": 0, "missing": 0}
    assert told["rate_hz"] == pytest.approx(20) and told["gaps"] == 0 and told["duration_s"] == pytest.approx(0.25)
    json.dumps(told, allow_nan=False)


def test_matrices_that_are_no_numbers_count_as_invalid(make_mha):
    keys = "".join(f"Seq_Frame{i:04d}_Timestamp = {i}\nSeq_Frame{i:04d}_AToBTransform = nan\n" for i in range(4))
    told = describe(make_mha(bytes(24), keys=keys))
    assert told["transforms"]["AToB"] == {"poses": 4, "invalid": 4, "missing": 0}


def test_gaps_and_flagged_stamps():
    stamps = torch.tensor([0.0, 0.1, 0.2, 0.7, 0.8, 0.8, 0.9], dtype=torch.float64)
    good = torch.tensor([True, True, True, True, True, False, True])
    told = describe_stamps(stamps, good)
    assert told["gaps"] == 1 and told["longest_gap_s"] == pytest.approx(0.5) and told["stamps_flagged"] == 1
    assert told["rate_hz"] == pytest.approx(10)
    alone = describe_stamps(torch.tensor([torch.nan]), torch.tensor([False]))
    assert alone == {"start_s": None, "duration_s": 0.0, "rate_hz": None, "stamps_flagged": 1}


def test_volume_with_values_that_are_no_numbers(tmp_path):
    data = torch.ones(1, 2, 3, 4)
    data[0, 0, 0, 0] = torch.nan
    write_volume(Volume(data, VoxelGrid((4, 3, 2), (1, 1, 2))), tmp_path / "v.nrrd")
    told = describe(tmp_path / "v.nrrd")
    assert told["kind"] == "volume" and told["not_finite"] == 1 and told["range"] == [1.0, 1.0]
    json.dumps(told, allow_nan=False)


def test_files_of_no_kind(tmp_path):
    with pytest.raises(MissingFileError):
        describe(tmp_path / "absent.mha")
    (tmp_path / "x.txt").write_text("hello")
    with pytest.raises(FileFormatError):
        describe(tmp_path / "x.txt")


def test_the_session_that_ships(top):
    folder = top / "bags" / "phantom"
    if not folder.is_dir():
        pytest.skip("bags/phantom has not been made yet")
    told = describe(folder)
    assert told["kind"] == "session" and told["bag"]["kind"] == "bag" and told["bag"]["messages"] > 0
    assert describe(folder / "session.yaml") == told
    json.dumps(told, allow_nan=False)


@pytest.fixture
def rich_session(tmp_path):
    """Landmarks, a second volume, a sweep, and a bag with two changes of depth in five frames, one of them damaged."""
    shallow = full_rectangle(PlaneGrid(6, 8, ((0.5, 0.0), (0.0, 0.5))))
    deep = replace(shallow, depth_mm=50.0)
    runs = {"bag": [shallow, deep, deep, shallow, shallow], "sweep": [deep, deep]}
    for name, geometries in runs.items():
        with BagWriter(tmp_path / name) as bag:
            bag.add_topic("/us/geometry", "usreg_msgs/msg/UltrasoundGeometry", [qos_profile(depth=5)])
            for k, geometry in enumerate(geometries):
                message = encode_geometry(10.0 + k, geometry, "us_image", 0)
                if (name, k) == ("bag", 2):
                    message.orientation = "XY"
                bag.write("/us/geometry", (10 + k) * 10**9 + 500, message)
    write_volume(Volume(torch.ones(1, 2, 3, 4), VoxelGrid((4, 3, 2), (1, 1, 2))), tmp_path / "us.nii.gz")
    write_volume(Volume(torch.ones(1, 5, 5, 5), VoxelGrid((5, 5, 5), (3, 3, 3))), tmp_path / "ct.nii.gz")
    write_landmarks(tmp_path / "points.yaml", {"a": torch.zeros(3), "b": torch.ones(3)})
    config = SessionConfig(
        volume="us.nii.gz", volumes={"ct": "ct.nii.gz"}, landmarks="points.yaml", sweep="sweep", arm="iiwa7",
        smoothing={"model": "constant_velocity"},
    )  # fmt: skip
    write_session(tmp_path, config)
    return tmp_path, config


def test_a_session_tells_of_its_depths_sweep_landmarks_and_volumes(rich_session):
    folder, _ = rich_session
    told = describe(folder)
    assert [(d["from_s"], d["frames"], d["depth_mm"]) for d in told["depths"]] == [
        (10, 1, 2.5),
        (11, 1, 50),
        (13, 2, 2.5),
    ]
    assert [d["size"] for d in told["depths"]] == [[8, 6]] * 3
    assert told["sweep"]["file"] == "sweep" and [d["frames"] for d in told["sweep"]["depths"]] == [2]
    assert told["landmarks"] == {"file": "points.yaml", "points": 2}
    assert told["grids"]["volume"] == {"size": [4, 3, 2], "spacing_mm": [1, 1, 2]}
    assert told["grids"]["ct"]["size"] == [5, 5, 5] and told["smoothing"] == {"model": "constant_velocity"}
    json.dumps(told, allow_nan=False)


def test_a_session_for_a_live_graph_has_no_bag(rich_session):
    folder, config = rich_session
    write_session(folder, replace(config, bag="", sweep="", landmarks=""))
    told = describe(folder)
    assert "bag" not in told and "depths" not in told and "sweep" not in told and "landmarks" not in told
    assert told["grids"]["ct"]["spacing_mm"] == [3, 3, 3]


def test_a_damaged_sequence_is_not_taken_for_a_volume(sequence, tmp_path):
    path = tmp_path / "x.igs.mha"
    write_sequence(sequence, path)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(FileFormatError, match="ElementDataFile|Key = value"):
        describe(path)


def test_files_appear_whole_or_not_at_all(tmp_path):
    path = tmp_path / "x.txt"
    write_text(path, "first")
    with pytest.raises(RuntimeError, match="stop"), atomic_file(path) as stream:
        stream.write(b"half")
        raise RuntimeError("stop")
    with pytest.raises(RuntimeError, match="stop"), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError("stop")
    assert path.read_text() == "first" and [p.name for p in tmp_path.iterdir()] == ["x.txt"]
    with pytest.raises(WriteError, match="cannot be written"):
        write_text(tmp_path / "absent" / "x.txt", "x")
    write_text(path, "second")
    (tmp_path / "plain").write_text("x")
    assert path.read_text() == "second" and path.stat().st_mode == (tmp_path / "plain").stat().st_mode
