# SPDX-License-Identifier: Apache-2.0
"""us_acquisition: pictures of a driver, a video file or a cine become frames with geometry of the same stamp."""

import array
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("rclpy", reason="ROS 2 is not importable by this python: run through make test")
pytest.importorskip("usreg_msgs", reason="usreg_msgs is not built: run make build")
from sensor_msgs.msg import Image  # noqa: E402
from usreg_msgs.msg import UltrasoundGeometry  # noqa: E402

from usreg.errors import ConfigError, MissingFileError  # noqa: E402
from usreg.geometry.plane import PlaneGrid  # noqa: E402
from usreg.geometry.sector import full_rectangle  # noqa: E402
from usreg.nodes import convert  # noqa: E402
from usreg.nodes.acquisition import AcquisitionNode  # noqa: E402

WIDE, HIGH = 20, 16
GEOMETRY = full_rectangle(PlaneGrid(HIGH, WIDE, ((0.5, 0.0), (0.0, 0.5))))
PROBE = """geometry:
  kind: linear
  plane: {height: 16, width: 20, pixel_to_mm: [[0.5, 0.0], [0.0, 0.5]]}
  apex_mm: [4.75, 0.0]
  radius_mm: [0.0, 7.5]
  angle_rad: [0.0, 0.0]
  clip_mm: [0.0, 0.0, 9.5, 7.5]
  depth_mm: 7.5
acquisition: {latency_s: 0.125, orientation: UF, crop: {x: 2, y: 1, width: 20, height: 16}}
"""


def picture(value: int = 7, high: int = HIGH, wide: int = WIDE) -> torch.Tensor:
    return torch.full((high, wide), value, dtype=torch.uint8)


def send(bench: Any, stamp_s: float, image: torch.Tensor, geometry: Any = GEOMETRY) -> None:
    bench.say("geometry_raw", convert.geometry_to_msg(geometry, stamp_s, "probe"))
    bench.say("image_raw", convert.image_to_msg(image, stamp_s, "probe"))


@pytest.fixture
def heard(bench: Any) -> tuple[list[Any], list[Any]]:
    return bench.hear(Image, "us/image"), bench.hear(UltrasoundGeometry, "us/geometry")


@pytest.fixture
def probe(tmp_path: Path) -> str:
    path = tmp_path / "probe.yaml"
    path.write_text(PROBE, encoding="utf-8")
    return str(path)


def test_image_and_geometry_leave_with_one_stamp(bench: Any, heard: Any) -> None:
    bench.add(AcquisitionNode)
    send(bench, 5.125, picture(9))
    bench.until(lambda: all(map(len, heard)))
    image, geometry = heard[0][0], heard[1][0]
    assert image.header == geometry.header
    assert (convert.stamp_to_s(image.header.stamp), image.header.frame_id) == (5.125, "us_image")
    assert torch.equal(convert.image_from_msg(image), picture(9))
    assert convert.decode_geometry(geometry)[1] == GEOMETRY


def test_a_probe_file_gives_geometry_crop_orientation_and_latency(bench: Any, heard: Any, probe: str) -> None:
    bench.add(AcquisitionNode, probe=probe)
    screen = torch.arange(20 * 24).remainder(251).to(torch.uint8).reshape(20, 24)
    bench.say("image_raw", convert.image_to_msg(screen, 10.0, "screen"))
    bench.until(lambda: all(map(len, heard)))
    assert convert.stamp_to_s(heard[0][0].header.stamp) == 9.875
    expected = screen[1:17, 2:22].flip(1)
    assert torch.equal(convert.image_from_msg(heard[0][0]), expected)


def test_colour_of_a_driver_turns_to_grey(bench: Any, heard: Any) -> None:
    bench.add(AcquisitionNode)
    message = convert.image_to_msg(picture(), 1.0, "probe")
    message.encoding, message.step = "bgr8", 3 * WIDE
    message.data = array.array("B", np.full((HIGH, WIDE, 3), 50, np.uint8).tobytes())
    bench.say("geometry_raw", convert.geometry_to_msg(GEOMETRY, 1.0, "probe"))
    bench.say("image_raw", message)
    bench.until(lambda: all(map(len, heard)))
    assert torch.equal(convert.image_from_msg(heard[0][0]), picture(50))


