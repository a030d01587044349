# SPDX-License-Identifier: Apache-2.0
"""The scanner of the tests: speckle, attenuation, shadows and places as physics has them; its own draws; bad input."""

from __future__ import annotations

import ast
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import usreg.simulation.scanner as scanner_package
from usreg.data.tissues import Tissue, TissueTable
from usreg.data.types import Volume
from usreg.errors import ConfigError, GeometryError, ShapeError
from usreg.geometry import rotation, se3
from usreg.geometry.grid import VoxelGrid
from usreg.geometry.plane import PlaneGrid
from usreg.geometry.sector import SectorGeometry
from usreg.simulation.scanner import Scanner, ScannerConfig
from usreg.simulation.scanner.draws import draw_device, draw_tissues
from usreg.simulation.scanner.tile import CELL_MM, CELLS, Tile
from usreg.simulation.scanner.warp import make_warp

PX = 0.3
QUIET = ScannerConfig(redraw=0.0, contact_loss_db=0.0, noise_db=-140.0, reverberation=0.0, graphics=False)
NAMES = {0: "outside", 1: "plain", 2: "lossy", 3: "bright", 4: "wall", 5: "bone", 6: "water", 7: "gas"}


def tissue(name: str, attenuation: float = 0.0, impedance: float = 1.63, level: float = 1.0) -> Tissue:
    return Tissue(name, attenuation, impedance, 1540.0, 20.0, level, 0.3, "made up")


TABLE = TissueTable(
    (
        tissue("water", level=0.0), tissue("plain"), tissue("lossy", 0.5), tissue("bright", level=2.0),
        tissue("wall", impedance=1.8, level=0.0), tissue("bone", 7.0, 6.6, 1.5), tissue("gas", 12.0, 0.0004, 0.3),
    ),
    {"outside": "water"},
)  # fmt: skip


def fan(kind: str = "convex", near: float = 40.0, depth: float = 70.0, degrees: float = 20.0) -> SectorGeometry:
    a = math.radians(degrees)
    width, top = 2 * (near + depth) * math.sin(a), near * math.cos(a)
    height = near + depth - top
    plane = PlaneGrid(int(height / PX) + 1, int(width / PX) + 1, ((PX, 0.0), (0.0, PX)))
    return SectorGeometry(kind, plane, (width / 2, -top), (near, near + depth), (-a, a), (0, 0, width, height), depth)


def linear(width: float = 36.0, depth: float = 50.0) -> SectorGeometry:
    plane = PlaneGrid(int(depth / PX) + 1, int(width / PX) + 1, ((PX, 0.0), (0.0, PX)))
    return SectorGeometry("linear", plane, (width / 2, 0.0), (0.0, depth), (0.0, 0.0), (0, 0, width, depth), depth)


PROBES = {"linear": linear(), "convex": fan(), "phased": fan("phased", 2.0, 70.0, 35.0)}


def pose(geometry: SectorGeometry, z_mm: float = 0.0) -> torch.Tensor:
    """The middle of the face at ct (0, 0, z), the beam along y."""
    face = geometry.apex_mm[1] + geometry.radius_mm[0]
    return se3.translation(torch.tensor([-geometry.apex_mm[0], -face, z_mm], dtype=torch.float64))


def box(
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0), low: tuple[float, float, float] = (-50.0, -6.0, -14.0),
    high: tuple[float, float, float] = (50.0, 76.0, 14.0), fill: int = 1,
) -> tuple[np.ndarray, list[np.ndarray], VoxelGrid]:  # fmt: skip
    """Labels (D, H, W), their coordinates x, y, z, and their grid; low is the centre of the first voxel."""
    size = [int(round((b - a) / s)) + 1 for a, b, s in zip(low, high, spacing, strict=True)]
    axes = [a + s * np.arange(n) for a, s, n in zip(low, spacing, size, strict=True)]
    z, y, x = np.meshgrid(axes[2], axes[1], axes[0], indexing="ij")
    return np.full(size[::-1], fill, np.uint8), [x, y, z], VoxelGrid(tuple(size), spacing, low)


def volume(labels: np.ndarray, grid: VoxelGrid) -> Volume:
    return Volume(torch.from_numpy(labels)[None], grid, label_names=NAMES)


