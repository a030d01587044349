# SPDX-License-Identifier: Apache-2.0
"""A start without any prior pose."""

from .config import GlobalStartConfig
from .find import find_starts

__all__ = ["GlobalStartConfig", "find_starts"]
