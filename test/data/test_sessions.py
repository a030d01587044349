# SPDX-License-Identifier: Apache-2.0
"""Sessions: strict, inside their folder, their events in the order of the stamps."""

import math
from dataclasses import replace

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from usreg.data.bag_messages import encode_geometry, encode_image, encode_joints
from usreg.data.bag_poses import StampedTransform, encode_transforms
from usreg.data.bags import BagWriter, qos_profile
from usreg.data.session_events import (
    FrameEvent,
    JointEvent,
    ReplayConfig,
    SkippedEvent,
    TransformEvent,
    TruthEvent,
    session_events,
    session_frames,
)
from usreg.data.sessions import (
    FrameNames,
    InitialPose,
    SessionConfig,
    TopicNames,
    read_session,
    start_pose,
    write_session,
)
from usreg.errors import ConfigError, GeometryError, MissingFileError, UsregError, WriteError
from usreg.geometry import se3
from usreg.geometry.plane import PlaneGrid
from usreg.geometry.sector import full_rectangle

GEOMETRY = full_rectangle(PlaneGrid(6, 8, ((0.5, 0.0), (0.0, 0.5))))
POSE = se3.exp(torch.tensor([10.0, -20.0, 30.0, 0.1, 0.2, -0.3], dtype=torch.float64))
INITIAL = InitialPose.of(POSE, 4 * torch.eye(6, dtype=torch.float64), 10.0, 5.0)
TF = SessionConfig(pose_source="tf")


def image(value: int) -> torch.Tensor:
    return torch.full((6, 8), value, dtype=torch.uint8)


def transform(stamp_s: float, child: str = "us_probe") -> StampedTransform:
    return StampedTransform(stamp_s, "world", child, POSE)


def write_bag(path, frames=10, latency_s=0.03, rate=15.0, joints=100.0):
    with BagWriter(path) as bag:
        bag.add_topic("/tf_static", "tf2_msgs/msg/TFMessage", [qos_profile(transient_local=True, depth=1)])
        bag.write("/tf_static", 0, encode_transforms([transform(0.0, "base")]))
        for i in range(frames):
            stamp, log = 1 + i / rate, round((1 + i / rate + latency_s) * 1e9)
            if i % 2:
                bag.write("/us/geometry", log, encode_geometry(stamp, GEOMETRY))
            bag.write("/us/image", log, encode_image(stamp, image(i)))
            if not i % 2:
                bag.write("/us/geometry", log + 10, encode_geometry(stamp, GEOMETRY))
            bag.write("/truth/tf", round(stamp * 1e9), encode_transforms([transform(stamp, "ct")]))
        for k in range(int(frames / rate * joints) + 2):
            stamp = 1 + k / joints
            bag.write("/joint_states", round(stamp * 1e9), encode_joints(stamp, ["a"], [0.1 * k]))
    return path


@pytest.fixture
def session(tmp_path):
    write_bag(tmp_path / "bag")
    return write_session(tmp_path, SessionConfig(arm="iiwa7", truth=True, initial=INITIAL))


def test_round_trip(tmp_path, session):
    again = read_session(tmp_path)
    assert again.config == session.config and read_session(tmp_path / "session.yaml").config == session.config
    pose, covariance = start_pose(again)
    assert torch.allclose(pose, POSE, atol=1e-12) and torch.equal(covariance, 4 * torch.eye(6, dtype=torch.float64))
    assert again.bag_path == tmp_path.resolve() / "bag" and again.volume_path is None
    assert again.arm_path is not None and again.arm_path.name == "iiwa7.yaml"
    before = (tmp_path / "session.yaml").read_bytes()
    write_session(tmp_path, again.config)
    assert (tmp_path / "session.yaml").read_bytes() == before


