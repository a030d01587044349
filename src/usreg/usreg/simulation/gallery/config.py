# SPDX-License-Identifier: Apache-2.0
"""What the page of pictures shows."""

from __future__ import annotations

from dataclasses import dataclass, field

from ...config import check_range
from ...evaluation.appearance import SpeckleConfig
from ...rendering.surface import SurfaceConfig
from ...rendering.ultrasound import PaperConfig, UltrasoundConfig
from ..body import BodyConfig, CtConfig, MrConfig
from ..breathing import BreathingConfig
from ..scanner import ScannerConfig


@dataclass(frozen=True)
class GalleryConfig:
    """What is shown, each part as in its own room.

    Args:
        body, ct, t1, t2, surfaces: the digital patient and its images.
        renderer, scanner, paper: the two ways to ultrasound, and the published renderer for comparison.
        probe, depth_mm: field of view where no real frames are given: a name in config/probes, and its depth.
        indentation_mm: how far the probe is pressed into the skin.
        tilt_deg: of each window also a view tilted further by this much; 0: no other view.
        real_frames: how many frames of a real sequence, evenly spaced.
        seconds: length of the scans. breathing_s: of the curves. breathing: the irregular patient; the regular one, the
            hold and the cough are made of it.
        speckle: where its size is measured: by default at the depths of the liver, so that the layers of the wall,
            which lie across the beam, do not count as wide speckle; and in dark images too.
        solid_px: height of the spatial views.
    """

    body: BodyConfig = field(default_factory=BodyConfig)
    ct: CtConfig = field(default_factory=CtConfig)
    t1: MrConfig = field(default_factory=MrConfig)
    t2: MrConfig = field(default_factory=lambda: MrConfig(weighting="t2"))
    surfaces: SurfaceConfig = field(default_factory=lambda: SurfaceConfig(triangles=8000, raw_triangles=40_000))
    renderer: UltrasoundConfig = field(default_factory=UltrasoundConfig)
    scanner: ScannerConfig = field(default_factory=ScannerConfig)
    paper: PaperConfig = field(default_factory=PaperConfig)
    probe: str = "convex_abdominal"
    depth_mm: float = 160.0
    indentation_mm: float = 4.0
    tilt_deg: float = 14.0
    real_frames: int = 6
    seconds: float = 20.0
    breathing_s: float = 30.0
    breathing: BreathingConfig = field(default_factory=BreathingConfig)
    speckle: SpeckleConfig = field(default_factory=lambda: SpeckleConfig(depths_mm=(40.0, 100.0), grey=(12.0, 230.0)))
    solid_px: int = 560

    def __post_init__(self) -> None:
        check_range("depth_mm", self.depth_mm, 30.0, 300.0)
        check_range("indentation_mm", self.indentation_mm, 0.0, 25.0)
        check_range("tilt_deg", self.tilt_deg, -40.0, 40.0)
        check_range("real_frames", self.real_frames, 1, 100)
        check_range("seconds", self.seconds, 6.0, 120.0)
        check_range("breathing_s", self.breathing_s, 8.0, 300.0)
        check_range("solid_px", self.solid_px, 100, 2000)
