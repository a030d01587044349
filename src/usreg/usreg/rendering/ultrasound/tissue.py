# SPDX-License-Identifier: Apache-2.0
"""The tissue table as parameters that can be learnt, and a body's labels made ready for sampling."""

from __future__ import annotations

import weakref
from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...data.tissues import TissueTable, with_values
from ...data.types import Volume
from ...errors import ConfigError, ShapeError
from ...geometry.grid import VoxelGrid
from .soften import soften

LEAST = 1e-6  # keeps logarithms finite where a table says zero
FIELDS = ("attenuation_db_cm_mhz", "impedance_mrayl", "scatterer_density_mm3", "scatterer_mean", "scatterer_spread")


class Tissues(nn.Module):
    """A tissue table whose numbers stay above zero: the parameters are their logarithms, one (T,) per property.

    They ask for no gradient until `requires_grad_(True)` is called.
    """

    attenuation_db_cm_mhz: nn.Parameter
    impedance_mrayl: nn.Parameter
    scatterer_density_mm3: nn.Parameter
    scatterer_mean: nn.Parameter
    scatterer_spread: nn.Parameter

    def __init__(self, table: TissueTable) -> None:
        super().__init__()
        self.table = table
        for field in FIELDS:
            values = table.column(field).clamp_min(LEAST).log()
            self.register_parameter(field, nn.Parameter(values, requires_grad=False))

    def forward(self, cell_mm3: float) -> Tensor:
        """Rows (T, 4) of what sampling needs: log impedance (Np), attenuation (dB/cm/MHz), echo, texture.

        The echo is the root mean square backscatter. The texture is the variance of the mean backscattered power from
        place to place: with N scatterers in a resolution cell it is kurtosis / 2N (K distribution: Jakeman and Pusey
        1976), which vanishes where speckle is fully developed.

        Args:
            cell_mm3: volume of a resolution cell.
        """
        spread2 = (2.0 * self.scatterer_spread).exp()
        kurtosis = (1.0 + 6.0 * spread2 + 3.0 * spread2**2) / (1.0 + spread2) ** 2
        texture = 0.5 * kurtosis / (self.scatterer_density_mm3.exp() * cell_mm3 + 1.0)
        attenuation, echo = self.attenuation_db_cm_mhz.exp(), self.scatterer_mean.exp()
        return torch.stack([self.impedance_mrayl, attenuation, echo, texture], -1)

    def as_table(self) -> TissueTable:
        """The table with the numbers that the parameters now stand for."""
        return with_values(self.table, {field: getattr(self, field).detach().exp() for field in FIELDS})


@dataclass(frozen=True, eq=False)
class LabelMap:
    """Labels of a body ready for sampling.

    Args:
        shares: (D, H, W, 6) uint8: the three commonest kinds of label about a voxel, and their shares of 255.
        mixed: (D, H, W) uint8: 1 where the 27 voxels about a voxel hold more than one kind.
        tissue: (K,) int64: row of the tissue table by kind. shift: (K, 3) of the scatterer tile by kind, in periods.
        outside: the kind of the surroundings.
    """

    shares: Tensor
    mixed: Tensor
    tissue: Tensor
    shift: Tensor
    grid: VoxelGrid
    outside: int

    def to(self, device: torch.device) -> LabelMap:
        """The same on another device."""
        shares, mixed, tissue, shift = (t.to(device) for t in (self.shares, self.mixed, self.tissue, self.shift))
        return LabelMap(shares, mixed, tissue, shift, self.grid, self.outside)


def label_map(volume: Volume, table: TissueTable) -> LabelMap:
    """Labels of a volume: its `labels`, or its data where that is one channel of whole numbers with names.

    Raises:
        ShapeError: no labels. ConfigError: labels without a name, or names without a known tissue.
    """
    labels = volume.labels
    if labels is None and volume.label_names and volume.data.shape[0] == 1 and not volume.data.is_floating_point():
        labels = volume.data[0]
    if labels is None:
        raise ShapeError(
            "the volume has no labels: ultrasound is rendered from a label map with names, not from grey values"
        )
    rows = table.rows(volume.label_names)
    voxels = labels.cpu().numpy()
    counts = _counts(voxels)
    nameless = [f"{v} ({n} voxels)" for v, n in counts.items() if not (0 <= v < len(rows) and int(rows[v]) >= 0)]
    if nameless:
        raise ConfigError(f"no tissue is known for label values {', '.join(nameless)}: name them in 'label_names'")
    values = [0, *(v for v in counts if v != 0)]  # kind 0 is the surroundings
    if len(values) > 256:
        raise ConfigError(f"{len(values)} kinds of labels; 256 are the most")
    lookup = np.zeros(max(values) + 1, np.uint8)
    lookup[values] = np.arange(len(values))
    return LabelMap(
        *soften(torch.from_numpy(lookup[voxels])), rows[values], _shifts(torch.tensor(values)), volume.grid, 0
    )


def _counts(voxels: NDArray[np.integer]) -> dict[int, int]:
    """How often each value occurs, in rising order; layer by layer, so that no copy of the volume is sorted."""
    counts: Counter[int] = Counter()
    for layer in voxels:
        values, times = np.unique(layer, return_counts=True)
        counts.update(dict(zip(values.tolist(), times.tolist(), strict=True)))
    return dict(sorted(counts.items()))


def _shifts(values: Tensor) -> Tensor:
    """Offsets (K, 3) in periods, far apart from one another: the R3 sequence (Roberts 2018) by label value."""
    root = 1.2207440846057596
    steps = torch.tensor([root**-1, root**-2, root**-3], dtype=torch.float64)
    return (values.to(torch.float64)[:, None] * steps) % 1.0


class LabelCache:
    """Prepared label maps of volumes that are still in use, by volume and device."""

    def __init__(self, table: TissueTable) -> None:
        self.table = table
        self._maps: weakref.WeakKeyDictionary[Volume, dict[torch.device, LabelMap]] = weakref.WeakKeyDictionary()

    def get(self, volume: Volume, device: torch.device) -> LabelMap:
        """The volume's label map on a device, made at the first call."""
        maps = self._maps.setdefault(volume, {})
        if device not in maps:
            maps[device] = label_map(volume, self.table).to(device)
        return maps[device]
