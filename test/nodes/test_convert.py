# SPDX-License-Identifier: Apache-2.0
"""Messages and values: round trips, units, covariance, images without copies, what is refused."""

import array
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("rclpy", reason="ROS 2 is not importable by this python: run through make test")
pytest.importorskip("usreg_msgs", reason="usreg_msgs is not built: run make build")
from builtin_interfaces.msg import Time  # noqa: E402
from geometry_msgs.msg import Point, PointStamped  # noqa: E402
from rclpy.serialization import deserialize_message, serialize_message  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402
from usreg_msgs.msg import Breathing as BreathingMsg  # noqa: E402

from usreg.data import bag_messages, bag_poses  # noqa: E402
from usreg.data.types import Estimate, Rigid, Volume  # noqa: E402
from usreg.errors import GeometryError, ShapeError, TimeError, UsregError  # noqa: E402
from usreg.fusion import Dot, Line, textured_plane  # noqa: E402
from usreg.geometry import se3  # noqa: E402
from usreg.geometry.grid import VoxelGrid  # noqa: E402
from usreg.geometry.plane import PlaneGeometry, PlaneGrid, ProjectionGeometry  # noqa: E402
from usreg.geometry.sector import SectorGeometry  # noqa: E402
from usreg.nodes import convert  # noqa: E402
from usreg.smoothing import Breathing  # noqa: E402

numbers = st.floats(-300, 300, allow_nan=False)
twists = st.lists(st.floats(-3, 3, allow_nan=False), min_size=6, max_size=6)
SECTOR = SectorGeometry(
    "convex", PlaneGrid(192, 256, ((0.58, 0.01), (0.0, 0.6))), (73.95, -44.3), (50.0, 155.0), (-0.48, 0.49),
    (0.0, 1.0, 147.9, 110.78), 105.0, probe_id="phantom",
)  # fmt: skip


def pose_of(twist: list[float]) -> torch.Tensor:
    scaled = torch.tensor(twist, dtype=torch.float64) * torch.tensor([100.0] * 3 + [0.9] * 3, dtype=torch.float64)
    return se3.exp(scaled)


