# SPDX-License-Identifier: Apache-2.0
"""A moment as a message: what the page mixes from it is the picture that the library's own overlay draws."""

import itertools
import math
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from usreg.data.calibration import read_calibration
from usreg.data.sequences import read_sequence
from usreg.data.session_events import FrameEvent, TruthEvent, session_frames
from usreg.data.sessions import read_session
from usreg.data.tracked import tracked_frames
from usreg.data.types import Frame, TrackedFrame, Volume
from usreg.errors import ConfigError, GeometryError, ShapeError
from usreg.fusion import OverlayConfig, overlay
from usreg.fusion.compose import LEAN, TINT
from usreg.fusion.drawing import draw_contours, draw_marker, draw_notice
from usreg.fusion.labels import Contour
from usreg.geometry import se3
from usreg.geometry.grid import VoxelGrid
from usreg.geometry.plane import PlaneGrid
from usreg.geometry.sector import SectorGeometry
from usreg.reconstruction import ReconstructionConfig, reconstruct
from usreg.replay.build import session_volume
from usreg.smoothing import Breathing
from usreg.web.fields import target_at
from usreg.web.moment import Link, Moment
from usreg.web.painter import NO_REACH, Painter
from usreg.web.wire import unpack

PLAIN = OverlayConfig(contours=False, sector=False, ruler=False, text=False)
OUTLINED = replace(PLAIN, contours=True)
PLANE = PlaneGrid(96, 128, ((1.3, 0.1), (0.0, 1.25)))
FAN = SectorGeometry("convex", PLANE, (82.0, -43.0), (50.0, 165.0), (-0.5, 0.5), (0.0, 0.0, 165.1, 118.75), 115.0)
IN_VOLUME = se3.translation(torch.tensor([0.0, 0.0, 12.0], dtype=torch.float64))
WORLD_T_CT = se3.exp(torch.tensor([2.0, -1.0, -6.0, 0.05, 0.1, 0.08], dtype=torch.float64))

Scene = tuple[Volume, list[tuple[TrackedFrame, torch.Tensor]]]


def made_volume() -> Volume:
    """Grey rises along all axes, black in a corner; two labels."""
    z, y, x = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in (60, 130, 170)), indexing="ij")
    data = (x + 0.5 * y + z - 40).clamp(0, 255).to(torch.uint8)[None]
    labels = ((x - 80) ** 2 + (y - 60) ** 2 + (z - 12) ** 2 < 900).to(torch.int16)
    labels[:, 90:110, 60:110] = 5
    return Volume(data, VoxelGrid((170, 130, 60), (1.0, 1.0, 1.0)), "US", None, labels, {1: "ball", 5: "portal_vein"})


def made_frame(stamp_s: float = 1.0, geometry=FAN) -> Frame:
    rng = np.random.default_rng(5)
    shape = (geometry.plane.height, geometry.plane.width)
    return Frame(torch.from_numpy(rng.integers(0, 256, shape, dtype=np.uint8)), geometry, stamp_s)


def moment(**changes) -> Moment:
    known = {"frame": made_frame(), "world_T_image": IN_VOLUME, "world_T_ct": WORLD_T_CT, "status": "ACCEPTED"}
    return Moment(**{**known, **changes})


def painted(config: OverlayConfig, volume: Volume | None, shown: Moment):
    painter = Painter(config)
    painter.use(volume)
    return unpack(painter.frame(shown, 7))


@pytest.fixture(scope="module")
def made() -> Scene:
    return made_volume(), [(TrackedFrame(made_frame(), IN_VOLUME), WORLD_T_CT)]


@pytest.fixture(scope="module")
def phantom(top) -> Scene:
    """Frames of the shipped phantom where the truth says they lie."""
    session, truth, frames = read_session(top / "bags" / "phantom"), {}, []
    for event in itertools.islice(session_frames(session), 20_000):
        if isinstance(event, TruthEvent):
            truth[event.child] = event.parent_T_child
        if isinstance(event, FrameEvent) and {"us_image", "ct"} <= truth.keys():
            frames.append((TrackedFrame(event.frame, truth["us_image"]), truth["ct"]))
        if len(frames) == 60:
            break
    return session_volume(session), frames[5::18]


