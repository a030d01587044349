# SPDX-License-Identifier: Apache-2.0
"""What PLUS sequences say: axes, orientation, statuses, missing pixels, poses alone, names, problems."""

import itertools
import zlib

import numpy as np
import pytest
import torch

from usreg.data.sequences import Sequence, SequenceLimits, is_sequence, read_sequence, subset, write_sequence
from usreg.data.stamp_checks import increasing_stamps
from usreg.data.types import Trajectory
from usreg.errors import MissingTransformError, TimeError
from usreg.geometry import se3

FRAMES = np.arange(1, 25, dtype=np.uint8).reshape(4, 2, 3)  # N, h, w


def test_axes_last_is_the_list(make_mha):
    read = read_sequence(make_mha(FRAMES.tobytes()))
    assert read.size == (3, 2) and read.count == 4
    np.testing.assert_array_equal(read.images.numpy(), FRAMES)


ORDERS = [o for o in itertools.permutations(["list", "row", "column"]) if o.index("column") < o.index("row")]


@pytest.mark.parametrize("order", ORDERS)
def test_kinds_in_any_order(make_mha, order):
    """The first axis of the header runs fastest, whatever it is; columns come before rows."""
    axis, size = {"list": 0, "row": 1, "column": 2}, {"list": 4, "row": 2, "column": 3}
    block = FRAMES.transpose([axis[k] for k in reversed(order)])
    kinds = " ".join("list" if k == "list" else "domain" for k in order)
    path = make_mha(block.tobytes(), dims=" ".join(str(size[k]) for k in order), kinds=kinds)
    np.testing.assert_array_equal(read_sequence(path).images.numpy(), FRAMES)


@pytest.mark.parametrize(
    ("orientation", "flip"),
    [("MF", []), ("MFA", []), ("UF", [2]), ("MN", [1]), ("UN", [1, 2]), ("UNA", [1, 2]), ("mfd", [])],
)
def test_orientation_flips_pixels_only(make_mha, orientation, flip):
    keys = "".join(
        f"Seq_Frame{i:04d}_Timestamp = {i}\n"
        f"Seq_Frame{i:04d}_ProbeToTrackerTransform = 1 0 0 5 0 1 0 6 0 0 1 {i} 0 0 0 1\n"
        for i in range(4)
    )
    read = read_sequence(make_mha(FRAMES.tobytes(), orientation=orientation, keys=keys))
    np.testing.assert_array_equal(read.images.numpy(), np.flip(FRAMES, flip) if flip else FRAMES)
    assert read.orientation == "MF"
    expected = torch.eye(4, dtype=torch.float64).repeat(4, 1, 1)
    expected[:, :3, 3] = torch.tensor([[5.0, 6.0, i] for i in range(4)], dtype=torch.float64)
    assert torch.equal(read.transforms["ProbeToTracker"].poses, expected)


def test_rows_before_columns_are_exchanged(make_mha):
    path = make_mha(FRAMES.transpose(0, 2, 1).tobytes(), dims="2 3 4", orientation="FM")
    np.testing.assert_array_equal(read_sequence(path).images.numpy(), FRAMES)


def test_unstated_orientation_is_reported(make_mha):
    read = read_sequence(make_mha(FRAMES.tobytes(), orientation=""))
    assert any("orientation" in p for p in read.problems)


@pytest.mark.parametrize("stored", ["blank", "left out"])
def test_missing_pixels(make_mha, stored):
    """PLUS stores a blank frame where the image is INVALID; a file that leaves it out reads the same."""
    status = ["OK", "INVALID", "ok", "OK"]
    keys = "".join(
        f"Seq_Frame{i:04d}_Timestamp = {i}\nSeq_Frame{i:04d}_ImageStatus = {s}\n" for i, s in enumerate(status)
    )
    block = FRAMES if stored == "blank" else FRAMES[[0, 2, 3]]
    read = read_sequence(make_mha(block.tobytes(), keys=keys))
    assert read.image_valid.tolist() == [True, False, True, True]
    np.testing.assert_array_equal(read.images.numpy()[[0, 2, 3]], FRAMES[[0, 2, 3]])
    assert not read.images[1].any()
    assert read.image_status == ("OK", "INVALID", "ok", "OK")


