# SPDX-License-Identifier: Apache-2.0
"""Ultrasound of a labelled body along the probe's real geometry; differentiable in pose and tissue."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...data.tissues import TissueTable, load_tissues
from ...data.types import Volume
from ...errors import GeometryError, NoOverlapError, ShapeError
from ...geometry.sector import SectorGeometry
from ..slicing import check_poses
from .beams import Beams, make_beams
from .compress import compressed
from .config import UltrasoundConfig
from .propagate import propagate
from .pulse import PointSpread, cell_mm3, point_spread
from .receive_fast import receive_fast
from .sample import Samples, sample_tissue
from .sample_fast import sample_fast
from .scan_convert import scan_convert
from .speckle import ScattererTile, make_tile
from .tissue import LabelCache, LabelMap, Tissues


@dataclass(frozen=True, eq=False)
class Echoes:
    """Signal on the lines (B, L, S), before compensation and compression: a perfect mirror at the face gives 1.

    Args:
        power: of the envelope: its square, or the expected square without speckle.
        iq: (B, L, S, 2) in phase and quadrature; None without speckle.
    """

    power: Tensor
    iq: Tensor | None
    beams: Beams

    @property
    def envelope(self) -> Tensor:
        """Magnitude (B, L, S)."""
        return self.power.clamp_min(1e-30).sqrt()


class UltrasoundRenderer(nn.Module):
    """The `Renderer` of ultrasound.

    Its parameters are the tissue table (`tissues`), as logarithms; they take gradients after
    `renderer.tissues.requires_grad_(True)`.
    """

    def __init__(self, tissues: TissueTable | None = None, config: UltrasoundConfig | None = None) -> None:
        super().__init__()
        table = load_tissues() if tissues is None else tissues
        self.config = UltrasoundConfig() if config is None else config
        self.tissues = Tissues(table)
        self._labels = LabelCache(table)
        self._tiles: dict[torch.device, ScattererTile] = {}

    def forward(self, volume: Volume, ct_T_image: Tensor, geometry: Any) -> tuple[Tensor, Tensor]:
        """Images and masks of a body.

        Args:
            volume: labels with names: `labels`, or one channel of whole numbers.
            ct_T_image: poses (B, 4, 4) or one (4, 4), mm; device and precision of the work follow it.
            geometry: SectorGeometry of the probe and the image.

        Returns:
            Images (B, 1, h, w) in [0, 1], zero outside the sector, and masks (B, 1, h, w), true inside both
            sector and volume.

        Raises:
            ShapeError: no labels, another shape of pose, no sector. ConfigError: labels with no known tissue.
            GeometryError: a pose that is not finite, or steps coarser than half a pulse.
            NoOverlapError: no scan line meets tissue.
        """
        echoes = self.echoes(volume, ct_T_image, geometry)
        depth = echoes.beams.depth_mm.to(echoes.power)
        image = scan_convert(compressed(echoes.power, depth, self.config), geometry)
        return image, inside_volume(volume, _poses(ct_T_image), geometry)

    def echoes(self, volume: Volume, ct_T_image: Tensor, geometry: Any) -> Echoes:
        """The signal on the scan lines, before compensation, compression and scan conversion; errors as `forward`."""
        poses = _poses(ct_T_image)
        if not isinstance(geometry, SectorGeometry):
            raise ShapeError(f"ultrasound needs a SectorGeometry, got {type(geometry).__name__}")
        beams, tile = make_beams(geometry, self.config), self._tile(poses.device)
        table = self.tissues(cell_mm3(geometry, self.config)).to(poses)
        fast = poses.device.type == "cpu" and not (
            torch.is_grad_enabled() and (poses.requires_grad or table.requires_grad)
        )
        samples = self._sampled(volume, poses, beams, table, fast)
        spread = point_spread(geometry, self.config, tile.covariance_sigma_mm)
        if fast and self.config.speckle:
            iq = receive_fast(samples, beams, spread, self.config).to(poses)
            return Echoes(iq.square().sum(-1), iq, beams)
        return _received(samples, beams, spread, self.config)

    def _sampled(self, volume: Volume, poses: Tensor, beams: Beams, table: Tensor, fast: bool) -> Samples:
        """Tissue on the rays, fields (B, R, S, ...), the elevation planes averaged."""
        labels = self._labels.get(volume, poses.device)
        tile = self._tile(poses.device) if self.config.speckle else None
        points = beams.points_mm()
        index_T_image = labels.grid.index_T_ct.to(poses.device) @ poses.double()
        tile_T_image = self._tile(poses.device).tile_A_ct.to(poses.device) @ poses.double()
        work = sample_fast if fast else _sample_slow
        samples = work(labels, table, tile, index_T_image, tile_T_image, points.reshape(-1, 3).to(poses.device))
        return _averaged(samples, (len(poses), *points.shape[:3]), beams)

    def _tile(self, device: torch.device) -> ScattererTile:
        if device not in self._tiles:
            config = self.config
            self._tiles[device] = make_tile(config.tile_voxels, config.tile_spacing_mm, config.seed).to(device)
        return self._tiles[device]


def _received(samples: Samples, beams: Beams, spread: PointSpread, config: UltrasoundConfig) -> Echoes:
    """The slow reference: down the rays and back, through the point-spread function, to the envelope."""
    lines = beams.direction.to(samples.slope)
    x, y, z = samples.slope.unbind(-1)
    across = (x * lines[:, None, 1] - y * lines[:, None, 0], z)
    wave = propagate(samples.log_impedance, samples.attenuation, across, beams.step_mm,
                     config.pulse_mm, config.frequency_mhz, config.specular)  # fmt: skip
    echo, level = samples.echo, config.liver_level
    mirror, gain = spread.mirror_gain.to(echo), spread.speckle_gain.to(echo)
    if not config.speckle:
        specular = spread.blurred(wave.interface) * mirror
        power = spread.blurred_power(echo[..., 0] * wave.arrival**2) * level**2
        return Echoes(math.pi / 4.0 * power + specular**2, None, beams)
    i, q, specular = spread.blurred(
        torch.stack([echo[..., 0] * wave.arrival, echo[..., 1] * wave.arrival, wave.interface])
    )
    i, q = i * gain * level + specular * mirror, q * gain * level
    return Echoes(i**2 + q**2, torch.stack([i, q], -1), beams)


def _sample_slow(
    labels: LabelMap,
    table: Tensor,
    tile: ScattererTile | None,
    index_T_image: Tensor,
    tile_T_image: Tensor,
    points: Tensor,
) -> Samples:
    """`sample_tissue` at points (P, 3) of the image frame; poses in float64, work in the table's precision."""
    index = points @ index_T_image[:, :3, :3].transpose(-1, -2) + index_T_image[:, None, :3, 3]
    place = index
    if tile is not None:
        start = tile_T_image[:, :3, 3]
        start = start - (start.detach() / tile.size).floor() * tile.size  # small numbers keep their digits
        place = points @ tile_T_image[:, :3, :3].transpose(-1, -2) + start[:, None]
    return sample_tissue(labels, table, tile, index.to(table), index_T_image[:, :3, :3].to(table), place.to(table))


