# SPDX-License-Identifier: Apache-2.0
"""What a scanner is: its pulse, its array, its electronics, and how far it is from the textbook."""

from __future__ import annotations

from dataclasses import dataclass

from ...config import check_range

RANGES = {
    "frequency_mhz": (0.5, 20.0), "pulse_cycles": (1.0, 10.0), "f_number": (0.5, 10.0), "aperture_mm": (2.0, 80.0),
    "focus_mm": (5.0, 300.0), "elevation_mm": (1.0, 40.0), "elevation_focus_mm": (5.0, 300.0), "lines": (16, 1024),
    "scatterers_mm3": (0.1, 50.0), "tissue_step_mm": (0.05, 1.0), "redraw": (0.0, 0.6), "specular_db": (0.0, 60.0),
    "side_lobe_db": (20.0, 120.0), "reverberation": (0.0, 1.0), "noise_db": (-140.0, -10.0), "gel_mm": (0.0, 20.0),
    "contact_loss_db": (0.0, 20.0), "tgc_error_db": (0.0, 10.0), "drift_db": (0.0, 6.0), "tgc_limit_db": (0.0, 120.0),
    "brightness": (0.05, 0.95),
}  # fmt: skip


@dataclass(frozen=True)
class ScannerConfig:
    """How the scanner sends, receives and draws.

    Args:
        frequency_mhz: of the carrier. pulse_cycles: length of the two-way pulse at half its height.
        f_number, aperture_mm: of receive, which grows with depth up to the whole array. focus_mm: of transmission.
        elevation_mm, elevation_focus_mm: height of the array and focal depth of its lens.
        lines: scan lines across the sector.
        scatterers_mm3: most scatterers per mm^3; at 8 and 3.2 MHz about fifteen lie in the smallest resolution cell.
        tissue_step_mm: step along a line at which attenuation and reflection are integrated.
        redraw: relative spread of the tissue values, drawn anew for every seed. Impedance is redrawn in its contrast to
            soft tissue: 30 % of the value itself would turn every organ's edge into bone.
        specular_db: echo of a perfect mirror above the speckle of liver.
        side_lobe_db: level of the beam's side lobes below its main lobe, two-way.
        reverberation: share of an echo that the face of the probe sends back into the body.
        noise_db: electronic noise, relative to the speckle of liver at the face.
        gel_mm: a wider gap between face and skin loses contact. contact_loss_db: most that
        poor contact takes elsewhere.
        tgc_error_db, drift_db: standard deviation of the sliders and size of the slow drift of the gain.
        tgc_limit_db: most gain over depth.
        dynamic_range_db: drawn between these two. brightness: grey level of soft tissue, 0 to 1.
        graphics: whether text and scales are burnt in outside the sector.
    """

    frequency_mhz: float = 3.2
    pulse_cycles: float = 2.6
    f_number: float = 3.0
    aperture_mm: float = 24.0
    focus_mm: float = 70.0
    elevation_mm: float = 10.0
    elevation_focus_mm: float = 70.0
    lines: int = 224
    scatterers_mm3: float = 8.0
    tissue_step_mm: float = 0.4
    redraw: float = 0.3
    specular_db: float = 36.0
    side_lobe_db: float = 38.0
    reverberation: float = 0.12
    noise_db: float = -66.0
    gel_mm: float = 3.5
    contact_loss_db: float = 3.0
    tgc_error_db: float = 2.0
    drift_db: float = 1.0
    tgc_limit_db: float = 52.0
    dynamic_range_db: tuple[float, float] = (55.0, 70.0)
    brightness: float = 0.23
    graphics: bool = True

    def __post_init__(self) -> None:
        for name, (low, high) in RANGES.items():
            check_range(name, getattr(self, name), low, high)
        low, high = self.dynamic_range_db
        check_range("dynamic_range_db[0]", low, 20.0, high)
        check_range("dynamic_range_db[1]", high, low, 120.0)

    @property
    def wavelength_mm(self) -> float:
        """In tissue at 1540 m/s."""
        return 1.54 / self.frequency_mhz

    @property
    def pulse_sigma_mm(self) -> float:
        """Standard deviation of the two-way pulse's envelope along range."""
        return self.pulse_cycles * self.wavelength_mm / 2 / 2.3548
