# SPDX-License-Identifier: Apache-2.0
"""The scanner: frames of a moving body, as a device would show them that nobody calibrated for us."""

from __future__ import annotations

import copy
import math

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from ...config import check_range
from ...data.tissues import TissueTable
from ...data.types import Volume, check_pose
from ...errors import ConfigError, GeometryError, ShapeError
from ...geometry import se3
from ...geometry.sector import SectorGeometry
from .along import TissueMap, line_echoes, repeats, sample_lines
from .beam import FADE, REACH_SIGMA, convolve, make_beam
from .config import ScannerConfig
from .display import detect, gain_over_depth_db, graphics, grey, picture
from .draws import draw_device, draw_tissues, label_columns
from .lines import conversion, scan_lines
from .scatter import Points, Pulse, Space, Tissue, View, gather
from .tile import CELL_MM, draw_tile
from .warp import Moving, Skin, Warp, lambert, make_warp

Array = NDArray[np.float64]
Image = NDArray[np.float32]
PAD = 10  # lines beyond either edge whose scatterers still reach into the image
RING_DB, RING_MM = 12.0, 1.1  # ringing of the array itself, above liver at the face, and its decay


class Scanner:
    """An ultrasound device over a labelled body.

    Args:
        body_labels: (1, D, H, W) integers with `label_names`, any direction and spacing; value 0 is outside the body.
        tissues: properties of the named structures; this scanner redraws them from its seed.
        geometry: field of view; `with_geometry` gives the same device at another depth.
        motion: how the body moves; None: it lies still.

    Raises:
        ConfigError: labels without a known tissue. ShapeError: labels that are not integers 0 to 255.
    """

    def __init__(
        self, body_labels: Volume, tissues: TissueTable, geometry: SectorGeometry, config: ScannerConfig, seed: int,
        motion: Moving | None = None,
    ) -> None:  # fmt: skip
        check_range("seed", seed, 0, 2**63 - 1)
        self.config, self.motion = config, motion
        tissue, device, tile = (np.random.Generator(np.random.PCG64(s)) for s in np.random.SeedSequence(seed).spawn(3))
        self._labels = _label_array(body_labels)
        self.tissues = draw_tissues(tissues, config.redraw, tissue)
        rows = tissues.rows(body_labels.label_names).numpy()
        _check_values(self._labels, rows)
        self._by_label = label_columns(self.tissues, rows)
        self.device = draw_device(config, self.tissues, device)
        self._tile = draw_tile(config.scatterers_mm3, tile)
        self._index_T_ct = np.ascontiguousarray(body_labels.grid.index_T_ct.numpy()[:3])
        self._skin = Skin(self._labels, self._index_T_ct)
        self._set_geometry(geometry)

    def _set_geometry(self, geometry: SectorGeometry) -> None:
        self.geometry = geometry
        self.lines = scan_lines(geometry, self.config.lines, self.config.pulse_sigma_mm / 2.5)
        self._beam = make_beam(self.config, self.lines)
        spacing = min(geometry.plane.spacing_mm)
        self._every = 2 * max(0, math.floor((spacing / self.lines.sample_mm - 1) / 2)) + 1

    def with_geometry(self, geometry: SectorGeometry) -> Scanner:
        """The same device with another field of view: tissue draws, gain and scatterers stay."""
        other = copy.copy(self)
        other._set_geometry(geometry)
        return other

    def frame(
        self, bed_T_image: Tensor, t_s: float, rng: np.random.Generator, indentation_mm: float = 0.0
    ) -> Tensor:  # fmt: skip
        """One image.

        Args:
            bed_T_image: (4, 4) float64, where the plane lies among the body at rest. t_s: time for motion and drift.
            rng: of the electronic noise. indentation_mm: how far the face is pressed into the skin, 0 to 25: the
            tissue at depth z lay at z - d exp(-z / 30 mm), where d is what each part of the face lies in, up to this.

        Returns:
            (h, w) uint8; outside the sector the burnt-in graphics.

        Raises:
            GeometryError: the pose is not rigid, or no tissue lies in the plane. ConfigError: indentation out of range.
        """
        field = self._field(bed_T_image, t_s, indentation_mm)
        field += self._noise(rng)
        gain = 10 ** (gain_over_depth_db(self.config, self.device, self.lines.depths_mm) / 20)
        drift = self.device.gain_db(t_s, self.config.drift_db)
        polar = grey(detect(field, gain, self._every), self.config, self.device, drift)
        places = conversion(self.geometry, self.lines, self._every)
        empty = np.zeros(places.inside.shape, np.uint8)
        return torch.from_numpy(
            picture(polar, places, graphics(self.geometry, self.lines) if self.config.graphics else empty)
        )

    def envelope(
        self, bed_T_image: Tensor, t_s: float = 0.0, rng: np.random.Generator | None = None,
        indentation_mm: float = 0.0, tgc: bool = False,
    ) -> Image:  # fmt: skip
        """Envelope (lines, samples) before compression; samples at `lines.depths_mm`. Noise only with a generator."""
        field = self._field(bed_T_image, t_s, indentation_mm)
        if rng is not None:
            field += self._noise(rng)
        samples = self.lines.depths_mm
        gain = 10 ** (gain_over_depth_db(self.config, self.device, samples) / 20) if tgc else np.ones(samples.size)
        return np.ascontiguousarray(detect(field, gain, 1).T)

    def _field(self, bed_T_image: Tensor, t_s: float, indentation_mm: float) -> Image:
        """Complex echoes (2, samples, lines) without noise."""
        check_pose(bed_T_image, "bed_T_image")
        check_range("indentation_mm", indentation_mm, 0.0, 25.0)
        pose = bed_T_image.numpy()
        warp = make_warp(self.lines, pose, self.motion, t_s, indentation_mm, self._skin)
        step = self.config.tissue_step_mm
        rows = max(2, math.ceil(self.lines.depth_mm / step) + 1)
        step = self.lines.depth_mm / (rows - 1)
        tissue = self._tissue(warp, pose, rows)
        if bool(tissue.outside.all()):
            raise GeometryError("no tissue lies in the image plane: the probe is entirely outside the body")
        pitch = self.lines.pitch_mm(np.linspace(0.0, self.lines.depth_mm, rows))
        echoes = line_echoes(tissue, self.config, self.device, step, pitch)
        loss = self._contact_loss(t_s)
        speckle = self._speckle(warp, bed_T_image, echoes.transmission * loss)
        mirror = (echoes.mirror + repeats(echoes, self.device, self.config.reverberation, step)) * loss
        mirror *= np.float32(10 ** (self.config.specular_db / 20))
        speckle[0] += self._pulse(self._rows(mirror))
        speckle[0] += self._ringing()[:, None]
        return speckle

    def _tissue(self, warp: Warp, pose: Array, rows: int) -> TissueMap:
        columns = self._by_label
        return TissueMap(
            *sample_lines(
                warp.plane, np.ascontiguousarray(pose[:3, 2]), rows, self.lines.count, self._index_T_ct, self._labels,
                columns["attenuation"], columns["log_impedance"],
            )
        )  # fmt: skip

    def _speckle(self, warp: Warp, bed_T_image: Tensor, transmission: Image) -> Image:
        lines, tile, columns, beam = self.lines, self._tile, self._by_label, self._beam
        field = np.zeros((2, lines.samples, lines.count + 2 * PAD), np.float32)
        reach = REACH_SIGMA * float(beam.elevation_mm.max()) + CELL_MM
        points = warp.plane.reshape(-1, 3)
        low = np.floor((points.min(0) - reach - 6 - tile.origin_mm) / CELL_MM).astype(np.int64)
        high = np.ceil((points.max(0) + reach + 6 - tile.origin_mm) / CELL_MM).astype(np.int64)
        image_T_bed = np.ascontiguousarray(se3.inverse(bed_T_image).numpy()[:3])
        gather(
            Points(tile.position, tile.strength, tile.sign, tile.rank, tile.origin_mm),
            Tissue(self._labels, columns["amplitude"], columns["share"], columns["spread"]),
            Space(image_T_bed, self._index_T_ct, warp.nodes, warp.corner_mm),
            self._view(warp), self._pulse_numbers(), low, high, field,
        )  # fmt: skip
        field *= np.pad(self._rows(transmission), ((0, 0), (PAD, PAD)), mode="edge")
        field /= np.float32(math.sqrt(self.config.scatterers_mm3))
        return np.asarray(convolve(field, beam.axial, beam.lateral, PAD))

    def _view(self, warp: Warp) -> View:
        lines = self.lines
        (x, y), most = lines.centre_mm, float(warp.press_mm.max())
        last_mm = (lines.samples - 1) * lines.sample_mm
        return View(
            lines.fan, float(x), float(y), float(lines.near_mm), lines.first, lines.step, lines.count, PAD,
            lines.sample_mm, last_mm, warp.press_mm, most, lambert(),
        )  # fmt: skip

    def _pulse_numbers(self) -> Pulse:
        beam, wave_number = self._beam, 4 * math.pi / self.config.wavelength_mm
        reach_mm = REACH_SIGMA * float(beam.elevation_mm.max())
        return Pulse(beam.elevation_mm, beam.bend_per_mm, beam.keep, FADE, REACH_SIGMA, reach_mm, wave_number)

    def _rows(self, values: Image) -> Image:
        """From the steps of the tissue to the samples of a line, linear."""
        place = self.lines.depths_mm / self.lines.depth_mm * (values.shape[0] - 1)
        i = np.clip(place.astype(np.int64), 0, values.shape[0] - 2)
        f = np.clip(place - i, 0.0, 1.0).astype(np.float32)[:, None]
        return np.asarray(values[i] * (1 - f) + values[i + 1] * f)

    def _pulse(self, mirror: Image) -> Image:
        """Interfaces seen through the pulse, their peak kept."""
        sigma = self.config.pulse_sigma_mm / self.lines.sample_mm
        return np.asarray(gaussian_filter1d(mirror, sigma, axis=0, mode="constant"))

    def _ringing(self) -> Image:
        """The array's own ringing, the same on every line: it shows where contact is lost."""
        depth = self.lines.depths_mm
        return (10 ** (RING_DB / 20) * np.exp(-depth / RING_MM) * (1 + 0.5 * np.sin(depth * 9.0))).astype(np.float32)

    def _contact_loss(self, t_s: float) -> Image:
        """(lines,) share that uneven pressure lets through: slowly varying across the face and in time."""
        u = np.linspace(0, 2 * math.pi, self.lines.count)
        a, b, c = self.device.contact
        wave = np.sin(u + a + 0.21 * t_s) + 0.6 * np.sin(2 * u + b - 0.13 * t_s) + 0.4 * np.sin(3 * u + c + 0.34 * t_s)
        return np.asarray(10 ** (-self.config.contact_loss_db * np.clip(wave, 0, 2) / 2 / 20), dtype=np.float32)

    def _noise(self, rng: np.random.Generator) -> Image:
        """Electronic noise (2, samples, lines) within the receiver's band: independent from line to line."""
        lines, level = self.lines, 10 ** (self.config.noise_db / 20) / math.sqrt(2)
        white = rng.standard_normal((2, lines.samples, lines.count), dtype=np.float32)
        sigma = self.config.pulse_sigma_mm / lines.sample_mm
        energy = math.sqrt(2 * math.sqrt(math.pi) * sigma)  # of a unit-area Gaussian: 1 / that, squared
        return np.asarray(gaussian_filter1d(white, sigma, axis=1, mode="wrap") * np.float32(level * energy))


def _label_array(volume: Volume) -> NDArray[np.uint8]:
    data = volume.data
    if data.shape[0] != 1 or data.is_floating_point() or int(data.min()) < 0 or int(data.max()) > 255:
        raise ShapeError(
            f"labels of a body are (1, D, H, W) integers from 0 to 255, got {tuple(data.shape)} {data.dtype}"
        )
    return np.ascontiguousarray(data[0].numpy().astype(np.uint8))


def _check_values(labels: NDArray[np.uint8], rows: NDArray[np.int64]) -> None:
    """Raise unless every value in the volume has a tissue."""
    present = np.zeros(256, dtype=bool)
    present[labels.ravel()] = True
    unknown = [int(v) for v in np.flatnonzero(present) if v >= rows.size or rows[v] < 0]
    if unknown:
        raise ConfigError(f"labels {unknown} have no name, so no tissue is known for them: add them to label_names")
