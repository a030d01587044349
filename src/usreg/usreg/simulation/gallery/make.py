# SPDX-License-Identifier: Apache-2.0
"""`usreg simulate gallery`: a folder of pictures of the digital patient, and one page with all of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from ...acquisition.agreement import load_probe
from ...config import check_range
from ...data.atomic import atomic_folder, write_text
from ...data.types import Volume
from ...geometry.sector import SectorGeometry
from ...rendering.surface import Surface
from ..body import Body, ct_image, make_body, mr_image, surfaces
from ..depth import at_depth
from ..skin import Skin, find_skin
from ..windows import find_windows
from . import echo, movement, numbers, scenes
from .config import GalleryConfig
from .page import Section, gallery_page
from .pictures import NOTICE, REAL_NOTICE, Picture, jpeg
from .slices import body_picture

Progress = Callable[[int, int], None]
IMAGES = 4  # tells the noise of CT and MR from other streams of the seed
STEPS = 10  # of the progress: the body is four of them
VOLUME = "_achieved_volume_ml"
ULTRASOUND = (
    "The same planes of the body by the differentiable renderer, on which networks are trained; by its paper mode, "
    "which follows a published renderer; and by the scanner of the sessions and benchmarks, which shares no code with "
    "them and redraws the tissues. The dot shows the probe's marked side."
)
NO_REAL = "No real frames were given (--real, --calibration): this page compares the two simulations only."
BESIDE = (
    "Real frames beside simulated ones of the same probe geometry (radii, angle, depth, pixels). They show different "
    "people and different planes: compare the look, not the anatomy."
)
ARMS = "A robot scans below and between the ribs; a hand leads an encoder arm with a motorised scanner."


def make_gallery(
    out: str | Path,
    seed: int = 0,
    real: str | Path | None = None,
    calibration: str | Path | None = None,
    progress: Progress | None = None,
    config: GalleryConfig | None = None,
) -> Path:
    """Draw the digital patient of a seed.

    Args:
        out: folder to be made; it appears only when everything in it is written.
        real: a sequence of ultrasound frames that the simulated ones are laid beside; they then have its probe's
            geometry. calibration: of that sequence (YAML or a PLUS device set).
        progress: called with (steps done, steps in all).

    Returns:
        The page, `index.html` in the folder.

    Raises:
        WriteError: the folder exists, or cannot be written. ConfigError: a value out of its range, or no calibration.
        CalibrationError, MissingFileError, FileFormatError: the real frames cannot be read.
    """
    check_range("seed", seed, 0, 2**31 - 1)
    with atomic_folder(out) as folder:
        page = Gallery(folder, seed, config or GalleryConfig(), progress).page(real, calibration)
        write_text(folder / "index.html", page)
    return Path(out) / "index.html"


class Gallery:
    """The sections of the page; each puts its pictures into the folder."""

    def __init__(self, folder: Path, seed: int, config: GalleryConfig, progress: Progress | None = None) -> None:
        self._seed, self._config, self._progress, self._done = seed, config, progress, 0
        self._folder = folder

    def page(self, real: str | Path | None, calibration: str | Path | None) -> str:
        """All pictures into the folder, and the text of the page."""
        # Read what may be wrong before the long work
        given = None if real is None else echo.real_frames(real, calibration, self._config.real_frames)
        body = make_body(self._seed, self._config.body, lambda done, total: self._tell(4 * done // max(1, total)))
        self._tell(4)
        ct = ct_image(body, self._rng(0), self._config.ct)
        shapes, skin = surfaces(body, scenes.SURFACES, self._config.surfaces), find_skin(body.labels)
        self._tell(5)
        sections = [self.body(body, ct, shapes)]
        sections += [*self.echoes(body, ct, skin, given), *self.movement(body, shapes, skin)]
        facts = f"Body of seed {self._seed}, voxels of {self._config.body.spacing_mm:g} mm."
        return gallery_page("The digital patient", facts, sections)

    def body(self, body: Body, ct: Volume, shapes: Mapping[str, Surface]) -> Section:
        """Slices of labels, CT and MR; surfaces and vessels."""
        c = self._config
        name = "CT, portal venous phase" if c.ct.contrast == "portal" else "CT"
        images = {name: ct, "MR T1": mr_image(body, self._rng(1), c.t1), "MR T2": mr_image(body, self._rng(2), c.t2)}
        volumes = {k: v for k, v in body.measures.items() if k.endswith(VOLUME)}
        sizes = ", ".join(f"{k.removesuffix(VOLUME).replace('_', ' ')} {v:.0f} ml" for k, v in volumes.items())
        pictures = {
            **self._saved(
                "slices", "Axial and coronal at the portal vein, sagittal at the kidney", body_picture(body, images)
            ),
            **self._saved("organs", "Surfaces and vessel trees", scenes.organ_picture(body, shapes, c.solid_px)),
        }
        self._tell(6)
        text = "One procedural abdomen: its label map, and as CT (window 350 HU, level 60) and MR see it."
        return Section("Body", f"{text} Volumes: {sizes}.", pictures)

    def echoes(self, body: Body, ct: Volume, skin: Skin, real: echo.Frames | None) -> list[Section]:
        """Ultrasound by renderer and scanner, beside real frames where there are any, and all in numbers."""
        geometry = self._geometry() if real is None else real.geometry
        where = echo.places(skin, find_windows(body, skin), geometry, self._config)
        sources = echo.simulated(body, where, geometry, self._config, self._seed)
        self._tell(8)
        picture = echo.echo_picture(body, ct, where, sources)
        shown = self._saved("ultrasound", "Ultrasound at the windows of the liver", picture)
        sections = [Section("Ultrasound", ULTRASOUND, shown)]
        if real is None:
            return [*sections, Section("Beside real frames", NO_REAL), self._numbers(sources, NOTICE)]
        own = [s for s in sources if s.name in ("renderer", "scanner")]
        beside = echo.beside_real(real, where, own)
        shown = self._saved("beside_real", "Real frames (left) and simulated ones", beside)
        sections.append(Section("Beside real frames", BESIDE, shown))
        return [*sections, self._numbers([real, *sources], REAL_NOTICE)]

    def _numbers(self, sources: list[echo.Frames], note: str) -> Section:
        rows = [numbers.appearance(s, self._config.speckle) for s in sources]
        plots = {
            "Histogram of the grey levels in the sector": numbers.histogram_plot(rows, note),
            "Depth profile": numbers.depth_plot(rows, note),
            "Speckle size from the autocovariance": numbers.speckle_plot(rows, note),
        }
        low, high = self._config.speckle.depths_mm
        depths = f" at {low:g} to {high:g} mm depth" if high > low else ""
        text = (
            "Means over the frames of each source, all measured alike: grey levels of the sector, the share of it that "
            f"is black, full width at half maximum of the speckle's autocovariance{depths}, grey level over depth."
        )
        return Section("Numbers", text, {}, self._kept("numbers", plots), rows)

    def movement(self, body: Body, shapes: Mapping[str, Surface], skin: Skin) -> list[Section]:
        """Arms, paths and joints; breathing."""
        runs = movement.rides(body, self._seed, self._config)
        self._tell(9)
        picture = self._saved("arms", "Arms over the body", scenes.arm_picture(shapes, runs, self._config.solid_px))
        plots = {f"The probe's way, {r.name}": movement.unrolled_plot(r, skin) for r in runs}
        plots |= {f"Joints, {r.name} ({r.arm.name})": movement.joint_plot(r) for r in runs}
        breaths = movement.breaths(body, self._seed, self._config)
        curves = {f"Breathing, {b.name}": movement.breathing_plot(b) for b in breaths}
        curves["Hysteresis of the middle of the liver"] = movement.loop_plot(breaths)
        self._tell(STEPS)
        return [
            Section("Arms and paths", ARMS, picture, self._kept("paths", plots)),
            Section("Breathing", "Rigid motion of the liver at its middle.", {}, self._kept("breathing", curves)),
        ]

    def _geometry(self) -> SectorGeometry:
        return at_depth(load_probe(self._config.probe).geometry, self._config.depth_mm)

    def _rng(self, index: int) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence((self._seed, IMAGES, index))))

    def _saved(self, name: str, caption: str, picture: Picture) -> dict[str, bytes]:
        """A picture as JPEG, by its caption; it is also a file of its own."""
        data = jpeg(picture)
        (self._folder / f"{name}.jpg").write_bytes(data)
        return {caption: data}

    def _kept(self, name: str, plots: dict[str, str]) -> dict[str, str]:
        """Plots as they are; each also as a file of its own."""
        for i, (caption, svg) in enumerate(plots.items()):
            word = re.sub(r"[^a-z0-9]+", "_", caption.lower()).strip("_")
            text = svg.replace("<svg ", '<svg style="background:#ffffff;color:#1c2733" ', 1)
            write_text(self._folder / f"{name}_{i + 1}_{word}.svg", text + "\n")
        return plots

    def _tell(self, done: int) -> None:
        self._done = max(self._done, done)
        if self._progress is not None:
            self._progress(self._done, STEPS)
