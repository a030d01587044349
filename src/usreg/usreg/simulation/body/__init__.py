# SPDX-License-Identifier: Apache-2.0
"""Digital bodies: procedural anatomy of known truth, and bodies made of labelled scans."""

from .anatomy import make_body
from .config import BodyConfig
from .types import ORGANS, STRUCTURES, VALUE, Body, Surface, Tube

__all__ = ["ORGANS", "STRUCTURES", "VALUE", "Body", "BodyConfig", "Surface", "Tube", "make_body"]