def test_start_pose_is_needed(tmp_path):
    (tmp_path / "bag").mkdir()
    with pytest.raises(GeometryError, match="no initial pose"):
        start_pose(write_session(tmp_path, TF))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bagg": "x"}, "unknown key"),
        ({"bag": "../bag"}, "inside the folder"),
        ({"bag": "/etc"}, "inside the folder"),
        ({"volume": "link/passwd"}, "inside the folder"),
        ({"volume": "gone.nii"}, "not in its folder"),
        ({"bag": "gone"}, "not in its folder"),
        ({"calibration": "a/../../b.yaml"}, "inside the folder"),
        ({"seed": -1}, "seed"),
        ({"seed": "1"}, "must be int"),
        ({"pose_source": "guess"}, "choose one of"),
        ({"pose_source": "joints"}, "no arm is named"),
        ({"arm": "no_such_arm"}, "shipped: \\["),
        ({"probe": "../probe"}, "inside the folder"),
        ({"frames": {"world": "ct"}}, "four different names"),
        ({"topics": {"image": "us/image"}}, "leading slash"),
        ({"latency_applied_s": math.nan}, "latency"),
        ({"initial": {"world_T_ct": [[1, 0, 0, 0]] * 4, "covariance": [[0.0] * 6] * 6}}, "not rigid"),
        ({"initial": {"world_T_ct": [[1, 0], [0, 1]], "covariance": []}}, "must have"),
    ],
)
def test_bad_session_files(tmp_path, change, message):
    write_bag(tmp_path / "bag", 1)
    (tmp_path / "link").symlink_to("/etc")
    (tmp_path / "session.yaml").write_text(yaml.safe_dump({"pose_source": "tf", **change}))
    with pytest.raises(UsregError, match=message):
        read_session(tmp_path)


@pytest.mark.parametrize("text", ["", "- a", "{", "\x00", "bag: &a [*a]"])
def test_no_session_file(tmp_path, text):
    with pytest.raises(MissingFileError, match=r"no session.yaml"):
        read_session(tmp_path)
    (tmp_path / "session.yaml").write_text(text)
    with pytest.raises(UsregError):
        read_session(tmp_path)


def test_a_session_is_not_written_with_paths_that_lead_out(tmp_path):
    with pytest.raises(ConfigError, match="inside the folder"):
        write_session(tmp_path, replace(TF, volume="../v.nii"))
    assert not (tmp_path / "session.yaml").exists()
    (tmp_path / "file").write_text("x")
    with pytest.raises(WriteError, match="cannot write session.yaml"):
        write_session(tmp_path / "file" / "deeper", TF)


def test_shipped_files_of_the_folder_come_first(tmp_path):
    write_bag(tmp_path / "bag", 1)
    (tmp_path / "iiwa7").write_text("own: true")
    assert (
        read_session(write_session(tmp_path, SessionConfig(arm="iiwa7")).folder).arm_path
        == tmp_path.resolve() / "iiwa7"
    )


def test_events_in_the_order_of_their_stamps(session):
    events = list(session_events(session))
    stamps = [e.stamp_s for e in events]
    assert stamps == sorted(stamps)
    kinds = [type(e) for e in events]
    assert [kinds.count(k) for k in (FrameEvent, TruthEvent, TransformEvent, JointEvent)] == [10, 10, 1, 68]
    frames = [e.frame for e in events if isinstance(e, FrameEvent)]
    assert [int(f.image[0, 0]) for f in frames] == list(range(10)) == [f.index for f in frames]
    first = [e for e in events if e.stamp_s == 1.0]
    assert [type(e) for e in first] == [JointEvent, TruthEvent, FrameEvent]
    assert not any(isinstance(e, TruthEvent) for e in session_events(session, truth=False))


def test_events_are_the_same_every_time(session):
    def shape(event):
        return type(event).__name__, event.stamp_s

    assert [shape(e) for e in session_events(session)] == [shape(e) for e in session_events(session)]


def test_frames_come_when_their_pose_can_be_interpolated(session):
    reached = -1.0
    count = 0
    for event in session_frames(session):
        if isinstance(event, JointEvent):
            reached = event.stamp_s
        elif isinstance(event, FrameEvent):
            count += 1
            assert reached >= event.stamp_s > reached - 0.02
    assert count == 10


