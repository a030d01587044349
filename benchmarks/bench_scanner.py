# SPDX-License-Identifier: Apache-2.0
"""The scanner of the tests against physics: speckle, attenuation, places, shadows, repeatability; time a frame."""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from usreg.acquisition.agreement import load_probe
from usreg.data.tissues import Tissue, TissueTable, load_tissues
from usreg.data.types import Volume
from usreg.geometry import se3
from usreg.geometry.grid import VoxelGrid
from usreg.geometry.plane import PlaneGrid
from usreg.geometry.sector import SectorGeometry
from usreg.simulation.body import BodyConfig, make_body
from usreg.simulation.scanner import Scanner, ScannerConfig
from usreg.simulation.scanner.beam import lateral_mm
from usreg.simulation.scanner.tile import CELL_MM, CELLS, Tile

Box = tuple[np.ndarray, tuple[np.ndarray, ...], VoxelGrid]
ROOT = Path(__file__).resolve().parents[1]
PX = 0.3
QUIET = ScannerConfig(redraw=0.0, contact_loss_db=0.0, noise_db=-140.0, reverberation=0.0, graphics=False)
NAMES = {0: "outside", 1: "plain", 2: "lossy", 3: "bright", 4: "wall", 5: "bone", 6: "water", 7: "gas"}
# attenuation, impedance, level
VALUES = {
    "water": (0.0, 1.63, 0.0), "plain": (0.0, 1.63, 1.0), "lossy": (0.5, 1.63, 1.0), "bright": (0.0, 1.63, 2.0),
    "wall": (0.0, 1.8, 0.0), "bone": (7.0, 6.6, 1.5), "gas": (12.0, 0.0004, 0.3),
}  # fmt: skip
TABLE = TissueTable(
    tuple(Tissue(name, a, z, 1540.0, 20.0, level, 0.3, "made up") for name, (a, z, level) in VALUES.items()),
    {"outside": "water"},
)


@dataclass(frozen=True)
class Row:
    """A check: what, the figure, what to reach, and whether it was reached."""

    check: str
    measured: float
    reach: str
    reached: bool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, default=ROOT / "build" / "bench" / "scanner.json")
    options = parser.parse_args()
    rows = [*speckle(), *attenuation(), *places(), *shadows(), *steps(), repeat(), *times()]
    for row in rows:
        print(f"{row.check:58}{row.measured:10.3f}   {row.reach:28}{'reached' if row.reached else 'MISSED'}")
    options.json.parent.mkdir(parents=True, exist_ok=True)
    content: dict[str, Any] = {"scanner": [{**vars(r), "reached": bool(r.reached)} for r in rows]}
    options.json.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    print(f"written: {options.json}")


def geometry(kind: str, near: float = 40.0, depth: float = 70.0, degrees: float = 22.0) -> SectorGeometry:
    """A sector with pixels of 0.3 mm."""
    if kind == "linear":
        width, height = 38.0, depth
        plane = PlaneGrid(int(height / PX) + 1, int(width / PX) + 1, ((PX, 0.0), (0.0, PX)))
        return SectorGeometry(kind, plane, (width / 2, 0.0), (0.0, depth), (0.0, 0.0), (0, 0, width, height), depth)
    if kind == "phased":
        near, degrees = 2.0, 35.0
    a = math.radians(degrees)
    width, top = 2 * (near + depth) * math.sin(a), near * math.cos(a)
    height = near + depth - top
    plane = PlaneGrid(int(height / PX) + 1, int(width / PX) + 1, ((PX, 0.0), (0.0, PX)))
    return SectorGeometry(kind, plane, (width / 2, -top), (near, near + depth), (-a, a), (0, 0, width, height), depth)


def pose(g: SectorGeometry, z_mm: float = 0.0) -> torch.Tensor:
    """The middle of the face at ct (0, 0, z), the beam along y."""
    face = g.apex_mm[1] + g.radius_mm[0]
    return se3.translation(torch.tensor([-g.apex_mm[0], -face, z_mm], dtype=torch.float64))


def box(spacing: float, half_x: float, half_z: float, fill: int) -> Box:
    """Labels (D, H, W), x, y, z of their voxels, and their grid."""
    low = (-half_x, -8.0, -half_z)
    size = (round(2 * half_x / spacing) + 1, round(92 / spacing) + 1, round(2 * half_z / spacing) + 1)
    axes = [a + spacing * np.arange(n) for a, n in zip(low, size, strict=True)]
    z, y, x = np.meshgrid(axes[2], axes[1], axes[0], indexing="ij")
    return np.full(size[::-1], fill, np.uint8), (x, y, z), VoxelGrid(size, (spacing,) * 3, low)


