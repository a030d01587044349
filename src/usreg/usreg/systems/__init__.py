# SPDX-License-Identifier: Apache-2.0
"""Registration systems by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..errors import ConfigError
from ..registration.registrar import Registrar
from . import intensity, itk

SYSTEMS: dict[str, Callable[[Mapping[str, Any]], Registrar]] = {"intensity": intensity.build, "itk": itk.build}


def build(name: str, options: Mapping[str, Any] | None = None) -> Registrar:
    """A registrar by its system's name.

    Args:
        name: one of `SYSTEMS`.
        options: keys of the system's configuration, as YAML gives them.

    Raises:
        ConfigError: unknown name, unknown key or a value outside its range.
    """
    if name not in SYSTEMS:
        raise ConfigError(f"there is no system '{name}'; choose one of {sorted(SYSTEMS)}")
    return SYSTEMS[name](options or {})