def test_stamps_that_repeat_or_run_back_are_dropped_and_counted(bench: Any, heard: Any) -> None:
    node = bench.add(AcquisitionNode)
    for stamp_s in (5.0, 5.1, 5.1, 5.05, 5.2):
        send(bench, stamp_s, picture())
        bench.spin(0.1)
    bench.until(lambda: len(heard[0]) >= 3)
    assert [convert.stamp_to_s(m.header.stamp) for m in heard[0]] == [5.0, 5.1, 5.2]
    assert node.diagnostics.drops == {"TimeError": 2}


def test_geometry_may_change_in_mid_session(bench: Any, heard: Any) -> None:
    bench.add(AcquisitionNode)
    other = full_rectangle(PlaneGrid(HIGH, WIDE, ((0.75, 0.0), (0.0, 0.75))))
    for k, geometry in enumerate((GEOMETRY, GEOMETRY, other, GEOMETRY)):
        send(bench, 1.0 + k, picture(), geometry)
    bench.until(lambda: len(heard[1]) == 4)
    assert [m.geometry_seq for m in heard[1]] == [0, 0, 1, 2]
    assert convert.decode_geometry(heard[1][2])[1] == other


def test_what_is_wrong_with_a_picture_is_counted_and_the_next_one_passes(bench: Any, heard: Any) -> None:
    node = bench.add(AcquisitionNode)
    floats = Image(height=HIGH, width=WIDE, encoding="32FC1", step=4 * WIDE)
    floats.data = array.array("B", np.full((HIGH, WIDE), np.nan, np.float32).tobytes())
    floats.header.stamp = convert.s_to_stamp(1.0)
    short = convert.image_to_msg(picture(), 2.0, "probe")
    short.height = 99
    small = convert.image_to_msg(picture(high=8), 3.0, "probe")
    for k, message in enumerate((floats, short, small)):
        bench.say("geometry_raw", convert.geometry_to_msg(GEOMETRY, 1.0 + k, "probe"))
        bench.say("image_raw", message)
    broken = convert.geometry_to_msg(GEOMETRY, 4.0, "probe")
    broken.spacing_x = float("nan")
    bench.say("geometry_raw", broken)
    send(bench, 5.0, picture())
    bench.until(lambda: len(heard[0]) == 1)
    assert convert.stamp_to_s(heard[0][0].header.stamp) == 5.0
    assert node.diagnostics.drops == {"ShapeError": 3, "GeometryError": 1}


def test_a_video_file_is_played_in_real_time(bench: Any, heard: Any, probe: str, tmp_path: Path) -> None:
    import cv2

    path = tmp_path / "video.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 20.0, (24, 20))
    for _ in range(6):
        writer.write(np.full((20, 24, 3), 80, np.uint8))
    writer.release()
    node = bench.add(AcquisitionNode, source="video", file=str(path), probe=probe, latency_s=0.0)
    bench.until(lambda: len(heard[0]) >= 4)
    stamps = np.array([convert.stamp_to_s(m.header.stamp) for m in heard[0]])
    np.testing.assert_allclose(np.diff(stamps), 0.05, atol=1e-6)
    assert abs(stamps[-1] - node.now_s()) < 2.0


def test_a_source_that_is_not_there_is_told_and_the_node_stays(bench: Any, probe: str) -> None:
    node = bench.add(AcquisitionNode, source="video", file="nowhere.avi", probe=probe)
    bench.until(lambda: node.diagnostics.condition[0] == "ERROR")
    assert "nowhere.avi" in node.diagnostics.condition[1]


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"source": "video"}, ConfigError),
        ({"source": "dicom"}, ConfigError),
        ({"probe": "no_such_probe"}, MissingFileError),
    ],
)
def test_what_cannot_work_is_refused_at_the_start(bench: Any, values: dict[str, str], error: type) -> None:
    with pytest.raises(error):
        bench.add(AcquisitionNode, **values)
