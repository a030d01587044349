# SPDX-License-Identifier: Apache-2.0
"""Ultrasound of one body by the renderer and by the scanner at the same poses, beside real frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...data.calibration import read_calibration, sector_for
from ...data.sequences import read_sequence
from ...data.tissues import load_tissues
from ...data.types import Volume
from ...errors import CalibrationError, ConfigError
from ...fusion.drawing import draw_marker
from ...fusion.labels import label_slice
from ...geometry.sector import SectorGeometry
from ...rendering.ultrasound import PaperRenderer, UltrasoundRenderer
from ..body.types import Body
from ..depth import image_in_probe
from ..scanner import Scanner
from ..skin import Skin
from ..windows import Window, poses_at
from .config import GalleryConfig
from .palette import coloured
from .pictures import REAL_NOTICE, Picture, Tile, montage, rgb
from .slices import SOFT_TISSUE_HU, grey_slice, with_labels

NOISE = 5  # tells the scanner's noise from other streams of the seed


@dataclass(frozen=True, eq=False)
class Place:
    """A place of the probe: bed_T_image (4, 4) float64."""

    name: str
    bed_T_image: Tensor


@dataclass(frozen=True, eq=False)
class Frames:
    """Frames (h, w) uint8 of one source with one geometry."""

    name: str
    images: tuple[Tensor, ...]
    geometry: SectorGeometry


def real_frames(sequence: str | Path, calibration: str | Path | None, count: int) -> Frames:
    """Frames of a sequence, evenly spaced, without its first and last ones.

    Raises:
        ConfigError: no calibration. CalibrationError: no images, or of another size. MissingFileError, FileFormatError.
    """
    if calibration is None:
        raise ConfigError("real frames need the geometry of their images: give their calibration too")
    read = read_sequence(sequence)
    if read.images is None or read.size is None:
        raise CalibrationError(f"'{Path(sequence).name}' holds poses without images: choose a sequence with images")
    geometry = sector_for(read_calibration(calibration, read.size), *read.size)
    good = read.image_valid.nonzero().flatten().tolist()
    if not good:
        raise CalibrationError(f"no image of '{Path(sequence).name}' is valid")
    chosen = [good[int((k + 0.5) * len(good) / count)] for k in range(min(count, len(good)))]
    return Frames("real", tuple(read.images[i] for i in chosen), geometry)


def places(skin: Skin, windows: Sequence[Window], geometry: SectorGeometry, config: GalleryConfig) -> list[Place]:
    """The windows of a body, each as it is and tilted further."""
    probe_T_image = image_in_probe(geometry, (0.0, 0.0, 0.0))
    rows, names = [], []
    for window in windows:
        angle, z, turn, tilt, rock = window.place
        rows.append(window.place)
        names.append(window.name)
        if config.tilt_deg:
            rows.append((angle, z, turn, tilt + np.radians(config.tilt_deg), rock))
            names.append(f"{window.name}, tilted by {config.tilt_deg:g}°")
    poses = torch.from_numpy(poses_at(skin, np.array(rows), config.indentation_mm))
    return [Place(name, pose @ probe_T_image) for name, pose in zip(names, poses, strict=True)]


def simulated(
    body: Body, where: Sequence[Place], geometry: SectorGeometry, config: GalleryConfig, seed: int
) -> list[Frames]:  # fmt: skip
    """Frames of the renderer, of its paper mode and of the scanner at every place."""
    tissues = load_tissues()
    renderer, paper = UltrasoundRenderer(tissues, config.renderer), PaperRenderer(tissues, config.paper)
    scanner = Scanner(body.labels, tissues, geometry, config.scanner, seed)
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, NOISE))))
    sources: dict[str, Callable[[Place], Tensor]] = {
        "renderer": lambda p: _bytes(renderer(body.labels, p.bed_T_image.float(), geometry)[0]),
        "paper mode": lambda p: _bytes(paper(body.labels, p.bed_T_image.float(), geometry)[0]),
        "scanner": lambda p: scanner.frame(p.bed_T_image, 0.0, rng, config.indentation_mm),
    }
    with torch.no_grad():
        return [Frames(name, tuple(make(p) for p in where), geometry) for name, make in sources.items()]


def _bytes(image: Tensor) -> Tensor:
    return (image[0, 0].clamp(0, 1) * 255).round().to(torch.uint8)


def echo_picture(body: Body, ct: Volume, where: Sequence[Place], sources: Sequence[Frames]) -> Picture:
    """One row a place: structures and CT in the plane of the image, and each source of ultrasound."""
    labels, geometry = with_labels(body), sources[0].geometry
    rows = []
    for i, place in enumerate(where):
        cut = coloured(label_slice(labels, place.bed_T_image, geometry.plane))
        anatomy = grey_slice(ct, place.bed_T_image, geometry.plane, SOFT_TISSUE_HU)
        tiles = [Tile(marked(cut, geometry), f"{place.name} · structures"), Tile(marked(rgb(anatomy), geometry), "CT")]
        rows.append(tiles + [Tile(marked(rgb(s.images[i].numpy()), geometry), s.name) for s in sources])
    return montage(rows)


def beside_real(real: Frames, where: Sequence[Place], sources: Sequence[Frames], rows: int = 3) -> Picture:
    """Rows of a real frame and simulated ones of the same probe geometry."""
    rows, out = min(rows, len(real.images), len(where)), []
    for i in range(rows):
        k, n = (2 * i + 1) * len(real.images) // (2 * rows), i * len(where) // rows
        tiles = [Tile(_frame(real, k), "real liver, in vivo")]
        out.append(tiles + [Tile(_frame(s, n), f"{s.name} · {where[n].name}") for s in sources])
    return montage(out, f"simulated, not a patient · {REAL_NOTICE}")


def _frame(frames: Frames, i: int) -> Picture:
    return marked(rgb(frames.images[i].numpy()), frames.geometry)


def marked(picture: Picture, geometry: SectorGeometry) -> Picture:
    """Outside the sector darker, and the dot that shows the probe's marked side."""
    out = picture.copy()
    outside = ~geometry.mask().numpy()
    if picture[outside].size and (picture[..., 0] != picture[..., 1]).any():
        out[outside] = (0.35 * picture[outside]).astype(np.uint8)
    draw_marker(out, geometry)
    return out
