# SPDX-License-Identifier: Apache-2.0
"""Bodies from segmentations: labels with TotalSegmentator's names, with or without their CT."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...config import check_range, from_mapping, load_yaml
from ...data.labels import read_label_names
from ...data.nifti_labels import embedded_label_names
from ...data.share import find_named
from ...data.types import Volume
from ...data.volumes import ENDINGS, read_labels, read_volume
from ...errors import ConfigError, FileFormatError, ShapeError
from ...geometry.grid import VoxelGrid
from .fill import FillConfig, fill
from .relabel import resample_labels
from .sampling import Field, regrid, resample
from .types import ORGANS, STRUCTURES, VALUE, Body

SOFT_TISSUE = "soft_tissue"
NAME_FILES = (".json", ".csv", ".yaml", ".txt")
SUMMITS = 0.005  # share of an organ's voxels, farthest towards head or foot, whose mean is its pole
MAX_VOXELS = 400_000_000


@dataclass(frozen=True)
class LabelTable:
    """TotalSegmentator's names.

    Args:
        structures: pattern of a name -> structure, or `soft_tissue`; the first that fits holds.
        classes: names in the order of their label values (1 first), by version: v1, v2, mr.
    """

    structures: dict[str, str]
    classes: dict[str, tuple[str, ...]]

    def __post_init__(self) -> None:
        unknown = sorted({s for s in self.structures.values() if s not in VALUE and s != SOFT_TISSUE})
        if unknown:
            raise ConfigError(f"the table of labels names structures {unknown} that a body does not have")

    def structure(self, name: str) -> str | None:
        """Structure of a class name; None where no pattern fits."""
        return next((s for pattern, s in self.structures.items() if fnmatchcase(name, pattern)), None)

    def names(self, version: str) -> dict[int, str]:
        """Names by label value.

        Raises:
            ConfigError: no such version.
        """
        if version not in self.classes:
            raise ConfigError(f"there is no class list '{version}'; choose from {', '.join(self.classes)}")
        return dict(enumerate(self.classes[version], start=1))


@dataclass(frozen=True)
class LabelConfig:
    """How a body is made of labels.

    Args:
        spacing_mm: of the body's isotropic voxels.
        fill: what the segmentation leaves out.
    """

    spacing_mm: float = 1.0
    fill: FillConfig = field(default_factory=FillConfig)

    def __post_init__(self) -> None:
        check_range("spacing_mm", self.spacing_mm, 0.4, 10.0)


def load_label_table(path: str | Path | None = None) -> LabelTable:
    """The table in config/totalsegmentator.yaml, or another of its form."""
    file = find_named("config", "totalsegmentator") if path is None else Path(path)
    return from_mapping(LabelTable, load_yaml(file))


def read_labelled(labels: str | Path, ct: str | Path | None = None, names: str | Path | None = None) -> Volume:
    """Read a segmentation, and its CT if there is one.

    Args:
        labels: volume of label values. ct: volume in HU on the same voxels.
        names: a class list (v1, v2, mr), or a file that `read_label_names` reads. None: the names that the file
            carries, else a list of its name beside it (`labels.csv` beside `labels.nii.gz`), else v2 where a value
            is above v1's 104.

    Returns:
        Voxels of the CT with modality "CT", or the labels themselves with modality ""; labels and their names.

    Raises:
        FileFormatError: no labels, or nothing says what they mean. ShapeError: the CT lies on other voxels.
        MissingFileError, ConfigError: as their readers.
    """
    labels = Path(labels)
    given = _names(labels, names)
    values, found = read_labels(labels, given or {})
    volume = read_volume(labels)
    if not given:
        found = _guess(labels, values)
    if ct is None:
        return replace(volume, labels=values, label_names=found, modality="")
    image = read_volume(ct, "CT")
    _check_same(image.grid, volume.grid, Path(ct).name, labels.name)
    return replace(image, labels=values, label_names=found)


def _names(labels: Path, names: str | Path | None) -> dict[int, str]:
    table = load_label_table()
    if names is not None:
        return table.names(str(names)) if str(names) in table.classes else read_label_names(names)
    if carried := embedded_label_names(labels):
        return carried
    ending = next((e for e in sorted(ENDINGS, key=len, reverse=True) if labels.name.lower().endswith(e)), "")
    stem = labels.name[: len(labels.name) - len(ending)]
    beside = [labels.with_name(stem + suffix) for suffix in NAME_FILES]
    return next((read_label_names(path) for path in beside if path.is_file()), {})


def _guess(path: Path, values: Tensor) -> dict[int, str]:
    table, highest = load_label_table(), int(values.max()) if values.numel() else 0
    if len(table.classes["v1"]) < highest <= len(table.classes["v2"]):
        return table.names("v2")
    raise FileFormatError(
        f"'{path.name}' says nowhere what its labels mean: give --names v1, v2 or mr (TotalSegmentator's classes), or "
        "a list (CSV, JSON, YAML) of values and names"
    )


def _check_same(a: VoxelGrid, b: VoxelGrid, name_a: str, name_b: str) -> None:
    off = (a.corners_ct - b.corners_ct).abs().max().item() if a.size == b.size else float("inf")
    if off > 0.1 * min(b.spacing_mm):
        raise ShapeError(
            f"'{name_a}' has {a.size} voxels, '{name_b}' {b.size}, and their corners differ by {off:.3g} mm: resample "
            "one onto the other"
        )


def body_from_labels(
    volume: Volume, config: LabelConfig | None = None, table: LabelTable | None = None
) -> tuple[Body, list[str]]:
    """Make a body of a segmentation.

    Labels become structures by the table; they are brought to isotropic voxels along the volume's own axes by
    shape-based interpolation (`resample_labels`), so thick slices and oblique volumes keep smooth, crisp organs; what
    the segmentation leaves out is filled from the CT's Hounsfield units (`fill`), or as fat inside the hull of the
    labels where there is no CT.

    Args:
        volume: labels (D, H, W) with `label_names`; data in HU where its modality is "CT", else not looked at.

    Returns:
        The body, and the labels that no pattern of the table fits, "name (N voxels)", largest first: they are
        treated as unlabelled.

    Raises:
        ShapeError: no labels, no voxel labelled, not one with a known tissue, or too many voxels at this spacing.
    """
    config, table = config or LabelConfig(), table or load_label_table()
    if volume.labels is None or not bool((volume.labels > 0).any()):
        raise ShapeError("the volume has no labelled voxel: give a segmentation")
    source = volume.grid
    target = regrid(source, (config.spacing_mm,) * 3)
    if np.prod(target.size, dtype=np.float64) > MAX_VOXELS:
        raise ShapeError(f"{target.size} voxels of {config.spacing_mm} mm are too many: choose a larger spacing_mm")
    mapped, unknown = map_labels(volume.labels, volume.label_names, table)
    if not mapped.any():
        raise ShapeError(f"no label has a known tissue: found {', '.join(unknown) or 'soft tissue only'}")
    fine = resample_labels(mapped, source, target)
    hu = resample(volume.data[0].numpy(), source, target) if volume.modality == "CT" else None
    filled = fill(fine, hu, config.spacing_mm, config.fill)
    labels = Volume(torch.from_numpy(filled)[None], target, "")
    return Body(labels, organ_landmarks(filled, target)), unknown


def map_labels(labels: Tensor, names: dict[int, str], table: LabelTable) -> tuple[NDArray[np.uint8], list[str]]:
    """Structure values (D, H, W) uint8, 0 for soft tissue and unknown labels; and the unknown, largest first."""
    values, counts = np.unique(labels.numpy(), return_counts=True)
    lookup = np.zeros(int(values.max()) + 1, np.uint8)
    unknown: list[tuple[int, str]] = []
    for value, count in zip(values.tolist(), counts.tolist(), strict=True):
        if value <= 0:
            continue
        name = names.get(value, f"label {value}")
        structure = table.structure(name)
        if structure is None:
            unknown.append((count, f"{name} ({count} voxels)"))
        elif structure != SOFT_TISSUE:
            lookup[value] = VALUE[structure]
    mapped = lookup[np.maximum(labels.numpy(), 0)]
    return mapped, [text for _, text in sorted(unknown, key=lambda u: (-u[0], u[1]))]


def organ_landmarks(labels: NDArray[np.uint8], grid: VoxelGrid) -> dict[str, Tensor]:
    """Centroid and poles towards head and foot of each organ, (3,) mm; no pole of an organ that the border cuts."""
    groups = {**{k: v for k, v in ORGANS.items() if k != "liver"}, "gallbladder": ("gallbladder",)}
    groups["liver"] = tuple(s for s in ORGANS["liver"] if s != "gallbladder")
    matrix = grid.ct_T_index.numpy()
    landmarks = {}
    for organ in sorted(groups):
        table = np.zeros(len(STRUCTURES), bool)
        table[[VALUE[s] for s in groups[organ]]] = True
        index = np.argwhere(table[labels])
        if not len(index):
            continue
        points = index[:, ::-1] @ matrix[:3, :3].T + matrix[:3, 3]
        landmarks[f"{organ}_centroid"] = torch.from_numpy(points.mean(axis=0))
        if bool((index > 0).all()) and bool((index < np.array(labels.shape) - 1).all()):
            order = np.argsort(points[:, 2], kind="stable")
            few = max(1, round(SUMMITS * len(points)))
            landmarks[f"{organ}_lower_pole"] = torch.from_numpy(points[order[:few]].mean(axis=0))
            upper = "liver_dome" if organ == "liver" else f"{organ}_upper_pole"
            landmarks[upper] = torch.from_numpy(points[order[-few:]].mean(axis=0))
    return landmarks


def fine_ct(volume: Volume, grid: VoxelGrid) -> Volume:
    """The given CT on the voxels of the body that was made of it, int16."""
    data: Field = resample(volume.data[0].numpy(), volume.grid, grid)
    rounded = np.clip(np.rint(data), -1024, 3071).astype(np.int16)
    return Volume(torch.from_numpy(rounded)[None], grid, "CT")
