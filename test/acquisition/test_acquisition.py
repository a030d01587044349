# SPDX-License-Identifier: Apache-2.0
"""Pictures to frames: crop, orientation, size, latency; stamps that repeat or run back; the probes that ship."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from usreg.acquisition.agreement import (
    AcquisitionConfig,
    CropConfig,
    ProbeConfig,
    acquire,
    as_grey,
    check_frame,
    crop,
    load_probe,
    to_mf,
)
from usreg.acquisition.live import Acquirer
from usreg.acquisition.stamp_guard import StampGuard
from usreg.config import from_mapping, to_mapping
from usreg.errors import ConfigError, GeometryError, MissingFileError, ShapeError, TimeError, UsregError
from usreg.geometry.plane import PlaneGrid
from usreg.geometry.sector import full_rectangle

GEOMETRY = full_rectangle(PlaneGrid(6, 8, ((0.5, 0.0), (0.0, 0.5))))
PICTURE = torch.arange(48, dtype=torch.uint8).reshape(6, 8)


def test_a_picture_becomes_a_frame():
    frame = acquire(PICTURE, 10.0, GEOMETRY, AcquisitionConfig(latency_s=0.04), 3)
    assert torch.equal(frame.image, PICTURE) and frame.stamp_s == 9.96 and frame.index == 3
    assert torch.equal(acquire(PICTURE.numpy(), 10.0, GEOMETRY, AcquisitionConfig()).image, PICTURE)


@pytest.mark.parametrize(("orientation", "corner"), [("MF", 0), ("UF", 7), ("MN", 40), ("UN", 47)])
def test_orientation_flips_pixels(orientation, corner):
    image = to_mf(PICTURE, orientation)
    assert int(image[0, 0]) == corner and image.is_contiguous()
    assert torch.equal(to_mf(image, orientation), PICTURE)


def test_crop_comes_before_orientation():
    config = AcquisitionConfig(crop=CropConfig(1, 2, 4, 3), orientation="UF")
    geometry = full_rectangle(PlaneGrid(3, 4, ((0.5, 0.0), (0.0, 0.5))))
    frame = acquire(PICTURE, 1.0, geometry, config)
    assert frame.image.tolist() == PICTURE[2:5, 1:5].flip(1).tolist()
    assert torch.equal(crop(PICTURE, CropConfig()), PICTURE)
    with pytest.raises(ShapeError, match=r"reaches to \(9, 3\) but the picture is 8x6"):
        crop(PICTURE, CropConfig(5, 0, 4, 3))
    with pytest.raises(ConfigError, match="none negative"):
        CropConfig(-1, 0, 4, 3)
    with pytest.raises(ConfigError, match="crop"):
        CropConfig(0, 0, 4, 0)


def test_colour_pictures_become_grey():
    picture = np.zeros((6, 8, 3), np.uint8)
    picture[..., 2] = 255  # OpenCV: B, G, R
    assert set(as_grey(picture).unique().tolist()) == {76}


@pytest.mark.parametrize(
    "picture",
    [
        np.zeros((6, 8), np.float32), np.full((6, 8), np.nan), np.zeros((6, 8), np.uint16),
        np.zeros((6, 8, 4), np.uint8),
        np.zeros((0, 8), np.uint8), np.zeros(8, np.uint8), np.zeros((1, 6, 8, 3), np.uint8), "picture", None,
    ],
    ids=["float", "nan", "16 bit", "four channels", "empty", "row", "four axes", "text", "none"],
)  # fmt: skip
def test_pictures_that_are_none(picture):
    with pytest.raises(ShapeError, match="a picture must be"):
        as_grey(picture)


def test_a_size_that_contradicts_the_geometry():
    with pytest.raises(ShapeError, match="the image is 8x5 but its geometry says 8x6: choose the probe file"):
        check_frame(PICTURE[:5], GEOMETRY)


@pytest.mark.parametrize("stamp", [math.nan, math.inf, -0.01])
def test_stamps_that_are_none(stamp):
    with pytest.raises(TimeError, match="must be finite and not negative"):
        acquire(PICTURE, stamp, GEOMETRY, AcquisitionConfig())


@pytest.mark.parametrize("name", ["convex_abdominal", "linear", "phased", "phantom"])
def test_probes_that_ship(name):
    probe = load_probe(name)
    mask = probe.geometry.mask()
    rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
    assert 0.4 < mask.double().mean() <= 1.0 and probe.geometry.probe_id == name
    h, w = mask.shape
    assert rows[-1] - rows[0] > 0.9 * h and columns[-1] - columns[0] > 0.9 * w  # the sector fills the picture
    (r0, r1), (x0, _, x1, y1) = probe.geometry.radius_mm, probe.geometry.clip_mm
    if probe.geometry.kind != "linear":
        assert probe.geometry.depth_mm == pytest.approx(r1 - r0)
        ends = probe.geometry.apex_mm[0] + r1 * np.sin(probe.geometry.angle_rad)
        assert (
            x0 < ends[0] and ends[1] < x1 and probe.geometry.apex_mm[1] + r1 < y1
        )  # nothing of the far arc is cut off
    assert from_mapping(ProbeConfig, to_mapping(probe)) == probe


def test_sizes_of_the_probes():
    assert (load_probe("convex_abdominal").geometry.plane.width, load_probe("phantom").geometry.plane.height) == (
        752,
        156,
    )


def test_a_probe_file_of_ones_own(tmp_path):
    mapping = to_mapping(load_probe("linear"))
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(mapping))
    assert load_probe(path) == load_probe("linear")
    for change, error in (
        ({"depth": 1}, ConfigError),
        ({"depth_mm": -1.0}, GeometryError),
        ({"kind": "round"}, ConfigError),
    ):
        path.write_text(yaml.safe_dump({**mapping, "geometry": {**mapping["geometry"], **change}}))
        with pytest.raises(error):
            load_probe(path)
    with pytest.raises(MissingFileError, match="shipped: \\["):
        load_probe("no_such_probe")
    with pytest.raises(MissingFileError, match="no file"):
        load_probe(tmp_path / "none.yaml")


def test_guard():
    guard = StampGuard(1.0)
    assert guard.check(5.0).accepted
    repeated = guard.check(5.0)
    assert not repeated.accepted and "repeats" in repeated.reason
    back = guard.check(4.5)
    assert not back.accepted and not back.reset and "runs back by 0.5" in back.reason
    assert guard.check(5.1).accepted and guard.dropped == 2
    jump = guard.check(1.0)
    assert jump.accepted and jump.reset and "jumped back by 4.100" in jump.reason
    assert guard.check(1.1).accepted and not guard.check(math.nan).accepted
    guard.reset()
    assert guard.check(0.5).accepted and guard.dropped == 3


@given(st.lists(st.floats(0, 100), max_size=50), st.floats(0, 5))
def test_accepted_stamps_increase_between_resets(stamps, limit):
    guard, last = StampGuard(limit), -1.0
    for stamp in stamps:
        admission = guard.check(stamp)
        if admission.reset:
            assert admission.accepted and stamp < last - limit
        elif admission.accepted:
            assert stamp > last
        else:
            assert last - limit <= stamp <= last and admission.reason
        last = stamp if admission.accepted else last


def test_live_pictures():
    acquirer = Acquirer(GEOMETRY, AcquisitionConfig(latency_s=0.1))
    assert acquirer.add(PICTURE, 1.0).frame.stamp_s == pytest.approx(0.9)
    assert "repeats" in acquirer.add(PICTURE, 1.0).reason
    assert "geometry says 8x6" in acquirer.add(PICTURE[:3], 1.1).reason
    assert "uint8" in acquirer.add(np.full((6, 8), np.nan), 1.1).reason
    assert "finite" in acquirer.add(PICTURE, math.inf).reason
    deeper = full_rectangle(PlaneGrid(6, 8, ((0.7, 0.0), (0.0, 0.7))))
    changed = acquirer.add(PICTURE, 1.2, deeper)
    assert changed.geometry_changed and changed.frame.geometry == deeper and acquirer.geometry_sequence == 1
    again = acquirer.add(PICTURE, 1.3, deeper)
    assert not again.geometry_changed and again.frame.index == 2
    assert acquirer.add(PICTURE, 0.5).frame is None and acquirer.dropped == 5
    acquirer.reset()
    assert acquirer.add(PICTURE, 0.2).frame is not None


def test_a_jump_back_is_a_reset():
    acquirer = Acquirer(GEOMETRY)
    acquirer.add(PICTURE, 100.0)
    arrival = acquirer.add(PICTURE, 1.0)
    assert arrival.reset and arrival.frame is not None and arrival.frame.stamp_s == 1.0


@pytest.mark.parametrize(
    "change",
    [{"latency_s": math.nan}, {"latency_s": 11.0}, {"orientation": "XX"}, {"reset_after_s": -1.0}, {"crop": {"x": -1}}],
)
def test_bad_configuration(change):
    with pytest.raises(UsregError):
        from_mapping(AcquisitionConfig, change)
    with pytest.raises(ConfigError):
        replace(AcquisitionConfig(), latency_s=math.inf)