def volume(labels: np.ndarray, grid: VoxelGrid) -> Volume:
    return Volume(torch.from_numpy(labels)[None], grid, label_names=NAMES)


def noise() -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(0))


def speckle() -> Iterator[Row]:
    """Ratio of mean and standard deviation; resolution cells from the beam's own widths, sqrt(2 pi) sigma each."""
    labels, _, grid = box(1.0, 60.0, 20.0, 1)
    for kind in ("linear", "convex", "phased"):
        scanner = Scanner(volume(labels, grid), TABLE, geometry(kind), QUIET, 3)
        depth = scanner.lines.depths_mm
        used = (depth > 10) & (depth < 66)
        planes = (-12.0, -6.0, 0.0, 6.0, 12.0)
        e = np.stack([scanner.envelope(pose(scanner.geometry, z))[12:-12][:, used] for z in planes])
        width = scanner.lines.pitch_mm(depth[used]) * e.shape[1]
        cell = 2 * math.pi * scanner._beam.pulse_mm[used] * lateral_mm(QUIET, depth[used])
        cells = len(planes) * float((width * scanner.lines.sample_mm / cell).sum())
        ratio = float(e.mean() / e.std())
        yield Row(f"speckle, {kind}: mean/sd", ratio, "1.91 within 5 %", abs(ratio / 1.9131 - 1) < 0.05)
        yield Row(f"speckle, {kind}: independent cells", cells, ">= 2000", cells >= 2000)


def attenuation() -> Iterator[Row]:
    """Slope of the mean envelope of 224 lines in 5 planes, against the redrawn value."""
    labels, _, grid = box(1.0, 60.0, 20.0, 2)
    for seed in range(4):
        scanner = Scanner(volume(labels, grid), TABLE, geometry("convex"), replace(QUIET, redraw=0.3), seed)
        e = np.stack([scanner.envelope(pose(scanner.geometry, z)) for z in (-12.0, -6.0, 0.0, 6.0, 12.0)])
        used = np.abs(scanner.lines.depths_mm - 36) < 32
        level = 20 * np.log10(e.mean((0, 1))[used])
        slope = float(np.polyfit(scanner.lines.depths_mm[used] / 10, level, 1)[0])
        truth = -2 * float(scanner.tissues.attenuation[TABLE.names.index("lossy")]) * QUIET.frequency_mhz
        off = 100 * (slope / truth - 1)
        yield Row(f"attenuation, seed {seed}: error of {truth:.2f} dB/cm, %", off, "within 2 %", abs(off) < 2)


def places() -> Iterator[Row]:
    """Worst error of nine point scatterers and of a plane at three depths, in pixels of 0.3 mm."""
    for kind in ("linear", "convex", "phased"):
        worst = max(_point_errors(kind))
        yield Row(f"point scatterers, {kind}: worst error, pixels", worst, "<= 0.5", worst <= 0.5)
        worst = max(_plane_error(kind, depth) for depth in (15.0, 35.0, 55.0))
        yield Row(f"flat reflector, {kind}: worst error, pixels", worst, "<= 0.5", worst <= 0.5)


def _point_errors(kind: str) -> Iterator[float]:
    labels, (x, y, z), grid = box(0.5, 16.0, 2.0, 6)
    points = [(a, b) for a in (-8.0, 0.0, 8.0) for b in (20.0, 36.0, 52.0)]
    for a, b in points:
        labels[(np.abs(x - a) < 0.8) & (np.abs(y - b) < 0.8) & (np.abs(z) < 0.8)] = 3
    scanner = Scanner(volume(labels, grid), TABLE, geometry(kind), QUIET, 0)
    shape = (CELLS, CELLS, CELLS, 1)
    ones, zeros = np.ones(shape, np.float32), np.zeros(shape, np.float32)
    scanner._tile = Tile(np.zeros((*shape, 3), np.float32), zeros, ones, zeros, np.full(3, -0.5 * CELL_MM))
    image = scanner.frame(pose(scanner.geometry), 0.0, noise()).numpy().astype(float)
    xy = scanner.geometry.plane.points_mm()[..., :2].numpy() + pose(scanner.geometry)[:2, 3].numpy()
    for point in points:
        away = xy - np.array(point)
        near = np.abs(away).max(-1) < 1.8
        weight = np.maximum(np.where(near, image - 0.4 * image[near].max(), 0.0), 0.0)
        yield float(np.abs((away * weight[..., None]).sum((0, 1)) / weight.sum()).max()) / PX


