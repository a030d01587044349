# SPDX-License-Identifier: Apache-2.0
"""Settings of the ultrasound renderer."""

from __future__ import annotations

from dataclasses import dataclass

from ...config import check_range
from ...errors import ConfigError

SOUND_SPEED_MM_US = 1.54  # what scanners assume


@dataclass(frozen=True)
class UltrasoundConfig:
    """The scanner that is rendered; the field of view comes with each call.

    Args:
        frequency_mhz: centre frequency of the pulse.
        lines, samples: scan lines, and depths on each from the face to the full depth.
        rays: per scan line, over which its beam is integrated; with 1 it misses what lies between lines.
        pulse_cycles: length of the pulse in wavelengths; the axial resolution is half of it.
        f_number, aperture_mm: the two-way beam's full width at half maximum is
            wavelength * sqrt(f_number^2 + (depth / aperture)^2).
        elevation_mm, elevation_planes: full width at half maximum of the slice, sampled on 1 (none), 3 or 5 planes.
        specular: exponent of the cosine of the angle of incidence in the echo of an interface.
        liver_echo_db: echo of liver parenchyma (root mean square) below that of a perfect mirror.
        speckle: true: one draw of speckle; false: the expected envelope, smooth in the pose, for optimisation.
        seed: of the scatterers. tile_voxels, tile_spacing_mm: size of their periodic tile, 32 mm or more in all.
        tgc_db_cm_mhz: attenuation, one way, that the time-gain compensation makes up for; 0 turns it off.
        gain_db, dynamic_range_db: of the log compression. liver_grey: grey value (0-1) of compensated liver.
    """

    frequency_mhz: float = 3.5
    lines: int = 128
    samples: int = 512
    rays: int = 2
    pulse_cycles: float = 2.5
    f_number: float = 2.0
    aperture_mm: float = 22.0
    elevation_mm: float = 3.0
    elevation_planes: int = 1
    specular: float = 4.0
    liver_echo_db: float = -46.0
    speckle: bool = True
    seed: int = 0
    tile_voxels: int = 168
    tile_spacing_mm: float = 0.2
    tgc_db_cm_mhz: float = 0.5
    gain_db: float = 0.0
    dynamic_range_db: float = 60.0
    liver_grey: float = 0.42

    def __post_init__(self) -> None:
        for name, low, high in (
            ("frequency_mhz", 0.5, 30.0), ("lines", 2, 4096), ("samples", 8, 16384), ("rays", 1, 16),
            ("pulse_cycles", 1.0, 20.0), ("f_number", 0.5, 20.0), ("aperture_mm", 1.0, 200.0),
            ("elevation_mm", 0.1, 30.0), ("specular", 0.0, 50.0), ("liver_echo_db", -120.0, 0.0),
            ("seed", 0, 2**63), ("tile_voxels", 8, 512), ("tile_spacing_mm", 0.02, 4.0), ("tgc_db_cm_mhz", 0.0, 5.0),
            ("gain_db", -100.0, 100.0), ("dynamic_range_db", 10.0, 200.0), ("liver_grey", 0.0, 1.0),
        ):  # fmt: skip
            check_range(name, getattr(self, name), low, high)
        if self.elevation_planes not in (1, 3, 5):
            raise ConfigError(f"'elevation_planes' is {self.elevation_planes}; choose 1, 3 or 5")
        if self.tile_voxels * self.tile_spacing_mm < 32.0:
            period = self.tile_voxels * self.tile_spacing_mm
            raise ConfigError(
                f"the scatterers would repeat after {period:.1f} mm; 32 mm is the least: enlarge the tile"
            )

    @property
    def wavelength_mm(self) -> float:
        """At the speed that scanners assume."""
        return SOUND_SPEED_MM_US / self.frequency_mhz

    @property
    def pulse_mm(self) -> float:
        """Length of the pulse in tissue."""
        return self.pulse_cycles * self.wavelength_mm

    @property
    def axial_sigma_mm(self) -> float:
        """Standard deviation of the two-way envelope along depth: its full width at half maximum is half a pulse."""
        return 0.5 * self.pulse_mm / FWHM_PER_SIGMA

    @property
    def liver_level(self) -> float:
        """Root mean square echo of liver, as a share of a perfect mirror's."""
        return float(10.0 ** (self.liver_echo_db / 20.0))


FWHM_PER_SIGMA = 2.3548200450309493