def _averaged(samples: Samples, shape: tuple[int, ...], beams: Beams) -> Samples:
    """Fields (B, L, S, ...) of samples on planes (B, E, L, S): means, and for IQ sums that keep the power.

    Raises:
        NoOverlapError: an image whose lines meet no tissue at all.
    """
    met = samples.tissue.reshape(shape[0], -1).any(-1)
    if not bool(met.all()):
        lost = (~met).nonzero()[:, 0].tolist()
        raise NoOverlapError(f"no scan line of image {lost} meets tissue: the probe is outside the body")
    weight = beams.elevation_weight.to(samples.echo)
    root = weight if samples.echo.shape[-1] == 1 else weight.sqrt()

    def mean(values: Tensor, w: Tensor) -> Tensor:
        values = values.reshape(*shape, *values.shape[1:])
        return values[:, 0] if len(w) == 1 else torch.einsum("be...,e->b...", values, w)

    return Samples(
        mean(samples.log_impedance, weight),
        mean(samples.attenuation, weight),
        mean(samples.slope, weight),
        mean(samples.echo, root),
        samples.tissue.reshape(shape).any(1),
    )


def inside_volume(volume: Volume, poses: Tensor, geometry: SectorGeometry) -> Tensor:
    """Masks (B, 1, h, w): pixels inside the sector whose place lies inside the volume."""
    index_T_image = volume.grid.index_T_ct.to(poses.device) @ poses.detach().double()
    index_T_pixel = (index_T_image @ geometry.plane.image_T_pixel.to(poses.device)).float()
    size = torch.tensor(volume.grid.size, device=poses.device)
    rows = torch.arange(geometry.plane.height, device=poses.device).float()[:, None]
    columns = torch.arange(geometry.plane.width, device=poses.device).float()
    mask = geometry.mask().to(poses.device).expand(len(poses), -1, -1)
    for axis in range(3):
        a, b, c = (index_T_pixel[:, axis, k, None, None] for k in (0, 1, 3))
        index = a * columns + b * rows + c
        mask = mask & (index >= 0) & (index <= size[axis] - 1)
    return mask[:, None]


def _poses(ct_T_image: Tensor) -> Tensor:
    poses = check_poses(ct_T_image)
    if not len(poses):
        raise GeometryError("no pose was given")
    return poses
