# SPDX-License-Identifier: Apache-2.0
"""Damaged, lying and hostile sequence files: a clear error, never a crash and never much memory."""

import resource
import tempfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from usreg.data.sequences import Sequence, SequenceLimits, read_sequence, write_sequence
from usreg.errors import ConfigError, FileFormatError, MissingFileError, ShapeError, UsregError, WriteError

PIXELS = np.arange(24, dtype=np.uint8).tobytes()
STAMPED = "Seq_Frame0000_Timestamp = 0\n"


def refused(path, match, limits=None):
    with pytest.raises(FileFormatError, match=match):
        read_sequence(path, limits)


def test_absent_and_empty(tmp_path):
    with pytest.raises(MissingFileError, match="check the name"):
        read_sequence(tmp_path / "absent.mha")
    with pytest.raises(MissingFileError):
        read_sequence(tmp_path)
    for name in ("empty.mha", "empty.mhd", "empty.nrrd"):
        (tmp_path / name).write_bytes(b"")
        refused(tmp_path / name, "empty")
    (tmp_path / "notes.txt").write_text("hello")
    refused(tmp_path / "notes.txt", r"\.mha")


def test_truncated_pixels(make_mha):
    refused(make_mha(PIXELS[:-1]), "cut off or mis-declared.*24 bytes.*23 are there")


def test_truncated_header(make_mha):
    path = make_mha(PIXELS)
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"ElementDataFile")])
    refused(path, "ends before its 'ElementDataFile'")


def compressed(make_mha, pixels, declared, **kwargs):
    extra = f"CompressedData = True\nCompressedDataSize = {declared}\n"
    return make_mha(pixels, extra=extra, **kwargs)


def test_truncated_compressed_pixels(make_mha):
    packed = zlib.compress(np.random.default_rng(0).integers(0, 256, 24, dtype=np.uint8).tobytes())
    refused(compressed(make_mha, packed[:-6], len(packed)), "is cut off: .* were declared")
    refused(compressed(make_mha, packed[:-8], len(packed) - 8), "cut off")
    damaged = packed[:5] + bytes([packed[5] ^ 255]) + packed[6:]
    refused(compressed(make_mha, damaged, len(damaged)), "damaged|cut off|unpacks")


def test_zip_bomb_stays_within_what_the_header_declares(make_mha):
    bomb = zlib.compress(bytes(50_000_000), 9)
    refused(compressed(make_mha, bomb, len(bomb)), "unpacks to more than the 24 bytes")


@pytest.mark.parametrize("dims", ["60000 60000 60000", "100000 100000 1", "999999999999 2 3"])
def test_dimensions_that_would_allocate_too_much(make_mha, dims):
    refused(make_mha(PIXELS, dims=dims), "at most 4294967296 are read")


def test_dimensions_beyond_the_file_are_refused_before_allocating(make_mha):
    refused(make_mha(PIXELS, dims="1000 1000 1000"), "asks for 1000000000 bytes of pixels, 24 are there")
    path = compressed(make_mha, zlib.compress(PIXELS), 0, dims="1000 1000 1000")
    refused(path, "asks for 1000000000 bytes of pixels")


def test_limits_are_configurable(make_mha):
    path = make_mha(PIXELS)
    refused(path, "at most 20 are read", SequenceLimits(max_bytes=20))
    refused(path, "longer than 100 bytes", SequenceLimits(max_header_bytes=100))
    with pytest.raises(ConfigError):
        SequenceLimits(max_bytes=0)


def test_more_frames_than_the_limit(make_mha):
    path = make_mha(PIXELS, keys=STAMPED)
    refused(path, "declares 4 frames; at most 3", SequenceLimits(max_frames=3))


def test_poses_alone_with_a_lying_count(make_mha):
    refused(make_mha(b"", dims="0 0 900000", keys=STAMPED), "declares 900000 frames but has keys of 1")
    keys = STAMPED + "".join(f"Seq_Frame0000_A{i}ToBTransform = 0\n" for i in range(50))
    path = make_mha(bytes(900_000), dims="1 1 900000", keys=keys)
    refused(path, "bytes of poses", SequenceLimits(max_pose_bytes=10**8))


@pytest.mark.parametrize(
    ("dims", "kinds", "match"),
    [
        ("3 2 x", "domain domain list", "whole number"),
        ("3 2 -4", "domain domain list", "expected two of pixels"),
        ("3 2 4", "domain domain", "2 kinds of axes but 3 sizes"),
        ("3 2 4", "domain list list", "expected two of pixels"),
        ("3 2 4", "domain domain colour", "kind 'colour'"),
        ("3 2 2 2", "domain domain domain list", "2 slices a frame"),
        ("3", "domain", "expected two of pixels"),
    ],
)
def test_axes_that_make_no_sense(make_mha, dims, kinds, match):
    refused(make_mha(PIXELS, dims=dims, kinds=kinds), match)


@pytest.mark.parametrize("junk", [b"\xff\xfe\xfa", "gr\u00f6\u00dfe".encode("latin-1"), b"\0\0"])
def test_header_that_is_no_text(make_mha, junk):
    path = make_mha(PIXELS)
    path.write_bytes(path.read_bytes().replace(b"BRIGHTNESS", junk))
    refused(path, "no text|binary data")


def test_numbers_must_be_ascii(make_mha):
    read = read_sequence(make_mha(PIXELS, keys="Seq_Frame0000_Timestamp = \u0661\u0662\n"))
    assert not read.stamp_valid.any()
    refused(make_mha(PIXELS, keys="Seq_Frame\u0661_Timestamp = 1\n"), "expected Seq_FrameNNNN_Name")


