# SPDX-License-Identifier: Apache-2.0
"""fusion: every frame comes out once, fused or alone with its reason; slice, plane and markers; the volume follows."""

import math
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import numpy as np
import pytest
import torch

pytest.importorskip("rclpy", reason="ROS 2 is not importable by this python: run through make test")
pytest.importorskip("usreg_msgs", reason="usreg_msgs is not built: run make build")
from geometry_msgs.msg import Point, PointStamped  # noqa: E402
from nav_msgs.msg import OccupancyGrid  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402
from usreg_msgs.msg import VolumeInfo  # noqa: E402
from visualization_msgs.msg import Marker, MarkerArray  # noqa: E402

from usreg.data.types import Frame, TrackedFrame, Volume  # noqa: E402
from usreg.data.volumes import read_volume, write_volume  # noqa: E402
from usreg.fusion import overlay  # noqa: E402
from usreg.geometry import se3  # noqa: E402
from usreg.geometry.grid import VoxelGrid  # noqa: E402
from usreg.geometry.plane import PlaneGrid  # noqa: E402
from usreg.geometry.sector import full_rectangle  # noqa: E402
from usreg.nodes import convert  # noqa: E402
from usreg.nodes.fusion import FusionNode  # noqa: E402

GEOMETRY = full_rectangle(PlaneGrid(60, 80, ((0.5, 0.0), (0.0, 0.5))))
WORLD_T_CT = se3.exp(torch.tensor([30.0, -20.0, 10.0, 0.1, 0.2, 0.3], dtype=torch.float64))
CT_T_IMAGE = se3.exp(torch.tensor([2.0, 3.0, 15.0, 0.1, 0.0, 0.0], dtype=torch.float64))
WORLD_T_IMAGE = WORLD_T_CT @ CT_T_IMAGE
SHARP = torch.diag(torch.tensor([0.04] * 3 + [1e-5] * 3, dtype=torch.float64))
PICTURE = torch.arange(4800).remainder(251).to(torch.uint8).reshape(60, 80)


def block(value: int = 0) -> Volume:
    data = (torch.arange(27000).remainder(200) + value).to(torch.uint8).reshape(1, 30, 30, 30)
    return Volume(data, VoxelGrid((30, 30, 30), (1.5, 1.5, 1.5)), "US")


@pytest.fixture
def volume(tmp_path: Path) -> str:
    write_volume(block(), tmp_path / "volume.nii.gz")
    labels = torch.zeros(1, 30, 30, 30, dtype=torch.uint8)
    labels[:, 8:22, 8:22, 8:22] = 1
    write_volume(Volume(labels, block().grid), tmp_path / "labels.nii.gz")
    return str(tmp_path / "volume.nii.gz")


@pytest.fixture
def images(bench: Any) -> list[Any]:
    return bench.hear(Image, "fusion/image")


def frame(bench: Any, stamp_s: float, leave_out: tuple[str, ...] = (), picture: torch.Tensor = PICTURE) -> None:
    parts = {
        "us/image": convert.image_to_msg(picture, stamp_s, "us_image"),
        "us/geometry": convert.geometry_to_msg(GEOMETRY, stamp_s, "us_image"),
        "us/pose": convert.stamped_pose_to_msg(WORLD_T_IMAGE, SHARP, stamp_s, "world"),
        "registration/smoothed": convert.stamped_pose_to_msg(WORLD_T_CT, SHARP, stamp_s, "world"),
    }
    for topic, message in parts.items():
        if topic not in leave_out:
            bench.say(topic, message)


def stamps(messages: list[Any]) -> list[float]:
    return [convert.stamp_to_s(m.header.stamp) for m in messages]


def test_a_frame_is_fused_as_the_library_does_it(bench: Any, volume: str, images: list[Any]) -> None:
    slices = bench.hear(Image, "fusion/slice")
    bench.add(FusionNode, volume=volume, modality="US")
    frame(bench, 5.0)
    bench.until(lambda: images and slices)
    tracked = TrackedFrame(Frame(PICTURE, GEOMETRY, 5.0), WORLD_T_IMAGE)
    expected = overlay(tracked, read_volume(volume, "US"), WORLD_T_CT)
    assert (images[0].encoding, stamps(images)) == ("rgb8", [5.0])
    assert torch.equal(convert.rgb_from_msg(images[0]), expected.image)
    assert bool(expected.mask.any())
    assert torch.equal(convert.image_from_msg(slices[0]), expected.slice)