def uniform(value: int) -> Volume:
    labels, _, grid = box(fill=value)
    return volume(labels, grid)


def noise(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def correlation(a: torch.Tensor, b: torch.Tensor, mask: torch.Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a[mask], b[mask]]).double())[0, 1])


@pytest.mark.parametrize("kind", PROBES)
def test_uniform_tissue_gives_speckle_of_rayleigh(kind) -> None:
    """Four planes a beam's height apart hold well above 2000 resolution cells; level and ratio hold at every depth."""
    scanner = Scanner(uniform(1), TABLE, PROBES[kind], QUIET, 3)
    inside = slice(12, -12)
    envelopes = np.stack([scanner.envelope(pose(scanner.geometry, z))[inside] for z in (-7.0, -2.0, 3.0, 8.0)])
    depth = scanner.lines.depths_mm
    whole = envelopes[:, :, (depth > 15) & (depth < 48)]
    assert whole.mean() / whole.std() == pytest.approx(1.9131, rel=0.05)
    for start in (15, 32):
        part = envelopes[:, :, (depth > start) & (depth < start + 17)]
        assert float((part**2).mean()) == pytest.approx(1.0, abs=0.12)


@pytest.mark.parametrize("seed", [0, 1])
def test_attenuation_falls_by_the_redrawn_value(seed) -> None:
    scanner = Scanner(uniform(2), TABLE, PROBES["convex"], replace(QUIET, redraw=0.3), seed)
    envelopes = np.stack([scanner.envelope(pose(scanner.geometry, z)) for z in (-8.0, -4.0, 0.0, 4.0, 8.0)])
    used = np.abs(scanner.lines.depths_mm - 36) < 32
    slope = np.polyfit(scanner.lines.depths_mm[used] / 10, 20 * np.log10(envelopes.mean((0, 1))[used]), 1)[0]
    truth = -2 * scanner.tissues.attenuation[TABLE.names.index("lossy")] * scanner.config.frequency_mhz
    assert envelopes.shape[1] >= 128 and slope == pytest.approx(truth, rel=0.02)


@pytest.mark.parametrize("value", [5, 7])
def test_bone_and_gas_shadow(value) -> None:
    labels, (x, y, _), grid = box()
    labels[(np.hypot(x, y - 20) < 6)] = value
    scanner = Scanner(volume(labels, grid), TABLE, PROBES["linear"], replace(QUIET, reverberation=0.12), 0)
    envelope = scanner.envelope(pose(scanner.geometry))
    lateral, depth = np.abs(scanner.lines.coordinates - 18.0), scanner.lines.depths_mm
    behind, beside = (envelope[part][:, depth > 32] for part in (lateral < 3, lateral > 12))
    assert 20 * math.log10(beside.mean() / behind.mean()) >= 20.0


def test_a_cyst_is_dark_and_enhances() -> None:
    labels, (x, y, _), grid = box(fill=2)
    labels[np.hypot(x, y - 22) < 8] = 6
    scanner = Scanner(volume(labels, grid), TABLE, PROBES["linear"], QUIET, 0)
    envelope = np.mean([scanner.envelope(pose(scanner.geometry, z)) for z in (-5.0, 0.0, 5.0)], 0)
    lateral, depth = np.abs(scanner.lines.coordinates - 18.0), scanner.lines.depths_mm
    inside = envelope[lateral < 3][:, np.abs(depth - 22) < 4].mean()
    behind, beside = (envelope[part][:, depth > 35].mean() for part in (lateral < 3, lateral > 12))
    expected = 2 * 0.5 * QUIET.frequency_mhz * 1.6  # dB that 16 mm of water do not take
    assert inside < 0.1 * beside and 20 * math.log10(behind / beside) == pytest.approx(expected, abs=1.5)


def test_the_step_along_the_line_does_not_matter() -> None:
    labels, (x, y, _), grid = box(fill=2)
    labels[(y > 18) & (y < 22) & (x > 0)] = 4
    labels[(np.hypot(x + 8, y - 20) < 4)] = 5
    configs = [replace(QUIET, tissue_step_mm=s) for s in (0.2, 0.4)]
    scanners = [Scanner(volume(labels, grid), TABLE, linear(), c, 0) for c in configs]
    fine, coarse = (s.envelope(pose(linear())) for s in scanners)
    columns, late = scanners[0].lines.coordinates - 18.0, scanners[0].lines.depths_mm > 28
    for part in (np.abs(columns + 8) < 2, columns > 4):
        assert fine[part][:, late].mean() == pytest.approx(coarse[part][:, late].mean(), rel=0.05)


