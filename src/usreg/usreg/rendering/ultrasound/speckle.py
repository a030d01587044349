# SPDX-License-Identifier: Apache-2.0
"""Scatterers fixed to tissue: a periodic, band-limited complex 3D field.

The analytic echo of scatterers a_j at depths r_j is exp(2ikr) sum_j [a_j exp(-2ik r_j)] g(r - r_j), with the envelope
g of the pulse and the wave number k of its carrier. A field that could hold the carrier (half a wavelength, 0.2 mm)
would need samples every 0.05 mm. The bracket does not: many scatterers at independent depths in a cell make it a
circular complex Gaussian of zero mean by the central limit theorem, whatever the beam's direction (Goodman 1976;
Wagner et al. 1983). So the field here holds the brackets, the demodulated (IQ) scatterers: a real and an imaginary
part, drawn once, fixed to tissue, each sample the sum of the scatterers about it. Convolved with the pulse's envelope
it gives the IQ signal whose magnitude is the B-mode envelope; `pulse.radio_frequency` puts the carrier back. What is
lost: the phase does not turn with the beam, so speckle decorrelates over angles by geometry only.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor

from ...geometry import rotation

BAND_SIGMA = 0.6  # of the Gaussian that limits the band, in voxels of the tile
SCALE = 5.0 / 127.0  # of the stored numbers: five standard deviations of the texture, seven of the others
TEXTURE_SIGMA = 4.0  # the same for the slow changes of scatterer strength


@dataclass(frozen=True, eq=False)
class ScattererTile:
    """One period of the field.

    Args:
        values: (N^3, 4) int8, times `scale`: in phase, quadrature (mean square 1 in sum), texture (variance 1), none.
            Eight bits keep the tile in the processor's cache; their noise is 40 dB below the echo.
        size: N. spacing_mm: of its voxels.
        correlation: of neighbouring voxels of the first two.
    """

    values: Tensor
    size: int
    spacing_mm: float
    correlation: float
    scale: float

    @property
    def tile_A_ct(self) -> Tensor:
        """Affine (4, 4) float64 from mm to voxels of the tile, turned so that no usual plane lies along its lattice."""
        a = torch.eye(4, dtype=torch.float64)
        a[:3, :3] = rotation.from_axis_angle_deg((0.35, -0.62, 0.70), 33.0) / self.spacing_mm
        return a

    @property
    def covariance_sigma_mm(self) -> float:
        """s of the field's covariance exp(-d^2 / 4 s^2) in space: that of the tile, widened by the interpolation."""
        return self.spacing_mm * float(np.sqrt(BAND_SIGMA**2 + 1.0 / 6.0))

    def to(self, device: torch.device) -> ScattererTile:
        """The same on another device."""
        return ScattererTile(self.values.to(device), self.size, self.spacing_mm, self.correlation, self.scale)


@functools.lru_cache(maxsize=2)
def make_tile(size: int, spacing_mm: float, seed: int) -> ScattererTile:
    """Draw a tile of size^3 voxels; the same for the same seed, on any number of threads."""
    rng = np.random.default_rng(seed)
    values = np.zeros((size, size, size, 4), np.int8)
    for channel, sigma, power in ((0, BAND_SIGMA, 0.5), (1, BAND_SIGMA, 0.5), (2, TEXTURE_SIGMA, 1.0)):
        values[..., channel] = np.clip(np.rint(_field(size, sigma, rng) * np.sqrt(power) / SCALE), -127, 127)
    first = values[..., 0].astype(np.float64)
    correlation = np.mean([(first * np.roll(first, 1, axis)).mean() for axis in range(3)]) / (first**2).mean()
    return ScattererTile(torch.from_numpy(values.reshape(-1, 4)), size, spacing_mm, float(correlation), SCALE)


def _field(size: int, sigma: float, rng: np.random.Generator) -> NDArray[np.float32]:
    field = gaussian_filter(rng.standard_normal((size,) * 3, dtype=np.float32), sigma, mode="wrap")
    field -= field.mean(dtype=np.float64)
    return np.asarray(field / field.std(dtype=np.float64), np.float32)


def scatterers(tile: ScattererTile, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """In phase, quadrature and texture (Q,) at voxel positions (Q, 3) of the tile, of any size: it repeats.

    Trilinear, divided by what interpolation takes from the variance at each place, so that the field is equally strong
    everywhere: 1 - 2 f (1 - f) (1 - correlation) along each axis, f the position between two voxels.
    """
    base = index.detach().floor()
    f = index - base
    lower = base.to(torch.int64) % tile.size
    upper = (lower + 1) % tile.size
    ends = [(lower[:, axis], upper[:, axis]) for axis in range(3)]
    total = f.new_zeros(len(f), 3)
    for corner in range(8):
        bits = [(corner >> axis) & 1 for axis in range(3)]
        i, j, k = (ends[axis][bits[axis]] for axis in range(3))
        w = [f[:, axis] if bits[axis] else 1.0 - f[:, axis] for axis in range(3)]
        value = tile.values.index_select(0, (k * tile.size + j) * tile.size + i)[:, :3].to(f) * tile.scale
        total = total + (w[0] * w[1] * w[2])[:, None] * value
    lost = 1.0 - 2.0 * f * (1.0 - f) * (1.0 - tile.correlation)
    gain = lost.prod(-1).rsqrt()
    return total[:, 0] * gain, total[:, 1] * gain, total[:, 2]