def spread(seed: int) -> torch.Tensor:
    """A covariance with entries of very different size, as mm and rad bring them."""
    root = torch.randn(6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    scale = torch.tensor([2.0, 1.0, 3.0, 0.02, 0.03, 0.01], dtype=torch.float64)
    return scale[:, None] * (root @ root.T) * scale


# --- time ---


@given(st.floats(0, 2**31 - 1, allow_nan=False, exclude_max=True))
def test_stamps_are_stable_after_the_first_turn(stamp_s: float) -> None:
    message = convert.s_to_stamp(stamp_s)
    once = convert.stamp_to_s(message)
    assert abs(once - stamp_s) <= 1e-9 + 2**-22
    assert convert.s_to_stamp(once) == convert.s_to_stamp(convert.stamp_to_s(convert.s_to_stamp(once)))
    assert convert.stamp_to_s(convert.s_to_stamp(once)) == once


@pytest.mark.parametrize("stamp_s", [math.nan, math.inf, -0.5, 2.0**31])
def test_stamps_outside_of_ros_are_refused(stamp_s: float) -> None:
    with pytest.raises(TimeError):
        convert.s_to_stamp(stamp_s)


def test_a_frame_keeps_its_stamp_to_the_nanosecond() -> None:
    stamp = Time(sec=1_700_000_000, nanosec=123_456_789)
    assert convert.header(stamp, "world").stamp == stamp


# --- poses ---


@given(twists)
def test_poses_come_back(twist: list[float]) -> None:
    pose = pose_of(twist)
    message = convert.pose_to_msg(pose)
    assert message.position.x == pytest.approx(pose[0, 3].item() / 1000)
    assert torch.allclose(convert.decode_pose(message), pose, atol=1e-9)
    sent = convert.transform_to_msg(pose, 1.5, "world", "ct")
    assert (sent.header.frame_id, sent.child_frame_id) == ("world", "ct")
    assert torch.allclose(convert.transform_from_msg(sent), pose, atol=1e-9)


def test_orientation_is_that_of_tf_transformations() -> None:
    transformations = pytest.importorskip("tf_transformations", reason="tf_transformations is not installed")
    pose = pose_of([1, 2, 3, 0.4, -1.1, 2.0])
    q = convert.pose_to_msg(pose).orientation
    theirs = transformations.quaternion_from_matrix(pose.numpy())
    ours = np.array([q.x, q.y, q.z, q.w])
    assert min(np.abs(ours - theirs).max(), np.abs(ours + theirs).max()) < 1e-9


@given(twists, st.integers(0, 1000))
def test_covariance_comes_back_about_any_pivot(twist: list[float], seed: int) -> None:
    pose, covariance = pose_of(twist), spread(seed)
    pivot = pose[:3, 3] + torch.tensor([30.0, -80.0, 120.0], dtype=torch.float64)
    message = convert.stamped_pose_to_msg(pose, covariance, 2.0, "world", pivot)
    _, frame, back, found = convert.decode_stamped_pose(message, pivot)
    assert frame == "world"
    assert torch.allclose(back, pose, atol=1e-9)
    assert torch.allclose(found, covariance, rtol=1e-6, atol=1e-9)


def test_covariance_in_the_message_is_that_of_the_childs_origin() -> None:
    """A rotation about a pivot 1 m from the child's origin moves this origin: sigma = 1 m x 10 mrad across."""
    covariance = torch.zeros(6, 6, dtype=torch.float64)
    covariance[5, 5] = 0.01**2
    pose = se3.translation(torch.tensor([1000.0, 0.0, 0.0], dtype=torch.float64))
    message = convert.pose_with_covariance(pose, covariance, torch.zeros(3, dtype=torch.float64))
    found = np.array(message.covariance).reshape(6, 6)
    expected = np.zeros((6, 6))
    expected[1, 1], expected[5, 5], expected[1, 5], expected[5, 1] = 1e-4, 1e-4, 1e-4, 1e-4
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_covariance_describes_the_scatter_of_the_childs_origin(generator: torch.Generator) -> None:
    """Monte Carlo: poses drawn about the pivot, their origins measured in metres."""
    pose, covariance = pose_of([1, 2, 3, 0.4, -1.1, 2.0]), spread(3) * 0.01
    pivot = torch.tensor([400.0, -200.0, 100.0], dtype=torch.float64)
    draws = torch.randn(20000, 6, dtype=torch.float64, generator=generator) @ torch.linalg.cholesky(covariance).T
    origins = se3.left_at_pivot(pose, draws, pivot)[:, :3, 3] / 1000
    stated = np.array(convert.pose_with_covariance(pose, covariance, pivot).covariance).reshape(6, 6)[:3, :3]
    np.testing.assert_allclose(np.cov(origins.T.numpy()), stated, atol=0.05 * np.abs(stated).max())


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_poses_that_are_not_finite_are_refused(value: float) -> None:
    message = convert.pose_to_msg(se3.identity())
    message.position.y = value
    with pytest.raises(GeometryError):
        convert.decode_pose(message)
    message = convert.transform_to_msg(se3.identity(), 0.0, "a", "b")
    message.transform.rotation.w = value
    with pytest.raises(GeometryError):
        convert.transform_from_msg(message)


def test_a_covariance_that_is_not_finite_is_refused() -> None:
    message = convert.stamped_pose_to_msg(se3.identity(), spread(1), 0.0, "world")
    message.pose.covariance[7] = math.nan
    with pytest.raises(GeometryError):
        convert.decode_stamped_pose(message)


# --- images ---


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 9))
def test_images_come_back(height: int, width: int, padding: int) -> None:
    image = torch.arange(height * width).remainder(256).to(torch.uint8).reshape(height, width)
    message = convert.image_to_msg(image, 1.0, "us_image")
    assert (message.encoding, message.step, message.height, message.width) == ("mono8", width, height, width)
    assert torch.equal(convert.image_from_msg(message), image)
    rows = torch.zeros(height, width + padding, dtype=torch.uint8)
    rows[:, :width] = image
    message.data, message.step = convert.byte_array(rows), width + padding
    assert torch.equal(convert.image_from_msg(message), image)


def test_mono8_and_rgb8_share_the_messages_memory() -> None:
    message = convert.image_to_msg(torch.zeros(4, 5, dtype=torch.uint8), 1.0, "us_image")
    image = convert.image_from_msg(message)
    message.data[7] = 99
    assert image[1, 2] == 99
    message = convert.image_to_msg(torch.zeros(4, 5, 3, dtype=torch.uint8), 1.0, "us_image")
    picture = convert.rgb_from_msg(message)
    message.data[5 * 3 + 2 * 3 + 1] = 77
    assert picture[1, 2, 1] == 77


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "rgba8", "bgra8"])
def test_colour_turns_to_the_grey_of_opencv(encoding: str, rng: np.random.Generator) -> None:
    import cv2

    picture = rng.integers(0, 256, (12, 9, len(encoding) - 1), dtype=np.uint8)
    message = Image(height=12, width=9, encoding=encoding, step=picture.strides[0])
    message.data = array.array("B", picture.tobytes())
    code = getattr(cv2, f"COLOR_{encoding[:-1].upper()}2GRAY")
    assert np.abs(convert.image_from_msg(message).numpy().astype(int) - cv2.cvtColor(picture, code)).max() <= 1


