# SPDX-License-Identifier: Apache-2.0
"""The simulated session: repeatable, complete, consistent with its truth, and never half there."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from usreg.data.bags import BagReader
from usreg.data.session_events import FrameEvent, JointEvent, TransformEvent, TruthEvent, session_frames
from usreg.data.sessions import read_session, start_pose
from usreg.data.types import Calibration
from usreg.data.volumes import read_labels, read_volume
from usreg.errors import ConfigError, KinematicsError, MissingFileError, WriteError
from usreg.geometry import se3
from usreg.kinematics import load_arm
from usreg.simulation import PhantomConfig, SimulationConfig, simulate_phantom
from usreg.simulation.arms import body_T_probe, check_speed, follow
from usreg.tracking import JointBuffer, Tracker

SMALL = SimulationConfig(phantom=PhantomConfig(size=(60, 48, 44), spacing_mm=3.0, resolution_mm=6.0), joint_hz=50.0)
SECONDS = 3.0


@pytest.fixture(scope="module")
def small_session(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a session of three seconds with 3 mm voxels, seed 5."""
    return simulate_phantom(tmp_path_factory.mktemp("simulated") / "small", seed=5, seconds=SECONDS, config=SMALL)


def digests(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def events(folder: Path, kind: type) -> list:
    return [e for e in session_frames(read_session(folder)) if isinstance(e, kind)]


def truths(folder: Path) -> dict[str, dict[float, torch.Tensor]]:
    found: dict[str, dict[float, torch.Tensor]] = {}
    for e in events(folder, TruthEvent):
        found.setdefault(e.child, {})[e.stamp_s] = e.parent_T_child
    return found


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(small_session: Path, tmp_path: Path) -> None:
    again = simulate_phantom(tmp_path / "small", seed=5, seconds=SECONDS, config=SMALL)
    assert digests(again) == digests(small_session)
    other = simulate_phantom(tmp_path / "other", seed=6, seconds=SECONDS, config=SMALL)
    assert digests(other)["volume.nii.gz"] != digests(again)["volume.nii.gz"]


def test_the_session_has_what_it_names(small_session: Path) -> None:
    session = read_session(small_session)
    volume = read_volume(session.volume_path)
    labels, _ = read_labels(session.labels_path)
    assert volume.grid.size == SMALL.phantom.size and session.config.seed == 5
    assert set(labels.unique().tolist()) <= set(range(9))
    with BagReader(session.bag_path) as bag:
        assert set(bag.topics) == {"/us/image", "/us/geometry", "/joint_states", "/tf_static", "/truth"}
        counts = {t.name: t.count for t in bag.topics.values()}
    assert counts["/us/image"] == counts["/us/geometry"] == counts["/truth"] == int((SECONDS - 0.2) * 15)
    assert counts["/joint_states"] == int(SECONDS * 50) + 1 and counts["/tf_static"] == 1


def test_stamps_are_of_acquisition_and_images_arrive_later(small_session: Path) -> None:
    frames = events(small_session, FrameEvent)
    stamps = [e.stamp_s for e in frames]
    assert all(0.05 < b - a < 0.08 for a, b in zip(stamps, stamps[1:], strict=False))
    session = read_session(small_session)
    with BagReader(session.bag_path) as bag:
        first = next(iter(bag.messages(["/us/image"])))
    assert first[1] * 1e-9 - stamps[0] == pytest.approx(session.config.latency_applied_s, abs=1e-6)


def test_statics_hold_the_arm_and_the_probe(small_session: Path) -> None:
    edges = [(e.parent, e.child) for e in events(small_session, TransformEvent) if e.static]
    assert edges == [("world", "lbr_link_0"), ("lbr_link_ee", "us_probe"), ("us_probe", "us_image")]


def test_joints_lead_to_the_true_poses_within_their_covariance(small_session: Path) -> None:
    arm, truth = load_arm("iiwa7"), truths(small_session)["us_image"]
    buffer = JointBuffer(arm)
    for e in events(small_session, JointEvent):
        buffer.add(e.stamp_s, e.names, e.positions)
    statics = {e.child: e.parent_T_child for e in events(small_session, TransformEvent)}
    squared = []
    for e in events(small_session, FrameEvent):
        tracked = Tracker(Calibration(statics["us_image"], e.frame.geometry.pixel_to_mm), buffer).track(e.frame)
        x = se3.error_at_pivot(tracked.world_T_image, truth[e.stamp_s], tracked.world_T_image[:3, 3])
        assert x[:3].norm() < 1.5
        squared.append(float(x @ torch.linalg.solve(tracked.covariance, x)) / 6)
    assert 0.4 < np.mean(squared) < 1.1  # interpolation between two readings averages part of their noise away


def test_frames_show_the_volume_at_the_true_pose_and_not_beside_it(small_session: Path) -> None:
    volume, truth = read_volume(read_session(small_session).volume_path), truths(small_session)
    e = events(small_session, FrameEvent)[20]
    pose = se3.inverse(truth["ct"][e.stamp_s]) @ truth["us_image"][e.stamp_s]
    aside = pose @ se3.translation(torch.tensor([0.0, 0.0, 8.0], dtype=torch.float64))
    mask, data = e.frame.geometry.mask(), volume.data[0].double()
    scores = []
    for p in (pose, aside):
        index = se3.transform_points(volume.grid.index_T_ct @ p, e.frame.plane.points_mm()[mask]).round().long()
        inside = ((index >= 0) & (index < torch.tensor(volume.grid.size))).all(-1)
        x, y, z = index[inside].unbind(-1)
        scores.append(torch.corrcoef(torch.stack([e.frame.image[mask][inside].double(), data[z, y, x]]))[0, 1].item())
    assert scores[0] > 0.7 and scores[0] > scores[1] + 0.1


def test_the_truth_is_fixed_and_far_from_identity(small_session: Path) -> None:
    poses = torch.stack(list(truths(small_session)["ct"].values()))
    assert (poses - poses[0]).abs().max() == 0
    assert poses[0, :3, 3].norm() > 100 and (poses[0, :3, :3] - torch.eye(3)).abs().max() > 0.3


@pytest.mark.parametrize("seed", [5, 6])
def test_the_start_is_off_the_truth_by_the_stated_draw(seed: int, small_session: Path, tmp_path: Path) -> None:
    folder = small_session if seed == 5 else simulate_phantom(tmp_path / "s", seed=seed, seconds=SECONDS, config=SMALL)
    session = read_session(folder)
    start, covariance = start_pose(session)
    truth = next(iter(truths(folder)["ct"].values()))
    centre = read_volume(session.volume_path).grid.centre_ct[None]
    shift = (se3.transform_points(start, centre) - se3.transform_points(truth, centre)).abs().max()
    turn = se3.log(start @ se3.inverse(truth))[3:].abs().max()
    assert 0.5 < shift <= 10.0 and math.radians(0.2) < turn <= math.radians(5.0)
    expected = [100 / 3] * 3 + [math.radians(5.0) ** 2 / 3] * 3
    assert covariance.diagonal().tolist() == pytest.approx(expected)
    assert (session.config.initial.draw_mm, session.config.initial.draw_deg) == (10.0, 5.0)


def test_an_existing_folder_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "mine.txt").write_text("keep")
    with pytest.raises(WriteError, match="exists already"):
        simulate_phantom(tmp_path / "there", config=SMALL)
    assert (tmp_path / "there" / "mine.txt").read_text() == "keep"


