# SPDX-License-Identifier: Apache-2.0
"""Configuration of the fused view."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from ..config import check_range
from ..errors import ConfigError

LEGIBLE = 480  # pixels across, below which words in a picture cannot be read
WINDOWS = {"CT": (-160.0, 240.0)}  # soft tissue, HU
VESSELS = ("vein", "vena_cava", "artery", "aorta", "vessel")  # words in the names of vessels


@dataclass(frozen=True)
class OverlayConfig:
    """How the volume is laid over the frame.

    Args:
        mode: "alpha" (both mixed: orange is the slice, blue the frame, grey where they agree), "checkerboard" (both in
            turn), "contours" (outlines of labels over the frame), "vessels" (outlines of vessels alone).
        opacity: of the slice in "alpha". tile_mm: of the checkerboard.
        contours: outlines of labels also in the other modes, where the volume has labels.
        slice_step: the volume is sampled at every n-th pixel and interpolated between; 1 = at every pixel.
        window: values of the volume shown as black and white; None: by modality, else from the volume's values.
        channel: of the volume.
        zoom: whole factor by which the picture is larger than the frame; 0: so that it is at least 480 pixels wide.
        sector, ruler, text: draw the sector's outline; the depth ruler; names and notes. The marker dot and the words
            "research use only" are always drawn.
        plane_columns: largest width of the textured plane, cells.
    """

    mode: Literal["alpha", "checkerboard", "contours", "vessels"] = "alpha"
    opacity: float = 0.45
    tile_mm: float = 12.0
    contours: bool = True
    slice_step: int = 2
    window: tuple[float, float] | None = None
    channel: int = 0
    zoom: int = 1
    sector: bool = True
    ruler: bool = True
    text: bool = True
    plane_columns: int = 256

    @property
    def outlines(self) -> bool:
        """Whether outlines are drawn."""
        return self.contours or self.mode in ("contours", "vessels")

    def outlined(self, name: str) -> bool:
        """Whether a label of this name is."""
        return self.mode != "vessels" or any(word in name.lower() for word in VESSELS)

    def zoom_for(self, width: int) -> int:
        """Factor for a frame of a width, pixels."""
        return self.zoom or max(1, math.ceil(LEGIBLE / width))

    def __post_init__(self) -> None:
        check_range("opacity", self.opacity, 0, 1)
        check_range("tile_mm", self.tile_mm, 0.5, 1000)
        check_range("slice_step", self.slice_step, 1, 16)
        check_range("channel", self.channel, 0, 1000)
        check_range("zoom", self.zoom, 0, 8)
        check_range("plane_columns", self.plane_columns, 8, 8192)
        if self.window is not None and not self.window[0] < self.window[1]:
            raise ConfigError(f"'window' is {self.window}; the first value must be below the second")