def test_frames_that_cannot_be_fused_are_shown_alone_with_the_reason(
    bench: Any, volume: str, images: list[Any]
) -> None:
    node = bench.add(FusionNode, volume=volume, wait_s=0.05)
    frame(bench, 5.0, leave_out=("registration/smoothed",))
    bench.until(lambda: len(images) == 1)
    assert node.diagnostics.condition == ("WARN", "LOST: not registered")
    frame(bench, 5.1, leave_out=("us/pose", "registration/smoothed"))
    bench.until(lambda: len(images) == 2)
    assert node.diagnostics.condition[1].startswith("NOT TRACKED")
    frame(bench, 5.2, leave_out=("us/geometry",))
    bench.until(lambda: node.diagnostics.drops.get("unpaired") == 1)
    frame(bench, 5.3)
    bench.until(lambda: len(images) == 3)
    assert stamps(images) == [5.0, 5.1, 5.3]
    assert node.diagnostics.condition[0] == "OK"
    assert len({bytes(m.data) for m in images}) == 3


def test_bad_input_is_counted_and_the_next_frame_is_fused(bench: Any, volume: str, images: list[Any]) -> None:
    node = bench.add(FusionNode, volume=volume)
    frame(bench, 5.0, picture=PICTURE[:30])
    bench.until(lambda: node.diagnostics.drops == {"ShapeError": 1})
    frame(bench, 5.1, leave_out=("registration/smoothed",))
    broken = convert.stamped_pose_to_msg(WORLD_T_CT, SHARP, 5.1, "world")
    broken.pose.pose.orientation.w = math.nan
    bench.say("registration/smoothed", broken)
    bench.until(lambda: node.diagnostics.drops.get("GeometryError") == 1)
    frame(bench, 5.2)
    bench.until(lambda: len(images) == 1)


def test_a_volume_that_does_not_reach_the_frame_is_no_error(bench: Any, volume: str, images: list[Any]) -> None:
    node = bench.add(FusionNode, volume=volume)
    far = se3.translation(torch.tensor([1000.0, 0, 0], dtype=torch.float64)) @ WORLD_T_CT
    frame(bench, 5.0, leave_out=("registration/smoothed",))
    bench.say("registration/smoothed", convert.stamped_pose_to_msg(far, SHARP, 5.0, "world"))
    bench.until(lambda: len(images) == 1)
    assert node.diagnostics.drops == {}


def test_without_a_volume_the_frame_is_shown_and_the_volume_is_taken_from_its_topic(
    bench: Any, volume: str, images: list[Any]
) -> None:
    node = bench.add(FusionNode)
    frame(bench, 5.0)
    bench.until(lambda: len(images) == 1)
    assert "NO VOLUME" in node.diagnostics.condition[1]
    loaded = read_volume(volume, "US")
    bench.say("volume", convert.volume_to_msg(loaded, 1.0, "ct", "world"), "latched")
    bench.until(lambda: node.volume is not None)
    assert node.volume.sha256 == loaded.sha256
    frame(bench, 5.1)
    bench.until(lambda: len(images) == 2)
    assert node.diagnostics.condition[0] == "OK"


def test_a_volume_that_is_another_file_here_is_refused(bench: Any, volume: str) -> None:
    node = bench.add(FusionNode, volume=volume)
    before = node.volume
    info = convert.volume_to_msg(read_volume(volume, "US"), 1.0, "ct", "world")
    info.sha256 = "0" * 64
    bench.say("volume", info, "latched")
    bench.until(lambda: node.diagnostics.condition[0] == "ERROR")
    assert "differs" in node.diagnostics.condition[1]
    bench.say("volume", VolumeInfo(uri="nowhere.nii.gz", sha256="1" * 64), "latched")
    bench.until(lambda: "nowhere.nii.gz" in node.diagnostics.condition[1])
    assert node.volume is before


def test_plane_and_markers_lie_where_the_frame_lies(bench: Any, volume: str) -> None:
    planes, markers = bench.hear(OccupancyGrid, "fusion/plane"), bench.hear(MarkerArray, "fusion/markers")
    labels = str(Path(volume).with_name("labels.nii.gz"))
    bench.add(FusionNode, volume=volume, labels=labels, label_names=["1=liver"], outline_period_s=0.1)
    target = PointStamped(point=Point(x=0.01, y=0.02, z=0.03))
    target.header.frame_id = "ct"
    bench.say("target", target)
    frame(bench, 5.0)
    wanted = {"sector": "world", "liver": "ct", "target": "ct"}

    def shown() -> dict[str, Any]:
        return {m.ns: m for array in markers for m in array.markers}

    bench.until(lambda: bool(planes) and wanted.keys() <= shown().keys())
    assert {name: shown()[name].header.frame_id for name in wanted} == wanted
    corner = WORLD_T_IMAGE @ torch.tensor([-0.25, -0.25, 0.0, 1.0], dtype=torch.float64)
    found = convert.point_from_msg(planes[0].info.origin.position)
    assert torch.allclose(found, corner[:3], atol=1e-6)
    assert np.array_equal(np.frombuffer(planes[0].data, np.uint8).reshape(60, 80), PICTURE.numpy())
    first = convert.point_from_msg(shown()["sector"].points[0])
    assert torch.allclose(first, WORLD_T_IMAGE[:3, 3], atol=1e-6)
    assert convert.point_from_msg(shown()["target"].points[0]).tolist() == pytest.approx([10.0, 20.0, 30.0])