def test_poses_alone(make_mha):
    keys = "".join(
        f"Seq_Frame{i:04d}_StylusToTrackerTransform = 1 0 0 {i} 0 1 0 0 0 0 1 0 0 0 0 1\n"
        f"Seq_Frame{i:04d}_Timestamp = {i}\nSeq_Frame{i:04d}_ImageStatus = INVALID\n"
        for i in range(12_000)
    )
    read = read_sequence(make_mha(b"", dims="0 0 12000", keys=keys, element="MET_OTHER", orientation="XX"))
    assert read.images is None and read.size is None and read.count == 12_000
    assert not read.image_valid.any() and read.problems == ()
    assert read.transforms["StylusToTracker"].poses[11_999, 0, 3] == 11_999


def test_colour_becomes_grey(make_mha):
    rgb = np.random.default_rng(3).integers(0, 256, (4, 2, 3, 3), dtype=np.uint8)
    expected = np.rint(rgb @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)
    by_channels = make_mha(rgb.tobytes(), extra="ElementNumberOfChannels = 3\n", name="a.mha")
    by_kind = make_mha(rgb.tobytes(), dims="3 3 2 4", kinds="vector domain domain list", name="b.mha")
    for path in (by_channels, by_kind):
        np.testing.assert_array_equal(read_sequence(path).images.numpy(), expected)


def test_status_and_numbers_decide_validity(make_mha):
    matrix = "1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1"
    rows = [
        (matrix, "OK"),
        (matrix, "INVALID"),
        (matrix.replace("1 0 0 0 0 1", "nan 0 0 0 0 1", 1), "OK"),
        (None, None),
    ]
    rows += [
        (matrix, None),
        ("1 2 3", "OK"),
        (matrix, "OUT_OF_VIEW"),
        (matrix.replace(" 1 0 0 0 0 1 0", " inf 0 0 0 0 1 0", 1), "OK"),
    ]
    keys = ""
    for i, (text, status) in enumerate(rows):
        keys += f"Seq_Frame{i:04d}_Timestamp = {i}\n"
        keys += f"Seq_Frame{i:04d}_ProbeToTrackerTransform = {text}\n" if text else ""
        keys += f"Seq_Frame{i:04d}_ProbeToTrackerTransformStatus = {status}\n" if status else ""
    read = read_sequence(make_mha(bytes(48), dims="3 2 8", keys=keys))
    assert read.transforms["ProbeToTracker"].valid.tolist() == [True, False, False, False, True, False, False, False]
    assert read.statuses["ProbeToTracker"] == ("OK", "INVALID", "OK", None, None, "OK", "OUT_OF_VIEW", "OK")
    assert read.fields[5] == {"ProbeToTrackerTransform": "1 2 3"}
    assert any("3 matrices" in p for p in read.problems)


def test_single_image_without_a_list_axis(make_mha):
    keys = "Seq_Frame0000_Timestamp = 15.5\nSeq_Frame0000_ImageStatus = OK\n"
    path = make_mha(FRAMES[0].tobytes(), dims="3 2", kinds="domain domain", keys=keys)
    read = read_sequence(path)
    assert read.count == 1 and read.size == (3, 2)
    np.testing.assert_array_equal(read.images[0].numpy(), FRAMES[0])


def test_stamps_that_repeat_or_run_backwards(make_mha):
    stamps = ["0.0", "0.1", "0.1", "0.05", "0.2", "soon"]
    keys = "".join(f"Seq_Frame{i:04d}_Timestamp = {s}\n" for i, s in enumerate(stamps))
    path = make_mha(bytes(36), dims="3 2 6", keys=keys)
    read = read_sequence(path)
    assert read.stamp_valid.tolist() == [True, True, False, False, True, False]
    assert len(read.problems) == 2 and read.fields[5] == {"Timestamp": "soon"}
    with pytest.raises(TimeError, match="repeat or run backwards"):
        read_sequence(path, SequenceLimits(bad_stamps="refuse"))


