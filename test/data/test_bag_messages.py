# SPDX-License-Identifier: Apache-2.0
"""Messages without ROS: what is encoded is decoded, metres in between, nonsense refused."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from usreg.data import ros_time
from usreg.data.bag_messages import (
    decode_geometry,
    decode_image,
    decode_joints,
    encode_geometry,
    encode_image,
    encode_joints,
    joints_in_mm,
    make,
)
from usreg.data.bag_poses import (
    RegistrationRecord,
    StampedTransform,
    covariance_from_ros,
    covariance_to_ros,
    decode_registration,
    decode_stamped_pose,
    decode_transforms,
    encode_registration,
    encode_stamped_pose,
    encode_transforms,
    encode_volume_info,
)
from usreg.data.definitions import standard_store
from usreg.data.types import Estimate, Rigid, Volume
from usreg.errors import FileFormatError, GeometryError, ShapeError, TimeError
from usreg.geometry import se3
from usreg.geometry.grid import VoxelGrid
from usreg.geometry.plane import PlaneGeometry, PlaneGrid, ProjectionGeometry
from usreg.geometry.sector import SectorGeometry, full_rectangle

PLANE = PlaneGrid(30, 40, ((0.6296, 0.013), (0.0, 0.5)))
CONVEX = SectorGeometry(
    "convex", PLANE, (12.5, -40.0), (45.0, 60.0), (-0.4, 0.4), (0.5, 0.0, 24.0, 14.0), 15.0, "MF", 1480.0, "c5"
)
twists = st.lists(st.floats(-2, 2), min_size=6, max_size=6).map(
    lambda v: torch.tensor([*(100 * x for x in v[:3]), *v[3:]], dtype=torch.float64)
)


def wire(message):
    """Through the bytes of a bag."""
    store = standard_store()
    return store.deserialize_cdr(bytes(store.serialize_cdr(message, message.__msgtype__)), message.__msgtype__)


def covariance(scale: float = 1.0) -> torch.Tensor:
    a = torch.linspace(-1, 1, 36, dtype=torch.float64).reshape(6, 6).sin()
    return scale * (a @ a.T + torch.eye(6, dtype=torch.float64))


@given(st.integers(0, 2**31 * 10**9 - 1))
def test_stamps_keep_their_float(ns):
    seconds = ros_time.to_s(ns)
    if seconds < ros_time.MAX_SECONDS:
        again = ros_time.to_ns(seconds)
        assert ros_time.to_s(again) == seconds
        assert abs(again - ns) <= max(1, seconds * 1e9 * 2**-52)
        assert ros_time.split(seconds) == divmod(again, 10**9)


@pytest.mark.parametrize("stamp", [math.nan, math.inf, -1e-9, -5.0, 2.0**31])
def test_stamps_that_ros_cannot_hold(stamp):
    with pytest.raises(TimeError, match="0 to 2\\^31"):
        ros_time.to_ns(stamp)


def test_image(rng):
    image = torch.from_numpy(rng.integers(0, 256, (30, 40), dtype=np.uint8))
    stamp_s, got = decode_image(wire(encode_image(12.5, image)))
    assert stamp_s == 12.5 and torch.equal(got, image)


def test_colour_becomes_grey():
    rgb = torch.zeros(2, 2, 3, dtype=torch.uint8)
    rgb[0, 0, 0], rgb[0, 1, 1], rgb[1, 0, 2], rgb[1, 1] = 255, 255, 255, 200
    message = wire(encode_image(1.0, rgb))
    assert message.encoding == "rgb8"
    assert decode_image(message)[1].tolist() == [[76, 150], [29, 200]]
    message.encoding = "bgr8"
    assert decode_image(message)[1].tolist() == [[29, 150], [76, 200]]


def test_padded_rows():
    data = np.arange(20, dtype=np.uint8)
    message = encode_image(1.0, torch.zeros(2, 7, dtype=torch.uint8))
    message.step, message.data = 10, data
    assert decode_image(message)[1].tolist() == [list(range(7)), list(range(10, 17))]


@pytest.mark.parametrize(
    "change", [{"height": 31}, {"step": 39}, {"width": 0}, {"height": 2**31, "step": 2**31}, {"encoding": "mono16"}]
)
def test_images_that_contradict_themselves(change):
    message = encode_image(1.0, torch.zeros(30, 40, dtype=torch.uint8))
    for name, value in change.items():
        setattr(message, name, value)
    with pytest.raises(FileFormatError, match="an image says|encoding"):
        decode_image(message)
    with pytest.raises(ShapeError):
        encode_image(1.0, torch.zeros(3, 4))


@pytest.mark.parametrize(
    "geometry", [CONVEX, replace(CONVEX, kind="phased"), full_rectangle(PLANE), PlaneGeometry(PLANE)]
)
def test_geometry(geometry):
    stamp_s, got = decode_geometry(wire(encode_geometry(3.25, geometry, sequence=2)))
    assert stamp_s == 3.25 and type(got) is type(geometry) and got.plane == geometry.plane
    assert torch.equal(got.mask(), geometry.mask())
    if isinstance(geometry, SectorGeometry):
        assert replace(got, apex_mm=(0, 0), clip_mm=(0, 0, 1, 1), radius_mm=(0, 1)) == replace(
            geometry, apex_mm=(0, 0), clip_mm=(0, 0, 1, 1), radius_mm=(0, 1)
        )
        assert [*got.apex_mm, *got.clip_mm, *got.radius_mm] == pytest.approx(
            [*geometry.apex_mm, *geometry.clip_mm, *geometry.radius_mm], abs=1e-9
        )


def test_geometry_is_in_metres():
    message = encode_geometry(1.0, CONVEX)
    assert message.spacing_x == pytest.approx(0.6296e-3) and message.shear == pytest.approx(0.013e-3)
    assert message.radius_stop == pytest.approx(0.06) and message.depth == pytest.approx(0.015)
    assert message.probe_kind == 1 and message.orientation == "MF"


def test_a_plane_with_a_smaller_clip_becomes_a_rectangle():
    message = encode_geometry(1.0, PlaneGeometry(PLANE))
    message.clip = np.array([0.001, 0.001, 0.01, 0.01])
    got = decode_geometry(message)[1]
    assert isinstance(got, SectorGeometry) and got.kind == "linear" and not got.mask()[0].any()


@pytest.mark.parametrize(
    "change",
    [
        {"probe_kind": 9}, {"orientation": "UN"}, {"spacing_x": 0.0}, {"spacing_y": math.nan}, {"apex_x": math.inf},
        {"radius_start": 1.0}, {"angle_stop": -1.0}, {"width": 0}, {"depth": -0.1},
    ],
)  # fmt: skip
def test_geometries_that_make_no_sense(change):
    message = encode_geometry(1.0, CONVEX)
    for name, value in change.items():
        setattr(message, name, value)
    with pytest.raises((GeometryError, ShapeError)):
        decode_geometry(message)


def test_no_message_for_a_projection():
    with pytest.raises(GeometryError, match="ProjectionGeometry"):
        encode_geometry(1.0, ProjectionGeometry(PLANE, 1000.0, (0.0, 0.0)))


def test_joints():
    got = decode_joints(wire(encode_joints(1.5, ["a", "b"], [0.1, -0.2])))
    assert got == (1.5, ("a", "b"), (0.1, -0.2))
    slid = wire(encode_joints(1.5, ["a", "b"], [0.1, -40.0], sliding={"b"}))
    assert decode_joints(slid) == (1.5, ("a", "b"), (0.1, -0.04))
    assert joints_in_mm(("a", "b"), (0.1, -0.04), {"b"}) == (0.1, -40.0)
    with pytest.raises(ShapeError, match="2 joint names"):
        encode_joints(1.0, ["a", "b"], [0.1])
    message = encode_joints(1.0, ["a"], [0.1])
    message.name = ["a", "b"]
    with pytest.raises(FileFormatError, match="names 2 joints but has 1"):
        decode_joints(message)


@given(twists)
def test_transforms(twist):
    rows = [
        StampedTransform(1.5, "world", "us_probe", se3.exp(twist)),
        StampedTransform(2.0, "/a", "/b", se3.identity()),
    ]
    got = decode_transforms(wire(encode_transforms(rows)))
    assert [(t.stamp_s, t.parent, t.child) for t in got] == [(1.5, "world", "us_probe"), (2.0, "a", "b")]
    assert torch.allclose(got[0].parent_T_child, rows[0].parent_T_child, atol=1e-9)


@pytest.mark.parametrize("where", ["translation", "rotation"])
def test_transforms_that_are_not_finite(where):
    message = encode_transforms([StampedTransform(1.5, "world", "us_probe", se3.identity())])
    getattr(message.transforms[0].transform, where).x = math.nan
    with pytest.raises(GeometryError, match="not finite"):
        decode_transforms(message)


def test_a_quaternion_without_length():
    message = encode_transforms([StampedTransform(1.5, "world", "us_probe", se3.identity())])
    message.transforms[0].transform.rotation = make("geometry_msgs/msg/Quaternion", 0.0, 0.0, 0.0, 0.0)
    with pytest.raises(GeometryError, match="zero"):
        decode_transforms(message)


@given(twists, twists)
def test_covariance_is_moved_to_the_origin_of_the_child(twist, point):
    """ROS: the same motion, seen as rotation and translation about the child's origin."""
    pose, pivot = se3.exp(twist), point[:3]
    c = covariance()
    stamp_s, frame, got, moved = decode_stamped_pose(wire(encode_stamped_pose(2.5, pose, c, pivot=pivot)), pivot)
    assert (stamp_s, frame) == (2.5, "world") and torch.allclose(got, pose, atol=1e-9)
    assert torch.allclose(moved, c, rtol=1e-6, atol=1e-6)


