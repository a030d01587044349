# SPDX-License-Identifier: Apache-2.0
"""Digital bodies: procedural anatomy of known truth, and bodies made of labelled scans."""

from .anatomy import make_body
from .config import BodyConfig
from .ct import CtConfig, ct_image
from .folder import BodyFile, BodyFolderConfig, read_body, read_body_file, simulate_body
from .mr import MrConfig, mr_image
from .surfaces import surfaces
from .totalsegmentator import LabelConfig, body_from_labels, read_labelled
from .types import ORGANS, STRUCTURES, VALUE, Body, Tube

__all__ = [
    "Body",
    "BodyConfig",
    "BodyFile",
    "BodyFolderConfig",
    "CtConfig",
    "LabelConfig",
    "MrConfig",
    "ORGANS",
    "STRUCTURES",
    "Tube",
    "VALUE",
    "body_from_labels",
    "ct_image",
    "make_body",
    "mr_image",
    "read_body",
    "read_body_file",
    "read_labelled",
    "simulate_body",
    "surfaces",
]