@pytest.mark.parametrize("kind", PROBES)
def test_point_scatterers_lie_where_they_are(kind) -> None:
    """One scatterer in the middle of chosen cells; the image shows each within half a pixel of 0.3 mm."""
    labels, (x, y, z), grid = box((0.5, 0.5, 0.5), (-16.0, -6.0, -2.0), (16.0, 62.0, 2.0), 6)
    points = np.array([(a, b) for a in (-8.0, 0.0, 8.0) for b in (16.0, 28.0, 40.0)])
    for a, b in points:
        labels[(np.abs(x - a) < 0.8) & (np.abs(y - b) < 0.8) & (np.abs(z) < 0.8)] = 3
    scanner = Scanner(volume(labels, grid), TABLE, PROBES[kind], QUIET, 0)
    one = (CELLS, CELLS, CELLS, 1)
    ones, zeros = np.ones(one, np.float32), np.zeros(one, np.float32)
    scanner._tile = Tile(np.zeros((*one, 3), np.float32), zeros, ones, zeros, np.full(3, -0.5 * CELL_MM))
    image = scanner.frame(pose(scanner.geometry), 0.0, noise()).numpy().astype(float)
    xy = scanner.geometry.plane.points_mm()[..., :2].numpy() + pose(scanner.geometry)[:2, 3].numpy()
    for point in points:
        away = xy - point
        near = np.abs(away).max(-1) < 1.8
        weight = np.maximum(np.where(near, image - 0.4 * image[near].max(), 0.0), 0.0)
        middle = (away * weight[..., None]).sum((0, 1)) / weight.sum()
        assert np.abs(middle).max() < PX / 2, point


@pytest.mark.parametrize("kind", PROBES)
@pytest.mark.parametrize("depth_mm", [15.0, 40.0])
def test_a_flat_reflector_lies_where_it_is(kind, depth_mm) -> None:
    labels, (_, y, _), grid = box((1.0, 0.5, 1.0), fill=6)
    labels[y >= depth_mm] = 4
    scanner = Scanner(volume(labels, grid), TABLE, PROBES[kind], QUIET, 0)
    image = scanner.frame(pose(scanner.geometry), 0.0, noise()).numpy().astype(float)
    place = pose(scanner.geometry)[:2, 3].numpy()
    column, row = round(-place[0] / PX), (depth_mm - 0.25 - place[1]) / PX  # halfway between the voxels
    rows = np.arange(int(row) - 8, int(row) + 9)
    profile = image[rows, column - 1 : column + 2].mean(1)
    weight = np.maximum(profile - 0.5 * profile.max(), 0)
    assert profile.max() > 60 and abs((weight * rows).sum() / weight.sum() - row) < 0.5


def test_the_volume_may_be_oblique_and_anisotropic() -> None:
    """The same scene in a turned, mirrored grid of other spacing: the same picture to within voxels."""

    def scene(x, y, z):
        return np.where((x + 4) ** 2 + (y - 25) ** 2 + z**2 < 81, 6, np.where(y < -3, 0, 1)).astype(np.uint8)

    _, axes, grid = box((0.5, 0.5, 0.5), (-24.0, -6.0, -8.0), (24.0, 56.0, 8.0))
    turn = rotation.exp(torch.tensor([0.2, -0.3, 0.25], dtype=torch.float64)).numpy() @ np.diag([1.0, -1.0, 1.0])
    spacing, size = (0.4, 0.6, 0.8), (150, 150, 90)
    origin = np.array([0.0, 25.0, 0.0]) - turn @ (np.array(spacing) * (np.array(size) - 1) / 2)
    other = VoxelGrid(size, spacing, tuple(origin), tuple(turn.ravel()))
    k, j, i = np.meshgrid(*(np.arange(n) for n in size[::-1]), indexing="ij")
    points = np.stack([i, j, k], -1) * spacing @ turn.T + origin
    geometry = linear(24.0, 40.0)
    images = [
        Scanner(volume(v, g), TABLE, geometry, QUIET, 0).frame(pose(geometry), 0.0, noise())
        for v, g in ((scene(*axes), grid), (scene(*np.moveaxis(points, -1, 0)), other))
    ]
    assert correlation(*images, geometry.mask()) > 0.97