@pytest.mark.parametrize(
    "key", ["Seq_Frame_Timestamp", "Seq_Frame0000", "Seq_Frame99999999999_Timestamp", "Seq_Frame-1_X"]
)
def test_keys_without_a_usable_number(make_mha, key):
    refused(make_mha(PIXELS, keys=f"{key} = 1\n"), "expected Seq_FrameNNNN_Name")


@pytest.mark.parametrize("element", ["MET_SHORT", "MET_FLOAT", "nonsense"])
def test_pixels_of_other_types(make_mha, element):
    refused(make_mha(PIXELS * 2, element=element), "8-bit B-mode")


def test_unknown_orientation_and_radio_frequency(make_mha):
    refused(make_mha(PIXELS, orientation="QF"), "orientation 'QF' is unknown")
    path = make_mha(PIXELS)
    path.write_text(path.read_bytes().decode("latin-1").replace("BRIGHTNESS", "RF_REAL"), encoding="latin-1")
    refused(path, "8-bit B-mode")


@pytest.mark.parametrize("target", ["../secret.raw", "/etc/passwd", "sub/x.raw", "..", ".hidden", "C:\\x.raw"])
def test_data_files_elsewhere_are_not_opened(make_mha, tmp_path, target):
    text = make_mha(b"").read_text().replace("= LOCAL", f"= {target}")
    (tmp_path / "x.mhd").write_text(text)
    refused(tmp_path / "x.mhd", "only a plain file name")


def test_data_file_that_is_missing(make_mha, tmp_path):
    (tmp_path / "x.mhd").write_text(make_mha(b"").read_text().replace("= LOCAL", "= x.raw"))
    with pytest.raises(MissingFileError, match="keep both in one folder"):
        read_sequence(tmp_path / "x.mhd")


@pytest.mark.parametrize(
    ("line", "replacement", "match"),
    [
        ("encoding: gzip", "encoding: bzip2", "raw and gzip are read"),
        ("NRRD0005", "PNG", "does not begin with"),
        ("kinds: domain", "garbage", "expected 'field: value'"),
        ("sizes:", "size:", "no 'sizes'"),
        ("type: uint8", "type: short", "8-bit B-mode"),
    ],
)
def test_nrrd_headers(sequence, tmp_path, line, replacement, match):
    path = tmp_path / "x.nrrd"
    write_sequence(sequence, path)
    path.write_bytes(path.read_bytes().replace(line.encode(), replacement.encode(), 1))
    refused(path, match)


def test_nrrd_cut_off(sequence, tmp_path):
    path = tmp_path / "x.nrrd"
    write_sequence(sequence, path)
    content = path.read_bytes()
    for end in (len(content) - 20, content.index(b"\n\n") - 5, 30):
        path.write_bytes(content[:end])
        refused(path, "cut off|damaged|ends inside|expected 'field")


@settings(max_examples=80)
@given(data=st.data())
def test_any_damage_gives_a_sequence_or_a_clear_error(data):
    """Flip, cut and insert bytes anywhere: nothing but the family of errors may come out."""
    good = (
        b"ObjectType = Image\nNDims = 3\nDimSize = 3 2 2\nKinds = domain domain list\nElementType = MET_UCHAR\n"
        b"UltrasoundImageOrientation = MF\nCompressedData = True\n"
        b"Seq_Frame0000_AToBTransform = 1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1\n"
        b"Seq_Frame0000_Timestamp = 1\nSeq_Frame0001_ImageStatus = OK\nElementDataFile = LOCAL\n"
        + zlib.compress(bytes(12))
    )
    content = bytearray(good)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        kind = data.draw(st.sampled_from(["change", "cut", "insert"]))
        if kind == "change":
            content[at] = data.draw(st.integers(0, 255))
        elif kind == "insert":
            content[at:at] = data.draw(st.binary(max_size=4))
        else:
            del content[at : at + data.draw(st.integers(1, 30))]
        if not content:
            break
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.mha"
        path.write_bytes(bytes(content))
        try:
            read = read_sequence(path, SequenceLimits(max_bytes=10**6))
        except UsregError as error:
            assert len(str(error)) > 20
        else:
            assert isinstance(read, Sequence) and read.count >= 1


def test_full_disk_leaves_the_older_file(sequence, tmp_path):
    """The kernel itself refuses to let the file grow, as a full disk does."""
    for name in ("x.mha", "y.mhd", "z.nrrd"):
        path = tmp_path / name
        write_sequence(sequence, path)
        before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
        try:
            with pytest.raises(WriteError, match="make room"):
                write_sequence(sequence, path, compress=False)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_writing_where_there_is_no_folder(sequence, tmp_path):
    with pytest.raises(WriteError, match="cannot be written"):
        write_sequence(sequence, tmp_path / "absent" / "x.mha")
    with pytest.raises(FileFormatError, match=r"\.mha, \.mhd or \.nrrd"):
        write_sequence(sequence, tmp_path / "x.png")


def test_fields_that_would_break_the_header(sequence, tmp_path):
    from dataclasses import replace

    for key, value in (("Note", "two\nlines"), ("A = B", "x"), ("", "x"), (" A", "x")):
        broken = replace(sequence, fields=tuple({key: value} for _ in range(sequence.count)))
        with pytest.raises(ShapeError, match="cannot be written into a header"):
            write_sequence(broken, tmp_path / "x.mha")
    assert list(tmp_path.iterdir()) == []


def test_parts_of_other_lengths(sequence):
    from dataclasses import replace

    with pytest.raises(ShapeError, match="other lengths"):
        replace(sequence, image_valid=sequence.image_valid[:3])
    with pytest.raises(ShapeError, match="uint8"):
        replace(sequence, images=sequence.images.float())
    with pytest.raises(ShapeError, match="MF"):
        replace(sequence, orientation="UN")
