# SPDX-License-Identifier: Apache-2.0
"""Registration systems by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from ..errors import ConfigError
from ..registration.registrar import Registrar
from . import deep_s2v, intensity, itk


class Build(Protocol):
    """How a system is made."""

    def __call__(self, options: Mapping[str, Any], modality: str = "") -> Registrar:
        """A registrar for volumes of a modality (CT, MR, US or "")."""
        ...


SYSTEMS: dict[str, Build] = {"intensity": intensity.build, "itk": itk.build, "deep_s2v": deep_s2v.build}


def build(name: str, options: Mapping[str, Any] | None = None, modality: str = "") -> Registrar:
    """A registrar by its system's name.

    Args:
        name: one of `SYSTEMS`.
        options: keys of the system's configuration, as YAML gives them.
        modality: of the volume, from which some settings follow: CT, MR, US or "" when unknown.

    Raises:
        ConfigError: unknown name, unknown key or a value outside its range.
    """
    if name not in SYSTEMS:
        raise ConfigError(f"there is no system '{name}'; choose one of {sorted(SYSTEMS)}")
    return SYSTEMS[name](options or {}, modality)
