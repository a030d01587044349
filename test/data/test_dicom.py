# SPDX-License-Identifier: Apache-2.0
"""DICOM cines: made here and the real one; damaged and lying files."""

import numpy as np
import pydicom
import pytest
import torch
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, generate_uid

from usreg.data.describe import describe
from usreg.data.dicom import CineLimits, read_cine
from usreg.errors import ConfigError, FileFormatError, MissingFileError


@pytest.fixture
def make_cine(tmp_path, rng):
    """Write an uncompressed cine; keyword arguments replace or (None) remove elements."""

    def make(shape=(4, 6, 8), region=(1, 2, 6, 5), name="x.dcm", **changes):
        pixels = rng.integers(0, 256, shape, dtype=np.uint8)
        meta = FileMetaDataset()
        meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, "1.2.840.10008.5.1.4.1.1.3.1"
        meta.MediaStorageSOPInstanceUID = generate_uid()
        made = Dataset()
        made.file_meta = meta
        made.SOPClassUID, made.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
        made.NumberOfFrames, made.Rows, made.Columns = shape[0], shape[1], shape[2]
        made.SamplesPerPixel, made.PlanarConfiguration = (3 if len(shape) == 4 else 1), 0
        made.PhotometricInterpretation = "RGB" if len(shape) == 4 else "MONOCHROME2"
        made.BitsAllocated = made.BitsStored = 8
        made.HighBit, made.PixelRepresentation = 7, 0
        made.FrameTime = "40"
        if region:
            made.SequenceOfUltrasoundRegions = [made_region(*region)]
        made.PixelData = pixels.tobytes()
        for key, value in changes.items():
            delattr(made, key) if value is None else setattr(made, key, value)
        made.save_as(tmp_path / name, enforce_file_format=True)
        return tmp_path / name, pixels

    return make


def made_region(x0, y0, x1, y1, units=3):
    region = Dataset()
    region.RegionSpatialFormat = region.RegionDataType = 1
    region.PhysicalUnitsXDirection = region.PhysicalUnitsYDirection = units
    region.PhysicalDeltaX, region.PhysicalDeltaY = 0.02, 0.03
    region.RegionLocationMinX0, region.RegionLocationMinY0 = x0, y0
    region.RegionLocationMaxX1, region.RegionLocationMaxY1 = x1, y1
    return region


def test_grey_cine(make_cine):
    path, pixels = make_cine()
    cine = read_cine(path)
    np.testing.assert_array_equal(cine.images.numpy(), pixels)
    np.testing.assert_allclose(cine.stamps_s, [0, 0.04, 0.08, 0.12])
    assert cine.problems == () and cine.geometry.plane.spacing_mm == pytest.approx((0.2, 0.3))
    expected = torch.zeros(6, 8, dtype=torch.bool)
    expected[2:6, 1:7] = True
    assert torch.equal(cine.geometry.mask(), expected)


def test_colour_cine(make_cine):
    path, pixels = make_cine(shape=(2, 6, 8, 3))
    expected = np.rint(pixels @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)
    np.testing.assert_array_equal(read_cine(path).images.numpy(), expected)


def test_frame_times(make_cine):
    vector, _ = make_cine(FrameTime=None, FrameTimeVector=["0", "30", "50", "20"])
    np.testing.assert_allclose(read_cine(vector).stamps_s, [0, 0.03, 0.08, 0.1])
    rate, _ = make_cine(FrameTime=None, CineRate="25")
    np.testing.assert_allclose(read_cine(rate).stamps_s, [0, 0.04, 0.08, 0.12])
    none, _ = make_cine(FrameTime=None)
    with pytest.raises(FileFormatError, match="no frame time"):
        read_cine(none)
    backwards, _ = make_cine(FrameTime=None, FrameTimeVector=["0", "30", "-50", "20"])
    with pytest.raises(FileFormatError, match="not above zero"):
        read_cine(backwards)


def test_region_is_reported_where_it_does_not_fit(make_cine):
    outside, _ = make_cine(region=(1, 2, 60, 50))
    cine = read_cine(outside)
    assert "does not fit" in cine.problems[0] and bool(cine.geometry.mask().all())
    seconds, _ = make_cine(SequenceOfUltrasoundRegions=[made_region(1, 2, 6, 5, units=4)])
    assert read_cine(seconds).geometry is None and "no region" in read_cine(seconds).problems[0]


def test_files_that_lie(make_cine, tmp_path):
    with pytest.raises(MissingFileError):
        read_cine(tmp_path / "absent.dcm")
    (tmp_path / "junk.dcm").write_bytes(b"hello" * 100)
    with pytest.raises(FileFormatError, match="cannot be read"):
        read_cine(tmp_path / "junk.dcm")
    many, _ = make_cine(NumberOfFrames=90_000, Rows=50_000, Columns=50_000)
    with pytest.raises(FileFormatError, match="at most"):
        read_cine(many)
    more, _ = make_cine(NumberOfFrames=9)
    with pytest.raises(FileFormatError, match="cut off|cannot be read"):
        read_cine(more)
    deep, _ = make_cine(BitsAllocated=16, BitsStored=16, HighBit=15)
    with pytest.raises(FileFormatError, match="8 bits"):
        read_cine(deep)
    with pytest.raises(ConfigError):
        CineLimits(max_frames=0)


def test_deflated_files_cannot_be_bounded(make_cine):
    path, _ = make_cine(shape=(2, 6, 8))
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(path, enforce_file_format=True)
    with pytest.raises(FileFormatError, match="deflated"):
        read_cine(path)


def test_cut_off(make_cine):
    path, _ = make_cine(shape=(4, 60, 80))
    content = path.read_bytes()
    for end in (0, 100, 300, len(content) - 5000):
        path.write_bytes(content[:end])
        with pytest.raises(FileFormatError):
            read_cine(path)


def test_real_cine(data_dir):
    path = data_dir / "cine" / "examples_ybr_color.dcm"
    cine = read_cine(path)
    assert cine.images.shape == (30, 240, 320) and cine.images.double().mean() == pytest.approx(10.5, abs=0.3)
    torch.testing.assert_close(cine.stamps_s, torch.arange(30, dtype=torch.float64) * 0.033333)
    assert cine.geometry.plane.spacing_mm == pytest.approx((0.5105, 0.5105), abs=1e-4)
    assert "does not fit" in cine.problems[0]  # stated for 640x480, stored as 320x240
    assert describe(path)["frames"] == 30


@pytest.mark.filterwarnings("ignore:End of file reached")
def test_jpeg_cut_off(data_dir, tmp_path):
    content = (data_dir / "cine" / "examples_ybr_color.dcm").read_bytes()
    for end in (len(content) // 2, len(content) - 2000):
        (tmp_path / "x.dcm").write_bytes(content[:end])
        with pytest.raises(FileFormatError):
            read_cine(tmp_path / "x.dcm")
