# SPDX-License-Identifier: Apache-2.0
"""Laws: writing a sequence and reading it gives the same, to the bit, in every format."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from usreg.data.sequences import Sequence, read_sequence, write_sequence
from usreg.data.types import Trajectory

NAMES = ["a.igs.mha", "a.igs.mhd", "a.igs.nrrd", "a.seq.nrrd"]


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_write_then_read(sequence, assert_same, tmp_path, name, compress):
    path = tmp_path / name
    write_sequence(sequence, path, compress=compress)
    first = read_sequence(path)
    assert torch.equal(first.images, sequence.images) and first.problems == ()
    assert torch.equal(first.image_valid, sequence.image_valid)
    for key, trajectory in sequence.transforms.items():
        assert torch.equal(first.transforms[key].valid, trajectory.valid)
        torch.testing.assert_close(first.transforms[key].poses, trajectory.poses, rtol=0, atol=0, equal_nan=True)
    assert first.fields == sequence.fields and first.header["Operator"] == "J\u00fcrgen"
    write_sequence(first, tmp_path / f"again.{name}", compress=compress)
    assert_same(first, read_sequence(tmp_path / f"again.{name}"))
    leftovers = [p.name for p in tmp_path.iterdir() if p.name.startswith(".")]
    assert leftovers == []


@pytest.mark.parametrize("source", NAMES[:3])
@pytest.mark.parametrize("target", NAMES[:3])
def test_conversion_between_formats_loses_nothing(sequence, assert_same, tmp_path, source, target):
    (tmp_path / "s").mkdir()
    (tmp_path / "t").mkdir()
    write_sequence(sequence, tmp_path / "s" / source)
    first = read_sequence(tmp_path / "s" / source)
    write_sequence(first, tmp_path / "t" / target)
    assert_same(first, read_sequence(tmp_path / "t" / target))


def test_poses_alone_in_every_format(sequence, tmp_path):
    alone = Sequence(None, torch.zeros(6, dtype=torch.bool), sequence.stamps_s, sequence.transforms)
    for name in NAMES:
        write_sequence(alone, tmp_path / name)
        read = read_sequence(tmp_path / name)
        assert read.images is None and read.count == 6
        assert torch.equal(read.transforms["ProbeToTracker"].valid, sequence.transforms["ProbeToTracker"].valid)


finite = st.floats(allow_nan=False, allow_infinity=False, width=64)
word = st.text("ABCDEFGHIJabcdefghij0123456789", min_size=1, max_size=8)
text_value = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), max_size=12)
status = st.sampled_from([None, "OK", "INVALID", "MISSING", "OUT_OF_VIEW"])


@st.composite
def sequences(draw: st.DrawFn) -> Sequence:
    """Any sequence a file could hold: any finite numbers, statuses, missing parts, fields."""
    n = draw(st.integers(1, 4))
    height, width = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    stamps = torch.tensor(draw(st.lists(finite | st.just(float("nan")), min_size=n, max_size=n)), dtype=torch.float64)
    names = draw(st.lists(word.map(lambda w: f"X{w}ToY{w}"), unique=True, max_size=2))
    transforms, statuses = {}, {}
    for name in names:
        poses = np.array(draw(st.lists(finite, min_size=16 * n, max_size=16 * n))).reshape(n, 4, 4)
        missing = np.array(draw(st.lists(st.booleans(), min_size=n, max_size=n)))
        poses[missing] = np.nan
        said = tuple(draw(st.lists(status, min_size=n, max_size=n)))
        valid = torch.tensor([s in (None, "OK") for s in said]) & ~torch.from_numpy(missing)
        transforms[name] = Trajectory(stamps, torch.from_numpy(poses), valid)
        statuses[name] = said
    fields = tuple(draw(st.dictionaries(word.map("F{}".format), text_value, max_size=2)) for _ in range(n))
    images = torch.tensor(
        draw(st.lists(st.integers(0, 255), min_size=n * height * width, max_size=n * height * width)), dtype=torch.uint8
    ).reshape(n, height, width)
    ok = torch.ones(n, dtype=torch.bool)
    return Sequence(images, ok, stamps, transforms, fields=fields, statuses=statuses)


@settings(max_examples=40)
@given(made=sequences(), name=st.sampled_from(NAMES))
def test_any_sequence_survives(made, name):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        write_sequence(made, path)
        read = read_sequence(path)
    assert torch.equal(read.images, made.images)
    np.testing.assert_array_equal(read.stamps_s.numpy(), made.stamps_s.numpy())
    said_something = {k for k, s in made.statuses.items() if not bool(made.transforms[k].poses.isnan().all())}
    for key in said_something:
        np.testing.assert_array_equal(read.transforms[key].poses.numpy(), made.transforms[key].poses.numpy())
        assert torch.equal(read.transforms[key].valid, made.transforms[key].valid)
        assert read.statuses[key] == made.statuses[key]
    kept = [{k: v for k, v in row.items() if k.startswith("F")} for row in read.fields]
    assert kept == list(made.fields)


@pytest.mark.parametrize("name", ["a.igs.mha", "a.igs.mhd", "a.seq.nrrd"])
@pytest.mark.parametrize("compress", [True, False])
def test_other_readers_see_the_same_pixels(sequence, tmp_path, name, compress):
    """ITK (and with it Slicer) reads what we write as frames of one image."""
    write_sequence(sequence, tmp_path / name, compress=compress)
    image = sitk.ReadImage(str(tmp_path / name))
    array = sitk.GetArrayFromImage(image)
    if array.ndim == 4 or image.GetNumberOfComponentsPerPixel() > 1:  # a list axis becomes components
        array = np.moveaxis(np.squeeze(array), -1, 0)
    np.testing.assert_array_equal(array, sequence.images.numpy())
