# SPDX-License-Identifier: Apache-2.0
"""Registration by intensity: a similarity and an optimiser, coarse to fine; which ones follows from the volume.

Options are the keys of `RefineConfig`, completed as `registration.refine_options` says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..config import from_mapping
from ..registration.refine import Refine, RefineConfig
from ..registration.refine_options import complete
from ..registration.registrar import Registrar, RegistrarConfig
from ..registration.window import Window, WindowConfig

WINDOW = "window"


def build(options: Mapping[str, Any], modality: str = "") -> Registrar:
    """A registrar with one refinement stage; options are the keys of `RefineConfig`, and `window`: see `WindowConfig`.

    Args:
        modality: of the volume: CT, MR, US or "" (unknown: as ultrasound).
    """
    settings = complete(options, modality)
    window = settings.pop(WINDOW, None)
    registrar = Registrar([Refine(from_mapping(RefineConfig, settings, "intensity"))], RegistrarConfig())
    return Window(registrar, from_mapping(WindowConfig, window, WINDOW)) if window else registrar
