# SPDX-License-Identifier: Apache-2.0
"""Parts of the global start: tissue map, echoes, kernels, places, climb, table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml

from usreg.data.types import TrackedFrame, Volume
from usreg.errors import ConfigError, ShapeError
from usreg.geometry.grid import VoxelGrid
from usreg.registration.global_start import kernel, table
from usreg.registration.global_start import tissue_map as tm
from usreg.registration.global_start.climb import apart, climb, distinct, moved
from usreg.registration.global_start.config import GlobalStartConfig
from usreg.registration.global_start.echoes import DARK_END, KINDS, echoes
from usreg.registration.global_start.places import all_places, skin_places
from usreg.registration.global_start.score import Scorer

Scan = Callable[..., tuple[TrackedFrame, ...]]
CONFIG = GlobalStartConfig(lines=12, sample_mm=4.0)


def columns(*runs: tuple[int, float]) -> Volume:
    """A CT of layers along y: (voxels of 2 mm, HU), air first."""
    along = np.concatenate([np.full(n, hu) for n, hu in runs])
    data = np.broadcast_to(along[None, :, None], (30, len(along), 30)).astype(np.int16)
    return Volume(torch.from_numpy(data.copy())[None], VoxelGrid((30, len(along), 30), (2.0, 2.0, 2.0)), "CT")


def line(volume: Volume, samples: int = 60) -> np.ndarray:
    """Classes along y through the middle of a map at 2 mm, every 2 mm from the air on."""
    m, out = tm.tissue_map(volume, 2.0), np.empty(samples, np.int64)
    pose = np.eye(4, dtype=np.float32)[:3]
    pose[:, 3] = (15, 2, 15)
    step = np.array([0.0, 1.0, 0.0], np.float32)
    limits = np.array([6, 4, 3])
    kernel.walk(
        m.classes, m.hard, pose, np.zeros(3, np.float32), step, samples, np.float32(0), np.float32(1), limits, out
    )
    return out


def test_layers_and_shadow_of_bone() -> None:
    met = line(columns((6, -1000), (8, -100), (4, 60), (4, 500), (30, 110)))
    assert met[0] == tm.AIR
    assert met[8] == tm.FIRST + np.digitize(-100, tm.HU_EDGES)  # fat is part of the wall
    first = int(np.argmax(met == tm.BONE))
    assert 14 <= first <= 17
    assert (met[first + 1 :] == tm.SHADOW_BONE).all()


def test_gas_behind_tissue_is_not_the_air_before_it() -> None:
    met = line(columns((4, -1000), (16, 60), (10, -900), (20, 60)))
    assert (met == tm.AIR).sum() >= 2
    first = int(np.argmax(met == tm.GAS))
    assert 15 <= first <= 20
    assert (met[first + 1 : 40] == tm.SHADOW_GAS).all()


def test_deep_tissue_differs_from_the_wall_and_cartilage_shades() -> None:
    deep = line(columns((4, -1000), (8, -100), (5, 60), (30, 110)))
    liver = np.digitize(110, tm.HU_EDGES)
    assert (deep[28:36] == tm.FIRST + tm.BINS + liver).all()
    hard = line(columns((4, -1000), (8, -100), (5, 105), (30, 60)))
    assert tm.SHADOW_CARTILAGE in hard[12:20]


def test_unknown_voxels_are_met_by_nobody() -> None:
    volume = columns((4, -1000), (30, 60))
    mask = torch.ones(volume.data.shape[1:], dtype=torch.bool)
    mask[:, 20:] = False
    met = line(replace(volume, mask=mask), 32)
    assert (met[22:] == kernel.NONE).all()
    assert (met[6:16] != kernel.NONE).all()


def test_likelihoods_are_sums_of_the_table_by_the_best_model_of_each_class(body: Volume, scan: Scan) -> None:
    sampled = echoes(scan(3), CONFIG)
    values = np.random.default_rng(0).normal(size=(tm.CLASSES, KINDS, kernel.MODELS)).astype(np.float32)
    scorer = Scorer(tm.tissue_map(body, 3.0), values)
    poses = all_places(scorer.tissue, sampled, CONFIG).poses(np.arange(0, 60_000, 4_001))
    total = sampled.length.sum()
    expected = []
    for pose in poses:
        counts = scorer.meetings(sampled, pose)[0]
        expected.append((counts[..., None] * values).sum(1).max(-1).sum() / total)  # each class by its best model
    np.testing.assert_allclose(scorer.scores(sampled, poses), expected, rtol=1e-4, atol=1e-5)
    assert np.abs(expected).max() > 0.1


def test_relation_is_one_where_the_class_says_all_and_none_for_noise(body: Volume, scan: Scan) -> None:
    sampled = echoes(scan(3), CONFIG)
    tissue = tm.tissue_map(replace(body, modality="MR"), 3.0)
    scorer = Scorer(tissue, np.zeros((tm.CLASSES, KINDS, kernel.MODELS), np.float32))
    pose = np.eye(4)
    pose[:3, 3] = body.grid.centre_ct.numpy() - sampled.centre
    level, met = np.zeros_like(sampled.level), np.empty(sampled.level.shape[1], np.int64)
    known = scorer._known(sampled)
    index = (tissue.index_T_ct @ pose)[:3].astype(np.float32)
    for r, n in enumerate(sampled.length):
        kernel.walk(known[0], known[1], index, sampled.origin[r], sampled.direction[r], n, *known[5:], met)
        level[r, :n] = np.cos(3.0 * met[:n])
    full = replace(sampled, level=level)
    share = scorer.meetings(full, pose)[1]
    assert scorer.scores(full, pose[None])[0] == pytest.approx(share, rel=1e-3)
    noise = np.random.default_rng(1).normal(size=level.shape).astype(np.float32)
    assert abs(scorer.scores(replace(sampled, level=noise), pose[None])[0]) < 0.05


def test_echoes_do_not_depend_on_gain_and_mark_dark_ends(scan: Scan) -> None:
    frames = scan(7)
    darker = tuple(
        replace(f, frame=replace(f.frame, image=(f.frame.image.float() * 0.7).to(torch.uint8))) for f in frames
    )
    a, b = echoes(frames, CONFIG), echoes(darker, CONFIG)
    same = (a.kind == b.kind).mean()
    assert same > 0.85
    assert (a.kind == DARK_END).any(1).sum() >= 4  # behind the ribs
    for row in np.flatnonzero((a.kind == DARK_END).any(1)):
        first = int(np.argmax(a.kind[row] == DARK_END))
        assert (a.kind[row, first : a.length[row]] == DARK_END).all()


def test_part_keeps_where_samples_lie(scan: Scan) -> None:
    full = echoes(scan(5), CONFIG)
    part = full.part(1, 2, 2)
    assert part.frames == 1 and part.lines == 6
    np.testing.assert_array_equal(part.origin, full.origin[2 * 12 + 1 : 3 * 12 : 2])  # of the middle frame
    np.testing.assert_array_equal(part.kind, full.kind[2 * 12 + 1 : 3 * 12 : 2, 1::2])
    assert part.first_mm == pytest.approx(full.first_mm + full.step_mm)
    assert part.step_mm == 2 * full.step_mm
    assert (
        part.first_mm + (part.length - 1) * part.step_mm <= full.first_mm + (full.length[0] - 1) * full.step_mm
    ).all()


def test_frames_of_two_geometries(scan: Scan) -> None:
    a, b = scan(2)
    other = replace(b.frame, geometry=replace(b.frame.geometry, probe_id="other"))
    with pytest.raises(ShapeError, match="one image geometry"):
        echoes((a, replace(b, frame=other)), CONFIG)


def test_places_on_a_ball_look_at_its_middle() -> None:
    index = np.stack(np.meshgrid(*[np.arange(48)] * 3, indexing="ij")) - 23.5
    hu = np.where(np.sqrt((index**2).sum(0)) < 18, 50, -1000).astype(np.int16)
    volume = Volume(torch.from_numpy(hu)[None], VoxelGrid((48,) * 3, (3.0,) * 3), "CT")
    places = skin_places(tm.tissue_map(volume, 3.0), CONFIG)
    towards = volume.grid.centre_ct.numpy() - places[:, :3, 3]
    distance = np.linalg.norm(towards, axis=1)
    assert len(places) > 100
    assert np.abs(distance - (54 - CONFIG.press_mm)).max() < 5.0
    assert ((towards / distance[:, None] * places[:, :3, 1]).sum(1) > 0.97).all()
    np.testing.assert_allclose(np.linalg.det(places[:, :3, :3]), 1.0)


def test_box_covers_all_orientations_and_blocks_all_poses(body: Volume, scan: Scan) -> None:
    sampled = echoes(scan(1), CONFIG)
    places = all_places(tm.tissue_map(body, 3.0), sampled, replace(CONFIG, skin="no", box_mm=30.0, box_deg=30.0))
    rng = np.random.default_rng(0)
    start = np.tile(np.eye(4), (200, 1, 1))
    wanted = moved(start, np.concatenate([np.zeros((200, 3)), rng.normal(size=(200, 3)) * 3], 1), np.zeros(3))
    nearest = [apart(w, places.turns, np.zeros(3))[1].min() for w in wanted]
    assert max(nearest) < 35.0
    assert np.mean(nearest) < 20.0
    np.testing.assert_allclose((places.turns @ np.append(sampled.centre, 1.0))[:, :3], 0.0, atol=1e-9)
    numbers = np.concatenate([n for n, _ in places.blocks()])
    np.testing.assert_array_equal(np.sort(numbers), np.arange(len(places)))


def test_climb_reaches_the_top_and_never_gets_worse() -> None:
    centre, top = np.array([10.0, 20.0, 0.0]), np.eye(4)

    def score(poses: np.ndarray) -> np.ndarray:
        far, angle = apart(top, poses, centre)
        return -(far**2) - angle**2

    steps = np.random.default_rng(2).uniform(-1, 1, (20, 6)) * [10, 10, 10, 0.2, 0.2, 0.2]
    starts = moved(np.tile(top, (20, 1, 1)), steps, centre)
    poses, found = climb(score, starts, centre, 8.0, 8.0, 30)
    assert (found >= score(starts)).all()
    np.testing.assert_allclose(found, score(poses))
    far, angle = apart(top, poses, centre)
    assert far.max() < 1.0 and angle.max() < 1.0


def test_distinct_keeps_the_best_of_each() -> None:
    poses = np.tile(np.eye(4), (4, 1, 1))
    poses[:, 0, 3] = [0.0, 3.0, 40.0, 41.0]
    assert distinct(poses, np.array([1.0, 2.0, 4.0, 3.0]), np.zeros(3), 3, 10.0, 10.0) == [2, 1]


def test_table_learns_what_it_was_shown_and_is_written_as_it_is_read() -> None:
    counts = np.ones((3, tm.CLASSES, KINDS))
    counts[:, tm.SHADOW_BONE, DARK_END] = 5000
    counts[0, tm.BONE, 7] = 3000
    counts[1, tm.BONE, 9] = 3000
    learnt = table.learn(counts)
    assert learnt.shape == (tm.CLASSES, KINDS, kernel.MODELS)
    np.testing.assert_allclose(np.exp(learnt).sum(1), 1.0, rtol=1e-4)
    assert (learnt[tm.SHADOW_BONE, DARK_END] > np.log(0.9)).all()
    bone = np.exp(learnt[tm.BONE])
    assert 0.3 < bone[7, 0] < 0.6 and 0.3 < bone[9, 0] < 0.6  # all bodies together
    assert bone[7].max() > 0.9 and bone[9].max() > 0.9  # each body has a model of its own
    content = yaml.safe_load(table.as_yaml(learnt))
    read = [[content[f"model {k}"][n] for n in table.class_names()] for k in range(kernel.MODELS)]
    np.testing.assert_allclose(np.moveaxis(np.array(read), 0, -1), learnt, atol=0.006)


def test_ratios_are_against_what_these_frames_show() -> None:
    kind = np.full((4, 10), 7, np.uint8)
    kind[:2] = 9
    log_p = np.log(np.full((tm.CLASSES, KINDS, kernel.MODELS), 1 / KINDS, np.float32))
    ratio = table.ratios(log_p, kind, np.array([10, 10, 5, 5]), 0.5)
    seen = np.ones(KINDS)
    seen[[7, 9]] += [10, 20]
    expected = np.log(1 / KINDS) - np.log(seen / seen.sum())
    np.testing.assert_allclose(ratio[tm.BONE, :-1, 0], expected[:-1], rtol=1e-5)
    np.testing.assert_allclose(ratio[tm.SHADOW_BONE, :-1, 3], 0.5 * expected[:-1], rtol=1e-5)
    assert ratio[tm.BONE, DARK_END, 0] == pytest.approx(0.5 * expected[DARK_END])


def test_shipped_table_knows_shadows() -> None:
    shipped = table.shipped()
    assert shipped.shape == (tm.CLASSES, KINDS, kernel.MODELS)
    np.testing.assert_allclose(np.exp(shipped.astype(np.float64)).sum(1), 1.0, atol=0.05)
    behind, liver = shipped[tm.SHADOW_BONE, DARK_END], shipped[tm.FIRST + tm.BINS + 8, DARK_END]
    assert behind[0] > liver[0] + 2.0 and (behind > liver).all()


@pytest.mark.parametrize("wrong", [{"keep": (10, 20, 5, 5)}, {"skin": "maybe"}, {"lines": 0}, {"hypotheses": 0}])
def test_configuration_says_what_is_wrong(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        replace(GlobalStartConfig(), **wrong)  # type: ignore[arg-type]
