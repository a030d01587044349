# SPDX-License-Identifier: Apache-2.0
"""Ultrasound rendered from label maps."""

from .config import UltrasoundConfig
from .paper import PaperConfig, PaperRenderer
from .renderer import Echoes, UltrasoundRenderer
from .tissue import Tissues

__all__ = ["Echoes", "PaperConfig", "PaperRenderer", "Tissues", "UltrasoundConfig", "UltrasoundRenderer"]
