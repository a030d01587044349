# SPDX-License-Identifier: Apache-2.0
"""The fused view: overlay, outlines as plain data, the frame as a textured plane."""

from .config import OverlayConfig
from .markers import Dot, Line, SweepTrail, organ_lines, sector_line, target_dot
from .overlay import Fuser, Overlay, frame_alone, overlay
from .palette import label_colour
from .plane import PlaneTexture, textured_plane

__all__ = [
    "Dot",
    "Fuser",
    "Line",
    "Overlay",
    "OverlayConfig",
    "PlaneTexture",
    "SweepTrail",
    "frame_alone",
    "label_colour",
    "organ_lines",
    "overlay",
    "sector_line",
    "target_dot",
    "textured_plane",
]