def test_images_are_those_of_cv_bridge(rng: np.random.Generator) -> None:
    bridge = pytest.importorskip("cv_bridge", reason="cv_bridge is not installed").CvBridge()
    image = rng.integers(0, 256, (12, 9), dtype=np.uint8)
    ours = convert.image_to_msg(torch.from_numpy(image), 0.0, "")
    theirs = bridge.cv2_to_imgmsg(image, "mono8")
    assert (ours.data, ours.step, ours.encoding) == (theirs.data, theirs.step, theirs.encoding)
    np.testing.assert_array_equal(bridge.imgmsg_to_cv2(ours), image)


def test_other_encodings_are_refused_with_what_to_do() -> None:
    """Floats may hold NaN; without cv_bridge nothing turns them to grey."""
    floats = array.array("f", [math.nan] * 6)
    message = Image(height=2, width=3, encoding="32FC1", step=12, data=array.array("B", floats.tobytes()))
    with pytest.raises(UsregError, match="32FC1"):
        convert.image_from_msg(message)


@pytest.mark.parametrize(
    "change", [{"height": 5}, {"width": 200}, {"step": 3}, {"height": 0}, {"height": 2**31, "width": 2**31}]
)
def test_images_that_contradict_themselves_are_refused(change: dict[str, int]) -> None:
    message = convert.image_to_msg(torch.zeros(4, 6, dtype=torch.uint8), 1.0, "us_image")
    for name, value in change.items():
        setattr(message, name, value)
    with pytest.raises(ShapeError):
        convert.image_from_msg(message)


# --- geometry, volume, registration ---


@pytest.mark.parametrize("kind", ["linear", "convex", "phased", "plane"])
def test_geometry_comes_back_and_is_what_bags_hold(kind: str) -> None:
    geometry = PlaneGeometry(SECTOR.plane) if kind == "plane" else SectorGeometry(kind, *_rest(SECTOR))
    message = convert.geometry_to_msg(geometry, 3.25, "us_image", 7)
    again = deserialize_message(serialize_message(message), type(message))
    stamp_s, found = convert.decode_geometry(again)
    assert (stamp_s, again.geometry_seq) == (3.25, 7)
    assert found == geometry
    stored = bag_messages.encode_geometry(3.25, geometry, "us_image", 7)
    for name in message.get_fields_and_field_types():
        if name != "header":
            np.testing.assert_array_equal(getattr(message, name), getattr(stored, name), err_msg=name)


def _rest(sector: SectorGeometry) -> tuple[object, ...]:
    return tuple(vars(sector).values())[1:]


def test_an_x_ray_has_no_ultrasound_geometry() -> None:
    with pytest.raises(GeometryError, match="ProjectionGeometry"):
        convert.geometry_to_msg(ProjectionGeometry(SECTOR.plane, 1000.0, (0.0, 0.0)), 0.0, "us_image")


def test_estimates_come_back() -> None:
    pose, pivot = pose_of([1, 2, 3, 0.4, -1.1, 2.0]), torch.tensor([400.0, -200.0, 100.0], dtype=torch.float64)
    estimate = Estimate(Rigid(pose), spread(5), pivot, 0.83, 0.97, True, "ok", system="intensity", compute_s=0.04)
    estimate = replace(estimate, probability=0.93)
    image = pose_of([0, 1, 0, 0, 0, 1])
    message = convert.estimate_to_msg(estimate, 7.5, "world", "ct", "ACCEPTED", image, 0.09, 2)
    record = convert.decode_registration(deserialize_message(serialize_message(message), type(message)))
    assert (record.stamp_s, record.status, record.world, record.child, record.rank) == (
        7.5,
        "ACCEPTED",
        "world",
        "ct",
        2,
    )
    assert (record.estimate.score, record.estimate.overlap, record.estimate.reason) == (0.83, 0.97, "ok")
    assert message.probability_tre_below_5mm == record.estimate.probability == 0.93
    assert torch.allclose(record.estimate.world_T_ct, pose, atol=1e-9)
    assert torch.allclose(record.estimate.covariance, estimate.covariance, rtol=1e-6, atol=1e-9)
    assert torch.allclose(record.world_T_image, image, atol=1e-9)
    stored = bag_poses.encode_registration(bag_poses.RegistrationRecord(7.5, estimate, "ACCEPTED", image, rank=2))
    np.testing.assert_allclose(message.pose.covariance, stored.pose.covariance)
    assert stored.probability_tre_below_5mm == 0.93


def test_a_refusal_carries_no_pose_that_could_be_used() -> None:
    message = convert.refusal_to_msg(Time(sec=5), "world", "ct", "NO_OVERLAP", "the frame lies outside", "intensity")
    assert (message.status, message.reason) == (3, "the frame lies outside")
    with pytest.raises(GeometryError):
        convert.decode_registration(message)


