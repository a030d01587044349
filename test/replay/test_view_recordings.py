# SPDX-License-Identifier: Apache-2.0
"""Recordings of a running graph, bare bags and damaged ones: what is there is shown, what is missing is told."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from usreg.data.bag_messages import header, make
from usreg.data.bag_poses import (
    RegistrationRecord,
    StampedTransform,
    encode_registration,
    encode_stamped_pose,
    encode_transforms,
    encode_volume_info,
)  # fmt: skip
from usreg.data.bags import BagReader, BagWriter
from usreg.data.sessions import read_session
from usreg.data.types import Volume
from usreg.errors import ConfigError, FileFormatError, MissingFileError, UsregError
from usreg.geometry import se3
from usreg.replay import build_navigator, fixed_threads, run_session
from usreg.replay.step import Step
from usreg.replay.view.content import Content
from usreg.replay.view.frames import Frames
from usreg.replay.view.moments import moment_at, pair_error_mm
from usreg.replay.view.opening import OpenConfig, open_recording

COUNT = 12
LOST, SKIPPED = 4, 7  # a frame without a pose that was given out, one that registration skipped
MEASURED = ("/us/image", "/us/geometry", "/joint_states", "/tf", "/tf_static")


@pytest.fixture(scope="module")
def folder(depth_change_session: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The session that is played."""
    copy = tmp_path_factory.mktemp("recordings") / "played"
    return Path(shutil.copytree(depth_change_session.folder, copy))


@pytest.fixture(scope="module")
def played(folder: Path) -> tuple[list[Step], list[torch.Tensor]]:
    """What the Navigator made of the first frames, and the arm's links at their stamps."""
    with fixed_threads():
        navigator, feed = build_navigator(read_session(folder))
        steps = list(islice(run_session(read_session(folder), navigator, feed), COUNT))
    return steps, [feed.links_at(step.stamp_s)[1] for step in steps]


@pytest.fixture(scope="module")
def steps(played: tuple[list[Step], list[torch.Tensor]]) -> list[Step]:
    return played[0]


@pytest.fixture(scope="module")
def volume(folder: Path) -> Volume:
    from usreg.replay.build import session_volume

    return session_volume(read_session(folder))


def record(
    path: Path,
    folder: Path,
    played: tuple[list[Step], list[torch.Tensor]],
    volume: Volume,
    space: str = "/",
    info: bool = True,
    results: bool = True,
    uri: str | None = None,
) -> Path:
    """What a recorder would write of the first frames: topics below `space`, in live mode."""
    steps, links = played
    uri = str((folder / "volume.nii.gz").resolve()) if uri is None else uri
    end_ns = round((steps[-1].stamp_s + 0.07) * 1e9)
    with BagReader(folder / "bag") as source, BagWriter(path, live=True) as bag:
        first_ns = source.span_ns[0] if source.span_ns else 0
        if info:
            bag.write(space + "volume", first_ns, encode_volume_info(0.0, volume, uri=uri))
        for topic, ns, message in source.messages([t for t in MEASURED if t in source.topics]):
            if ns <= end_ns:
                bag.write(topic if topic.startswith("/tf") else space + topic.lstrip("/"), ns, message)
        for k, step in enumerate(steps if results else []):
            ns = round(step.stamp_s * 1e9) + 30_000_000
            for topic, message in published(step, k):
                bag.write(space + topic, ns, message)
            bag.write("/tf", ns, encode_transforms([arm(step.stamp_s, links[k])]))
    return path


def arm(stamp_s: float, world_T_links: torch.Tensor) -> StampedTransform:
    """From the arm's base to its flange, as arm_tracking would publish it link by link."""
    return StampedTransform(stamp_s, "lbr_link_0", "lbr_link_ee", se3.inverse(world_T_links[0]) @ world_T_links[-2])


def published(step: Step, k: int) -> list[tuple[str, Any]]:
    r = step.result
    assert r.tracked is not None and r.estimate is not None and r.prediction is not None
    p = r.prediction
    record = RegistrationRecord(step.stamp_s, r.estimate, "ACCEPTED", r.tracked.world_T_image)
    breath = make("usreg_msgs/msg/Breathing", header(step.stamp_s, "world"), 0.5 + k, 0.012, 4.0)
    found = [
        ("us/pose", encode_stamped_pose(step.stamp_s, r.tracked.world_T_image)),
        ("registration/breathing", breath),
    ]
    if k != LOST:
        shown = encode_stamped_pose(step.stamp_s, p.world_T_ct, p.covariance, pivot=p.pivot)
        found.append(("registration/smoothed", shown))
    if k != SKIPPED:
        found.append(("registration/estimate", encode_registration(record)))
    if k == 2:
        ranked = make("usreg_msgs/msg/Hypotheses", header(step.stamp_s, "world"), [encode_registration(record)])
        found.append(("registration/hypotheses", ranked))
    return found


Recorder = Callable[..., Path]


