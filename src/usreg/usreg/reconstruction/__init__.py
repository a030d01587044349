# SPDX-License-Identifier: Apache-2.0
"""A volume from a tracked sweep: insertion, compounding, hole filling."""

from .grid import grid_for, tracked_only
from .reconstruct import ReconstructionConfig, reconstruct

__all__ = ["ReconstructionConfig", "grid_for", "reconstruct", "tracked_only"]