@pytest.fixture(scope="module")
def liver(data_dir) -> Scene:
    """The real sweep: volume of the even frames, some of the odd ones."""
    folder = data_dir / "liver_sweep"
    if not folder.is_dir():
        pytest.skip("the folder of real recordings holds no liver_sweep")
    calibration = read_calibration(folder / "liver_sweep_device_set.xml", image_size=(369, 296))
    frames = tracked_frames(read_sequence(folder / "liver_sweep.igs.mha"), calibration)
    volume = reconstruct(frames[0:79:2], ReconstructionConfig(1.5))
    return volume, [(f, se3.identity()) for f in frames[5:79:24] if f is not None]


@pytest.fixture(params=["made", "phantom", "liver"])
def scene(request) -> Scene:
    return request.getfixturevalue(request.param)


def untouched(sector: SectorGeometry) -> np.ndarray:
    """(h, w) where neither the marker dot nor the notice is drawn."""
    shape = (sector.plane.height, sector.plane.width, 3)
    where = np.ones(shape[:2], bool)
    for ground in (0, 255):  # the notice has a dark shadow
        picture = np.full(shape, ground, np.uint8)
        draw_marker(picture, sector)
        draw_notice(picture)
        where &= (picture == ground).all(2)
    return where


def page_blend(image: np.ndarray, piece: np.ndarray, opacity: float) -> np.ndarray:
    """As js/picture.js does it: a slice of 0 is not shown."""
    share = np.minimum(1.0, opacity * np.array(LEAN))
    mixed = np.floor(image[..., None] * (1 - share) + piece[..., None] * share + 0.5)
    return np.where(piece[..., None] > 0, mixed, image[..., None])


@pytest.mark.parametrize("opacity", [0.0, 0.45, 1.0])
def test_blended_by_the_page_it_is_the_librarys_overlay(scene, opacity):
    volume, frames = scene
    assert frames
    for tracked, world_T_ct in frames:
        config = replace(PLAIN, opacity=opacity)
        expected = overlay(tracked, volume, world_T_ct, config)
        shown = moment(frame=tracked.frame, world_T_image=tracked.world_T_image, world_T_ct=world_T_ct)
        header, buffers = painted(config, volume, shown)
        assert header["fused"] and (buffers["slice"] > 0).mean() > 0.2
        assert np.array_equal(buffers["image"], tracked.frame.image.numpy())
        found = page_blend(buffers["image"].astype(float), buffers["slice"].astype(float), opacity)
        off = np.abs(found - expected.image.numpy())[untouched(tracked.frame.geometry)]
        assert off.max() <= 1


