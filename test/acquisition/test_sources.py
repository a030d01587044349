# SPDX-License-Identifier: Apache-2.0
"""Sources of frames: sequences, bags, video files and devices, DICOM cines."""

import math

import cv2
import numpy as np
import pytest
import torch

from usreg.acquisition.agreement import AcquisitionConfig, CropConfig
from usreg.acquisition.recorded import ArraySource, BagSource, DicomCineSource, SequenceSource
from usreg.acquisition.video import VideoSource
from usreg.data.bag_messages import encode_geometry, encode_image
from usreg.data.bags import BagWriter
from usreg.data.calibration import read_calibration, sector_for
from usreg.data.sequences import Sequence, read_sequence
from usreg.errors import ConfigError, MissingFileError, ShapeError, SourceError, UsregError
from usreg.geometry.plane import PlaneGrid
from usreg.geometry.sector import full_rectangle

GEOMETRY = full_rectangle(PlaneGrid(6, 8, ((0.5, 0.0), (0.0, 0.5))))


def images(n: int) -> torch.Tensor:
    return torch.arange(n, dtype=torch.uint8)[:, None, None].expand(n, 6, 8).contiguous()


def stamps(values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_arrays():
    source = ArraySource(
        images(10), stamps(range(10)), GEOMETRY, AcquisitionConfig(latency_s=-0.5), select=slice(0, 8, 2)
    )
    for _ in range(2):  # each iteration begins again
        frames = list(source)
        assert [f.index for f in frames] == [0, 2, 4, 6] and [f.stamp_s for f in frames] == [0.5, 2.5, 4.5, 6.5]
    source.reset()
    assert len(source) == 4 and int(next(iter(source)).image[0, 0]) == 0
    with pytest.raises(ShapeError, match="need N stamps"):
        ArraySource(images(3), stamps([1.0]), GEOMETRY)


def test_arrays_with_bad_stamps(caplog):
    source = ArraySource(images(6), stamps([1, 2, 2, 1.5, 3, 0.5]), GEOMETRY)
    assert [f.stamp_s for f in source] == [1, 2, 3, 0.5]
    assert "repeats" in caplog.text and "runs back" in caplog.text


def test_sequences_leave_out_what_has_no_pixels_or_stamp():
    sequence = Sequence(images(5), torch.tensor([True, False, True, True, True]), stamps([1, 2, math.nan, 3, 4]), {})
    assert [f.index for f in SequenceSource(sequence, GEOMETRY)] == [0, 3, 4]
    poses = Sequence(None, torch.zeros(2, dtype=torch.bool), stamps([1, 2]), {})
    with pytest.raises(SourceError, match="poses without images"):
        SequenceSource(poses, GEOMETRY)


def test_the_liver_sweep(data_dir):
    sequence = read_sequence(data_dir / "liver_sweep/liver_sweep.igs.mha")
    cal = read_calibration(data_dir / "liver_sweep/liver_sweep_device_set.xml", sequence.size)
    frames = list(SequenceSource(sequence, sector_for(cal, *sequence.size), select=slice(0, 80, 2)))
    assert len(frames) == 40 and frames[1].stamp_s == float(sequence.stamps_s[2])


def write_bag(path, geometries, order=("image", "geometry")):
    with BagWriter(path) as bag:
        for i, geometry in enumerate(geometries):
            for kind in order:
                if kind == "image":
                    bag.write("/us/image", i, encode_image(float(i), images(10)[i]))
                elif geometry is not None:
                    bag.write("/us/geometry", i, encode_geometry(float(i), geometry))
    return path


@pytest.mark.parametrize("order", [("image", "geometry"), ("geometry", "image")])
def test_bags(tmp_path, order):
    source = BagSource(write_bag(tmp_path / "bag", [GEOMETRY] * 5, order))
    for _ in range(2):
        assert [(f.index, f.stamp_s, int(f.image[0, 0])) for f in source] == [(i, float(i), i) for i in range(5)]


def test_bags_drop_with_a_reason(tmp_path):
    wrong = full_rectangle(PlaneGrid(7, 8, ((0.5, 0.0), (0.0, 0.5))))
    reasons: list[str] = []
    source = BagSource(write_bag(tmp_path / "bag", [GEOMETRY, wrong, None, GEOMETRY]), on_drop=reasons.append)
    assert [f.stamp_s for f in source] == [0.0, 3.0]
    assert any("geometry says 8x7" in r for r in reasons) and any("its geometry did not come" in r for r in reasons)


def test_bags_without_geometry(tmp_path):
    path = write_bag(tmp_path / "bag", [None] * 3)
    with pytest.raises(MissingFileError, match="name the probe"):
        list(BagSource(path))
    assert len(list(BagSource(path, GEOMETRY))) == 3


def write_video(path, count=8, size=(64, 48)):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25.0, size)
    if not writer.isOpened():
        pytest.skip("this OpenCV cannot write MJPG")
    for i in range(count):
        writer.write(np.full((size[1], size[0], 3), 20 * i, np.uint8))
    writer.release()
    return path