class Shift:
    """All tissue moved along a vector per second, and stretched along y."""

    def __init__(self, velocity: tuple[float, float, float], stretch: float = 0.0) -> None:
        self.velocity, self.stretch = np.array(velocity), stretch

    def displacement(self, points: np.ndarray, t_s: float) -> np.ndarray:
        return t_s * (self.velocity + self.stretch * points * [0, 1, 0])

    def reference(self, points: np.ndarray, t_s: float) -> np.ndarray:
        return (points - t_s * self.velocity) / (1 + t_s * self.stretch * np.array([0, 1, 0]))


def moving(velocity: tuple[float, float, float], stretch: float = 0.0) -> Scanner:
    labels, (_, y, _), grid = box()
    labels[np.abs(y - 25) < 7] = 3
    return Scanner(volume(labels, grid), TABLE, linear(), QUIET, 5, Shift(velocity, stretch))


def test_speckle_follows_tissue() -> None:
    """Where the plane moves with the tissue the image stays; where the tissue alone moves the image moves with it."""
    scanner, mask = moving((3.0, 3.0, 2.0)), linear().mask().clone()
    there = se3.translation(torch.tensor([3.0, 3, 2]).double()) @ pose(linear())
    rest, along, left = (
        scanner.frame(p, t, noise()) for p, t in ((pose(linear()), 0), (there, 1), (pose(linear()), 1))
    )
    mask[: round(8 / PX)] = False  # gel fills the way that the tissue left free
    assert correlation(rest, along, mask) > 0.99
    assert correlation(rest, left, mask) < 0.7
    deeper = moving((0.0, 3.0, 0.0))
    still, moved = (deeper.frame(pose(deeper.geometry), t, noise()).double() for t in (0.0, 1.0))
    rows = torch.ones(80, still.shape[1], dtype=torch.bool)
    assert correlation(still[60:140], moved[70:150], rows) > 0.95
    assert correlation(still[60:140], moved[60:140], rows) < 0.7


def test_stretched_tissue_is_longer() -> None:
    scanner = moving((0.0, 0.0, 0.0), 0.1)
    for t, edges in ((0.0, (18.5, 31.5)), (1.0, (20.35, 34.65))):
        profiles = [scanner.envelope(pose(scanner.geometry, z), t) for z in (-6.0, 0.0, 6.0)]
        assert bright_part(np.mean(profiles, (0, 1)), scanner.lines.depths_mm) == pytest.approx(edges, abs=0.5)


def bright_part(profile: np.ndarray, depth: np.ndarray) -> list[float]:
    """Where a profile of levels 1 and 2 rises and falls, by the best step in least squares."""
    dark, bright = 0.886, 1.772  # means of Rayleigh's distribution for root mean squares of 1 and 2
    gain = np.concatenate([[0.0], np.cumsum((profile - dark) ** 2 - (profile - bright) ** 2)])
    last = int(np.argmax(gain - np.minimum.accumulate(gain)))
    return [float(depth[np.argmin(gain[:last])]), float(depth[last - 1])]


def test_speckle_decorrelates_out_of_the_plane() -> None:
    scanner = Scanner(uniform(1), TABLE, linear(), QUIET, 0)
    later = scanner.lines.depths_mm > 10
    near, close, away = (scanner.envelope(pose(scanner.geometry, z))[:, later].ravel() for z in (0.0, 0.3, 6.0))
    assert np.corrcoef(near, close)[0, 1] > 0.9 and abs(np.corrcoef(near, away)[0, 1]) < 0.1