def test_a_breath_comes_back_in_its_units() -> None:
    breath = Breathing(1.5, 12.0, 4.0)
    message = deserialize_message(serialize_message(convert.breathing_to_msg(breath, 2.5, "world")), BreathingMsg)
    assert (message.phase, message.depth, message.period) == (1.5, pytest.approx(0.012), 4.0)
    assert convert.breathing_from_msg(message) == Breathing(1.5, pytest.approx(12.0), 4.0)
    assert (convert.stamp_to_s(message.header.stamp), message.header.frame_id) == (2.5, "world")
    message.depth = math.nan
    with pytest.raises(GeometryError):
        convert.breathing_from_msg(message)


def test_a_target_is_a_point_of_the_volume_or_none() -> None:
    message = PointStamped(point=Point(x=0.01, y=-0.02, z=0.03))
    message.header.frame_id = "ct"
    found = convert.target_from_msg(message, "ct")
    assert found is not None and found.tolist() == pytest.approx([10.0, -20.0, 30.0])
    message.point = Point(x=math.nan, y=math.nan, z=math.nan)
    assert convert.target_from_msg(message, "ct") is None
    message.point.x = 1.0
    with pytest.raises(GeometryError, match="not finite"):
        convert.target_from_msg(message, "ct")
    with pytest.raises(GeometryError, match="not in 'mr'"):
        convert.target_from_msg(message, "mr")


def test_volume_is_told_in_metres() -> None:
    grid = VoxelGrid((4, 3, 2), (0.5, 0.6, 0.7), (1.0, 2.0, 3.0))
    volume = Volume(torch.zeros(1, 2, 3, 4), grid, "CT", uri="ct.nii.gz", sha256="ab" * 32)
    message = convert.volume_to_msg(volume, 1.0, "ct", "world")
    assert list(message.size) == [4, 3, 2]
    np.testing.assert_allclose(message.spacing, [0.0005, 0.0006, 0.0007])
    assert (message.frame_id, message.modality, message.sha256) == ("ct", "CT", "ab" * 32)


# --- pictures in 3D ---


def test_the_plane_carries_pixels_bit_by_bit_from_its_corner() -> None:
    from usreg.data.types import Frame, TrackedFrame

    image = torch.arange(256).to(torch.uint8).reshape(16, 16)
    plane = PlaneGrid(16, 16, ((0.5, 0.0), (0.0, 0.5)))
    world_T_image = pose_of([1, 2, 3, 0.4, -1.1, 2.0])
    texture = textured_plane(TrackedFrame(Frame(image, PlaneGeometry(plane), 1.0), world_T_image))
    grid = convert.plane_to_msg(texture, 1.0, "world")
    assert np.array_equal(np.frombuffer(grid.data, np.uint8).reshape(16, 16), image.numpy())
    assert (grid.info.width, grid.info.height, grid.header.frame_id) == (16, 16, "world")
    assert grid.info.resolution == pytest.approx(0.0005)
    corner = world_T_image @ torch.tensor([-0.25, -0.25, 0.0, 1.0], dtype=torch.float64)
    assert torch.allclose(convert.point_from_msg(grid.info.origin.position), corner[:3], atol=1e-9)


def test_outlines_become_few_markers_in_their_frames() -> None:
    square = torch.tensor([[0, 0, 0], [10, 0, 0], [10, 10, 0.0]], dtype=torch.float64)
    shapes = [
        Line("liver", square, (0, 158, 115), "ct", True),
        Line("liver", square + 5, (0, 158, 115), "ct", True),
        Line("sweep", square, (240, 228, 66)),
        Dot("target", square[1]),
    ]
    markers = {m.ns: m for m in convert.markers_to_msg(shapes, 1.0, "world", "ct", 2.0)}
    assert [len(markers[n].points) for n in ("liver", "sweep", "target")] == [12, 4, 1]
    assert [markers[n].header.frame_id for n in ("liver", "sweep", "target")] == ["ct", "world", "ct"]
    assert markers["target"].points[0].x == pytest.approx(0.01)
    assert markers["liver"].scale.x == pytest.approx(0.002)
    assert len({(m.ns, m.id) for m in markers.values()}) == 3


def test_transforms_made_together_equal_those_made_singly(generator: torch.Generator) -> None:
    poses = se3.exp(torch.randn(5, 6, dtype=torch.float64, generator=generator))
    names = [f"link_{i}" for i in range(6)]
    together = convert.transforms_to_msgs(poses, 3.5, names[:-1], names[1:])
    singly = [convert.transform_to_msg(p, 3.5, a, b) for p, a, b in zip(poses, names, names[1:], strict=False)]
    assert together == singly