VIDEO = full_rectangle(PlaneGrid(48, 64, ((0.5, 0.0), (0.0, 0.5))))


def test_video_files(tmp_path):
    path = write_video(tmp_path / "video.avi")
    with VideoSource(path, VIDEO) as source:
        frames = list(source)
        assert [f.stamp_s for f in frames] == pytest.approx([i / 25 for i in range(8)]) and not source.live
        assert [abs(int(f.image[5, 5]) - 20 * i) <= 3 for i, f in enumerate(frames)] == [True] * 8
        assert list(source) == []
        source.reset()
        assert len(list(source)) == 8
    assert list(source) == []  # closed
    with VideoSource(path, VIDEO, AcquisitionConfig(latency_s=0.1), fps=10.0, start_s=5.0) as source:
        assert [f.stamp_s for f in source][:2] == pytest.approx([4.9, 5.0])
    with VideoSource(path, VIDEO, AcquisitionConfig(latency_s=0.1)) as source:
        assert next(iter(source)).stamp_s == 0.0


def test_video_of_the_wrong_size(tmp_path):
    path = write_video(tmp_path / "video.avi")
    with VideoSource(path, GEOMETRY) as source, pytest.raises(ShapeError, match="the image is 64x48"):
        next(iter(source))
    cropped = AcquisitionConfig(crop=CropConfig(10, 10, 8, 6))
    with VideoSource(path, GEOMETRY, cropped) as source:
        assert next(iter(source)).image.shape == (6, 8)


def test_videos_that_are_none(tmp_path):
    with pytest.raises(MissingFileError, match="no video"):
        VideoSource(tmp_path / "gone.avi", VIDEO)
    (tmp_path / "text.avi").write_text("not a video")
    with pytest.raises(SourceError, match="cannot be opened"):
        VideoSource(tmp_path / "text.avi", VIDEO)
    with pytest.raises(SourceError, match="needs a clock"):
        VideoSource(0, VIDEO)
    with pytest.raises(ConfigError, match="fps"):
        VideoSource(write_video(tmp_path / "video.avi"), VIDEO, fps=0.0)


class Camera:
    """Stands in for cv2.VideoCapture of a device: three pictures, then none."""

    def __init__(self, _):
        self.left = 3

    def isOpened(self):
        return True

    def read(self):
        self.left -= 1
        return (True, np.full((48, 64, 3), self.left, np.uint8)) if self.left >= 0 else (False, None)

    def release(self):
        self.left = 0


def test_devices_stamp_by_the_clock_that_they_are_given(monkeypatch):
    monkeypatch.setattr(cv2, "VideoCapture", Camera)
    times = iter([100.0, 100.5, 101.0] + [102.0] * 100)
    source = VideoSource(0, VIDEO, AcquisitionConfig(latency_s=0.25), clock=lambda: next(times))
    frames = iter(source)
    assert source.live and [next(frames).stamp_s for _ in range(3)] == [99.75, 100.25, 100.75]
    with pytest.raises(SourceError, match="gives no more pictures"):
        next(frames)


def test_cine(data_dir):
    (path,) = [p for p in (data_dir / "cine").iterdir() if p.suffix == ".dcm"]
    frames = list(DicomCineSource(path))
    assert len(frames) == 30 and frames[0].image.shape == (240, 320)
    assert frames[0].geometry.plane.spacing_mm[0] == pytest.approx(0.51, abs=0.005)
    with pytest.raises(ShapeError, match="320x240"):
        list(DicomCineSource(path, GEOMETRY))
    with pytest.raises(UsregError):
        DicomCineSource(path.parent / "gone.dcm")
