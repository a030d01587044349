# SPDX-License-Identifier: Apache-2.0
"""Sessions on the page: what the Navigator finds beside the playback, and what the page may ask of it."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from usreg.data.convert import convert_file
from usreg.data.sessions import InitialPose, SessionConfig, read_session, write_session
from usreg.data.volumes import write_volume
from usreg.errors import ConfigError
from usreg.evaluation import tre_mm
from usreg.geometry import se3
from usreg.replay import build_navigator, find_session, fixed_threads, run_session
from usreg.replay.view.background import Background
from usreg.replay.view.content import Content
from usreg.replay.view.frames import Frames
from usreg.replay.view.known import Result
from usreg.replay.view.moments import moment_at
from usreg.replay.view.opening import open_recording
from usreg.replay.view.viewer import ReplayViewConfig, Viewer
from usreg.web.commands import Accept, ClearLandmarks, Landmark, Pause, Seek, Speed, Target, allowed
from usreg.web.commands import Step as StepCommand
from usreg.web.hub import Hub
from usreg.web.wire import unpack

FRAMES = 8
PATIENCE_S = 100.0


class Client:
    """Takes every message of a hub and acknowledges each frame at once, or never."""

    def __init__(self, hub: Hub, acknowledge: bool = True) -> None:
        self._wake, self._ending = threading.Event(), False
        self._hub, self._acknowledge = hub, acknowledge
        self.frames: list[dict[str, Any]] = []
        self.kept: dict[str, tuple[dict[str, Any], dict[str, np.ndarray]]] = {}
        self.watcher = hub.join(self._wake.set)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._ending:
            self._wake.wait(0.02)
            self._wake.clear()
            while (message := self.watcher.take()) is not None:
                header, buffers = unpack(message)
                if header["type"] != "frame":
                    self.kept[f"{header['type']}/{header.get('value', '')}"] = header, buffers
                    continue
                self.frames.append(header | {"pixels": buffers["image"]})
                if self._acknowledge:
                    self.watcher.acknowledge(header["seq"])

    def until(self, reached: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE_S
        while not reached():
            assert time.monotonic() < end, (len(self.frames), self.frames[-1:], list(self.kept))
            time.sleep(0.005)

    def until_shown(self, index: int, **fields: Any) -> dict[str, Any]:
        """The newest frame, once it is of an index and has these fields."""
        wanted = fields | {"index": index}
        self.until(lambda: bool(self.frames) and wanted.items() <= {k: self.frames[-1][k] for k in wanted}.items())
        return self.frames[-1]

    def until_playing(self, index: int) -> dict[str, Any]:
        """A frame that was shown in passing, of an index or after it."""
        self.until(lambda: any(f["index"] >= index and not f["paused"] for f in self.frames))
        return self.frames[-1]

    @property
    def hello(self) -> dict[str, Any]:
        return self.kept["hello/"][0]

    @property
    def status(self) -> dict[str, Any]:
        return self.kept["status/"][0]

    def leave(self) -> None:
        self._ending = True
        self._thread.join(5.0)
        self._hub.leave(self.watcher)


@pytest.fixture(scope="module")
def opened(depth_change_session: Any) -> Content:
    """4 s of the phantom, to be copied."""
    return open_recording(depth_change_session.folder)


@pytest.fixture
def played(opened: Content) -> Iterator[Callable[..., tuple[Viewer, Client]]]:
    """A viewer of the opened session, and a client of it; nothing is registered unless asked for."""
    open_: list[Viewer] = []

    def make(register: bool = False, acknowledge: bool = True, **options: Any) -> tuple[Viewer, Client]:
        content = replace(opened) if register else replace(opened, session=None, no_register="not now (--register)")
        hub = Hub()
        viewer = Viewer(content, hub, config=ReplayViewConfig(**options))
        open_.append(viewer)
        client = Client(hub, acknowledge)
        viewer.start()
        return viewer, client

    yield make
    for viewer in open_:
        viewer.stop()


@pytest.mark.parametrize("name", ["phantom", "volunteer"])
def test_what_is_registered_beside_it_is_what_a_replay_gives(name: str) -> None:
    """To the bit, frame by frame: poses, covariance, status, errors."""
    session = find_session(name)
    content = open_recording(name)
    assert content.session is not None and content.registering and len(content.frames) > 100
    enough, ended = threading.Event(), list[str]()

    def take(stamp_s: float, result: Result) -> None:
        content.put(stamp_s, result)
        if content.done >= FRAMES:
            enough.set()

    background = Background(session, {}, take, ended.append)
    background.start()
    with fixed_threads():
        navigator, feed = build_navigator(session)
        steps = list(islice(run_session(session, navigator, feed), FRAMES))
    assert enough.wait(PATIENCE_S), ended
    background.stop()
    frames = Frames(content.bag, content.frames)
    for k, step in enumerate(steps):
        moment, r = moment_at(content, frames[k]), step.result
        assert r.tracked is not None and r.prediction is not None and r.estimate is not None
        assert torch.equal(moment.frame.image, r.frame.image) and moment.frame.stamp_s == step.stamp_s
        assert torch.equal(moment.world_T_image, r.tracked.world_T_image)
        assert torch.equal(moment.world_T_ct, r.prediction.world_T_ct)
        assert (moment.status == "ACCEPTED") == (r.status == "TRACKING")
        assert step.registered is None or torch.equal(moment.world_T_ct_raw, step.registered)
        assert (*moment.sigma_mm, *moment.sigma_rad) == tuple(r.prediction.covariance.diagonal().sqrt().tolist())
        assert (moment.score, moment.overlap, moment.system) == (r.estimate.score, r.estimate.overlap, "intensity")
        assert moment.tre_mm == pytest.approx(step.landmark_mm(step.smoothed), abs=1e-5)
        assert [link.name for link in moment.links][-1] == "us_probe"
    frames.close()
    assert not ended and content.frames[FRAMES].truth


def test_it_waits_for_the_first_result_and_plays_while_it_registers(played: Any) -> None:
    viewer, client = played(register=True, speed=2.0)
    count = len(viewer.content.frames)
    client.until(lambda: bool(client.frames))
    first = client.frames[0]
    assert first["index"] == 0
    assert (first["paused"], first["status"], first["fused"]) == (True, "WAITING", False)
    client.until(lambda: any(f["fused"] for f in client.frames))
    assert client.hello["replay"]["count"] == count and client.hello["replay"]["has_truth"]
    client.until(lambda: client.hello["replay"]["registering"] is None and viewer.playback.state == "ended")
    last = client.until_shown(count - 1, paused=True, accepted=True)
    assert last["fused"] and last["tre_mm"] < 5.0 and len(last["links"]) == 10 and last["age_s"] == 0.0
    header, buffers = client.kept["hello/"]
    assert (
        buffers["stamps"].tolist() == viewer.content.stamps_s and np.isfinite(buffers["series_tre"]).sum() > count / 2
    )
    kinds = [e["kind"] for e in header["replay"]["events"]]
    assert "initialized" in kinds and "gap" in kinds  # the session has a gap of 0.3 s
    client.until(lambda: client.status["state"] == "ended")
    stages = {s["name"]: s for s in client.status["stages"]}
    assert stages["registration"]["latency_ms"] > 0 and stages["web_view"]["work_ms"] > 0
    assert client.kept["scene/"][0]["volume"]["modality"] == "US"


def test_frames_come_in_order_and_the_end_stays(played: Any) -> None:
    viewer, client = played(speed=8.0)
    count = len(viewer.content.frames)
    client.until_shown(count - 1, paused=True)
    shown = [f["index"] for f in client.frames]
    assert shown == sorted(shown) and all(f["pixels"].shape == (f["height"], f["width"]) for f in client.frames)
    assert all(f["status"] == "WAITING" and "--register" in f["reason"] for f in client.frames)
    assert len({f["width"] for f in client.frames}) == 2  # a change of depth on the way
    playing = [f for f in client.frames if not f["paused"]]
    assert playing and all(f["age_s"] >= 0 for f in playing)
    assert viewer.call(Pause(False))["index"] == 0  # play again
    client.until(lambda: client.frames[-1]["index"] < count - 1)


def test_a_pause_shows_it_and_a_step_is_one_frame(played: Any) -> None:
    viewer, client = played()
    client.until_playing(2)
    index = viewer.call(Pause(True))["index"]
    assert client.until_shown(index, paused=True)["age_s"] == 0.0
    for k in range(1, 4):
        assert viewer.call(StepCommand()) == {"index": index + k, "state": "paused"}
    client.until_shown(index + 3, paused=True)
    viewer.call(Pause(False))
    client.until_playing(index + 5)


def test_the_newest_seek_is_shown(played: Any) -> None:
    viewer, client = played()
    viewer.call(Pause(True))
    frames = Frames(viewer.content.bag, viewer.content.frames)
    for wanted in ([30], [3, 20, 7], [0], list(range(0, 30, 2))):
        for index in wanted:
            viewer.call(Seek(index))
        shown = client.until_shown(wanted[-1], paused=True)
        assert np.array_equal(shown["pixels"], frames[wanted[-1]].image.numpy())
        assert shown["stamp_s"] == viewer.content.stamps_s[wanted[-1]]
    frames.close()
    with pytest.raises(ConfigError, match="frames 0 to"):
        viewer.call(Seek(10_000))


def test_a_loop_begins_again(played: Any) -> None:
    viewer, client = played(loop=True, speed=8.0)
    client.until(lambda: any(b["index"] < a["index"] for a, b in zip(client.frames, client.frames[1:], strict=False)))
    assert not any(f["paused"] for f in client.frames[1:])


def test_speed_changes_the_frames_own_period(played: Any) -> None:
    viewer, client = played()
    usual = client.until_playing(1)["period_s"]
    viewer.call(Speed(0.5))
    client.until(lambda: client.frames[-1]["period_s"] == pytest.approx(2 * usual))


def test_who_does_not_acknowledge_gets_one_frame_and_nothing_runs_without_watchers(played: Any) -> None:
    viewer, silent = played(acknowledge=False)
    silent.until(lambda: viewer.playback.index > 3)
    assert len(silent.frames) == 1
    silent.leave()
    position_s = viewer.playback.position_s
    assert viewer.playback.state == "waiting"
    time.sleep(0.05)
    assert viewer.playback.position_s == position_s
    other = Client(viewer.hub)
    other.until(lambda: bool(other.frames) and other.frames[-1]["index"] > 4)


def test_target_and_landmarks_by_hand(played: Any) -> None:
    viewer, client = played()
    ct = (10.0, -20.0, 30.0)
    with pytest.raises(ConfigError, match="no pose"):
        viewer.call(Landmark((0.0, 0.0, 0.0), ct, "a"))
    pose = se3.exp(torch.tensor([100.0, 50.0, 0.0, 0.1, 0.2, 0.3], dtype=torch.float64))
    for stamp_s in viewer.content.stamps_s:
        viewer.content.put(stamp_s, Result("ACCEPTED", shown=pose.numpy(), raw=pose.numpy(), raw_s=stamp_s))
    viewer.call(Pause(True))
    there = se3.transform_points(pose, torch.tensor([ct], dtype=torch.float64))[0]
    for k, off in enumerate(([3.0, 4.0, 0.0], [0.0, 0.0, 0.0])):
        world = (there + torch.tensor(off, dtype=torch.float64)).tolist()
        viewer.call(Landmark(tuple(world), ct, "bifurcation" if k == 0 else ""))
    viewer.call(Target(ct))
    client.until(lambda: len(client.status["landmark_pairs"]) == 2)
    pairs = client.status["landmark_pairs"]
    assert [p["error_mm"] for p in pairs] == pytest.approx([5.0, 0.0], abs=1e-9)
    assert [p["name"] for p in pairs] == ["bifurcation", "landmark 2"]
    client.until(lambda: client.frames[-1]["target"] is not None)
    assert client.frames[-1]["target"]["world"] == pytest.approx(there.tolist())
    client.until(lambda: client.kept["scene/"][0]["target_ct"] == list(ct))
    viewer.call(ClearLandmarks())
    viewer.call(Target(None))
    client.until(lambda: not client.status["landmark_pairs"] and client.frames[-1]["target"] is None)


def test_what_a_recording_does_not_take(played: Any) -> None:
    viewer, client = played(read_only=True)
    with pytest.raises(ConfigError, match="does not take Accept"):
        viewer.call(Accept(True))
    assert allowed(viewer, True) == ("pause", "step", "seek", "speed")
    client.until(lambda: "hello/" in client.kept)
    assert client.hello["read_only"] and client.hello["commands"] == ["pause", "step", "seek", "speed"]


def test_a_registration_that_fails_is_told_and_the_pictures_go_on(opened: Content) -> None:
    content = replace(opened)
    assert content.session is not None
    ended, told = threading.Event(), list[str]()
    broken = Background(
        content.session, {"system": "none such"}, content.put, lambda why: (told.append(why), ended.set())
    )
    broken.start()
    assert ended.wait(PATIENCE_S)
    broken.stop()
    assert "none such" in told[0]
    viewer = Viewer(content, Hub())
    viewer._ended(told[0])
    assert viewer.playback.state == "waiting"  # for somebody to watch, and for nothing else
    frames = Frames(content.bag, content.frames)
    moment = moment_at(content, frames[0])
    frames.close()
    viewer.stop()
    assert (moment.status, moment.reason, moment.world_T_ct) == ("WAITING", told[0], None)


def test_the_real_liver_sweep_as_a_session(data_dir: Path, tmp_path: Path) -> None:
    """Recorded without truth; its volume is made of every second frame, the start is off by 4 mm."""
    folder = data_dir / "liver_sweep"
    if not folder.is_dir():
        pytest.skip("the folder of real recordings holds no liver_sweep")
    session = liver_session(folder, tmp_path / "liver")
    content = open_recording(session)
    assert content.told() == [] and len(content.frames) == 80 and not content.has_truth and not content.landmarks
    assert content.volume is not None and content.session is not None
    enough = threading.Event()

    def take(stamp_s: float, result: Result) -> None:
        content.put(stamp_s, result)
        if content.done >= 3:
            enough.set()

    background = Background(content.session, {}, take, lambda why: enough.set())
    background.start()
    assert enough.wait(PATIENCE_S)
    background.stop()
    frames = Frames(content.bag, content.frames)
    moment = moment_at(content, frames[2])
    frames.close()
    assert moment.status == "ACCEPTED" and moment.world_T_ct is not None and math.isnan(moment.tre_mm)
    assert moment.world_T_image is not None
    found = se3.inverse(moment.world_T_ct) @ moment.world_T_image
    assert tre_mm(found, moment.world_T_image, moment.frame.geometry) < 2.0  # the volume was built in the room's frame
    assert [link.name for link in moment.links] == ["us_probe"]


def liver_session(source: Path, folder: Path) -> Path:
    """The sweep of the real recordings as a session: bag, volume of the even frames, a start beside the truth."""
    from usreg.data.calibration import read_calibration
    from usreg.data.sequences import read_sequence
    from usreg.data.tracked import tracked_frames
    from usreg.reconstruction import ReconstructionConfig, reconstruct

    sequence, device_set = source / "liver_sweep.igs.mha", source / "liver_sweep_device_set.xml"
    list(convert_file(sequence, folder, device_set))
    calibration = read_calibration(device_set, image_size=(369, 296))
    frames = tracked_frames(read_sequence(sequence), calibration)
    write_volume(reconstruct(frames[0:79:2], ReconstructionConfig(2.0)), folder / "volume.nii.gz")
    config: SessionConfig = read_session(folder).config
    start = se3.translation(torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64))
    initial = InitialPose.of(start, torch.diag(torch.tensor([9.0] * 3 + [1e-3] * 3, dtype=torch.float64)))
    write_session(folder, replace(config, volume="volume.nii.gz", modality="US", initial=initial))
    return folder
