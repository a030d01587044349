# SPDX-License-Identifier: Apache-2.0
"""Rendering: images of a volume on given planes."""

from .agreement import Renderer
from .reslice import slice_fast
from .slicing import slice_volume
from .ultrasound import PaperConfig, PaperRenderer, UltrasoundConfig, UltrasoundRenderer

__all__ = [
    "PaperConfig",
    "PaperRenderer",
    "Renderer",
    "UltrasoundConfig",
    "UltrasoundRenderer",
    "slice_fast",
    "slice_volume",
]
