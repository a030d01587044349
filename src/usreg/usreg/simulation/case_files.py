# SPDX-License-Identifier: Apache-2.0
"""Cases on the disk: a folder each, with the CT, its labels, the frames of every sweep and the truth."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from ..config import from_mapping
from ..data.atomic import atomic_folder, write_text
from ..data.landmarks import read_landmarks, write_landmarks
from ..data.types import Frame, TrackedFrame
from ..data.volumes import read_labels, read_volume, with_labels, write_labels, write_volume
from ..errors import FileFormatError, MissingFileError
from ..geometry.sector import SectorGeometry
from .body.types import STRUCTURES
from .cases import Case, CaseConfig, Sweep, make_case

FORMAT = 1
CASE, CT, LABELS, LANDMARKS = "case.json", "ct.nrrd", "labels.nrrd", "landmarks.yaml"  # NRRD keeps the grid's numbers
MAX_BYTES = 2**30  # of the arrays of a sweep
KEYS = ("images", "stamps_s", "world_T_image", "covariance", "ct_T_image")
Progress = Callable[[int, int], None]


def write_case(case: Case, folder: str | Path) -> Path:
    """Write a case; the folder appears only when everything in it is written.

    Raises:
        WriteError: the folder exists, or cannot be written.
    """
    with atomic_folder(folder) as partial:
        write_volume(case.ct, partial / CT)
        write_labels(case.ct, partial / LABELS)
        write_landmarks(partial / LANDMARKS, case.landmarks)
        for number, sweep in enumerate(case.sweeps):
            np.savez_compressed(partial / f"sweep_{number}.npz", **_arrays(sweep))
        content = {"format": FORMAT, "seed": case.seed, "sweeps": [_described(s) for s in case.sweeps]}
        write_text(partial / CASE, json.dumps(content, indent=1, sort_keys=True) + "\n")
    return Path(folder)


def _arrays(sweep: Sweep) -> dict[str, Any]:
    frames = sweep.frames
    return {
        "images": torch.stack([f.frame.image for f in frames]).numpy(),
        "stamps_s": np.array([f.frame.stamp_s for f in frames]),
        "world_T_image": torch.stack([f.world_T_image for f in frames]).numpy(),
        "covariance": torch.stack([f.covariance for f in frames]).numpy(),
        "ct_T_image": sweep.ct_T_images.numpy(),
    }


def _described(sweep: Sweep) -> dict[str, Any]:
    geometry = sweep.frames[0].frame.geometry
    return {"name": sweep.name, "world_T_ct": sweep.world_T_ct.tolist(), "geometry": asdict(geometry)}


def read_case(folder: str | Path) -> Case:
    """Read a case.

    Raises:
        MissingFileError: a file is not there. FileFormatError: another format, or damaged. ConfigError: its geometry.
    """
    folder = Path(folder)
    if not (folder / CASE).is_file():
        raise MissingFileError(f"'{folder.name}' holds no {CASE}: `usreg simulate cases` makes such folders")
    try:
        content = json.loads((folder / CASE).read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']}, this version reads {FORMAT}")
        seed, sweeps = int(content["seed"]), list(content["sweeps"])
        read = tuple(_read_sweep(folder / f"sweep_{n}.npz", described) for n, described in enumerate(sweeps))
    except (ValueError, KeyError, TypeError, BadZipFile, EOFError) as error:
        raise FileFormatError(f"the case '{folder.name}' cannot be read, make it again: {error}") from error
    labels, names = read_labels(folder / LABELS, dict(STRUCTURES))
    ct = with_labels(read_volume(folder / CT, "CT"), labels, names)
    return Case(seed, ct, read, read_landmarks(folder / LANDMARKS))


def _read_sweep(path: Path, described: dict[str, Any]) -> Sweep:
    if not path.is_file():
        raise MissingFileError(f"the case '{path.parent.name}' lacks '{path.name}': make it again")
    with np.load(path, allow_pickle=False) as file:
        size = sum(info.file_size for info in file.zip.infolist())
        if size > MAX_BYTES:
            raise ValueError(f"'{path.name}' declares {size} bytes, at most {MAX_BYTES} are read")
        images, stamps, poses, covariances, true = (torch.from_numpy(file[key]) for key in KEYS)
    geometry = from_mapping(SectorGeometry, described["geometry"], path.name)
    frames = tuple(
        TrackedFrame(Frame(image, geometry, stamp, index), pose, covariance)
        for index, (image, stamp, pose, covariance) in enumerate(
            zip(images, stamps.tolist(), poses, covariances, strict=True)
        )
    )
    return Sweep(str(described["name"]), frames, _matrix(described["world_T_ct"]), true)


def _matrix(rows: Any) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def write_cases(
    seeds: Sequence[int], folder: str | Path, config: CaseConfig | None = None, progress: Progress | None = None
) -> list[Path]:
    """Make the cases that a folder lacks, one folder each under the number of its seed.

    Raises:
        As `make_case` and `write_case`; cases that were finished stay.
    """
    folder, made = Path(folder), []
    folder.mkdir(parents=True, exist_ok=True)
    for done, seed in enumerate(seeds):
        if progress is not None:
            progress(done, len(seeds))
        made.append(folder / str(seed))
        if not (made[-1] / CASE).is_file():
            write_case(make_case(seed, config), made[-1])
    if progress is not None:
        progress(len(seeds), len(seeds))
    return made