def test_covariance_about_the_origin_value():
    """A rotation alone about a pivot 100 mm away moves the origin by 100 mm per rad across."""
    c = torch.zeros(6, 6, dtype=torch.float64)
    c[5, 5] = 0.01**2
    ros = covariance_to_ros(c, torch.tensor([100.0, 0.0, 0.0], dtype=torch.float64)).reshape(6, 6)
    assert ros[1, 1] == pytest.approx((0.1 * 0.01) ** 2) and ros[1, 5] == pytest.approx(0.1 * 0.01**2)
    assert ros[5, 5] == pytest.approx(1e-4) and ros[0, 0] == 0
    with pytest.raises(GeometryError, match="36 finite"):
        covariance_from_ros([math.nan] * 36)
    with pytest.raises(GeometryError, match="36 finite"):
        covariance_from_ros([1.0] * 35)


def test_registration():
    pose = se3.exp(torch.tensor([10.0, -20.0, 30.0, 0.1, 0.2, -0.3], dtype=torch.float64))
    pivot = torch.tensor([50.0, 60.0, 70.0], dtype=torch.float64)
    estimate = Estimate(Rigid(pose), covariance(), pivot, 0.8, 0.9, False, "score", system="intensity", compute_s=0.05)
    record = RegistrationRecord(4.5, estimate, "REJECTED", se3.inverse(pose), age_s=0.1, rank=2)
    got = decode_registration(wire(encode_registration(record)))
    assert (got.stamp_s, got.status, got.world, got.child, got.age_s, got.rank) == (
        4.5,
        "REJECTED",
        "world",
        "ct",
        0.1,
        2,
    )
    e = got.estimate
    assert (e.score, e.overlap, e.accepted, e.reason, e.system, e.compute_s) == (
        0.8,
        0.9,
        False,
        "score",
        "intensity",
        0.05,
    )
    assert torch.allclose(e.covariance, covariance(), atol=1e-6) and torch.allclose(e.pivot, pivot)
    assert torch.allclose(e.world_T_ct, pose, atol=1e-9) and torch.allclose(
        got.world_T_image, se3.inverse(pose), atol=1e-9
    )
    message = encode_registration(record)
    message.status = 77
    with pytest.raises(GeometryError, match="status 77"):
        decode_registration(message)


def test_volume_info():
    grid = VoxelGrid((4, 5, 6), (0.5, 1.0, 2.0))
    volume = Volume(torch.zeros(1, 6, 5, 4, dtype=torch.uint8), grid, "CT", uri="a.nii", sha256="00")
    message = wire(encode_volume_info(1.0, volume, uri="volume.nii.gz"))
    assert (message.uri, message.modality, message.frame_id) == ("volume.nii.gz", "CT", "ct")
    assert message.size.tolist() == [4, 5, 6] and message.spacing.tolist() == [0.0005, 0.001, 0.002]
