# SPDX-License-Identifier: Apache-2.0
"""The page of pictures: what it holds, what its numbers are, what it refuses."""

import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from usreg.data.calibration import write_calibration
from usreg.data.sequences import Sequence, write_sequence
from usreg.data.types import Calibration, Trajectory, Volume
from usreg.errors import ConfigError, MissingFileError, WriteError
from usreg.evaluation.appearance import depth_profile, grey_histogram, speckle_size
from usreg.fusion.labels import label_slice
from usreg.geometry.plane import PlaneGrid
from usreg.geometry.sector import SectorGeometry, full_rectangle
from usreg.rendering.surface import Surface, SurfaceConfig
from usreg.rendering.ultrasound import UltrasoundConfig
from usreg.simulation.body import Body, BodyConfig, Tube, ct_image
from usreg.simulation.gallery import GalleryConfig, make_gallery
from usreg.simulation.gallery.echo import Frames, marked, real_frames
from usreg.simulation.gallery.make import Gallery
from usreg.simulation.gallery.movement import breaths
from usreg.simulation.gallery.numbers import appearance
from usreg.simulation.gallery.page import table
from usreg.simulation.gallery.palette import COLOURS, coloured
from usreg.simulation.gallery.pictures import Tile, montage
from usreg.simulation.gallery.slices import PLANES, cut_point, grey_slice, through, with_labels
from usreg.simulation.gallery.solid import FINER, Solid, View, paint, tube_surface
from usreg.simulation.scanner import ScannerConfig
from usreg.simulation.skin import find_skin

SMALL = GalleryConfig(
    body=BodyConfig(spacing_mm=4.0, terminals=40),
    surfaces=SurfaceConfig(triangles=600, raw_triangles=3000),
    renderer=UltrasoundConfig(lines=64, samples=384, rays=1),
    scanner=ScannerConfig(lines=64, scatterers_mm3=1.0),
    tilt_deg=0.0,
    seconds=6.0,
    breathing_s=9.0,
    solid_px=120,
    real_frames=2,
)
PICTURES = ("slices.jpg", "organs.jpg", "ultrasound.jpg", "beside_real.jpg", "arms.jpg")


