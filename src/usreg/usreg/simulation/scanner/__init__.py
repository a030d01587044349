# SPDX-License-Identifier: Apache-2.0
"""The scanner of the tests: point scatterers and a spatially varying pulse. It shares nothing with the renderer."""

from .config import ScannerConfig
from .scanner import Moving, Scanner

__all__ = ["Moving", "Scanner", "ScannerConfig"]