def test_indentation_shows_the_skin_at_the_face() -> None:
    """Pressed in by d, tissue at depth z lay at z - d exp(-z / 30 mm)."""
    labels, (_, y, _), grid = box(low=(-30.0, -12.0, -12.0), high=(30.0, 70.0, 12.0))
    labels[(y > 20) & (y < 32)] = 3
    labels[y < 0] = 0
    scanner = Scanner(volume(labels, grid), TABLE, linear(), QUIET, 0)
    poses = [se3.translation(torch.tensor([0.0, 8.0, z]).double()) @ pose(scanner.geometry) for z in (-6, -2, 2, 6)]
    profile = np.mean([scanner.envelope(p, indentation_mm=8.0) for p in poses], (0, 1))
    depth = np.linspace(0, 50, 5001)
    edges = np.interp((20.5, 31.5), 8.0 + depth - 8.0 * np.exp(-depth / 30), depth)  # places in ct
    assert bright_part(profile, scanner.lines.depths_mm) == pytest.approx(edges, abs=0.5)
    assert profile[scanner.lines.depths_mm < 2.0].mean() > 0.5  # contact: the skin lies at the face


def test_a_curved_face_dips_in_less_at_its_ends() -> None:
    """Of 40 mm radius and 20 degrees: its ends lie 2.4 mm higher, and 3.3 mm along their beam behind the skin."""
    labels, (_, y, _), grid = box(low=(-50.0, -12.0, -8.0))
    labels[y < 0] = 0
    scanner = Scanner(volume(labels, grid), TABLE, fan(), replace(QUIET, gel_mm=1.0), 0)
    pressed = se3.translation(torch.tensor([0.0, 5.0, 0.0]).double()) @ pose(scanner.geometry)
    warp = make_warp(scanner.lines, pressed.numpy(), None, 0.0, 5.0, scanner._skin)
    assert warp.press_mm[[0, 16, 32]] == pytest.approx([3.3, 5.0, 3.3], abs=0.5)
    envelope = scanner.envelope(pressed, indentation_mm=5.0)
    assert envelope[:40].mean() > 0.8 * envelope[90:130].mean()


def test_frames_repeat_to_the_bit_and_need_no_order() -> None:
    config = replace(ScannerConfig(), lines=96)
    one, two = (Scanner(uniform(2), TABLE, PROBES["convex"], config, 9) for _ in range(2))
    first, second = ([s.frame(pose(s.geometry), t, noise(4)) for t in ts] for s, ts in ((one, (0, 5)), (two, (5, 0))))
    assert torch.equal(first[0], second[1]) and torch.equal(first[1], second[0])
    assert not torch.equal(first[0], first[1])  # gain and contact drift with time
    assert not torch.equal(first[0], one.frame(pose(one.geometry), 0.0, noise(5)))  # noise


def test_every_seed_is_another_device() -> None:
    tissues = [draw_tissues(TABLE, 0.3, noise(s)) for s in range(60)]
    devices = [draw_device(ScannerConfig(), t, noise(s)) for s, t in enumerate(tissues)]
    ratio = np.array([t.attenuation[[2, 5, 6]] for t in tissues]) / [0.5, 7.0, 12.0]
    assert 0.25 < np.log(ratio).std() < 0.33 and abs(np.log(ratio).mean()) < 0.08
    assert np.ptp([t.log_impedance[1] for t in tissues]) < 1e-9  # that of soft tissue stays: contrasts are redrawn
    assert np.std([t.log_impedance[5] for t in tissues]) > 0.2
    ranges = [d.dynamic_range_db for d in devices]
    assert len(set(ranges)) == 60 and 55 <= min(ranges) < 58 and 67 < max(ranges) <= 70
    one, other = Scanner(uniform(2), TABLE, linear(), QUIET, 0), Scanner(uniform(2), TABLE, linear(), QUIET, 1)
    envelopes = [s.envelope(pose(s.geometry))[:, 200:].ravel() for s in (one, other)]
    assert abs(np.corrcoef(*envelopes)[0, 1]) < 0.3  # other scatterers


def test_another_depth_keeps_the_device() -> None:
    scanner = Scanner(uniform(2), TABLE, fan(depth=60.0), ScannerConfig(), 2)
    deeper = scanner.with_geometry(fan(depth=90.0))
    assert all(getattr(deeper, name) is getattr(scanner, name) for name in ("tissues", "device", "_tile"))
    assert deeper.geometry.depth_mm == 90.0 and scanner.geometry.depth_mm == 60.0
    assert deeper.frame(pose(deeper.geometry), 0.0, noise()).shape == deeper.geometry.mask().shape