def _plane_error(kind: str, depth_mm: float) -> float:
    labels, (_, y, _), grid = box(0.5, 30.0, 3.0, 6)
    labels[y >= depth_mm] = 4
    scanner = Scanner(volume(labels, grid), TABLE, geometry(kind), QUIET, 0)
    image = scanner.frame(pose(scanner.geometry), 0.0, noise()).numpy().astype(float)
    place = pose(scanner.geometry)[:2, 3].numpy()
    column, row = round(-place[0] / PX), (depth_mm - 0.25 - place[1]) / PX  # halfway between the voxels
    rows = np.arange(int(row) - 8, int(row) + 9)
    profile = image[rows, column - 1 : column + 2].mean(1)
    weight = np.maximum(profile - 0.5 * profile.max(), 0)
    return abs(float((weight * rows).sum() / weight.sum()) - row)


def shadows() -> Iterator[Row]:
    """Level behind a rib of 12 mm and behind gas, below that beside it, with reverberation."""
    for name, value in (("rib", 5), ("gas", 7)):
        labels, (x, y, _), grid = box(1.0, 40.0, 14.0, 2)
        labels[np.hypot(x, y - 20) < 6] = value
        scanner = Scanner(volume(labels, grid), TABLE, geometry("linear"), replace(QUIET, reverberation=0.12), 0)
        e = scanner.envelope(pose(scanner.geometry))
        lateral, depth = np.abs(scanner.lines.coordinates - scanner.geometry.apex_mm[0]), scanner.lines.depths_mm
        behind, beside = (e[part][:, (depth > 32) & (depth < 66)].mean() for part in (lateral < 3, lateral > 12))
        fall = 20 * math.log10(beside / behind)
        yield Row(f"shadow behind a {name}, dB", fall, ">= 20", fall >= 20)


def steps() -> Iterator[Row]:
    """Change of the mean echo behind a wall and a rib when the step along the line is halved."""
    labels, (x, y, _), grid = box(1.0, 40.0, 14.0, 2)
    labels[(y > 18) & (y < 22) & (x > 0)] = 4
    labels[np.hypot(x + 8, y - 20) < 4] = 5
    scanners = [
        Scanner(volume(labels, grid), TABLE, geometry("linear"), replace(QUIET, tissue_step_mm=s), 0)
        for s in (QUIET.tissue_step_mm, QUIET.tissue_step_mm / 2)
    ]
    coarse, fine = (s.envelope(pose(s.geometry)) for s in scanners)
    lateral = scanners[0].lines.coordinates - scanners[0].geometry.apex_mm[0]
    late = scanners[0].lines.depths_mm > 28
    for name, part in (("wall", lateral > 4), ("rib", np.abs(lateral + 8) < 2)):
        change = 100 * abs(float(coarse[part][:, late].mean() / fine[part][:, late].mean()) - 1)
        yield Row(f"half the step, behind a {name}: change, %", change, "<= 5", change <= 5)


def repeat() -> Row:
    """Two scanners of one seed, all defaults."""
    labels, _, grid = box(1.0, 60.0, 10.0, 2)
    frames = []
    for _ in range(2):
        scanner = Scanner(volume(labels, grid), TABLE, geometry("convex"), ScannerConfig(), 7)
        frames.append(scanner.frame(pose(scanner.geometry), 1.0, noise()))
    equal = float((frames[0] == frames[1]).double().mean())
    return Row("two scanners of one seed: share of equal pixels", equal, "1", equal == 1.0)


def times() -> Iterator[Row]:
    """Median of ten frames of a procedural body on one core, compiled; the compiling first frame is printed apart."""
    body = make_body(0, BodyConfig(spacing_mm=2.0))
    liver = torch.nonzero(body.inside("liver")).double().mean(0).flip(0)
    for probe, limit in (("phantom", 250.0), ("convex_abdominal", math.inf)):
        g = load_probe(probe).geometry
        scanner = Scanner(body.labels, load_tissues(), g, ScannerConfig(), 0)
        target = se3.transform_points(body.labels.grid.ct_T_index, liver[None])[0]
        bed_T_image = se3.translation(target - torch.tensor([0.0, 0.45 * g.depth_mm, 0.0])) @ pose(g)
        spent = []
        for k in range(11):
            start = time.perf_counter()
            scanner.frame(bed_T_image, k / 15, noise())
            spent.append(1e3 * (time.perf_counter() - start))
        size = f"{g.plane.width}x{g.plane.height}, {g.depth_mm:.0f} mm"
        print(f"first frame with {probe}: {spent[0]:.0f} ms")
        median = statistics.median(spent[1:])
        yield Row(f"frame of {size}: ms", median, f"<= {limit:.0f}" if limit < math.inf else "-", median <= limit)


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())