@pytest.fixture
def recorder(tmp_path: Path, folder: Path, played: Any, volume: Volume) -> Recorder:
    return lambda name="recording", **options: record(tmp_path / name, folder, played, volume, **options)


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory, folder: Path, played: Any, volume: Volume) -> Content:
    return open_recording(record(tmp_path_factory.mktemp("opened") / "recording", folder, played, volume))


def moments(content: Content) -> list[Any]:
    frames = Frames(content.bag, content.frames)
    found = [moment_at(content, frames[k]) for k in range(len(frames))]
    frames.close()
    return found


@pytest.mark.parametrize("space", ["/", "/theatre/"])
def test_a_recording_shows_what_was_published(
    recorder: Recorder, opened: Content, steps: list[Step], space: str
) -> None:
    content = opened if space == "/" else open_recording(recorder(space=space))
    assert content.title == "recording of played" and content.told() == [] and content.has_truth
    assert content.volume is not None and content.volume.labels is not None and content.landmarks
    found = moments(content)
    assert len(found) == COUNT
    for k, (moment, step) in enumerate(zip(found, steps, strict=True)):
        r = step.result
        assert r.tracked is not None and r.prediction is not None and r.estimate is not None
        assert moment.frame.stamp_s == step.stamp_s and torch.equal(moment.frame.image, r.frame.image)
        assert moment.frame.index == moment.index == k
        torch.testing.assert_close(moment.world_T_image, r.tracked.world_T_image, atol=1e-9, rtol=0)
        assert [link.name for link in moment.links][-1] == "us_probe" and len(moment.links) == 10
        assert moment.breathing is not None and moment.breathing.depth_mm == pytest.approx(12.0)
        if k == LOST:
            assert (moment.status, moment.world_T_ct, moment.sigma_mm) == ("LOST", None, None)
            assert math.isnan(moment.tre_mm) and "given out" in moment.reason
            continue
        torch.testing.assert_close(moment.world_T_ct, r.prediction.world_T_ct, atol=1e-9, rtol=0)
        sigma = r.prediction.covariance.diagonal().sqrt().tolist()
        assert [*moment.sigma_mm, *moment.sigma_rad] == pytest.approx(sigma, rel=1e-6)
        assert moment.tre_mm == pytest.approx(step.landmark_mm(step.smoothed), abs=1e-4)
        newest = steps[k - 1 if k == SKIPPED else k]
        assert newest.result.estimate is not None
        torch.testing.assert_close(moment.world_T_ct_raw, newest.result.estimate.world_T_ct, atol=1e-9, rtol=0)
        assert moment.pose_age_s == pytest.approx(step.stamp_s - newest.stamp_s)
        assert moment.score == pytest.approx(newest.result.estimate.score)
    assert [h.rows[0]["rank"] for h in content.hypotheses] == [0]


def test_an_error_by_hand_is_that_of_the_shown_pose(opened: Content, steps: list[Step]) -> None:
    content = opened
    ct = torch.tensor([10.0, -20.0, 30.0], dtype=torch.float64)
    shown = steps[3].smoothed
    assert shown is not None
    off = torch.tensor([0.0, 3.0, 4.0], dtype=torch.float64)
    world = se3.transform_points(shown, ct[None])[0] + off
    assert pair_error_mm(content, 3, world, ct) == pytest.approx(5.0, abs=1e-6)
    assert math.isnan(pair_error_mm(content, LOST, world, ct))


def test_frames_come_in_any_order(opened: Content, steps: list[Step]) -> None:
    frames = Frames(opened.bag, opened.frames)
    for k in (11, 0, 5, 5, 4, 11, *range(COUNT)):
        assert torch.equal(frames[k].image, steps[k].result.frame.image) and frames[k].index == k
    frames.close()


def test_without_results_the_session_registers_or_says_why_not(recorder: Recorder, folder: Path) -> None:
    bag = recorder(results=False)
    content = open_recording(bag)
    assert content.session is not None and content.registering and content.session.bag_path == bag.resolve()
    refused = open_recording(bag, OpenConfig(register=False))
    assert not refused.registering and "--register" in refused.no_register
    first = moments(refused)[0]
    assert (first.status, first.reason) == ("WAITING", refused.no_register) and first.world_T_image is not None
    again = open_recording(recorder("registered"), OpenConfig(register=True))
    assert again.registering and again.results == [None] * COUNT


def test_another_machine_without_the_volume(
    recorder: Recorder, folder: Path, played: tuple[list[Step], list[torch.Tensor]]
) -> None:
    bag = recorder(uri="/nowhere/volume.nii.gz")
    content = open_recording(bag)
    assert content.title == "recording" and content.volume is None and not content.landmarks
    assert "not on this machine" in content.no_volume and "--session" in content.no_volume
    first = moments(content)[0]
    assert first.status == "NO_VOLUME" and first.reason == content.no_volume
    assert first.world_T_ct is not None and first.world_T_image is not None
    assert [link.name for link in first.links] == [
        "lbr_link_0",
        "lbr_link_ee",
        "us_probe",
    ]  # by TF: the arm is not known
    torch.testing.assert_close(first.links[-1].world_T_link, played[1][0][-1], atol=1e-3, rtol=1e-6)
    named = open_recording(bag, OpenConfig(session=str(folder)))
    assert named.volume is not None and named.volume.labels is not None and named.has_truth