def test_a_stop_half_way_leaves_nothing(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate_phantom(tmp_path / "half", seconds=SECONDS, config=SMALL, progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_progress_counts_every_frame(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    simulate_phantom(tmp_path / "s", seconds=SECONDS, config=SMALL, progress=lambda *x: seen.append(x))
    assert seen == [(i + 1, 42) for i in range(42)]


@pytest.mark.parametrize("values", [{"seed": -1}, {"seconds": 1.0}, {"seconds": math.nan}])
def test_bad_arguments(tmp_path: Path, values: dict) -> None:
    with pytest.raises(ConfigError):
        simulate_phantom(tmp_path / "s", **values)


@pytest.mark.parametrize("values", [{"frame_hz": 0.0}, {"joint_hz": 1.0}, {"latency_s": -1.0}, {"jitter_s": 0.1}])
def test_bad_configuration(values: dict) -> None:
    with pytest.raises(ConfigError):
        SimulationConfig(**values)


def test_the_arm_follows_within_its_limits() -> None:
    arm = load_arm("iiwa7")
    stamps = torch.linspace(0, 12, 121, dtype=torch.float64)
    poses = [SMALL.world_T_body @ body_T_probe(float(t) / 12) for t in stamps]
    q = follow(arm, poses)
    arm.chain.check(q)
    check_speed(arm, stamps, q)
    torch.testing.assert_close(arm.world_T_probe(q), torch.stack(poses), rtol=0, atol=1e-5)
    with pytest.raises(KinematicsError, match="limit"):
        check_speed(arm, stamps / 1000, q)


def test_an_unknown_arm_is_said_as_such_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="no_arm"):
        simulate_phantom(tmp_path / "s", seconds=SECONDS, config=replace(SMALL, arm="no_arm"))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_a_write_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(WriteError, match="cannot write the session"):
        simulate_phantom(tmp_path / "file" / "s", seconds=SECONDS, config=SMALL)


def test_a_patient_out_of_reach_is_refused(tmp_path: Path) -> None:
    far = SimulationConfig(phantom=SMALL.phantom, patient_mm=(1500.0, 0.0, 0.0))
    with pytest.raises(KinematicsError, match="cannot reach"):
        simulate_phantom(tmp_path / "far", seconds=SECONDS, config=far)
    assert list(tmp_path.iterdir()) == []
