# SPDX-License-Identifier: Apache-2.0
"""Acoustic properties of tissues, and which tissue a labelled structure consists of (`config/tissues.yaml`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..config import check_range, from_mapping, load_yaml
from ..errors import ConfigError
from .share import share_dir

BACKGROUND = "outside"  # what label value 0 means where nobody named it
RANGES = {
    "attenuation_db_cm_mhz": (0.0, 100.0),
    "impedance_mrayl": (1e-5, 20.0),
    "sound_speed_m_s": (100.0, 6000.0),
    "scatterer_density_mm3": (0.0, 1e5),
    "scatterer_mean": (0.0, 100.0),
    "scatterer_spread": (0.0, 10.0),
}


@dataclass(frozen=True)
class Tissue:
    """One tissue.

    Args:
        attenuation_db_cm_mhz: loss of amplitude one way, dB per cm and MHz.
        impedance_mrayl: density times speed of sound, above zero.
        sound_speed_m_s: of longitudinal waves.
        scatterer_density_mm3: scatterers per mm^3.
        scatterer_mean: root mean square of the backscattered pressure, liver parenchyma = 1.
        scatterer_spread: standard deviation of the scatterers' strength over their mean strength.
        source: where the numbers come from.
    """

    name: str
    attenuation_db_cm_mhz: float
    impedance_mrayl: float
    sound_speed_m_s: float
    scatterer_density_mm3: float
    scatterer_mean: float
    scatterer_spread: float
    source: str

    def __post_init__(self) -> None:
        for field, (low, high) in RANGES.items():
            check_range(f"{self.name}.{field}", getattr(self, field), low, high)
        if not self.source.strip():
            raise ConfigError(f"tissue '{self.name}' names no source: say where its numbers come from")


@dataclass(frozen=True)
class TissueTable:
    """Tissues in a fixed order, their rows, and the tissue of each structure.

    Args:
        structures: name of a labelled structure -> name of a tissue.
    """

    tissues: tuple[Tissue, ...]
    structures: dict[str, str]

    def __post_init__(self) -> None:
        names = self.names
        if not names or len(set(names)) != len(names):
            raise ConfigError(f"a tissue table needs tissues, each name once; got {sorted(names)}")
        missing = sorted({t for t in self.structures.values() if t not in names})
        if missing:
            raise ConfigError(f"structures refer to tissues that the table lacks: {missing}; it has {sorted(names)}")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the tissues, row by row."""
        return tuple(t.name for t in self.tissues)

    def column(self, field: str) -> Tensor:
        """One property of all tissues, (T,) float64.

        Raises:
            ConfigError: no such property.
        """
        if field not in RANGES:
            raise ConfigError(f"a tissue has no property '{field}'; choose one of {list(RANGES)}")
        return torch.tensor([getattr(t, field) for t in self.tissues], dtype=torch.float64)

    def rows(self, label_names: Mapping[int, str]) -> Tensor:
        """Row of the table by label value, (largest value + 1,) int64; -1 where a value has no name.

        Value 0 is the surroundings ("outside") unless it is named. A structure may also carry the name of a tissue.

        Raises:
            ConfigError: no names, a value below zero, or names without a known tissue: the message lists them all.
        """
        names = {0: BACKGROUND, **label_names}
        if not label_names or min(names) < 0:
            raise ConfigError(
                f"labels need names by value from 0 on, got values {sorted(label_names)}: name the labels"
            )
        tissue_row = {name: row for row, name in enumerate(self.names)}
        found = {value: tissue_row.get(self.structures.get(name, name), -1) for value, name in names.items()}
        unknown = sorted(names[value] for value, row in found.items() if row < 0)
        if unknown:
            raise ConfigError(f"no tissue is known for {unknown}: add them to 'structures' of the tissue table")
        rows = torch.full((max(names) + 1,), -1, dtype=torch.int64)
        rows[torch.tensor(list(found))] = torch.tensor(list(found.values()))
        return rows


def load_tissues(path: str | Path | None = None) -> TissueTable:
    """The tissue table from a YAML file; None: the one that ships, `config/tissues.yaml`.

    Raises:
        MissingFileError, FileFormatError: no readable YAML. ConfigError: a key or a value that is not allowed.
    """
    path = share_dir() / "config" / "tissues.yaml" if path is None else Path(path)
    content = load_yaml(path)
    if set(content) != {"tissues", "structures"} or not all(isinstance(v, dict) for v in content.values()):
        raise ConfigError(f"'{path.name}' needs the two mappings 'tissues' and 'structures', it has {sorted(content)}")
    tissues = []
    for name, fields in content["tissues"].items():
        if not isinstance(fields, dict):
            raise ConfigError(f"tissue '{name}' in '{path.name}' must be a mapping of properties")
        tissues.append(from_mapping(Tissue, {"name": str(name), **fields}, f"tissues.{name}"))
    structures = content["structures"]
    if not all(isinstance(v, str) for pair in structures.items() for v in pair):
        raise ConfigError(f"'structures' in '{path.name}' maps names to names of tissues")
    return TissueTable(tuple(tissues), dict(structures))


def with_values(table: TissueTable, columns: Mapping[str, Tensor]) -> TissueTable:
    """The same tissues with other numbers: property -> (T,) values, such as a renderer has learnt.

    Raises:
        ConfigError: an unknown property, another count, or a value outside its range.
    """
    for field, values in columns.items():
        if field not in RANGES or tuple(values.shape) != (len(table.tissues),):
            raise ConfigError(f"'{field}' with {tuple(values.shape)} values does not fit {len(table.tissues)} tissues")
    numbers = {field: values.detach().double().cpu().tolist() for field, values in columns.items()}
    rows = range(len(table.tissues))
    changed = [dataclasses.replace(table.tissues[k], **{f: v[k] for f, v in numbers.items()}) for k in rows]
    return TissueTable(tuple(changed), dict(table.structures))