def test_one_wild_stamp_does_not_condemn_the_rest():
    stamps = torch.tensor([0.0, 1.0, 1e9, 2.0, 3.0, torch.nan, 4.0], dtype=torch.float64)
    assert increasing_stamps(stamps).tolist() == [True, True, False, True, True, False, True]


def test_keys_beyond_the_declared_frames_are_reported(make_mha):
    keys = "".join(f"Seq_Frame{i:04d}_Timestamp = {i}\n" for i in range(6))
    read = read_sequence(make_mha(FRAMES.tobytes(), keys=keys))
    assert read.count == 4 and any("2 frames beyond" in p for p in read.problems)


def test_compressed_mhd_with_its_data_file(make_mha, tmp_path):
    (tmp_path / "x.zraw").write_bytes(zlib.compress(FRAMES.tobytes()))
    text = make_mha(b"").read_text().replace("CompressedData = False", "CompressedData = True")
    (tmp_path / "x.mhd").write_text(text.replace("ElementDataFile = LOCAL", "ElementDataFile = x.zraw"))
    np.testing.assert_array_equal(read_sequence(tmp_path / "x.mhd").images.numpy(), FRAMES)


def test_find_goes_through_names_with_inverses(generator):
    n, stamps = 5, torch.arange(5, dtype=torch.float64)
    a, b = (se3.exp(torch.randn(n, 6, dtype=torch.float64, generator=generator)) for _ in range(2))
    valid_a, valid_b = torch.tensor([1, 1, 0, 1, 1], dtype=torch.bool), torch.tensor([1, 0, 1, 1, 1], dtype=torch.bool)
    tracked = {"ProbeToTracker": Trajectory(stamps, a, valid_a), "ReferenceToTracker": Trajectory(stamps, b, valid_b)}
    sequence = Sequence(None, torch.zeros(n, dtype=torch.bool), stamps, tracked)
    pixels = torch.diag(torch.tensor([0.1, 0.2, 0.15, 1.0], dtype=torch.float64))
    found = sequence.find("Image", "Reference", {"ImageToProbe": pixels})
    assert found.valid.tolist() == [True, False, False, True, True]
    expected = torch.linalg.inv(b) @ a @ pixels
    torch.testing.assert_close(found.poses[found.valid], expected[found.valid])
    back = sequence.find("Reference", "Image", {"ImageToProbe": pixels})
    eye = torch.eye(4, dtype=torch.float64).expand(3, 4, 4)
    torch.testing.assert_close((back.poses @ found.poses)[found.valid], eye, atol=1e-12, rtol=0)
    assert torch.equal(sequence.find("Probe", "Probe").poses[0], torch.eye(4, dtype=torch.float64))
    with pytest.raises(MissingTransformError, match="'Probe', 'Reference', 'Tracker'"):
        sequence.find("Image", "Tracker")


def test_measured_transforms_come_before_statics_of_one_name(sequence):
    shifted = torch.eye(4, dtype=torch.float64)
    shifted[0, 3] = 99.0
    found = sequence.find("Reference", "Tracker", {"ReferenceToTracker": shifted})
    assert torch.equal(found.poses, sequence.transforms["ReferenceToTracker"].poses)


def test_subset_keeps_everything_of_its_frames(sequence, tmp_path):
    write_sequence(sequence, tmp_path / "all.mha")
    read = read_sequence(tmp_path / "all.mha")
    part = subset(read, slice(1, None, 2))
    assert part.count == 3 and part.fields == read.fields[1::2] and part.image_status == read.image_status[1::2]
    assert torch.equal(part.transforms["ProbeToTracker"].valid, read.transforms["ProbeToTracker"].valid[1::2])


def test_a_volume_is_no_sequence(make_mha, tmp_path):
    volume = make_mha(bytes(24), keys="", kinds="domain domain domain", name="volume.mha")
    assert not is_sequence(volume)
    assert is_sequence(make_mha(FRAMES.tobytes(), name="other.mha"))
    reference = make_mha(bytes(24), keys="Seq_Frame0000_Timestamp = 1\n", kinds="domain domain domain", name="ref.mha")
    assert not is_sequence(reference)
    assert not is_sequence(tmp_path / "absent.mha")
