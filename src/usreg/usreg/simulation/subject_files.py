# SPDX-License-Identifier: Apache-2.0
"""Subjects on the disk: a folder each, with the volume, its labels, the live frames and the truth."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch

from ..config import from_mapping
from ..data.atomic import atomic_folder, write_text
from ..data.landmarks import read_landmarks, write_landmarks
from ..data.types import Frame, TrackedFrame, Volume
from ..data.volumes import read_labels, read_volume, with_labels, write_labels, write_volume
from ..errors import FileFormatError, MissingFileError
from ..geometry.sector import SectorGeometry
from .body.types import STRUCTURES
from .subjects import Subject, SubjectConfig, make_subject

FORMAT = 1
SUBJECT, VOLUME, LABELS = "subject.json", "volume.nrrd", "labels.nrrd"
LANDMARKS, FRAMES = "landmarks.yaml", "frames.npz"
MAX_BYTES = 2**31  # of all frames' arrays
KEYS = ("images", "stamps_s", "world_T_image", "world_T_ct", "liver", "geometry")
Progress = Callable[[int, int], None]


def write_subject(subject: Subject, folder: str | Path) -> Path:
    """Write a subject; the folder appears only when everything in it is written.

    Raises:
        WriteError: the folder exists, or cannot be written.
    """
    kinds = list(dict.fromkeys(f.frame.geometry for f in subject.frames))
    with atomic_folder(folder) as partial:
        write_volume(subject.volume, partial / VOLUME)
        write_labels(subject.volume, partial / LABELS)
        write_landmarks(partial / LANDMARKS, subject.landmarks)
        arrays: dict[str, Any] = {
            "images": torch.stack([f.frame.image for f in subject.frames]).numpy(),
            "stamps_s": np.array([f.frame.stamp_s for f in subject.frames]),
            "world_T_image": torch.stack([f.world_T_image for f in subject.frames]).numpy(),
            "world_T_ct": subject.world_T_cts.numpy(),
            "liver": np.packbits(subject.liver.numpy(), axis=-1),
            "geometry": np.array([kinds.index(f.frame.geometry) for f in subject.frames]),
        }
        np.savez_compressed(partial / FRAMES, **arrays)
        content = {"format": FORMAT, "seed": subject.seed, "geometries": [asdict(kind) for kind in kinds]}
        write_text(partial / SUBJECT, json.dumps(content, indent=1, sort_keys=True) + "\n")
    return Path(folder)


def read_subject(folder: str | Path) -> Subject:
    """Read a subject.

    Raises:
        MissingFileError: a file is not there. FileFormatError: another format, or damaged. ConfigError: its geometry.
    """
    folder = Path(folder)
    if not (folder / SUBJECT).is_file():
        raise MissingFileError(f"'{folder.name}' holds no {SUBJECT}: `usreg train` makes such folders")
    if not (folder / FRAMES).is_file():
        raise MissingFileError(f"the subject '{folder.name}' lacks '{FRAMES}': make it again")
    try:
        content = json.loads((folder / SUBJECT).read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']}, this version reads {FORMAT}")
        seed = int(content["seed"])
        kinds = [from_mapping(SectorGeometry, g, "geometry") for g in content["geometries"]]
        arrays = _arrays(folder / FRAMES)
        frames, liver = _frames(arrays, kinds)
    except (ValueError, KeyError, TypeError, IndexError, BadZipFile, EOFError) as error:
        raise FileFormatError(f"the subject '{folder.name}' cannot be read, make it again: {error}") from error
    poses = torch.from_numpy(arrays["world_T_ct"])
    return Subject(seed, _volume(folder), frames, poses, liver, read_landmarks(folder / LANDMARKS))


def _volume(folder: Path) -> Volume:
    labels, names = read_labels(folder / LABELS, dict(STRUCTURES))
    return with_labels(read_volume(folder / VOLUME, "US"), labels, names)


def _arrays(path: Path) -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as file:
        size = sum(info.file_size for info in file.zip.infolist())
        if size > MAX_BYTES:
            raise ValueError(f"'{path.name}' declares {size} bytes, at most {MAX_BYTES} are read")
        return {key: file[key] for key in KEYS}


def _frames(arrays: dict[str, Any], kinds: list[SectorGeometry]) -> tuple[tuple[TrackedFrame, ...], torch.Tensor]:
    images, poses = torch.from_numpy(arrays["images"]), torch.from_numpy(arrays["world_T_image"])
    stamps, which = arrays["stamps_s"].tolist(), arrays["geometry"].tolist()
    frames = tuple(
        TrackedFrame(Frame(images[i], kinds[which[i]], stamps[i], i), poses[i]) for i in range(len(images))
    )  # fmt: skip
    liver = np.unpackbits(arrays["liver"], axis=-1, count=images.shape[-1]).astype(bool)
    return frames, torch.from_numpy(liver)


def write_subjects(
    seeds: Sequence[int], folder: str | Path, config: SubjectConfig | None = None, progress: Progress | None = None
) -> list[Path]:
    """Make the subjects that a folder lacks, one folder each under the number of its seed.

    Args:
        progress: called with hundredths of a subject that are done, and how many there are.

    Raises:
        As `make_subject` and `write_subject`; subjects that were finished stay.
    """
    folder, made = Path(folder), []
    folder.mkdir(parents=True, exist_ok=True)
    for done, seed in enumerate(seeds):
        made.append(folder / str(seed))

        def tell(part: int, total: int, done: int = done) -> None:
            if progress is not None:
                progress(100 * done + 100 * part // max(1, total), 100 * len(seeds))

        if not (made[-1] / SUBJECT).is_file():
            write_subject(make_subject(seed, config, tell), made[-1])
        tell(1, 1)
    return made