def write_real(folder: Path) -> tuple[Path, Path]:
    """A sequence of three frames of smoothed noise in a small sector, and its calibration."""
    rng, plane = np.random.default_rng(5), PlaneGrid(120, 150, ((1.2, 0.0), (0.0, 1.2)))
    sector = SectorGeometry("convex", plane, (90.0, -35.0), (45.0, 175.0), (-0.5, 0.5), (0.0, 0.0, 178.0, 142.0), 130.0)
    frames = [cv2.GaussianBlur(rng.normal(0, 1, (120, 150)), (0, 0), 1.5) * 90 + 60 for _ in range(3)]
    images = torch.from_numpy(np.stack(frames).clip(0, 255).astype(np.uint8))
    valid, stamps = torch.ones(3, dtype=torch.bool), torch.arange(3, dtype=torch.float64)
    track = Trajectory(stamps, torch.eye(4, dtype=torch.float64).repeat(3, 1, 1), valid, "Probe", "Tracker")
    write_sequence(Sequence(images, valid, stamps, {"ProbeToTracker": track}), folder / "real.igs.mha")
    calibration = Calibration(torch.eye(4, dtype=torch.float64), plane.pixel_to_mm, sector)
    write_calibration(calibration, folder / "real.yaml")
    return folder / "real.igs.mha", folder / "real.yaml"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gallery beside a tiny sequence."""
    work = tmp_path_factory.mktemp("gallery")
    return make_gallery(work / "out", 0, *write_real(work), config=SMALL).parent


def test_page_holds_every_section(folder: Path) -> None:
    page = (folder / "index.html").read_text(encoding="utf-8")
    titles = re.findall(r"<h2>(.*?)</h2>", page)
    assert titles == ["Body", "Ultrasound", "Beside real frames", "Numbers", "Arms and paths", "Breathing"]
    assert page.count("<img ") == len(PICTURES)
    assert page.count("<svg ") == 3 + 4 + 4
    assert "Simulated, not a patient · research use only" in page
    assert not re.search(r'(src|href)="(?!data:|#)', page), "the page needs nothing outside itself"


def test_pictures_are_files_too(folder: Path) -> None:
    assert sorted(p.name for p in folder.glob("*.jpg")) == sorted(PICTURES)
    for name in PICTURES:
        picture = cv2.imread(str(folder / name))
        assert picture is not None and picture.std() > 10, name
    assert len(list(folder.glob("*.svg"))) == 11
    assert all("research use only" in p.read_text(encoding="utf-8") for p in folder.glob("*.svg"))


def test_real_frames_have_their_row_and_the_others_their_geometry(folder: Path) -> None:
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert re.findall(r"<tr><td>([\w ]+)</td><td>(\d+)</td>", page) == [
        ("real", "2"), ("renderer", "3"), ("paper mode", "3"), ("scanner", "3"),
    ]  # fmt: skip
    assert "another person, other planes" in (folder / "numbers_2_depth_profile.svg").read_text(encoding="utf-8")
    picture = cv2.imread(str(folder / "beside_real.jpg"))
    assert picture is not None and 3 * 150 < picture.shape[1] < 3 * 150 + 40  # three columns of the real frames' size


def test_without_real_frames_the_page_says_so(small_trunk: Body, tmp_path: Path) -> None:
    config = replace(SMALL, probe="phantom", depth_mm=120.0)
    ct = ct_image(small_trunk, np.random.default_rng(0))
    sections = Gallery(tmp_path, 0, config).echoes(small_trunk, ct, find_skin(small_trunk.labels), None)
    assert [s.title for s in sections] == ["Ultrasound", "Beside real frames", "Numbers"]
    assert sections[1].text.startswith("No real frames were given") and not sections[1].pictures
    assert [r.name for r in sections[2].table] == ["renderer", "paper mode", "scanner"]
    assert not (tmp_path / "beside_real.jpg").exists()


def test_frames_of_a_real_liver(data_dir: Path) -> None:
    real = data_dir / "liver_sweep"
    frames = real_frames(real / "liver_sweep.igs.mha", real / "liver_sweep_device_set.xml", 6)
    assert len(frames.images) == 6 and frames.geometry.kind == "convex"
    assert frames.geometry.depth_mm == pytest.approx(177.2, abs=0.1)
    found = appearance(frames)
    assert 15 < found.mean < 40  # dark, as the recording is
    assert 1.2 < found.axial_mm < 2.2 and found.lateral_mm > 2 * found.axial_mm


def test_existing_folder_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("kept")
    with pytest.raises(WriteError, match="exists already"):
        make_gallery(tmp_path / "out", config=SMALL)
    assert [p.name for p in tmp_path.rglob("*")] == ["out", "mine.txt"]


def test_real_frames_without_calibration_or_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="calibration"):
        make_gallery(tmp_path / "out", real=tmp_path / "none.mha", config=SMALL)
    with pytest.raises(MissingFileError):
        make_gallery(tmp_path / "out", real=tmp_path / "none.mha", calibration=tmp_path / "none.xml", config=SMALL)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wrong", [{"depth_mm": 5.0}, {"real_frames": 0}, {"seconds": 1.0}, {"solid_px": 10}])
def test_config_is_checked(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        replace(SMALL, **wrong)


@pytest.fixture
def noisy(rng: np.random.Generator) -> Frames:
    """Two frames of smoothed noise, the second one brighter."""
    grey = cv2.GaussianBlur(rng.normal(0.0, 1.0, (180, 200)), (0, 0), 2.0) * 120.0
    images = [torch.from_numpy((grey + level).clip(0, 255).astype(np.uint8)) for level in (70.0, 110.0)]
    return Frames("scanner", tuple(images), full_rectangle(PlaneGrid(180, 200, ((0.4, 0.0), (0.0, 0.4)))))


def test_numbers_are_those_of_the_appearance_functions(noisy: Frames) -> None:
    found, g = appearance(noisy), noisy.geometry
    for image in noisy.images:
        assert grey_histogram(image, g)[1].sum() == pytest.approx(1.0)
    assert found.mean == pytest.approx(np.mean([i.double().mean() for i in noisy.images]), abs=2.0)  # a bin is 4 wide
    profiles = [depth_profile(i, g) for i in noisy.images]
    assert found.at(float(profiles[0][0][7])) == pytest.approx((profiles[0][1][7] + profiles[1][1][7]) / 2)
    sizes = [speckle_size(i, g) for i in noisy.images]
    weights = [s.patches for s in sizes]
    assert found.axial_mm == pytest.approx(np.average([s.axial_mm for s in sizes], weights=weights))
    assert found.lateral_mm == pytest.approx(np.average([s.lateral_mm for s in sizes], weights=weights))
    assert f"<td>{found.axial_mm:.2f}</td><td>{found.lateral_mm:.2f}</td>" in table([found])
    assert f"<td>{found.mean:.1f}</td>" in table([found])


def test_table_says_where_nothing_was_measured(noisy: Frames) -> None:
    black = replace(noisy, images=(torch.zeros_like(noisy.images[0]),))
    found = appearance(black)
    assert found.dark == 1.0 and found.patches == 0
    assert "<td>–</td><td>–</td><td>0</td>" in table([found])


def test_every_structure_has_a_colour_of_its_own() -> None:
    values = np.arange(31, dtype=np.int16)[None]
    colours = {name: tuple(c) for name, c in zip(COLOURS, coloured(values)[0].tolist(), strict=True)}
    sides = {n.replace("_right", "").replace("_left", "") for n in colours}
    assert len(set(colours.values())) == len(sides)
    assert colours["liver"] == (150, 82, 52)


def test_slices_show_the_side_that_their_letters_say(small_trunk: Body) -> None:
    x, y, edges = PLANES["coronal"]
    pose, plane = through(small_trunk, cut_point(small_trunk, "coronal"), x, y)
    seen = label_slice(with_labels(small_trunk), pose, plane)
    liver, lung = np.argwhere(seen == 10), np.argwhere(seen == 8)
    assert edges[0] == "R" and liver[:, 1].mean() < plane.width / 2  # the liver lies on the patient's right
    assert edges[2] == "H" and lung[:, 0].mean() < liver[:, 0].mean()


def test_ct_window(small_trunk: Body) -> None:
    grid = small_trunk.labels.grid
    volume = Volume(torch.full((1, *small_trunk.labels.data.shape[1:]), 60, dtype=torch.int16), grid, "CT")
    pose = torch.eye(4, dtype=torch.float64)
    pose[:3, 3] = grid.centre_ct
    grey = grey_slice(volume, pose, PlaneGrid(4, 4, ((1.0, 0.0), (0.0, 1.0))), (-115.0, 235.0))
    assert (grey == 128).all()
    pose[:3, 3] += 1000.0
    assert (grey_slice(volume, pose, PlaneGrid(4, 4, ((1.0, 0.0), (0.0, 1.0))), (-115.0, 235.0)) == 0).all()


def test_marked_side_is_the_right_one(noisy: Frames) -> None:
    dark = np.zeros((180, 200, 3), np.uint8)
    dot = np.argwhere(marked(dark, noisy.geometry).any(-1))
    assert len(dot) > 4 and dot[:, 1].min() > 150 and dot[:, 0].max() < 40


def test_montage_keeps_pixels() -> None:
    image = np.random.default_rng(0).integers(0, 255, (20, 50, 3), np.uint8)
    picture = montage([[Tile(image), Tile(image, "b")], [Tile(image)]])
    where = [(r, c) for r in range(picture.shape[0] - 19) for c in range(picture.shape[1] - 49)
             if (picture[r, c] == image[0, 0]).all() and (picture[r : r + 20, c : c + 50] == image).all()]  # fmt: skip
    assert len(where) == 3


def test_front_hides_back_and_glass_letsthrough() -> None:
    ball = tube_surface([Tube((0, 0, 0), (0, 0, 1), 10.0, 10.0, "")], sides=24)
    shift = torch.tensor([0.0, -30.0, 0.0])
    front = Surface(ball.vertices_mm + shift, ball.triangles)
    view = View(0.0, 0.0, (0.0, 0.0, 0.0), 60.0, 60.0, 60)
    hidden = paint([Solid(front, (250, 0, 0)), Solid(ball, (0, 0, 250))], view)[30, 30]
    assert hidden[0] > 80 and hidden[2] == 0
    through = paint([Solid(front, (250, 0, 0), 0.3), Solid(ball, (0, 0, 250))], view)[30, 30]
    assert through[0] > 20 and through[2] > 80
    u, v, _ = view.project(np.array([[10.0, 0.0, 20.0]]))[0] / FINER
    assert (u, v) == (40.0, 10.0)  # the patient's left is at the viewer's right, the head is up


def test_breaths_start_at_rest_and_go_down(small_trunk: Body) -> None:
    regular, irregular, held = breaths(small_trunk, 0, replace(SMALL, breathing_s=20.0))
    assert regular.down_mm.max() == pytest.approx(SMALL.breathing.si_mm, abs=0.5)
    assert np.ptp(irregular.down_mm[irregular.t_s < 4]) > 5
    inside = (held.t_s > 7.5) & (held.t_s < 10.5)
    assert np.ptp(held.down_mm[inside]) < 0.5 and np.ptp(irregular.down_mm[inside]) > 5
