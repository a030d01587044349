# SPDX-License-Identifier: Apache-2.0
"""The page of pictures: the digital patient in slices, ultrasound, numbers and motion."""

from .config import GalleryConfig
from .make import make_gallery

__all__ = ["GalleryConfig", "make_gallery"]
