# SPDX-License-Identifier: Apache-2.0
"""The published differentiable renderer, for comparison: equations (1) to (3) of the probe-pose paper.

Velikova et al. 2024 (LOTUS), as used for the registration of ultrasound to CT by probe-pose regression. The columns
of a Cartesian slice of the label map are taken as rays; E = R + B (1), R = I Z P * G (2), B = I P * T (3), with the
attenuation I, the boundaries G, the reflection Z, the scatterers T and a Gaussian P. The finished rectangle is then
bent into the probe's fan, so that for convex and phased probes image millimetres are not those of the CT. What the
paper leaves open (constants, order) follows its published description.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...config import check_range
from ...data.tissues import TissueTable, load_tissues
from ...data.types import Volume
from ...errors import ShapeError
from ...geometry.sector import SectorGeometry
from ..slicing import check_poses
from .sample import one_hot
from .scan_convert import scan_convert
from .tissue import LabelCache

# Attenuation, impedance, and the scatterers' mean mu0, density mu1, spread sigma0 as published, by class.
CLASSES = {
    "lung": (1.64, 0.0004, 0.78, 0.56, 0.1),
    "fat": (0.63, 1.38, 0.5, 0.5, 0.0),
    "vessel": (0.18, 1.61, 0.001, 0.0, 0.01),
    "kidney": (1.0, 1.62, 0.45, 0.6, 0.3),
    "muscle": (1.09, 1.62, 0.45, 0.64, 0.1),
    "background": (0.54, 0.3, 0.3, 0.2, 0.0),
    "liver": (0.7, 1.65, 0.4, 0.8, 0.14),
    "soft": (0.54, 1.63, 0.45, 0.64, 0.1),
    "bone": (5.0, 7.8, 0.78, 0.56, 0.1),
}  # fmt: skip
CLASS_OF = {
    "coupling": "background", "fat": "fat", "visceral_fat": "fat", "muscle": "muscle", "bone": "bone",
    "cartilage": "bone", "lung": "lung", "gas": "lung", "liver": "liver", "blood": "vessel", "bile": "vessel",
    "kidney_cortex": "kidney", "kidney_medulla": "kidney", "kidney_sinus": "fat", "spleen": "liver",
}  # fmt: skip


@dataclass(frozen=True)
class PaperConfig:
    """Constants of the published renderer.

    Args:
        columns, rows: of the Cartesian slice. depth_scale: what attenuation per sample is scaled by; no unit.
        boundary: width of the boundary's indicator, MRayl^2. gate: steepness of the sigmoid for the conditional.
        psf: standard deviations along and across, samples. tgc: gain at the far end; 1 at the face.
        seed: of the texture, which is fixed to the image and not to tissue.
    """

    columns: int = 128
    rows: int = 512
    depth_scale: float = 4.0
    boundary: float = 0.1
    gate: float = 10.0
    psf: tuple[float, float] = (0.5, 1.5)
    tgc: float = 8.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, low, high in (
            ("columns", 8, 4096), ("rows", 8, 8192), ("depth_scale", 0.0, 100.0), ("boundary", 1e-6, 100.0),
            ("gate", 0.1, 1000.0), ("tgc", 1.0, 1000.0), ("seed", 0, 2**63 - 1),
        ):  # fmt: skip
            check_range(name, getattr(self, name), low, high)
        for sigma in self.psf:
            check_range("psf", sigma, 0.05, 10.0)


class PaperRenderer(nn.Module):
    """The published `Renderer`: images (B, 1, h, w) in [0, 1]; differentiable in the pose and in `values`."""

    def __init__(self, tissues: TissueTable | None = None, config: PaperConfig | None = None) -> None:
        super().__init__()
        table = load_tissues() if tissues is None else tissues
        self.config = PaperConfig() if config is None else config
        rows = [CLASSES[CLASS_OF.get(name, "soft")] for name in table.names]
        self.values = nn.Parameter(torch.tensor(rows, dtype=torch.float64), requires_grad=False)
        self._labels = LabelCache(table)

    def forward(self, volume: Volume, ct_T_image: Tensor, geometry: Any) -> tuple[Tensor, Tensor]:
        """Images and the sector's masks (B, 1, h, w). Arguments and errors as `UltrasoundRenderer`."""
        if not isinstance(geometry, SectorGeometry):
            raise ShapeError(f"ultrasound needs a SectorGeometry, got {type(geometry).__name__}")
        poses = check_poses(ct_T_image)
        image = scan_convert(paper_maps(self._slice(volume, poses, geometry), self.config), geometry)
        return image, geometry.mask().to(image.device).expand(len(poses), 1, -1, -1)

    def _slice(self, volume: Volume, poses: Tensor, geometry: SectorGeometry) -> Tensor:
        """The five properties (B, 5, columns, rows) on the rectangle of the image."""
        x0, y0, x1, y1 = geometry.clip_mm
        x = torch.linspace(x0, x1, self.config.columns, dtype=torch.float64)
        y = torch.linspace(y0, y1, self.config.rows, dtype=torch.float64)
        x, y = torch.meshgrid(x, y, indexing="ij")
        points = torch.stack([x, y, torch.zeros_like(x)], -1).reshape(-1, 3).to(poses.device)
        labels = self._labels.get(volume, poses.device)
        index_T_image = labels.grid.index_T_ct.to(poses.device) @ poses.double()
        index = points @ index_T_image[:, :3, :3].transpose(-1, -2) + index_T_image[:, None, :3, 3]
        hot = one_hot(labels, index.reshape(-1, 3).to(poses))
        rows = self.values.to(poses)[labels.tissue[hot.kind]]
        values = rows.new_zeros(len(poses) * len(points), 5).index_add(0, hot.sample, hot.weight[:, None] * rows)
        return values.reshape(len(poses), self.config.columns, self.config.rows, 5).permute(0, 3, 1, 2)