def test_organs_are_sent_as_surfaces_once_somebody_listens(
    bench: Any, volume: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    labels = str(Path(volume).with_name("labels.nii.gz"))
    options = {"volume": volume, "labels": labels, "label_names": ["1=liver"], "outline_period_s": 0.1}
    node = bench.add(FusionNode, **options)
    bench.spin(0.4)
    assert not (tmp_path / "cache").exists(), "nobody listens: nothing is made"
    markers = bench.hear(MarkerArray, "fusion/markers")
    bench.until(lambda: any(m.type == m.MESH_RESOURCE for array in markers for m in array.markers))
    mesh = next(m for array in markers for m in array.markers if m.type == m.MESH_RESOURCE)
    file = Path(unquote(urlparse(mesh.mesh_resource).path))
    assert mesh.mesh_resource.startswith("file:///") and file.is_relative_to(tmp_path / "cache")
    triangles = np.frombuffer(file.read_bytes()[84:], np.dtype([("f", "<f4", (4, 3)), ("a", "<u2")]))["f"][:, 1:]
    assert triangles.max() - triangles.min() == pytest.approx(0.001 * 14 * 1.5, rel=0.2), "metres"
    assert (mesh.ns, mesh.header.frame_id, mesh.frame_locked, mesh.scale.x) == ("liver surface", "ct", True, 1.0)
    assert 0 < mesh.color.a <= 1 and node.diagnostics.drops == {}


def test_without_surfaces_only_outlines_are_sent(bench: Any, volume: str) -> None:
    labels = str(Path(volume).with_name("labels.nii.gz"))
    bench.add(FusionNode, volume=volume, labels=labels, outline_period_s=0.1, surfaces=False)
    markers = bench.hear(MarkerArray, "fusion/markers")
    bench.until(lambda: len(markers) > 3)
    assert {m.type for array in markers for m in array.markers} == {Marker.LINE_LIST}


def test_a_target_of_nans_takes_the_target_away(bench: Any, volume: str) -> None:
    markers = bench.hear(MarkerArray, "fusion/markers")
    node = bench.add(FusionNode, volume=volume, outline_period_s=0.1)
    target = PointStamped(point=Point(x=0.01, y=0.02, z=0.03))
    target.header.frame_id = "ct"
    bench.say("target", target)
    bench.until(lambda: any(m.ns == "target" and m.action == m.ADD for a in markers for m in a.markers))
    shown = next(m for a in markers for m in a.markers if m.ns == "target")
    target.point = Point(x=math.nan, y=math.nan, z=math.nan)
    bench.say("target", target)
    bench.until(lambda: any(m.action == m.DELETE for a in markers for m in a.markers))
    gone = next(m for a in markers for m in a.markers if m.action == m.DELETE)
    assert (gone.ns, gone.id, gone.header.frame_id) == (shown.ns, shown.id, "ct"), "the one that was shown"
    assert node.target is None and node.diagnostics.drops == {}


def test_a_target_in_another_frame_is_refused(bench: Any, volume: str) -> None:
    node = bench.add(FusionNode, volume=volume)
    target = PointStamped()
    target.header.frame_id = "world"
    bench.say("target", target)
    bench.until(lambda: node.diagnostics.drops == {"GeometryError": 1})
    target.header.frame_id, target.point.x = "ct", math.inf
    bench.say("target", target)
    bench.until(lambda: node.diagnostics.drops == {"GeometryError": 2})
    assert node.target is None


def test_the_overlay_can_be_changed_while_the_node_runs(bench: Any, volume: str, images: list[Any]) -> None:
    node = bench.add(FusionNode, volume=volume)
    frame(bench, 5.0)
    bench.until(lambda: len(images) == 1)
    assert node.set_parameters([Parameter("overlay.mode", value="checkerboard")])[0].successful
    assert not node.set_parameters([Parameter("overlay.mode", value="rainbow")])[0].successful
    assert not node.set_parameters([Parameter("wait_s", value=1.0)])[0].successful
    frame(bench, 5.1)
    bench.until(lambda: len(images) == 2)
    assert bytes(images[0].data) != bytes(images[1].data)
    assert node.fuser.config.mode == "checkerboard"