def test_a_volume_that_has_changed_is_not_shown(recorder: Recorder, folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.nii.gz"
    shutil.copy(folder / "labels.nii.gz", other)
    content = open_recording(recorder(uri=other.as_uri()))
    assert content.volume is None and "sha256" in content.no_volume and str(tmp_path) not in content.no_volume
    other.write_bytes(b"no volume")
    assert "cannot be read" in open_recording(recorder("b", uri=str(other))).no_volume


def test_a_bare_bag_shows_its_pictures(recorder: Recorder) -> None:
    """No volume, no estimates, no session."""
    content = open_recording(recorder(info=False, results=False))
    assert content.volume is None and not content.registering and not content.has_truth
    assert any("no volume" in line for line in content.told())
    first = moments(content)[0]
    assert first.status == "NO_VOLUME" and first.frame.image.float().mean() > 1


def test_without_poses_of_the_probe_frames_are_not_tracked(tmp_path: Path, folder: Path) -> None:
    with BagReader(folder / "bag") as played, BagWriter(tmp_path / "pictures.mcap") as bag:
        for topic, ns, message in islice(played.messages(["/us/image", "/us/geometry"]), 10):
            bag.write(topic, ns, message)
    content = open_recording(tmp_path / "pictures.mcap")
    assert len(content.frames) == 5 and "--session" in content.frames[0].untracked
    assert moments(content)[0].world_T_image is None
    named = open_recording(tmp_path / "pictures.mcap", OpenConfig(session="phantom"))
    assert named.volume is not None and moments(named)[0].status in ("NOT_TRACKED", "WAITING")


def cut(bag: Path, share: float) -> None:
    (file,) = bag.glob("*.mcap")
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * share)])


def test_a_recording_that_was_cut_off_shows_what_is_left(recorder: Recorder, steps: list[Step]) -> None:
    bag = recorder()
    cut(bag, 0.5)
    content = open_recording(bag)
    assert 2 <= len(content.frames) < COUNT
    assert any("cut off" in reason for _, reason in content.skipped) and any("cut off" in t for t in content.told())
    assert torch.equal(moments(content)[1].frame.image, steps[1].result.frame.image)


def test_a_damaged_chunk_is_left_out(folder: Path, tmp_path: Path) -> None:
    bag = tmp_path / "damaged.mcap"
    with BagReader(folder / "bag") as played, BagWriter(bag, chunk_bytes=100_000) as writer:
        for topic, ns, message in played.messages(["/us/image", "/us/geometry"]):
            writer.write(topic, ns, message)
    data = bytearray(bag.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 64] = bytes(64)
    bag.write_bytes(data)
    content = open_recording(bag)
    whole = open_recording(folder, OpenConfig(register=False))
    assert 10 < len(content.frames) < len(whole.frames)
    assert any("damaged" in reason for _, reason in content.skipped)


def test_a_message_that_is_no_image_is_left_out(recorder: Recorder, folder: Path, tmp_path: Path) -> None:
    bag = tmp_path / "bad"
    with BagReader(folder / "bag") as played, BagWriter(bag) as writer:
        for k, (topic, ns, message) in enumerate(islice(played.messages(["/us/image", "/us/geometry"]), 12)):
            if k == 6 and topic == "/us/image" or k == 7 and topic == "/us/image":
                message.data = np.zeros(3, np.uint8)
            writer.write(topic, ns, message)
    content = open_recording(bag)
    assert len(content.frames) == 5 and any("3 bytes" in reason for _, reason in content.skipped)


@pytest.mark.parametrize(
    ("made", "error", "words"),
    [
        ("missing", MissingFileError, "no session"),
        ("empty", FileFormatError, "0 .mcap"),
        ("text.txt", FileFormatError, "not a bag"),
        ("text.mcap", FileFormatError, "MCAP"),
        ("joints", FileFormatError, "no images"),
        ("no_geometry", FileFormatError, "geometry"),
    ],
)
def test_what_cannot_be_shown_is_answered(
    made: str, error: type[UsregError], words: str, folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / made
    if made == "empty":
        path.mkdir()
    elif made.startswith("text"):
        path.write_text("no bag")
    elif made in ("joints", "no_geometry"):
        wanted = "/joint_states" if made == "joints" else "/us/image"
        with BagReader(folder / "bag") as played, BagWriter(path) as bag:
            for topic, ns, message in islice(played.messages([wanted]), 3):
                bag.write(topic, ns, message)
    with pytest.raises(error, match=words):
        open_recording(path)


def test_a_session_needs_no_session(folder: Path) -> None:
    with pytest.raises(ConfigError, match="--session"):
        open_recording(folder, OpenConfig(session="phantom"))


def test_the_bag_of_a_session_is_that_session(folder: Path) -> None:
    content = open_recording(folder / "bag", OpenConfig(register=False))
    assert content.title == "played" and content.volume is not None and content.has_truth