def paper_maps(properties: Tensor, config: PaperConfig) -> Tensor:
    """E (B, columns, rows) of attenuation, impedance, mu0, mu1 and sigma0 (B, 5, columns, rows), in [0, 1]."""
    attenuation, z, mean, density, spread = properties.unbind(1)
    rows = z.shape[-1]
    intensity = torch.exp(-attenuation.cumsum(-1) * config.depth_scale / rows)
    change = torch.nn.functional.pad(z[..., 1:] - z[..., :-1], (1, 0))
    total = torch.nn.functional.pad(z[..., 1:] + z[..., :-1], (1, 0), value=1.0)
    boundary = 1.0 - torch.exp(-(change**2) / config.boundary)
    reflection = torch.sigmoid((change / total) ** 2)
    noise = _noise(z, config)
    texture = torch.sigmoid(config.gate * (density - noise[0])) * (mean + spread * noise[1])
    echo = intensity * _blurred(reflection * boundary, config) + intensity * _blurred(texture, config)
    gain = torch.linspace(1.0, config.tgc, rows, dtype=z.dtype, device=z.device)
    return (echo * gain).clamp(0.0, 1.0)


def _noise(like: Tensor, config: PaperConfig) -> Tensor:
    """Two Gaussian fields (2, columns, rows), the same for every image."""
    generator = torch.Generator().manual_seed(config.seed)
    return torch.randn(2, *like.shape[-2:], generator=generator).to(like)


def _blurred(image: Tensor, config: PaperConfig) -> Tensor:
    """Separable 7x7 Gaussian of images (B, columns, rows): the published point-spread function."""
    t = torch.arange(-3, 4, dtype=image.dtype, device=image.device)
    along, across = (torch.exp(-0.5 * (t / sigma) ** 2) for sigma in config.psf)
    image = torch.nn.functional.conv2d(image[:, None], (along / along.sum())[None, None, None], padding=(0, 3))
    return torch.nn.functional.conv2d(image, (across / across.sum())[None, None, :, None], padding=(3, 0))[:, 0]
