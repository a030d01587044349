# SPDX-License-Identifier: Apache-2.0
"""Simulated sessions: repeatable, complete, on the clocks they state, and consistent with their truth."""

from __future__ import annotations

import hashlib
import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from usreg.config import to_mapping
from usreg.data.bags import BagReader
from usreg.data.landmarks import read_landmarks
from usreg.data.session_events import JointEvent, SkippedEvent, TransformEvent, TruthEvent, session_events
from usreg.data.sessions import Session, read_session, start_pose
from usreg.data.volumes import read_labels, read_volume
from usreg.geometry import se3
from usreg.kinematics import load_arm
from usreg.simulation import session as session_module
from usreg.simulation import simulate
from usreg.simulation.body.types import VALUE
from usreg.simulation.recording import FORCE, images
from usreg.simulation.scan import GAP_S
from usreg.tracking import JointBuffer

SEED, SECONDS, CHANGE_S = 5, 4.0, 0.55 * 4.0
TOPICS = {"/us/image", "/us/geometry", "/joint_states", "/tf_static", "/truth/tf", "/truth/force"}
FILES = {"volume.nii.gz", "volume.mask.nii.gz", "labels.nii.gz", "ct.nii.gz", "landmarks.yaml", "session.yaml"}


def digests(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def truths(made: Any) -> dict[str, dict[float, torch.Tensor]]:
    found: dict[str, dict[float, torch.Tensor]] = {}
    for e in made.events(TruthEvent):
        assert e.parent == "world"
        found.setdefault(e.child, {})[e.stamp_s] = e.parent_T_child
    return found


def raw(made: Any, topic: str) -> list[tuple[int, Any]]:
    with BagReader(made.session.bag_path) as bag:
        return [(ns, message) for _, ns, message in bag.messages([topic])]


def begin_s(made: Any) -> float:
    """When the bag's time begins: the volunteer's scan follows the sweep and the motor's return."""
    wait = made.config.sweep_s + made.config.path.settle_s if made.prepared.kind == "volunteer" else 0.0
    return 1.7e9 + wait


def image_statics(made: Any) -> list[TransformEvent]:
    return [e for e in made.events(TransformEvent) if e.static and e.child == "us_image"]


def joint_buffer(made: Any) -> JointBuffer:
    buffer = JointBuffer(load_arm(made.config.arm))
    for e in made.events(JointEvent):
        buffer.add(e.stamp_s, e.names, e.positions)
    return buffer


def at_volume(volume: Any, frame: Any, pose: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels of a frame at ct_T_image and the nearest known voxels."""
    mask = frame.geometry.mask()
    index = se3.transform_points(volume.grid.index_T_ct @ pose, frame.plane.points_mm()[mask]).round().long()
    inside = ((index >= 0) & (index < torch.tensor(volume.grid.size))).all(-1)
    x, y, z = index[inside].unbind(-1)
    known = volume.mask[z, y, x]
    return frame.image[mask][inside][known].double(), volume.data[0, z, y, x][known].double()


def likeness(volume: Any, frame: Any, pose: torch.Tensor, least: float = 0.25) -> float:
    """Correlation; NaN where less than a share of the sector lies in the known part of the volume."""
    pair = torch.stack(at_volume(volume, frame, pose))
    enough = pair.shape[1] > least * frame.geometry.mask().sum()
    return float(torch.corrcoef(pair)[0, 1]) if enough else math.nan


def aside(x: float, y: float, z: float) -> torch.Tensor:
    return se3.translation(torch.tensor([x, y, z], dtype=torch.float64))


@pytest.mark.parametrize("kind", ["phantom", "volunteer"])
def test_the_same_seed_gives_the_same_bytes_on_any_number_of_threads(
    kind: str, workshop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The phantom's body is made anew for it, too."""
    first = workshop(kind)
    if kind == "volunteer":
        monkeypatch.setattr(session_module, "make_body", workshop.body)
    monkeypatch.setattr(session_module, "images", partial(images, workers=1))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        again = simulate(kind, tmp_path / "again", SEED, SECONDS, config=first.config)
    finally:
        torch.set_num_threads(before)
    assert digests(again) == digests(first.folder)


def test_another_seed_gives_another_session_of_the_same_body(workshop: Any, phantom: Any, tmp_path: Path) -> None:
    other = workshop.make("phantom", tmp_path / "other", SEED + 1)
    assert workshop.bodies[-1] == SEED + 1
    mine, others = digests(phantom.folder), digests(other.folder)
    assert set(mine) == set(others)
    assert {n for n in mine if mine[n] == others[n]} <= {"bag/metadata.yaml"}  # counts and times may be equal
    frames = [made.frames[5].image.double().flatten() for made in (phantom, other)]
    assert torch.corrcoef(torch.stack(frames))[0, 1] < 0.95
    starts_off_the_truth(other)


def test_the_session_has_what_it_names(made: Any) -> None:
    config = made.session.config
    whole = FILES | {"bag/bag_0.mcap", "bag/metadata.yaml"}
    sweep = {"sweep/sweep_0.mcap", "sweep/metadata.yaml"} if made.config.keep_sweep else set()
    assert set(digests(made.folder)) == whole | sweep and bool(config.sweep) == bool(sweep)
    labels, names = read_labels(made.session.labels_path)
    assert tuple(labels.shape) == made.volume.grid.size[::-1]
    assert set(labels.unique().tolist()) - {0} == {int(v) for v in config.label_names}
    assert {int(v): n for v, n in config.label_names.items()}[10] == "liver"
    assert (config.seed, config.modality, config.truth, config.arm) == (SEED, "US", True, made.config.arm)
    assert not made.events(SkippedEvent) and made.volume.modality in ("", "US")
    followed = config.options.get("structures")
    assert followed is None if made.prepared.kind == "phantom" else {"liver", "portal_vein"} <= set(followed)


def test_topics_and_counts(made: Any) -> None:
    with BagReader(made.session.bag_path) as bag:
        counts = {t.name: t.count for t in bag.topics.values()}
    assert set(counts) == TOPICS and counts["/tf_static"] == 2
    shots = len(made.prepared.scene.scan.shots)
    assert {counts[t] for t in TOPICS - {"/joint_states", "/tf_static"}} == {shots} and len(made.frames) == shots
    assert abs(counts["/joint_states"] - SECONDS * 100) <= 1


def test_joints_come_on_their_own_clock_and_bracket_every_frame(made: Any) -> None:
    events, frames = made.events(JointEvent), [f.stamp_s for f in made.frames]
    stamps = np.array([e.stamp_s for e in events])
    assert {e.names for e in events} == {load_arm(made.config.arm).joint_names}
    assert len(stamps) / (stamps[-1] - stamps[0]) >= 100.0 and np.diff(stamps).max() < 0.0105
    assert (np.ptp(np.diff(stamps)) > 1e-5) == (made.prepared.kind == "volunteer")  # an encoder arm's clock jitters
    assert stamps[0] < frames[0] and frames[-1] < stamps[-1] and not set(stamps) & set(frames)


def test_stamps_are_of_acquisition_and_images_arrive_later_by_latency_and_jitter(made: Any) -> None:
    timing, stamps = made.config.timing, np.array([f.stamp_s for f in made.frames])
    arrived = np.array([ns for ns, _ in raw(made, "/us/image")]) * 1e-9
    late = arrived - stamps
    low, high = timing.latency_s, timing.latency_s + timing.latency_jitter_s
    assert late.min() >= low - 1e-5 and late.max() <= high + 1e-5 and np.ptp(late) > 0.3 * timing.latency_jitter_s
    assert made.session.config.latency_applied_s == timing.latency_s
    ticks = (stamps - begin_s(made) - 0.1) * timing.frame_hz
    off = (ticks - ticks.round()) / timing.frame_hz
    assert 0.2 * timing.jitter_s < np.abs(off).max() <= timing.jitter_s + 1e-5


def test_dropped_frames_are_really_missing(made: Any) -> None:
    hz, start = made.config.timing.frame_hz, begin_s(made) + 0.1
    ticks = {round((f.stamp_s - start) * hz) for f in made.frames}
    lost = set(range(int((SECONDS - 0.2) * hz))) - ticks
    change = start - 0.1 + CHANGE_S
    dropped = [k for k in lost if not change - GAP_S[0] - 0.01 < start + k / hz < change + GAP_S[1] + 0.01]
    assert len(ticks) == len(made.frames) and 1 <= len(dropped) <= 8


def test_the_depth_changes_once_at_the_stated_time_with_a_gap_in_the_frames(made: Any) -> None:
    change = begin_s(made) + CHANGE_S
    before = [f for f in made.frames if f.stamp_s < change]
    after = [f for f in made.frames if f.stamp_s > change]
    assert {f.geometry.depth_mm for f in before} == {125.0} and {f.geometry.depth_mm for f in after} == {110.0}
    assert before[-1].stamp_s <= change - GAP_S[0] and after[0].stamp_s >= change + GAP_S[1]
    first, second = image_statics(made)
    assert second.stamp_s == pytest.approx(change, abs=2e-6) and first.stamp_s < made.frames[0].stamp_s
    edges = [(e.parent, e.child) for e in made.events(TransformEvent) if e.stamp_s < change]
    arm = load_arm(made.config.arm)
    assert sorted(edges) == sorted(
        [("world", arm.link_names[0]), (arm.link_names[-1], "us_probe"), ("us_probe", "us_image")]
    )


def test_joints_and_statics_lead_to_the_true_poses_before_and_after_the_change(made: Any) -> None:
    """Off by the calibration's error, the same at both depths, and by the noise of the encoders."""
    buffer, truth, (first, second) = joint_buffer(made), truths(made)["us_image"], image_statics(made)
    off: dict[int, list[torch.Tensor]] = {0: [], 1: []}
    stale = []
    for f in made.frames:
        later = f.stamp_s >= second.stamp_s
        world_T_probe, _ = buffer.at(f.stamp_s)
        middle = f.plane.centre_mm[None]
        middle = torch.cat([middle, torch.zeros(1, 3 - middle.shape[1], dtype=middle.dtype)], 1)
        here, there = (
            se3.transform_points(p, middle)[0]
            for p in (world_T_probe @ (second if later else first).parent_T_child, truth[f.stamp_s])
        )
        off[later].append(world_T_probe[:3, :3].T @ (here - there))
        if later:
            stale.append(float((se3.transform_points(world_T_probe @ first.parent_T_child, middle)[0] - there).norm()))
    sizes = torch.stack(off[0] + off[1]).norm(dim=1)
    assert sizes.max() < 2.0 and sizes.min() > 0.01
    means = [torch.stack(off[i]).mean(0) for i in (0, 1)]
    assert (means[0] - means[1]).norm() < 0.5
    assert min(stale) > 3.0  # who goes on with the first static is far off


def test_the_probe_is_off_its_true_pose_by_the_stated_noise_of_the_encoders(phantom: Any) -> None:
    buffer, truth = joint_buffer(phantom), truths(phantom)["us_image"]
    squared = []
    for shot in phantom.prepared.scene.scan.shots:
        stamp_s = shot.stamp_ns * 1e-9
        measured, covariance = buffer.at(stamp_s)
        true = truth[min(truth, key=lambda s: abs(s - stamp_s))] @ se3.inverse(shot.mount.probe_T_image)
        x = se3.error_at_pivot(measured, true, measured[:3, 3])
        squared.append(float(x @ torch.linalg.solve(covariance, x)) / 6)
    assert 0.4 < np.mean(squared) < 1.1  # interpolation between two readings averages part of their noise away


def test_the_phantom_lies_still_far_from_the_worlds_origin(phantom: Any) -> None:
    found = truths(phantom)
    poses = torch.stack(list(found["ct"].values()))
    assert set(found) == {"ct", "us_image"} and (poses - poses[0]).abs().max() == 0
    assert poses[0, :3, 3].norm() > 100 and (poses[0, :3, :3] - torch.eye(3)).abs().max() > 0.3


def test_the_volunteers_liver_breathes_along_the_body_by_the_stated_way(volunteer: Any) -> None:
    found, breathing = truths(volunteer), volunteer.config.breathing
    labels, _ = read_labels(volunteer.session.labels_path)
    grid = volunteer.volume.grid
    liver = se3.transform_points(grid.ct_T_index, (labels == VALUE["liver"]).nonzero()[:, [2, 1, 0]].double()).mean(0)
    rest = volunteer.prepared.scene.scan.world_T_bed
    moves = {}
    for name in ("true_liver", "true_kidney_right", "true_spleen"):
        places = torch.stack([se3.transform_points(p, liver[None])[0] for p in found[name].values()])
        moves[name] = se3.transform_points(se3.inverse(rest), places) - liver
    way = moves["true_liver"]
    down = -way[:, 2]
    assert 0.85 * breathing.si_mm < down.max() < 1.08 * breathing.si_mm and -0.5 < down.min() < 0.1 * breathing.si_mm
    front = float(-way[:, 1].min())
    assert 0.1 * breathing.si_mm < front < 0.4 * breathing.si_mm and way[:, 0].abs().max() < 0.2 * breathing.si_mm
    stamps = list(found["ct"])
    assert all(torch.equal(found["ct"][s], found["true_liver"][s]) for s in stamps)
    assert 0.5 < (moves["true_kidney_right"] - way).norm(dim=1).max() < 8.0
    assert set(found) == {"ct", "us_image"} | {f"true_{n}" for n in volunteer.prepared.scene.scan.organs}


def test_the_probe_presses_with_plausible_newtons(made: Any) -> None:
    wrenches = [m for _, m in raw(made, FORCE)]
    newtons = np.array([m.wrench.force.z for m in wrenches])
    assert all((m.wrench.force.x, m.wrench.force.y, m.header.frame_id) == (0.0, 0.0, "us_probe") for m in wrenches)
    assert newtons.min() >= 0.0 and newtons.max() < 20.0 and 3.0 < newtons.mean() < 8.0 and np.ptp(newtons) > 0.05
    assert [m.header.stamp.nanosec for m in wrenches] == [m.header.stamp.nanosec for _, m in raw(made, "/us/image")]


def test_who_does_not_ask_is_not_told_the_truth(made: Any) -> None:
    given = {type(e) for e in session_events(made.session, truth=False)}
    assert TruthEvent not in given and FORCE not in to_mapping(made.session.config.topics).values()


def test_frames_show_the_volume_at_the_true_pose_and_not_beside_it(made: Any) -> None:
    found = truths(made)
    poses = [se3.inverse(found["ct"][f.stamp_s]) @ found["us_image"][f.stamp_s] for f in made.frames]
    here = np.array([likeness(made.volume, f, p) for f, p in zip(made.frames, poses, strict=True)])
    assert np.isfinite(here).all() and here.min() > 0.4 and np.median(here) > 0.55
    for shift in (
        (8.0, 0.0, 0.0),
        (-8.0, 0.0, 0.0),
        (0.0, 8.0, 0.0),
        (0.0, -8.0, 0.0),
        (0.0, 0.0, 8.0),
        (0.0, 0.0, -8.0),
    ):
        there = [likeness(made.volume, f, p @ aside(*shift)) for f, p in zip(made.frames, poses, strict=True)]
        gain = here - np.array(there)
        assert np.nanmedian(gain) > 0.08, shift


def test_frames_show_the_organs_where_breathing_has_moved_them(volunteer: Any) -> None:
    """At deep inspiration the volume fits where the liver truly is, not where it was at rest."""
    found, rest = truths(volunteer), volunteer.prepared.scene.scan.world_T_bed
    gains = []
    for f in volunteer.frames:
        world_T_ct, plane = found["ct"][f.stamp_s], found["us_image"][f.stamp_s]
        if (world_T_ct - rest)[:3, 3].norm() > 8.0:
            now, still = (likeness(volunteer.volume, f, se3.inverse(p) @ plane) for p in (world_T_ct, rest))
            gains.append(now - still)
    assert len(gains) >= 4 and np.median(gains) > 0.1


def test_the_kept_sweep_is_the_one_that_the_volume_was_made_of(volunteer: Any) -> None:
    class Sweep(Session):
        bag_path = volunteer.session.sweep_path

    events = list(session_events(Sweep(volunteer.folder, volunteer.session.config)))
    frames = [e.frame for e in events if hasattr(e, "frame")]
    truth = {(e.child, e.stamp_s): e.parent_T_child for e in events if isinstance(e, TruthEvent)}
    assert len(frames) == len(volunteer.prepared.swept) >= 8 and frames[-1].stamp_s < volunteer.frames[0].stamp_s
    for f in frames:
        pose = se3.inverse(truth["ct", f.stamp_s]) @ truth["us_image", f.stamp_s]
        here, there = (likeness(volunteer.volume, f, p) for p in (pose, pose @ aside(4.0, 4.0, 0.0)))
        assert here > 0.75 and here - there > 0.08


def starts_off_the_truth(made: Any) -> None:
    start, covariance = start_pose(made.session)
    truth = next(iter(truths(made)["ct"].values()))
    centre = made.volume.grid.centre_ct[None]
    shift = (se3.transform_points(start, centre) - se3.transform_points(truth, centre)).abs().max()
    turn = se3.log(start @ se3.inverse(truth))[3:].abs().max()
    assert 0.5 < shift <= 10.0 + 1e-6 and math.radians(0.2) < turn <= math.radians(5.0) + 1e-9
    expected = [100 / 3] * 3 + [math.radians(5.0) ** 2 / 3] * 3
    assert covariance.diagonal().tolist() == pytest.approx(expected)
    assert (made.session.config.initial.draw_mm, made.session.config.initial.draw_deg) == (10.0, 5.0)


def test_the_start_is_off_the_truth_by_the_stated_draw(made: Any) -> None:
    starts_off_the_truth(made)


def test_landmarks_are_bifurcations_inside_the_known_part_of_the_ultrasound(made: Any) -> None:
    points = read_landmarks(made.session.landmarks_path)
    labels, _ = read_labels(made.session.labels_path)
    index = {n: se3.transform_points(made.volume.grid.index_T_ct, p[None])[0] for n, p in points.items()}
    close = []
    for name, at in index.items():
        x, y, z = (round(v) for v in at.tolist())
        assert made.volume.mask[z, y, x], name
        near = labels[max(0, z - 1) : z + 2, max(0, y - 1) : y + 2, max(0, x - 1) : x + 2]
        assert int(labels[z, y, x]) in (VALUE["liver"], VALUE["portal_vein"], VALUE["hepatic_vein"]), name
        vessel = VALUE["portal_vein"] if "portal" in name else VALUE["hepatic_vein"]
        close.append(bool((near == vessel).any()))
    assert len(points) >= 10 and np.mean(close) > 0.85
    body = made.prepared.body.landmarks
    assert all((body[n] - p).abs().max() < 6e-4 for n, p in points.items()) and len(points) < len(body)


def test_ct_labels_and_ultrasound_agree(made: Any) -> None:
    """Houndsfield units of organs where the labels say so; blood is black in the ultrasound and bright in the CT."""
    ct = read_volume(made.session.volume_paths["ct"])
    labels, _ = read_labels(made.session.labels_path)
    hu, echo = {}, {}
    for name in ("liver", "inferior_vena_cava", "visceral_fat"):
        sel = (labels == VALUE[name]) & made.volume.mask
        points = se3.transform_points(made.volume.grid.ct_T_index, sel.nonzero()[:, [2, 1, 0]].double())
        x, y, z = se3.transform_points(ct.grid.index_T_ct, points).round().long().unbind(-1)
        hu[name], echo[name] = ct.data[0, z, y, x].double(), made.volume.data[0][sel].double()
    assert ct.modality in ("", "CT") and ct.grid.spacing_mm == pytest.approx((3.0, 3.0, 3.0))
    assert 98 < hu["liver"].median() < 114 and (hu["liver"] - 110).abs().median() < 12
    assert hu["inferior_vena_cava"].median() > 125 and hu["visceral_fat"].median() < -55
    assert echo["inferior_vena_cava"].mean() < 0.65 * echo["liver"].mean()


def test_progress_only_grows_towards_a_total_that_stays(made: Any) -> None:
    done, totals = zip(*made.progress, strict=True)
    assert len(set(totals)) == 1 and list(done) == sorted(done) and done[-1] == totals[0]
    assert len(set(done)) > 20 and done[0] < 0.5 * totals[0]


def test_it_is_read_back_from_its_yaml_too(made: Any) -> None:
    assert read_session(made.folder / "session.yaml").config == made.session.config
