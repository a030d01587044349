# SPDX-License-Identifier: Apache-2.0
"""PLUS sequences to bags and back: stamps, statuses, names, invalid frames and pixels come back as they were."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from usreg.data.bag_poses import StampedTransform, encode_stamped_pose, encode_transforms
from usreg.data.bag_to_plus import bag_to_sequence
from usreg.data.bags import BagReader, BagWriter, latched
from usreg.data.calibration import read_calibration
from usreg.data.convert import convert, convert_file, load, sequence_to_session
from usreg.data.plus_to_bag import sequence_to_bag
from usreg.data.sequences import Sequence, read_sequence, write_sequence
from usreg.data.session_events import FrameEvent, TransformEvent, session_frames
from usreg.data.sessions import read_session
from usreg.data.tracked import tracked_frames
from usreg.data.types import Calibration, Trajectory
from usreg.data.volumes import read_volume
from usreg.errors import FileFormatError, MissingFileError, MissingTransformError, TimeError, WriteError
from usreg.geometry import se3
from usreg.geometry.plane import PlaneGrid
from usreg.geometry.sector import full_rectangle

SEQUENCES = (
    "liver_sweep/liver_sweep.igs.mha",
    "nwire_phantom/NwirePhantomFreehand.igs.nrrd",
    "poses/TransformInterpolationTest.igs.mha",
    "poses/EightLandmarkPointsTrackedForPhantomRegistration.igs.mha",
)
PROBE_T_IMAGE = se3.exp(torch.tensor([5.0, 6.0, 7.0, 0.1, -0.2, 0.3], dtype=torch.float64))
SPACING = ((0.5, 0.01), (0.0, 0.4))


def poses_of(n: int) -> torch.Tensor:
    twists = torch.stack([torch.tensor([i * 1.0, 2, 3, 0.01 * i, 0.02, 0.03], dtype=torch.float64) for i in range(n)])
    return se3.exp(twists)


def make_sequence(n: int = 12, stamps: list[float] | None = None, invalid: tuple[int, ...] = ()) -> Sequence:
    stamps_s = torch.tensor(stamps or [1 + i / 15 for i in range(n)], dtype=torch.float64)
    valid = torch.tensor([i not in invalid for i in range(n)])
    images = (torch.arange(n) % 256).to(torch.uint8)[:, None, None].expand(n, 6, 8).contiguous()
    scaled = poses_of(n).clone()
    scaled[:, :3, :3] *= 0.3
    return Sequence(
        images,
        torch.tensor([i != 3 for i in range(n)]),
        stamps_s,
        {
            "ProbeToTracker": Trajectory(stamps_s, poses_of(n), valid, "Probe", "Tracker"),
            "ImageToProbe": Trajectory(stamps_s, scaled, torch.ones(n, dtype=torch.bool), "Image", "Probe"),
        },
        fields=tuple({"FrameNumber": str(100 + i)} for i in range(n)),
        header={"Comment": "a b = c"},
        statuses={"ProbeToTracker": tuple("OK" if v else "INVALID" for v in valid.tolist())},
        source_format="mha",
    )


def calibration(latency_s: float = 0.0) -> Calibration:
    geometry = full_rectangle(PlaneGrid(6, 8, SPACING))
    return Calibration(PROBE_T_IMAGE, SPACING, geometry, latency_s)


def assert_same(a: Sequence, b: Sequence) -> None:
    assert a.stamps_s.nan_to_num(-1).tolist() == b.stamps_s.nan_to_num(-1).tolist()
    assert a.image_valid.tolist() == b.image_valid.tolist() and a.size == b.size
    if a.images is not None and b.images is not None:
        assert torch.equal(a.images[a.image_valid], b.images[b.image_valid])
    assert list(a.transforms) == list(b.transforms)
    for name, x in a.transforms.items():
        y = b.transforms[name]
        assert torch.equal(x.valid, y.valid) and (x.source, x.target) == (y.source, y.target)
        assert torch.equal(x.poses.nan_to_num(-1), y.poses.nan_to_num(-1))
    assert (a.fields, a.header, a.source_format) == (b.fields, b.header, b.source_format)
    said = {k: v for k, v in a.statuses.items() if any(s is not None for s in v)}
    assert said == b.statuses and (a.image_status or (None,) * a.count) == b.image_status


@pytest.mark.parametrize("name", SEQUENCES)
def test_real_sequences_come_back_to_the_bit(data_dir, tmp_path, name):
    sequence = read_sequence(data_dir / name)
    sequence_to_bag(sequence, tmp_path / "bag.mcap")
    again, lost = bag_to_sequence(tmp_path / "bag.mcap")
    assert lost == []
    assert_same(sequence, again)


def test_same_sequence_same_bag(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        sequence_to_bag(make_sequence(), tmp_path / folder / "bag.mcap", calibration())
    assert (tmp_path / "a/bag.mcap").read_bytes() == (tmp_path / "b/bag.mcap").read_bytes()


def test_invalid_frames_and_missing_pixels(tmp_path):
    sequence = make_sequence(invalid=(2, 5))
    sequence_to_bag(sequence, tmp_path / "bag", calibration())
    again, lost = bag_to_sequence(tmp_path / "bag")
    assert_same(sequence, again)
    assert lost == []
    with BagReader(tmp_path / "bag") as bag:
        assert bag.topics["/us/image"].count == 11 and bag.topics["/plus/ProbeToTracker"].count == 10
        assert bag.topics["/tf"].count == 10 and latched(bag.topics["/tf_static"])
        assert "/plus/ImageToProbe" not in bag.topics  # not rigid: kept as text


@settings(max_examples=15)
@given(
    st.lists(
        st.one_of(st.floats(0.5, 100), st.just(math.nan), st.sampled_from([1.0, 2.0, 1.7e9])), min_size=1, max_size=12
    )
)
def test_any_stamps_come_back(tmp_path_factory, stamps):
    path = tmp_path_factory.mktemp("bag") / "bag.mcap"
    sequence = make_sequence(len(stamps), stamps)
    remarks = sequence_to_bag(sequence, path, calibration())
    again, lost = bag_to_sequence(path)
    assert_same(sequence, again)
    refused = int((sequence.image_valid & ~sequence.stamp_valid).sum())
    assert bool(refused) == any("without a usable stamp" in r for r in remarks) and lost == []


def test_file_to_bag_to_file(tmp_path):
    """Through the formats: sequence file, bag, sequence file."""
    write_sequence(make_sequence(invalid=(1,)), tmp_path / "a.mha")
    assert convert(tmp_path / "a.mha", tmp_path / "b.mcap") != []  # remarks on matrices that are not rigid
    assert convert(tmp_path / "b.mcap", tmp_path / "c.nrrd") == []
    assert_same_content(read_sequence(tmp_path / "a.mha"), read_sequence(tmp_path / "c.nrrd"))
    convert(tmp_path / "c.nrrd", tmp_path / "d.mha")
    assert_same_content(read_sequence(tmp_path / "a.mha"), read_sequence(tmp_path / "d.mha"))
    with pytest.raises(FileFormatError, match="cannot write 'x.png'"):
        convert(tmp_path / "a.mha", tmp_path / "x.png")


def assert_same_content(a: Sequence, b: Sequence) -> None:
    assert a.stamps_s.tolist() == b.stamps_s.tolist() and a.image_valid.tolist() == b.image_valid.tolist()
    assert a.images is not None and b.images is not None
    assert torch.equal(a.images[a.image_valid], b.images[b.image_valid])
    for name in a.transforms:
        assert a.transforms[name].valid.tolist() == b.transforms[name].valid.tolist()
        assert torch.allclose(a.transforms[name].poses, b.transforms[name].poses, atol=1e-9)


def test_a_session_of_a_sequence(tmp_path):
    """The session gives the frames with the poses that the sequence has."""
    sequence = make_sequence(invalid=(4,))
    sequence_to_session(sequence, tmp_path / "session", calibration())
    session = read_session(tmp_path / "session")
    assert session.config.pose_source == "tf"
    expected = tracked_frames(sequence, calibration())
    pose, static, seen = {}, None, 0
    for event in session_frames(session):
        if isinstance(event, TransformEvent) and event.static:
            static = event.parent_T_child
        elif isinstance(event, TransformEvent):
            assert (event.parent, event.child) == ("world", "us_probe")
            pose[event.stamp_s] = event.parent_T_child
        elif isinstance(event, FrameEvent):
            (wanted,) = [t for t in expected if t and t.frame.stamp_s == pytest.approx(event.stamp_s, abs=1e-9)] or [
                None
            ]
            if wanted is not None:
                assert torch.allclose(pose[event.stamp_s] @ static, wanted.world_T_image, atol=1e-9)
                assert torch.equal(event.frame.image, wanted.frame.image)
                seen += 1
    assert seen == sum(t is not None for t in expected) == 10
    with pytest.raises(WriteError, match="holds a session already"):
        sequence_to_session(sequence, tmp_path / "session", calibration())
    assert_same(sequence, load(tmp_path / "session")[0])


def test_latency_moves_the_images_and_is_noted(tmp_path):
    sequence = make_sequence()
    sequence_to_session(sequence, tmp_path / "session", calibration(0.02))
    session = read_session(tmp_path / "session")
    assert session.config.latency_applied_s == 0.02
    assert read_calibration(session.calibration_path).latency_s == 0.0  # it is in the stamps already
    frames = [e.frame.stamp_s for e in session_frames(session) if isinstance(e, FrameEvent)]
    assert frames[0] == pytest.approx(0.98) and len(frames) == 11
    assert_same(sequence, bag_to_sequence(session.bag_path)[0])  # the sequence itself keeps its stamps
    with pytest.raises(TimeError, match="positive"):
        sequence_to_bag(sequence, tmp_path / "early.mcap", calibration(1.5))
    assert not (tmp_path / "early.mcap").exists()


def test_a_bag_of_a_sequence_that_was_cut(tmp_path):
    sequence = make_sequence(800)
    sequence_to_bag(sequence, tmp_path / "bag.mcap", calibration())
    whole = (tmp_path / "bag.mcap").read_bytes()
    (tmp_path / "bag.mcap").write_bytes(whole[: len(whole) * 2 // 3])
    again, lost = bag_to_sequence(tmp_path / "bag.mcap")
    assert 0 < again.count < 800 and any("missing at the end" in t for t in lost) and "cut off" in lost[0]
    assert again.stamps_s.tolist() == sequence.stamps_s[: again.count].tolist()


def test_a_recorded_session_becomes_a_sequence(tmp_path):
    """Not made of a sequence: images, geometry and TF at other stamps."""
    sequence_to_bag(make_sequence(invalid=(2,)), tmp_path / "made", calibration())
    with BagReader(tmp_path / "made") as old, BagWriter(tmp_path / "bag") as new:
        for topic in ("/us/image", "/us/geometry", "/tf_static"):
            new.add_topic(topic, old.topics[topic].type_name)
        for raw in old.raw_messages(["/us/image", "/us/geometry", "/tf_static"]):
            new.write_raw(raw.topic, raw.log_ns, raw.data)
        for k in range(60):
            stamp = 0.9 + k / 100
            pose = se3.exp(torch.tensor([100 * stamp, 0, 0, 0, 0, 0], dtype=torch.float64))
            new.write(
                "/tf", round(stamp * 1e9), encode_transforms([StampedTransform(stamp, "world", "us_probe", pose)])
            )
    sequence, lost = bag_to_sequence(tmp_path / "bag")
    assert sequence.count == 11 and set(sequence.transforms) == {"ProbeToTracker", "ImageToProbe"}
    probe = sequence.transforms["ProbeToTracker"]
    inside = sequence.stamps_s <= 1.49
    assert probe.valid.tolist() == inside.tolist() and any("INVALID" in t for t in lost)
    assert torch.allclose(probe.poses[inside, 0, 3], 100 * sequence.stamps_s[inside], atol=1e-6)
    step = torch.tensor([[0.5, 0.01], [0.0, 0.4]], dtype=torch.float64)
    assert torch.allclose(sequence.transforms["ImageToProbe"].poses[0, :3, :2], PROBE_T_IMAGE[:3, :2] @ step, atol=1e-9)
    write_sequence(sequence, tmp_path / "out.mha")
    assert read_sequence(tmp_path / "out.mha").count == 11


def test_a_bag_with_image_poses(tmp_path):
    sequence_to_bag(make_sequence(), tmp_path / "made", calibration())
    with BagReader(tmp_path / "made") as old, BagWriter(tmp_path / "bag") as new:
        for topic in ("/us/image", "/us/geometry"):
            new.add_topic(topic, old.topics[topic].type_name)
        for raw in old.raw_messages(["/us/image", "/us/geometry"]):
            new.write_raw(raw.topic, raw.log_ns, raw.data)
        for i in range(12):
            new.write("/us/pose", i, encode_stamped_pose(1 + i / 15, poses_of(12)[i]))
        new.write("/truth", 1, encode_transforms([StampedTransform(1.0, "world", "ct", se3.identity())]))
    sequence, lost = bag_to_sequence(tmp_path / "bag")
    image = sequence.transforms["ImageToTracker"]
    assert image.valid.all() and torch.allclose(image.poses[0, :3, 3], poses_of(12)[0, :3, 3])
    assert any("/truth" in t for t in lost)


def test_bags_that_give_no_sequence(tmp_path):
    sequence_to_bag(make_sequence(), tmp_path / "made", calibration())
    with BagReader(tmp_path / "made") as old, BagWriter(tmp_path / "images") as new:
        for topic in ("/us/image", "/us/geometry"):
            new.add_topic(topic, old.topics[topic].type_name)
        for raw in old.raw_messages(["/us/image", "/us/geometry"]):
            new.write_raw(raw.topic, raw.log_ns, raw.data)
    with pytest.raises(MissingTransformError, match="no TF leads from 'us_image' to 'world'"):
        bag_to_sequence(tmp_path / "images")
    with BagWriter(tmp_path / "poses") as new:
        new.write("/us/pose", 1, encode_stamped_pose(1.0, se3.identity()))
    with pytest.raises(MissingFileError, match="no images on /us/image"):
        bag_to_sequence(tmp_path / "poses")
    with BagWriter(tmp_path / "cycle") as new, BagReader(tmp_path / "images") as old:
        for topic in ("/us/image", "/us/geometry"):
            new.add_topic(topic, old.topics[topic].type_name)
        for raw in old.raw_messages():
            new.write_raw(raw.topic, raw.log_ns, raw.data)
        edges = [("a", "us_image"), ("us_image", "a")]
        new.write("/tf_static", 1, encode_transforms([StampedTransform(1.0, p, c, se3.identity()) for p, c in edges]))
    with pytest.raises(MissingTransformError):
        bag_to_sequence(tmp_path / "cycle")


def test_the_liver_sweep_as_a_session(data_dir, tmp_path):
    """Real calibration with its chain of names: poses in the session are those of the sequence."""
    source = data_dir / "liver_sweep"
    cal = read_calibration(source / "liver_sweep_device_set.xml")
    assert convert(source / "liver_sweep.igs.mha", tmp_path / "liver", cal) == []
    expected = tracked_frames(read_sequence(source / "liver_sweep.igs.mha"), cal)
    events = list(session_frames(read_session(tmp_path / "liver")))
    poses = {e.stamp_s: e.parent_T_child for e in events if isinstance(e, TransformEvent) and not e.static}
    frames = [e.frame for e in events if isinstance(e, FrameEvent)]
    assert len(frames) == 80 and all(t is not None for t in expected)
    for frame, wanted in zip(frames, expected, strict=True):
        assert torch.allclose(poses[frame.stamp_s] @ cal.probe_T_image, wanted.world_T_image, atol=1e-8)
        assert torch.equal(frame.geometry.mask(), wanted.frame.geometry.mask())


def test_files_by_their_names(data_dir, tmp_path):
    """What `usreg convert` calls: a calibration file, progress, volumes."""
    seen = []
    source = data_dir / "liver_sweep"
    convert_file(
        source / "liver_sweep.igs.mha",
        tmp_path / "liver",
        source / "liver_sweep_device_set.xml",
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen[-1] == (80, 80) and read_session(tmp_path / "liver").bag_path.is_dir()
    assert convert_file(tmp_path / "liver", tmp_path / "again.mha") == []
    assert read_sequence(tmp_path / "again.mha").count == 80
    reference = data_dir / "spine_phantom" / "SpinePhantomFreehandReconstructed.mha"
    if reference.exists():
        convert_file(reference, tmp_path / "volume.nrrd")
        assert read_volume(tmp_path / "volume.nrrd").grid.size == read_volume(reference).grid.size
    with pytest.raises(MissingFileError):
        convert_file(tmp_path / "gone.mha", tmp_path / "out.mcap")