def test_frames_do_not_wait_for_ever(tmp_path):
    with BagWriter(tmp_path / "bag") as bag:
        for i in range(20):
            bag.write("/us/image", i * 10**8, encode_image(i / 10, image(i)))
            bag.write("/us/geometry", i * 10**8, encode_geometry(i / 10, GEOMETRY))
        bag.write("/tf", 0, encode_transforms([transform(0.0)]))
    events = list(session_frames(write_session(tmp_path, TF), config=ReplayConfig(hold_s=0.3)))
    order = [e.frame.index for e in events if isinstance(e, FrameEvent)]
    assert order == list(range(20))


def test_a_changed_geometry_passes_and_a_wrong_one_is_named(tmp_path):
    deeper = full_rectangle(PlaneGrid(6, 8, ((0.7, 0.0), (0.0, 0.7))))
    larger = full_rectangle(PlaneGrid(7, 8, ((0.5, 0.0), (0.0, 0.5))))
    with BagWriter(tmp_path / "bag") as bag:
        for i, geometry in enumerate([GEOMETRY, deeper, larger, deeper]):
            bag.write("/us/image", i, encode_image(float(i), image(i)))
            bag.write("/us/geometry", i, encode_geometry(float(i), geometry))
        bag.write("/us/image", 10, encode_image(10.0, image(9)))
    events = list(session_events(write_session(tmp_path, TF)))
    assert [e.frame.plane.spacing_mm[0] for e in events if isinstance(e, FrameEvent)] == [0.5, 0.7, 0.7]
    skipped = [e.reason for e in events if isinstance(e, SkippedEvent)]
    assert "the image is 8x6 but its geometry says 8x7" in " ".join(skipped)
    assert "its geometry did not come" in " ".join(skipped) and len(skipped) == 2


def test_bad_messages_are_named_and_the_rest_goes_on(session):
    with BagWriter(session.folder / "worse") as bag:
        for i in range(5):
            message = encode_joints(float(i), ["a"], [0.1])
            if i == 2:
                message.name = ["a", "b"]
            bag.write("/joint_states", i * 10**9, message)
            bag.write("/us/image", i * 10**9, encode_image(float(i), image(i)))
    bad = replace(session, config=replace(session.config, bag="worse"))
    events = list(session_events(bad, GEOMETRY))
    assert [type(e) for e in events].count(JointEvent) == 4
    assert [type(e) for e in events].count(FrameEvent) == 5
    assert "2 joints" in next(e for e in events if isinstance(e, SkippedEvent)).reason


def test_a_bag_without_images_says_so(tmp_path):
    with BagWriter(tmp_path / "bag") as bag:
        bag.write("/joint_states", 1, encode_joints(1.0, ["a"], [0.1]))
    with pytest.raises(MissingFileError, match="/us/image"):
        list(session_events(write_session(tmp_path, TF)))


def test_names_of_topics_and_frames(tmp_path):
    topics = TopicNames(image="/scanner/image", geometry="/scanner/geometry")
    with BagWriter(tmp_path / "bag") as bag:
        bag.write("/scanner/image", 1, encode_image(1.0, image(3)))
        bag.write("/scanner/geometry", 1, encode_geometry(1.0, GEOMETRY))
    session = write_session(tmp_path, replace(TF, topics=topics, frames=FrameNames(world="room")))
    assert [type(e) for e in session_events(session)] == [FrameEvent]


@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 3000), st.integers(-400, 400)), min_size=1, max_size=40))
def test_any_delay_below_the_window_is_put_in_order(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("session")
    with BagWriter(folder / "bag") as bag:
        for stamp, delay in rows:
            at = 1 + stamp / 1000
            bag.write("/tf", round((at + delay / 1000) * 1e9), encode_transforms([transform(at)]))
        bag.write("/us/image", 10**9, encode_image(1.0, image(0)))
    events = list(session_events(write_session(folder, TF), GEOMETRY))
    stamps = [e.stamp_s for e in events]
    assert stamps == sorted(stamps) and len(stamps) == len(rows) + 1
