# SPDX-License-Identifier: Apache-2.0
"""Batches: pure functions of their number, poses within the limits, images that stay images."""

import math
from dataclasses import replace

import pytest
import torch

from usreg.errors import ConfigError
from usreg.geometry import rotation, se3
from usreg.rendering import slice_volume
from usreg.training.augment import AugmentConfig, augment, beam_coordinates
from usreg.training.pairs import Batch, PairConfig, Pairs

NOTHING = AugmentConfig(gain=0, gamma=0, ramp=0, offset=0, shadows=0, shadow_depth=0, speckle=0, blur=0)


def same(a: Batch, b: Batch) -> bool:
    return a.subject == b.subject and all(
        torch.equal(getattr(a, n), getattr(b, n)) for n in ("ct_T_start", "ct_T_true", "liver", "images")
    )


def test_batch_is_a_function_of_seed_step_and_rank(subject) -> None:
    subjects = [subject(seed) for seed in range(3)]
    one, two = (Pairs(subjects, PairConfig(batch=2), seed=5) for _ in range(2))
    batch = one.batch(7)
    for step in (3, 1):  # what was drawn before does not matter
        two.batch(step)
    assert same(batch, two.batch(7))
    assert same(one.batch(3, rank=1, world=2), two.batch(7))
    assert not same(batch, one.batch(8))
    assert not same(batch, Pairs(subjects, PairConfig(batch=2), seed=6).batch(7))


def test_each_subject_has_its_turn(subject) -> None:
    pairs = Pairs([subject(seed) for seed in range(4)], PairConfig(batch=1))
    for turn in range(3):
        assert sorted(pairs.batch(4 * turn + i).subject for i in range(4)) == [0, 1, 2, 3]


def test_starts_lie_within_the_limits_about_the_centre(subject) -> None:
    config = PairConfig(batch=4, limits=(10.0, 8.0, 5.0, 5.0, 5.0, 10.0))
    pairs = Pairs([subject(0)], config)
    largest = torch.zeros(6, dtype=torch.float64)
    for step in range(40):
        batch = pairs.batch(step)
        centre = se3.translation(batch.geometry.plane.centre_mm)
        off = se3.inverse(centre) @ se3.inverse(batch.ct_T_true) @ batch.ct_T_start @ centre
        found = torch.cat([off[:, :3, 3], torch.rad2deg(rotation.log(off[:, :3, :3]))], 1).abs()
        largest = torch.maximum(largest, found.max(0).values)
    limits = torch.tensor(config.limits, dtype=torch.float64)
    assert bool((largest <= limits + 1e-9).all())
    assert bool((largest > 0.9 * limits).all())


def test_far_starts_are_a_share(subject) -> None:
    pairs = Pairs([subject(0)], PairConfig(batch=4, far_share=0.5, far_limits=(40.0, 40, 40, 30, 30, 30)))
    far = 0
    for step in range(50):
        batch = pairs.batch(step)
        points = batch.geometry.plane.centre_mm[None]
        moved = se3.transform_points(batch.ct_T_start, points) - se3.transform_points(batch.ct_T_true, points)
        far += int((moved[:, 0].norm(dim=-1) > 15.0).sum())
    assert 60 < far < 110  # of 200, some far ones are near by chance


@pytest.mark.parametrize("mm", [1.0, 2.0, 3.0])
def test_reduced_frames_still_show_the_volume_where_they_truly_lie(subject, mm) -> None:
    """The frame's slice of the volume at the true pose is the frame, at any spacing."""
    pairs = Pairs([subject(1)], PairConfig(batch=4, frame_mm=mm, volume_mm=1.5, augment=None))
    batch = pairs.batch(0)
    slices, masks = slice_volume(batch.volume, batch.ct_T_true, batch.geometry.plane)
    inside = masks[:, 0] & batch.geometry.mask()
    rough = (slices[:, 0] / 255.0 - batch.images)[inside].abs().mean()
    assert batch.images[inside].std() > 0.05
    assert rough < 0.03
    assert batch.geometry.plane.spacing_mm == (mm, mm)
    assert all(
        torch.equal(f.frame.image, (255 * i).round().to(torch.uint8))
        for f, i in zip(batch.frames, batch.images, strict=True)
    )
    assert batch.liver.shape == batch.images.shape


def test_reduced_volumes_show_the_same(subject) -> None:
    fine, coarse = (Pairs([subject(2)], PairConfig(volume_mm=mm, augment=None)).batch(0) for mm in (1.5, 3.0))
    assert max(coarse.volume.grid.spacing_mm) == 3.0
    a, b = (slice_volume(x.volume, x.ct_T_true, x.geometry.plane) for x in (fine, coarse))
    both = a[1] & b[1] & fine.geometry.mask()
    rows = torch.stack([a[0][both], b[0][both]])
    assert torch.corrcoef(rows)[0, 1] > 0.9


def test_frames_outside_the_volume_are_left_out(subject) -> None:
    inside, outside = subject(0), subject(0, frames=3, away_mm=60.0)
    mixed = replace(
        inside, frames=inside.frames + outside.frames,
        world_T_cts=torch.cat([inside.world_T_cts, outside.world_T_cts]),
        liver=torch.cat([inside.liver, outside.liver]),
    )  # fmt: skip
    assert len(Pairs([mixed], PairConfig()).subjects[0].frames) == len(inside.frames)
    with pytest.raises(ConfigError, match="no frame of subject 0"):
        Pairs([outside], PairConfig())


def test_no_subjects_is_an_error() -> None:
    with pytest.raises(ConfigError, match="no subjects"):
        Pairs([])


def test_more_frames_than_there_are_come_twice(subject) -> None:
    assert len(Pairs([subject(0, frames=2)], PairConfig(batch=5)).batch(0)) == 5


def test_augmentation_by_nothing_changes_nothing(geometry) -> None:
    images = torch.rand(3, 50, 60, generator=torch.Generator().manual_seed(0)) * geometry.mask()
    assert torch.allclose(augment(images, geometry, NOTHING, torch.Generator().manual_seed(1)), images, atol=2e-4)


@pytest.mark.parametrize("name", ["gain", "gamma", "ramp", "offset", "shadow_depth", "speckle", "blur"])
def test_each_kind_of_augmentation_changes_images_within_their_range(geometry, name) -> None:
    images = torch.rand(6, 50, 60, generator=torch.Generator().manual_seed(0)) * geometry.mask()
    config = replace(NOTHING, shadows=2, **{name: getattr(AugmentConfig(), name)})
    one, two = (augment(images, geometry, config, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(one, two)
    assert (one - images).abs().mean() > 1e-3
    assert 0 <= one.min() and one.max() <= 1
    assert not bool(one[:, ~geometry.mask()].any())


def test_beams_run_from_the_first_to_the_last_angle(geometry) -> None:
    lateral, depth = beam_coordinates(geometry)
    inside = geometry.mask()
    assert lateral[inside].min() == pytest.approx(-1.0, abs=0.1)
    assert lateral[inside].max() == pytest.approx(1.0, abs=0.1)
    middle = lateral[:, 29:31].abs().max()
    assert middle < 0.1
    assert depth[inside].max() == pytest.approx(1.0, abs=0.05)


def test_config_is_checked() -> None:
    with pytest.raises(ConfigError, match="batch"):
        PairConfig(batch=0)
    with pytest.raises(ConfigError, match="limits"):
        PairConfig(limits=(1.0, 1.0, math.nan, 1.0, 1.0, 1.0))
    with pytest.raises(ConfigError, match="speckle"):
        AugmentConfig(speckle=-1.0)
