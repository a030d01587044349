# SPDX-License-Identifier: Apache-2.0
"""Rays of sound along a probe's real geometry: a polar grid of sample points in millimetres of the image frame."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import GeometryError
from ...geometry.sector import SectorGeometry
from .config import FWHM_PER_SIGMA, UltrasoundConfig


@dataclass(frozen=True, eq=False)
class Beams:
    """Rays x depths: R = (lines - 1) * rays + 1 rays, of which every `rays`-th is the middle of a scan line.

    Args:
        origin_mm: (R, 2) where each ray leaves the face. direction: (R, 2) unit vectors, away from the face.
        depth_mm: (S,) along the ray, 0 on the face. pitch_mm: (S,) distance of neighbouring rays at each depth.
        elevation_mm: (E,) offsets of the planes; elevation_weight: (E,), sum 1.
        geometry: of the image.
    """

    origin_mm: Tensor
    direction: Tensor
    depth_mm: Tensor
    pitch_mm: Tensor
    elevation_mm: Tensor
    elevation_weight: Tensor
    geometry: SectorGeometry

    @property
    def step_mm(self) -> float:
        """Distance of neighbouring samples on a line."""
        return float(self.depth_mm[1] - self.depth_mm[0])

    def points_mm(self) -> Tensor:
        """Sample points (E, R, S, 3) in the image frame, float64."""
        xy = self.origin_mm[:, None] + self.direction[:, None] * self.depth_mm[:, None]
        z = self.elevation_mm[:, None, None].expand(-1, *xy.shape[:2])
        return torch.cat([xy.expand(len(z), *xy.shape), z[..., None]], -1)


@functools.lru_cache(maxsize=16)
def make_beams(geometry: SectorGeometry, config: UltrasoundConfig) -> Beams:
    """The rays of a probe: parallel from the upper edge (linear), or from the near to the far arc (convex, phased).

    Raises:
        GeometryError: so few samples that a pulse falls between two of them.
    """
    if geometry.kind == "linear":
        origin, direction, depth, pitch = _parallel(geometry, config)
    else:
        origin, direction, depth, pitch = _fan(geometry, config)
    step = float(depth[1] - depth[0])
    if step > 0.5 * config.pulse_mm:
        least = math.ceil(float(depth[-1]) / (0.5 * config.pulse_mm)) + 1
        raise GeometryError(
            f"steps of {step:.2f} mm miss a pulse of {config.pulse_mm:.2f} mm: use at least {least} samples per line"
        )
    offset, weight = _elevation(config)
    return Beams(origin, direction, depth, pitch, offset, weight, geometry)


def _ray_count(config: UltrasoundConfig) -> int:
    return (config.lines - 1) * config.rays + 1


def _parallel(g: SectorGeometry, config: UltrasoundConfig) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x0, y0, x1, y1 = g.clip_mm
    count = _ray_count(config)
    x = torch.linspace(x0, x1, count, dtype=torch.float64)
    depth = torch.linspace(0.0, y1 - y0, config.samples, dtype=torch.float64)
    origin = torch.stack([x, torch.full_like(x, y0)], -1)
    direction = torch.tensor([0.0, 1.0], dtype=torch.float64).expand(count, 2)
    return origin, direction, depth, torch.full_like(depth, (x1 - x0) / (count - 1))


def _fan(g: SectorGeometry, config: UltrasoundConfig) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    (r0, r1), (a0, a1) = g.radius_mm, g.angle_rad
    count = _ray_count(config)
    angle = torch.linspace(a0, a1, count, dtype=torch.float64)
    radius = torch.linspace(r0, r1, config.samples, dtype=torch.float64)
    direction = torch.stack([angle.sin(), angle.cos()], -1)
    origin = torch.tensor(g.apex_mm, dtype=torch.float64) + r0 * direction
    return origin, direction, radius - r0, radius * (a1 - a0) / (count - 1)


def _elevation(config: UltrasoundConfig) -> tuple[Tensor, Tensor]:
    """Planes of a Gaussian slice profile by Gauss-Hermite quadrature: offsets (E,) mm and weights (E,)."""
    nodes, weights = {
        1: ((0.0,), (1.0,)),
        3: ((-math.sqrt(3.0), 0.0, math.sqrt(3.0)), (1 / 6, 2 / 3, 1 / 6)),
        5: (
            (-2.8569700138728, -1.3556261799742659, 0.0, 1.3556261799742659, 2.8569700138728),
            (0.011257411327720691, 0.22207592200561266, 0.5333333333333333, 0.22207592200561266, 0.011257411327720691),
        ),
    }[config.elevation_planes]
    sigma = config.elevation_mm / FWHM_PER_SIGMA
    return torch.tensor(nodes, dtype=torch.float64) * sigma, torch.tensor(weights, dtype=torch.float64)