def test_the_pages_checkerboard_is_the_librarys_overlay(scene):
    volume, frames = scene
    tracked, world_T_ct = frames[0]
    config = replace(PLAIN, mode="checkerboard")
    expected = overlay(tracked, volume, world_T_ct, config).image.numpy()
    shown = moment(frame=tracked.frame, world_T_image=tracked.world_T_image, world_T_ct=world_T_ct)
    header, buffers = painted(config, volume, shown)
    tile = config.tile_mm / header["pixel_to_mm"][0][0]
    rows, columns = (np.arange(n) // round(tile, 3) for n in buffers["image"].shape)
    fields = ((rows[:, None] + columns) % 2 == 1) & (buffers["slice"] > 0)
    amber = np.floor(buffers["slice"][..., None] * np.array(TINT) + 0.5)
    found = np.where(fields[..., None], amber, buffers["image"][..., None])
    assert np.abs(found - expected)[untouched(tracked.frame.geometry)].max() <= 1


@pytest.mark.parametrize("step", [1, 2, 3, 5])
def test_the_slice_is_shown_in_the_sector_and_in_known_voxels_only(scene, step):
    """Samples that no pixel of the sector needs are left out; that changes nothing in it."""
    (volume, frames), config = scene, replace(PLAIN, slice_step=step)
    for tracked, world_T_ct in frames:
        shown = moment(frame=tracked.frame, world_T_image=tracked.world_T_image, world_T_ct=world_T_ct)
        _, buffers = painted(config, volume, shown)
        fused = overlay(tracked, volume, world_T_ct, config)
        inside = (fused.mask & tracked.frame.geometry.mask()).numpy()
        assert np.array_equal(buffers["slice"] > 0, inside)
        assert np.array_equal(buffers["slice"][inside], np.maximum(fused.slice.numpy(), 1)[inside])


def drawn_contours(header, buffers, picture: np.ndarray, tracked: TrackedFrame, bold: bool) -> np.ndarray:
    """The message's outlines, drawn by the library."""
    ends = np.cumsum([n for c in header["contours"] for n in c["outlines"]])
    outlines = iter(np.split(buffers["contour"], ends[:-1]) if len(ends) else [])
    found = [
        (Contour(c["value"], c["name"], tuple(next(outlines) for _ in c["outlines"])), tuple(c["colour"]))
        for c in header["contours"]
    ]
    draw_contours(picture, found, tracked.frame.geometry.mask().numpy(), names=False, bold=bold)
    return picture


@pytest.mark.parametrize("mode", ["alpha", "contours", "vessels"])
@pytest.mark.parametrize("name", ["made", "phantom"])
def test_contours_are_those_that_the_library_draws(name, mode, request):
    volume, frames = request.getfixturevalue(name)
    seen = set()
    for tracked, world_T_ct in frames:
        config = replace(OUTLINED, mode=mode)
        expected = overlay(tracked, volume, world_T_ct, config).image.numpy()
        plain = {"alpha": "alpha"}.get(mode, "contours")
        without = overlay(tracked, replace(volume, labels=None), world_T_ct, replace(PLAIN, mode=plain)).image.numpy()
        shown = moment(frame=tracked.frame, world_T_image=tracked.world_T_image, world_T_ct=world_T_ct)
        header, buffers = painted(config, volume, shown)
        seen |= {c["name"] for c in header["contours"]}
        found = drawn_contours(header, buffers, without, tracked, bold=mode == "vessels")
        where = untouched(tracked.frame.geometry)
        assert np.array_equal(found[where], expected[where])
    assert "portal_vein" in seen and (len(seen) > 1) == (name == "phantom" or mode != "vessels")


def test_the_numbers_of_a_moment_are_told():
    links = (Link("base", se3.identity()), Link("us_probe", IN_VOLUME))
    told = moment(
        world_T_ct_raw=IN_VOLUME, sigma_mm=(1.0, 2.0, 3.0), sigma_rad=(0.1, 0.2, math.pi), score=0.7, overlap=0.9,
        probability=0.95, system="intensity", age_s=0.04, period_s=0.033, pose_age_s=0.02, compute_s=0.012, tre_mm=1.5,
        breathing=Breathing(1.0, 8.0, 4.0), links=links, paused=True, index=12, reason="",
    )  # fmt: skip
    header, buffers = painted(PLAIN, made_volume(), told)
    expected = {
        "type": "frame", "seq": 7, "stamp_s": 1.0, "age_s": 0.04, "period_s": 0.033, "width": 128, "height": 96,
        "paused": True, "status": "ACCEPTED", "accepted": True, "score": 0.7, "overlap": 0.9, "probability": 0.95,
        "system": "intensity", "sigma_mm": [1.0, 2.0, 3.0], "pose_age_s": 0.02, "compute_s": 0.012, "tre_mm": 1.5,
        "breathing": {"phase": 1.0, "depth_mm": 8.0, "period_s": 4.0}, "index": 12, "kind": "convex", "note": "",
        "pixel_to_mm": [[1.3, 0.1], [0.0, 1.25]], "depth_mm": 115.0,
    }  # fmt: skip
    assert {key: header[key] for key in expected} == expected
    assert header["sigma_deg"] == pytest.approx([math.degrees(0.1), math.degrees(0.2), 180.0])
    assert header["world_T_image"] == IN_VOLUME.flatten().tolist()
    assert header["world_T_ct_raw"] == IN_VOLUME.flatten().tolist()
    assert header["world_T_ct"] == pytest.approx(WORLD_T_CT.flatten().tolist())
    assert [link["name"] for link in header["links"]] == ["base", "us_probe"]
    assert header["ruler"][0] == {"row_px": pytest.approx(7 / 1.25), "label": ""}
    assert [tick["label"] for tick in header["ruler"] if tick["label"]] == ["50", "100"]
    assert header["marker_px"][0] > 64 and header["skin_px"] == pytest.approx([(82.0 - 0.1 * 5.6) / 1.3, 5.6])
    assert buffers["outline"].shape[1] == 2 and buffers["trail"].shape == (1, 3)


def test_what_nobody_knows_is_null():
    header, _ = painted(PLAIN, None, Moment(made_frame()))
    for name in ("period_s", "score", "overlap", "probability", "pose_age_s", "compute_s", "tre_mm"):
        assert header[name] is None
    for name in ("sigma_mm", "sigma_deg", "breathing", "world_T_image", "world_T_ct", "world_T_ct_raw", "letters"):
        assert header[name] is None
    assert header["status"] == "WAITING" and not header["accepted"] and header["links"] == []


@pytest.mark.parametrize(
    "changes",
    [{"world_T_ct": None, "status": "LOST"}, {"world_T_image": None, "status": "NOT_TRACKED"}],
    ids=["lost", "not tracked"],
)
def test_without_a_pose_nothing_of_the_volume_is_shown(changes):
    """No old pose is used: the frame before was fused."""
    painter = Painter(OUTLINED)
    painter.use(made_volume())
    target = torch.tensor([80.0, 60.0, 12.0])
    assert unpack(painter.frame(moment(target_ct=target), 1))[0]["fused"]
    header, buffers = unpack(painter.frame(moment(**changes, target_ct=target), 2))
    assert not header["fused"] and "slice" not in buffers
    assert header["letters"] is None and header["target"] is None and header["contours"] == []
    assert np.array_equal(buffers["image"], made_frame().image.numpy())


def test_a_volume_that_is_not_reached_is_said():
    away = se3.translation(torch.tensor([0.0, 0.0, 500.0], dtype=torch.float64))
    header, buffers = painted(PLAIN, made_volume(), moment(world_T_ct=away))
    assert header["fused"] and header["note"] == NO_REACH and not buffers["slice"].any()


def test_letters_are_those_of_the_pose():
    header, _ = painted(PLAIN, made_volume(), moment(world_T_ct=se3.identity(), world_T_image=se3.identity()))
    assert header["letters"] == {"right": "L", "left": "R", "bottom": "P", "top": "A"}


def test_an_unlabelled_ultrasound_volume_gives_no_letters():
    header, _ = painted(PLAIN, replace(made_volume(), labels=None), moment())
    assert header["fused"] and header["letters"] is None


def test_the_age_is_told_with_the_time_at_which_it_held():
    """However long a moment waits to be painted, the page counts from when its age was taken."""
    shown = moment(age_s=0.04, made_s=123.5)
    header, _ = painted(PLAIN, None, shown)
    assert (header["age_s"], header["made_server_s"]) == (0.04, 123.5)
    assert abs(moment().made_s - time.monotonic()) < 1.0


def test_a_target_on_the_plane_lies_at_its_pixel():
    """From a pixel to `ct` and back, and moved off the plane along its normal."""
    pixel = torch.tensor([70.0, 40.0, 0.0, 1.0], dtype=torch.float64)
    image = (PLANE.image_T_pixel @ pixel)[:3] + torch.tensor([0.0, 0.0, -4.5])
    world = se3.transform_points(IN_VOLUME, image[None])
    target_ct = se3.transform_points(se3.inverse(WORLD_T_CT), world)[0]
    found = target_at(target_ct, WORLD_T_CT, IN_VOLUME, FAN)
    assert found["px"] == pytest.approx([70.0, 40.0]) and found["distance_mm"] == pytest.approx(-4.5)
    assert found["world"] == pytest.approx(world[0].tolist()) and found["inside"]
    header, _ = painted(PLAIN, made_volume(), moment(target_ct=target_ct))
    assert header["target"]["px"] == pytest.approx([70.0, 40.0])


def test_a_target_beside_the_sector_is_not_inside():
    corner = se3.transform_points(se3.inverse(WORLD_T_CT) @ IN_VOLUME, torch.tensor([[1.0, 2.0, 0.0]]).double())[0]
    assert not target_at(corner, WORLD_T_CT, IN_VOLUME, FAN)["inside"]


def test_the_trail_grows_with_the_probe_and_begins_anew_when_time_jumps_back():
    painter = Painter(PLAIN)

    def trail(stamp_s: float, z: float) -> np.ndarray:
        pose = se3.translation(torch.tensor([0.0, 0.0, z], dtype=torch.float64))
        shown = moment(frame=made_frame(stamp_s), world_T_image=pose)
        return unpack(painter.frame(shown, 0))[1]["trail"]

    lengths = [len(trail(stamp, 3.0 * stamp)) for stamp in range(4)]
    assert lengths == [1, 2, 3, 4]
    assert trail(4, 12.0)[-1] == pytest.approx([82.0, 7.0, 12.0])
    assert len(trail(4, 12.1)) == 5  # the same frame again
    assert len(trail(1, 3.0)) == 1
    painter.reset()
    assert len(trail(1, 3.0)) == 1


def test_a_moment_checks_what_it_is_given():
    with pytest.raises(ConfigError, match="TRACKING"):
        moment(status="TRACKING")
    with pytest.raises(GeometryError, match="world_T_ct"):
        moment(world_T_ct=2.0 * se3.identity())
    with pytest.raises(ShapeError, match="target"):
        moment(target_ct=torch.tensor([1.0, math.nan, 0.0]))
