# SPDX-License-Identifier: Apache-2.0
"""How far and how finely a start is looked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ...config import check_range
from ...errors import ConfigError

Skin = Literal["auto", "yes", "no"]
RANGES = {
    "voxel_mm": (1.0, 10.0), "lines": (2, 256), "sample_mm": (0.5, 10.0), "smooth_mm": (0.1, 10.0),
    "contrast_mm": (2.0, 50.0), "skip_mm": (0.0, 30.0), "place_mm": (4.0, 60.0), "turn_deg": (4.0, 60.0),
    "tilt_deg": (0.0, 80.0), "rock_deg": (0.0, 80.0), "press_mm": (-20.0, 30.0), "box_mm": (4.0, 60.0),
    "box_deg": (4.0, 60.0), "same_mm": (1.0, 100.0), "same_deg": (1.0, 90.0), "hypotheses": (1, 50),
    "shadow_weight": (0.0, 1.0), "sigma_mm": (0.1, 100.0), "sigma_deg": (0.1, 90.0),
}  # fmt: skip


@dataclass(frozen=True)
class GlobalStartConfig:
    """The search, stage by stage: few samples of many poses, then many samples of few.

    Args:
        voxel_mm: edge of the voxels that are looked up.
        lines, sample_mm: scan lines of a frame, and distance of samples along them. smooth_mm, contrast_mm: standard
            deviations over which a sample, and what it is compared with, are averaged. skip_mm: below the face nothing
            is compared: that is the transducer's own ringing.
        skin: whether the face of the probe lies on the skin that the CT shows; auto: where a CT shows skin. Else its
            image lies anywhere in the volume.
        place_mm: distance of places on the skin. turn_deg: step about the skin's normal, and of tilt and rock, which
            reach to tilt_deg across the image and rock_deg within it. press_mm: how deep the face lies below the skin.
        box_mm, box_deg: steps of position and orientation without skin.
        keep: poses that go from one stage to the next: after three frames, after seven, after all, after the climb.
        same_mm, same_deg: hypotheses nearer than this are one.
        hypotheses: how many are given, best first.
        shadow_weight: what a dark end of a line counts, which is one event and not as many as it has samples.
        sigma_mm, sigma_deg: stated standard deviation of a hypothesis that is right.
    """

    voxel_mm: float = 3.0
    lines: int = 24
    sample_mm: float = 3.0
    smooth_mm: float = 2.0
    contrast_mm: float = 8.0
    skip_mm: float = 6.0
    skin: Skin = "auto"
    place_mm: float = 10.0
    turn_deg: float = 15.0
    tilt_deg: float = 45.0
    rock_deg: float = 15.0
    press_mm: float = 3.0
    box_mm: float = 15.0
    box_deg: float = 20.0
    keep: tuple[int, int, int, int] = (40_000, 4_000, 200, 40)
    same_mm: float = 15.0
    same_deg: float = 15.0
    hypotheses: int = 3
    shadow_weight: float = 0.3
    sigma_mm: float = 5.0
    sigma_deg: float = 5.0

    def __post_init__(self) -> None:
        for name, (low, high) in RANGES.items():
            check_range(name, getattr(self, name), low, high)
        if self.skin not in ("auto", "yes", "no"):
            raise ConfigError(f"'skin' is {self.skin!r}; choose auto, yes or no")
        if len(self.keep) != 4 or any(a < b for a, b in zip(self.keep, self.keep[1:], strict=False)):
            raise ConfigError(f"'keep' must be four numbers that do not grow, got {self.keep}")
        check_range("keep", self.keep[-1], 1, 1_000_000)
        check_range("keep", self.keep[0], 1, 1_000_000)