def test_lines_without_contact_are_dark() -> None:
    labels, (x, y, _), grid = box(low=(-30.0, -12.0, -8.0), high=(30.0, 60.0, 8.0))
    labels[(y < 0) | (y < 2 * (x - 2))] = 0  # the skin falls away to the right
    scanner = Scanner(volume(labels, grid), TABLE, linear(), replace(QUIET, noise_db=-70.0), 0)
    image = scanner.frame(pose(scanner.geometry), 0.0, noise()).double()
    dark = image[40:, 85:].mean()
    assert image[40:, 10:50].mean() > 8 * dark and image[:3, 85:].mean() > 4 * dark  # the array rings all the same


def test_reverberation_repeats_a_strong_echo() -> None:
    labels, (_, y, _), grid = box()
    labels[y > 15] = 7
    loud, quiet = (
        Scanner(volume(labels, grid), TABLE, linear(), replace(QUIET, reverberation=r), 0) for r in (0.2, 0.0)
    )
    depth = loud.lines.depths_mm
    behind = (depth > 20) & (depth < 40)
    a, b = (s.envelope(pose(s.geometry))[:, behind].mean(0) for s in (loud, quiet))
    assert a.max() > 30 * b.max()
    assert abs(depth[behind][np.argmax(a * (depth[behind] > 27))] - 31.0) < 1.0  # the face sends it once more


def test_graphics_lie_outside_the_sector() -> None:
    scanners = [Scanner(uniform(1), TABLE, fan(), ScannerConfig(graphics=g), 0) for g in (True, False)]
    (a, b), mask = (s.frame(pose(s.geometry), 0.0, noise()) for s in scanners), fan().mask()
    assert torch.equal(a[mask], b[mask]) and int(a[~mask].max()) > 100 and int(b[~mask].max()) == 0


def test_noise_grows_with_depth() -> None:
    labels, _, grid = box(fill=6)
    scanner = Scanner(volume(labels, grid), TABLE, linear(), replace(QUIET, noise_db=-40.0, tgc_error_db=0.0), 0)
    image = scanner.envelope(pose(scanner.geometry), rng=noise(), tgc=True)
    near, far = (image[:, np.abs(scanner.lines.depths_mm - z) < 2.5].mean() for z in (17.5, 47.5))
    believed = 2 * scanner.device.assumed_db_cm_mhz * scanner.config.frequency_mhz * 3.0
    assert 20 * math.log10(far / near) == pytest.approx(believed, abs=0.8)


def test_it_shares_nothing_with_the_renderer() -> None:
    for path in Path(scanner_package.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            module = (node.module or "") if isinstance(node, ast.ImportFrom) else ""
            assert not any("rendering" in n or "ultrasound" in n for n in (module, *names)), path.name


def test_bad_labels() -> None:
    labels, _, grid = box()
    unknown = replace(volume(labels, grid), label_names={1: "plain", 2: "unobtainium"})
    with pytest.raises(ConfigError, match="unobtainium"):
        Scanner(unknown, TABLE, linear(), QUIET, 0)
    labels[0, 0, 0] = 77
    with pytest.raises(ConfigError, match="77"):
        Scanner(volume(labels, grid), TABLE, linear(), QUIET, 0)
    with pytest.raises(ShapeError, match="integers"):
        Scanner(replace(uniform(1), data=uniform(1).data.float()), TABLE, linear(), QUIET, 0)


def test_bad_poses() -> None:
    scanner = Scanner(uniform(1), TABLE, linear(), QUIET, 0)
    far = se3.translation(torch.tensor([0.0, 0.0, 500.0]).double()) @ pose(scanner.geometry)
    with pytest.raises(GeometryError, match="outside the body"):
        scanner.frame(far, 0.0, noise())
    with pytest.raises(GeometryError, match="rigid"):
        scanner.frame(1.1 * pose(scanner.geometry), 0.0, noise())
    with pytest.raises(ShapeError, match="bed_T_image"):
        scanner.frame(pose(scanner.geometry)[None], 0.0, noise())
    with pytest.raises(ConfigError, match="indentation_mm"):
        scanner.frame(pose(scanner.geometry), 0.0, noise(), indentation_mm=-1.0)


@pytest.mark.parametrize("values", [{"frequency_mhz": 0.0}, {"redraw": 1.0}, {"dynamic_range_db": (70.0, 55.0)}])
def test_bad_configuration(values) -> None:
    with pytest.raises(ConfigError):
        ScannerConfig(**values)
