# SPDX-License-Identifier: Apache-2.0
"""Ultrasound to ultrasound by intensity: masked NCC, coarse to fine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..config import from_mapping
from ..registration.refine import Refine, RefineConfig
from ..registration.registrar import Registrar, RegistrarConfig


def build(options: Mapping[str, Any]) -> Registrar:
    """A registrar with one refinement stage; options are the keys of `RefineConfig`."""
    return Registrar([Refine(from_mapping(RefineConfig, options, "intensity"))], RegistrarConfig("intensity"))
