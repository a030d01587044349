# SPDX-License-Identifier: Apache-2.0
"""What the fused picture shows, and where."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from usreg.config import from_mapping
from usreg.data.types import TrackedFrame
from usreg.errors import ConfigError, GeometryError, ShapeError
from usreg.fusion import Fuser, OverlayConfig, frame_alone, label_colour, overlay
from usreg.fusion.compose import LEAN, blend, checkerboard, enlarge
from usreg.fusion.drawing import marker_pixel, to_pixels, wrapped
from usreg.fusion.palette import ORANGE, VERMILION, distinct_colours
from usreg.geometry import se3
from usreg.rendering import slice_volume

PLAIN = OverlayConfig(slice_step=1, contours=False, sector=False, ruler=False, text=False)


def test_slice_at_the_identity_is_the_slice_of_the_volume(scene):
    volume = scene.volume()
    tracked = scene.tracked(scene.rectangle(), scene.at_z(20))
    fused = overlay(tracked, volume, se3.identity(), PLAIN)
    inside = (slice(1, -1), slice(1, -1))
    assert fused.mask[inside].all()
    assert torch.equal(fused.slice[inside], volume.data[0, 20][inside])


@pytest.mark.parametrize("step", [2, 3, 5])
def test_coarse_sampling_agrees_with_the_reference_slice(scene, step):
    """The volume is linear in space, so that interpolation between samples is exact up to rounding."""
    geometry = scene.rectangle(38, 57, 0.9)
    world_T_ct = se3.exp(torch.tensor([2.0, -1.0, -6.0, 0.05, 0.1, 0.08], dtype=torch.float64))
    tracked = scene.tracked(geometry, scene.at_z(12))
    volume = scene.volume(torch.float32)
    fused = overlay(tracked, volume, world_T_ct, replace(PLAIN, slice_step=step, window=(0.0, 255.0)))
    ct_T_image = se3.inverse(world_T_ct) @ tracked.world_T_image
    expected, known = slice_volume(volume, ct_T_image, geometry.plane)
    assert (~fused.mask | known[0, 0]).all() and fused.mask.sum() > 0.7 * known.sum()
    error = (fused.slice.double() - expected[0, 0])[fused.mask].abs()
    assert error.max() <= 2.0 and error.mean() < 0.6


def test_enlarge_keeps_the_samples_and_never_touches_unknown_ones():
    small = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
    known = np.ones((3, 4), np.bool_)
    known[1, 2] = False
    image, mask = enlarge(small, known, 4, 9, 13)
    assert np.array_equal(image[::4, ::4], np.where(known, small, 0)) and np.array_equal(mask[::4, ::4], known)
    assert not mask[1:8, 5:12].any() and mask[0].all() and mask[8].all()
    assert image[0, 2] == 10


@pytest.mark.parametrize("step", [2, 3, 5])
def test_enlarge_is_bilinear(rng, step):
    """Against interpolation in floating point, for any size that the samples reach to."""
    small, known = rng.integers(0, 256, (9, 11), dtype=np.uint8), rng.random((9, 11)) < 0.7
    for height, width in ((8 * step + 1, 10 * step + 1), (7 * step + 2, 9 * step + 2)):
        image, mask = enlarge(small, known, step, height, width)
        rows, columns = (np.arange(n) / step for n in (height, width))
        top, left = rows.astype(int), columns.astype(int)
        below, right = np.ceil(rows).astype(int), np.ceil(columns).astype(int)
        v, u = (rows - top)[:, None], columns - left
        expected = sum(
            weight * small[np.ix_(r, c)]
            for r, wr in ((top, 1 - v), (below, v))
            for c, weight in ((left, wr * (1 - u)), (right, wr * u))
        )
        sure = np.logical_and.reduce([known[np.ix_(r, c)] for r in (top, below) for c in (left, right)])
        assert np.array_equal(mask, sure) and not image[~sure].any()
        assert np.abs(image - expected)[sure].max() <= 0.51


def test_blend_against_plain_arithmetic(rng):
    frame, image = (rng.integers(0, 256, (20, 30), dtype=np.uint8) for _ in range(2))
    shown = rng.random((20, 30)) < 0.5
    found = blend(frame, image, shown, 0.4)
    share = 0.4 * np.array(LEAN)
    mixed = (1 - share) * frame[..., None] + share * image[..., None]
    expected = np.where(shown[..., None], mixed, frame[..., None])
    assert np.abs(found.astype(float) - expected).max() <= 0.51


def test_where_frame_and_slice_agree_the_picture_is_the_frame():
    frame = np.arange(256, dtype=np.uint8).reshape(16, 16)
    found = blend(frame, frame, np.ones((16, 16), np.bool_), 0.45)
    assert np.abs(found.astype(int) - frame[..., None]).max() <= 1


def test_checkerboard_shows_frame_and_slice_in_turn():
    frame, image = np.full((40, 60), 10, np.uint8), np.full((40, 60), 200, np.uint8)
    found = checkerboard(frame, image, np.ones((40, 60), np.bool_), 10.0)
    for row in range(4):
        for column in range(6):
            expected = 200 if (row + column) % 2 else 10
            assert found[row * 10 + 5, column * 10 + 5, 0] == expected


def test_the_slice_covers_only_the_sector(scene):
    geometry = scene.linear()
    tracked = scene.tracked(geometry, scene.at_z(10))
    fused = overlay(tracked, scene.volume(), se3.identity(), replace(PLAIN, opacity=1.0))
    changed = (fused.image != 40).any(-1)
    inside = geometry.mask()
    assert changed[30:60, 30:60].all()
    changed[inside] = False
    changed[-20:, :110] = False  # the words
    column, row = map(round, marker_pixel(geometry))
    changed[row - 6 : row + 7, column - 6 : column + 7] = False
    assert not changed.any()


@pytest.mark.parametrize("name", ["fan", "linear", "rectangle"])
def test_marker_dot_stands_at_the_marked_side(scene, name):
    geometry = getattr(scene, name)()
    column, row = marker_pixel(geometry)
    assert column > 0.55 * geometry.plane.width and row < 0.35 * geometry.plane.height
    for fused in (
        overlay(scene.tracked(geometry, value=0), scene.volume(), scene.at_z(500), OverlayConfig()),
        frame_alone(scene.tracked(geometry, value=0).frame, "LOST"),
    ):
        assert fused.image[round(row), round(column)].tolist() == list(ORANGE)


def test_contours_lie_where_the_label_is(scene):
    geometry = scene.rectangle(160, 240, 0.25)
    tracked = scene.tracked(geometry, scene.at_z(20))
    fused = overlay(tracked, scene.volume(), se3.identity(), replace(PLAIN, mode="contours"))
    picture = fused.image.numpy().astype(int)
    for value, check in ((1, _on_the_circle), (5, lambda xy: np.abs(xy[:, 1] - 35.5) < 1.2)):
        near = np.abs(picture - label_colour(value)).sum(-1) < 40
        near[:, :4] = near[:, -4:] = near[-4:] = False
        rows, columns = np.nonzero(near)
        xy = np.column_stack([columns, rows]) * 0.25
        xy = xy[(xy[:, 0] > 15) & (xy[:, 0] < 45)]
        assert len(xy) > 20 and check(xy).all()


def _on_the_circle(xy: np.ndarray) -> np.ndarray:
    return np.abs(np.linalg.norm(xy - [30, 20], axis=1) - 12) < 1.2


def test_colours_of_labels_differ_also_for_colour_blind_eyes():
    """Neighbouring labels differ in luminance or along blue-yellow, which nearly all people see."""
    for value in range(1, 7):
        a, b = (np.array(label_colour(v), float) for v in (value, value + 1))
        luminance, blue_yellow = (a - b) @ [0.3, 0.6, 0.1], (a - b) @ [0.5, 0.5, -1.0]
        assert abs(luminance) > 20 or abs(blue_yellow) > 60
    assert label_colour(8) == label_colour(1)


def test_no_registration_shows_the_frame_alone_with_its_status(scene):
    tracked = scene.tracked(scene.fan(), scene.at_z(10), value=33)
    before = overlay(tracked, scene.volume(), se3.identity())
    fused = Fuser().alone(tracked.frame, "LOST", "the newest accepted estimate is 0.41 s old")
    assert fused.status == "LOST" and not fused.mask.any() and not fused.slice.any() and before.mask.any()
    assert fused.image[0, 100].tolist() == list(VERMILION)
    middle = fused.image[100:150, 60:200]
    assert (middle == 33).all()


def test_a_volume_that_is_elsewhere_leaves_the_frame_and_says_so(scene):
    tracked = scene.tracked(scene.fan(), value=33)
    fused = overlay(tracked, scene.volume(), scene.at_z(900))
    silent = overlay(tracked, scene.volume(), scene.at_z(900), OverlayConfig(text=False))
    assert not fused.mask.any() and (fused.image[80:120, 60:190] == 33).all()
    assert (fused.image != silent.image).any()


def test_zoom_keeps_points_in_their_place(scene):
    tracked = scene.tracked(scene.rectangle(), scene.at_z(20))
    one, three = (overlay(tracked, scene.volume(), se3.identity(), replace(PLAIN, zoom=z)) for z in (1, 3))
    assert three.image.shape == (123, 183, 3) and three.slice.shape == (41, 61)
    torch.testing.assert_close(three.image[30:80:3, 30:120:3].int(), one.image[10:27, 10:40].int(), atol=1, rtol=0)
    assert overlay(tracked, scene.volume(), se3.identity(), replace(PLAIN, zoom=0)).image.shape == (41 * 8, 61 * 8, 3)
    assert [OverlayConfig(zoom=0).zoom_for(w) for w in (256, 369, 480, 752)] == [2, 2, 1, 1]


def test_window_and_modality_of_values(scene):
    volume = scene.volume(torch.int16)
    tracked = scene.tracked(scene.rectangle(), scene.at_z(20))
    wide = overlay(tracked, volume, se3.identity(), replace(PLAIN, window=(0.0, 510.0)))
    assert wide.slice[20, 30] == round((60 + 20 + 10) / 2)
    found = overlay(tracked, replace(volume, modality="CT"), se3.identity(), PLAIN)
    assert found.slice[20, 30] == round((90 + 160) * 255 / 400)
    auto = overlay(tracked, volume, se3.identity(), PLAIN).slice[1:-1, 1:-1]
    assert auto.min() < 40 and auto.max() > 200


@pytest.mark.parametrize("mode", ["alpha", "checkerboard", "contours"])
@pytest.mark.parametrize("name", ["fan", "linear"])
def test_every_mode_draws_every_geometry(scene, mode, name):
    tracked = scene.tracked(getattr(scene, name)(), scene.at_z(5))
    for labels in (True, False):
        fused = overlay(tracked, scene.volume(labels=labels), se3.identity(), OverlayConfig(mode=mode), "age 0.1 s")
        assert fused.image.shape == (*tracked.frame.image.shape, 3) and fused.image.dtype == torch.uint8


def test_the_frame_is_never_written_to(scene):
    tracked = scene.tracked(scene.fan(), scene.at_z(5))
    before = tracked.frame.image.clone()
    overlay(tracked, scene.volume(), se3.identity(), OverlayConfig(mode="contours"))
    frame_alone(tracked.frame, "LOST", "because")
    assert torch.equal(tracked.frame.image, before)


def test_sheared_pixels_are_drawn_in_their_place(scene):
    plane = replace(scene.fan().plane, pixel_to_mm=((0.5, 0.03), (0.0, 0.4)))
    xy = np.array([[10.0, 20.0]])
    column, row = to_pixels(plane, xy)[0]
    assert (0.5 * column + 0.03 * row, 0.4 * row) == pytest.approx((10.0, 20.0))


def test_bad_poses_channels_and_settings_are_refused(scene):
    tracked = scene.tracked(scene.fan())
    with pytest.raises(GeometryError):
        overlay(tracked, scene.volume(), se3.identity() * float("nan"))
    with pytest.raises(ShapeError):
        overlay(tracked, scene.volume(), torch.eye(3).double())
    with pytest.raises(ShapeError, match="channel 3"):
        overlay(tracked, scene.volume(), se3.identity(), OverlayConfig(channel=3))
    for bad in ({"mode": "fade"}, {"opacity": 1.5}, {"slice_step": 0}, {"window": [3, 3]}, {"zoom": -1}, {"tile": 3}):
        with pytest.raises(ConfigError):
            from_mapping(OverlayConfig, bad)


def test_long_reasons_are_wrapped_and_cut():
    lines = wrapped("word " * 100, 30)
    assert len(lines) == 3 and all(len(line) <= 30 for line in lines) and lines[-1].endswith("...")


def test_volume_as_frame_source_is_found_again(scene):
    """A frame cut from the volume and laid under it at the same pose differs nowhere."""
    geometry = scene.rectangle(39, 59, 1.0)
    pose = se3.exp(torch.tensor([1.5, 1.2, 20.0, 0.0, 0.02, 0.01], dtype=torch.float64))
    tracked = scene.tracked(geometry, pose)
    cut = overlay(tracked, scene.volume(), se3.identity(), PLAIN)
    frame = replace(tracked.frame, image=cut.slice)
    again = overlay(TrackedFrame(frame, pose), scene.volume(), se3.identity(), PLAIN)
    assert torch.equal(again.slice, cut.slice)
    assert cv2.norm(again.slice.numpy(), frame.image.numpy()) == 0


def test_vessels_alone_are_outlined_over_the_frame_and_their_colours_differ(scene):
    names = {1: "portal_vein", 5: "Aorta"}
    volume, tracked = scene.volume(), scene.tracked(scene.rectangle(164, 244, 0.25), scene.at_z(20.0))
    config = OverlayConfig(mode="vessels", text=False, sector=False, ruler=False)

    def coloured(label_names: dict[int, str]) -> np.ndarray:
        fused = overlay(tracked, replace(volume, label_names=label_names), se3.identity(), config).image.numpy()
        return fused.astype(int)

    both, ball = coloured(names), coloured(names | {5: "liver"})
    rows, columns = np.nonzero(np.ptp(ball[:136, :200], axis=2) > 60)
    assert np.allclose(np.hypot(columns - 120, rows - 80), 48, atol=7) and len(rows) > 200
    assert (ball[80, 120] == 40).all()  # the frame as it is: nothing of the volume but outlines
    slab = np.ptp(both[136:156, 40:80], axis=2).max(), np.ptp(ball[136:156, 40:80], axis=2).max()
    assert slab[0] > 60 and slab[1] == 0
    palette = distinct_colours([11, 12, 25, 26])
    assert len(set(palette.values())) == 4 and len({label_colour(v) for v in palette}) < 4


def test_a_volume_without_vessels_says_so(scene):
    geometry = scene.rectangle(300, 400, 0.15)
    none, nothing = (
        overlay(scene.tracked(geometry), v, se3.identity(), OverlayConfig(mode="vessels", ruler=False)).image
        for v in (scene.volume(labels=False), scene.volume())
    )
    for picture in (none, nothing):
        assert int(picture[10:30, 20:200].max()) > 200
