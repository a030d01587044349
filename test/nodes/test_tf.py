# SPDX-License-Identifier: Apache-2.0
"""The TF buffer: chains, interpolation, nothing extrapolated; the same answers as tf2 where that is installed."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("rclpy", reason="ROS 2 is not importable by this python: run through make test")
pytest.importorskip("tf2_msgs", reason="tf2_msgs is not built: run make build")
from rclpy.time import Time  # noqa: E402
from tf2_msgs.msg import TFMessage  # noqa: E402

from usreg.errors import GeometryError, MissingTransformError, StalePoseError  # noqa: E402
from usreg.geometry import se3  # noqa: E402
from usreg.nodes import convert, tf  # noqa: E402

twists = st.lists(st.floats(-1, 1, allow_nan=False), min_size=6, max_size=6)


def pose_of(twist: list[float]) -> torch.Tensor:
    return se3.exp(
        torch.tensor(twist, dtype=torch.float64) * torch.tensor([100.0] * 3 + [1.4] * 3, dtype=torch.float64)
    )


def sample(parent: str, child: str, twist: list[float], stamp_s: float = 0.0) -> Any:
    return convert.transform_to_msg(pose_of(twist), stamp_s, parent, child)


def fill(buffer: Any, a: list[float], b: list[float], c: list[float]) -> Any:
    """world -> arm (moving) -> probe (static); world -> ct (moving)."""
    buffer.set_transform(sample("world", "arm", a, 10.0), "test")
    buffer.set_transform(sample("world", "arm", b, 11.0), "test")
    buffer.set_transform_static(sample("arm", "probe", c), "test")
    buffer.set_transform(sample("world", "ct", b, 10.2), "test")
    buffer.set_transform(sample("world", "ct", c, 10.8), "test")
    return buffer


@given(twists, twists, twists)
def test_chains_cancel_like_fractions(a: list[float], b: list[float], c: list[float]) -> None:
    buffer = fill(tf.TransformBuffer(), a, b, c)
    world_T_probe, stamp_s = tf.pose(buffer, "world", "probe", 10.0)
    assert stamp_s == 10.0
    assert torch.allclose(world_T_probe, pose_of(a) @ pose_of(c), atol=1e-9)
    ct_T_probe, stamp_s = tf.pose(buffer, "ct", "probe")
    assert stamp_s == pytest.approx(10.8)
    world_T_ct, _ = tf.pose(buffer, "world", "ct", 10.8)
    world_T_probe, _ = tf.pose(buffer, "world", "probe", 10.8)
    assert torch.allclose(world_T_ct @ ct_T_probe, world_T_probe, atol=1e-6)
    inverse, _ = tf.pose(buffer, "probe", "ct")
    assert torch.allclose(inverse @ ct_T_probe, se3.identity(), atol=1e-6)


@given(twists, twists, twists)
@pytest.mark.parametrize("stamp_s", [10.0, 10.5])
def test_every_frame_of_a_chain_at_a_sample_and_between_two(
    stamp_s: float, a: list[float], b: list[float], c: list[float]
) -> None:
    buffer = fill(tf.TransformBuffer(), a, b, c)
    found = buffer.chain("world", "probe", stamp_s)
    assert [name for name, _ in found] == ["arm", "probe"]
    for name, world_T_frame in found:
        assert torch.allclose(world_T_frame, tf.pose(buffer, "world", name, stamp_s)[0], atol=1e-6)


def test_a_chain_that_is_not_known_at_a_stamp_or_leads_upwards_is_refused() -> None:
    buffer = fill(tf.TransformBuffer(), [0] * 6, [0] * 6, [0] * 6)
    with pytest.raises(StalePoseError):
        buffer.chain("world", "probe", 12.0)
    with pytest.raises(MissingTransformError, match="'ct' does not hang below 'arm'"):
        buffer.chain("arm", "ct", 10.5)
    with pytest.raises(MissingTransformError, match="needle"):
        buffer.chain("world", "needle", 10.5)


def test_between_samples_the_way_is_straight_and_the_turn_short() -> None:
    buffer = fill(tf.TransformBuffer(), [0] * 6, [1, 0, 0, 0, 0, 1], [0] * 6)
    pose, _ = tf.pose(buffer, "world", "arm", 10.25)
    end = pose_of([1, 0, 0, 0, 0, 1])
    assert torch.allclose(pose[:3, 3], 0.25 * end[:3, 3], atol=1e-6)
    assert math.atan2(pose[1, 0].item(), pose[0, 0].item()) == pytest.approx(0.25 * 1.4)


@pytest.mark.parametrize("stamp_s", [9.99, 11.01, 1.0])
def test_nothing_is_extrapolated(stamp_s: float) -> None:
    buffer = fill(tf.TransformBuffer(), [0.1] * 6, [0.2] * 6, [0.3] * 6)
    with pytest.raises(StalePoseError, match="extrapolated"):
        tf.pose(buffer, "world", "probe", stamp_s)


def test_no_tf_says_which_frames_there_are() -> None:
    with pytest.raises(MissingTransformError, match="known frames: none"):
        tf.pose(tf.TransformBuffer(), "world", "us_probe")
    buffer = fill(tf.TransformBuffer(), [0.1] * 6, [0.2] * 6, [0.3] * 6)
    with pytest.raises(MissingTransformError, match=r"us_image.*arm.*probe"):
        tf.pose(buffer, "world", "us_image")


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_samples_that_are_not_finite_are_refused_and_leave_the_buffer_as_it_was(value: float) -> None:
    buffer = fill(tf.TransformBuffer(), [0.1] * 6, [0.2] * 6, [0.3] * 6)
    broken = sample("world", "arm", [0.2] * 6, 11.5)
    broken.transform.translation.z = value
    with pytest.raises(GeometryError, match="arm"):
        buffer.set_transform(broken, "test")
    assert tf.pose(buffer, "world", "arm")[1] == 11.0


def test_old_samples_fall_out_and_a_jump_forgets_what_moves() -> None:
    buffer = tf.TransformBuffer(cache_ns=2 * 10**9)
    for k in range(100):
        buffer.set_transform(sample("world", "arm", [0.001 * k] * 6, 0.1 * k + 1), "test")
    buffer.set_transform_static(sample("arm", "probe", [0.1] * 6), "test")
    with pytest.raises(StalePoseError):
        tf.pose(buffer, "world", "arm", 8.0)
    assert tf.pose(buffer, "world", "arm", 9.0)[1] == 9.0
    buffer.clear()
    with pytest.raises(MissingTransformError):
        tf.pose(buffer, "world", "arm")
    assert torch.allclose(tf.pose(buffer, "arm", "probe")[0], pose_of([0.1] * 6), atol=1e-9)


def test_a_loop_of_frames_ends() -> None:
    buffer = tf.TransformBuffer()
    buffer.set_transform_static(sample("a", "b", [0.1] * 6), "test")
    buffer.set_transform_static(sample("b", "a", [0.1] * 6), "test")
    with pytest.raises(MissingTransformError):
        tf.pose(buffer, "world", "a")


@given(twists, twists, twists, st.floats(10.2, 10.8))
def test_answers_are_those_of_tf2(a: list[float], b: list[float], c: list[float], stamp_s: float) -> None:
    tf2 = pytest.importorskip("tf2_ros", reason="tf2_ros is not installed")
    ours, theirs = fill(tf.TransformBuffer(), a, b, c), fill(tf2.Buffer(), a, b, c)
    for target, source in (("world", "probe"), ("ct", "probe"), ("arm", "ct")):
        mine, _ = tf.pose(ours, target, source, stamp_s)
        other, _ = tf.pose(theirs, target, source, stamp_s)
        assert torch.allclose(mine, other, atol=1e-6)
    for stamp in (9.0, 12.0):
        for buffer in (ours, theirs):
            with pytest.raises(StalePoseError):
                tf.pose(buffer, "ct", "probe", stamp)
    for buffer in (ours, theirs):
        with pytest.raises(MissingTransformError):
            tf.pose(buffer, "world", "nowhere", stamp_s)
    newest = [buffer.lookup_transform("ct", "probe", Time()).header.stamp for buffer in (ours, theirs)]
    assert newest[0] == newest[1]


def test_statics_reach_who_comes_later_in_one_message(bench: Any) -> None:
    broadcaster = tf.StaticTransformBroadcaster(bench.probe)
    child = f"{bench.namespace}_probe"
    broadcaster.sendTransform(sample("flange", child, [0.1] * 6))
    broadcaster.sendTransform([sample(child, f"{child}_image", [0.2] * 6)])
    found = bench.hear(TFMessage, "/tf_static", "tf_static_in")
    bench.until(lambda: any(len(m.transforms) == 2 and m.transforms[0].child_frame_id == child for m in found))
