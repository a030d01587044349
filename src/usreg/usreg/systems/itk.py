# SPDX-License-Identifier: Apache-2.0
"""The baseline system: SimpleITK's registration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..config import from_mapping
from ..registration.itk import Itk, ItkConfig
from ..registration.registrar import Registrar, RegistrarConfig


def build(options: Mapping[str, Any], modality: str = "") -> Registrar:
    """A registrar with the ITK stage; options are the keys of `ItkConfig`, whatever the modality."""
    return Registrar([Itk(from_mapping(ItkConfig, options, "itk"))], RegistrarConfig("itk"))
