# SPDX-License-Identifier: Apache-2.0
"""The baseline system: SimpleITK's registration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..config import from_mapping, to_mapping
from ..registration.itk import Itk
from ..registration.itk_method import ItkConfig, preset
from ..registration.registrar import Registrar, RegistrarConfig

ACROSS = ("CT", "MR")  # modalities whose brightness says nothing of that of ultrasound


def build(options: Mapping[str, Any], modality: str = "") -> Registrar:
    """A registrar with the ITK stage.

    Args:
        options: keys of `ItkConfig`, and `preset`: the settings that they change, see `itk_method`.
        modality: of the volume; CT and MR are registered by mutual information unless a preset is named.
    """
    changes = dict(options)
    base = preset(str(changes.pop("preset", "multimodal" if modality in ACROSS else "multiresolution")))
    return Registrar([Itk(from_mapping(ItkConfig, {**to_mapping(base), **changes}, "itk"))], RegistrarConfig("itk"))
