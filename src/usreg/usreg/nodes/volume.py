# SPDX-License-Identifier: Apache-2.0
"""The volume that a node works with, from its parameters or from a request."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlparse

from ..data.types import Volume
from ..data.volumes import read_labels, read_volume, with_labels
from ..errors import ConfigError


@dataclass(frozen=True)
class VolumeConfig:
    """Which volume.

    Args:
        volume: path or file: URI (NIfTI, MetaImage, NRRD, folder of a DICOM series); empty: wait for one.
        modality: CT, MR, US or empty: as the file says.
        labels: a label volume of the same grid, or empty. label_names: "value=name" each.
    """

    volume: str = ""
    modality: Literal["", "CT", "MR", "US"] = ""
    labels: str = ""
    label_names: tuple[str, ...] = ()

    def names(self) -> dict[int, str]:
        """Names by value.

        Raises:
            ConfigError: an entry is not "value=name".
        """
        found = {}
        for entry in self.label_names:
            value, _, name = entry.partition("=")
            if not value.strip().lstrip("-").isdigit() or not name:
                raise ConfigError(f"label_names has '{entry}'; write value=name, for example 1=liver")
            found[int(value)] = name
        return found


def load_volume(config: VolumeConfig) -> Volume:
    """Read the volume and its labels.

    Raises:
        UsregError: what the readers raise; ConfigError where no volume is named.
    """
    if not config.volume:
        raise ConfigError("no volume is named: set the parameter 'volume', or call the service load_volume")
    volume = read_volume(path_of(config.volume), config.modality)
    if not config.labels:
        return volume
    return with_labels(volume, *read_labels(path_of(config.labels), config.names()))


def path_of(uri: str) -> Path:
    """A path, or the path of a file: URI.

    Raises:
        ConfigError: another kind of URI.
    """
    parts = urlparse(uri)
    if parts.scheme in ("", "file"):
        return Path(unquote(parts.path) if parts.scheme else uri)
    raise ConfigError(f"'{uri}' is neither a path nor a file: URI; fetch it to this machine first")
