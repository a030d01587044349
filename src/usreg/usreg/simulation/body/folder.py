# SPDX-License-Identifier: Apache-2.0
"""A body as a folder: labels, CT, T1 and T2, landmarks, vessels, surfaces, and body.yaml that says what they are.

body.yaml          seed, measures, label names, files, licence
labels.nii.gz      uint8, values as STRUCTURES
ct.nii.gz          HU; t1.nii.gz, t2.nii.gz: MR-like signals
landmarks.yaml     points in `ct`, mm; landmarks.mrk.json: the same for 3D Slicer
vessels.json       the vessels as they were grown (procedural bodies)
surfaces/NAME.ply  closed meshes in `ct`, mm
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from ...config import check_range, from_mapping, load_yaml, to_mapping
from ...data.atomic import atomic_folder, write_text
from ...data.landmarks import read_landmarks, write_landmarks
from ...data.meshes import write_mesh
from ...data.share import inside
from ...data.types import Volume
from ...data.volumes import read_volume, write_volume
from ...errors import ConfigError, FileFormatError
from ...rendering.surface import SurfaceConfig
from .anatomy import make_body
from .config import BodyConfig
from .ct import CtConfig, ct_image
from .mr import MrConfig, mr_image
from .surfaces import surfaces
from .totalsegmentator import LabelConfig, body_from_labels, fine_ct, read_labelled
from .types import STRUCTURES, Body, Tube

Progress = Callable[[int, int], None]
FILE_NAME = "body.yaml"
LICENCE = "Apache-2.0"
PROCEDURAL = "Procedural anatomy, drawn from a seed. Not a patient. Research use only."
LABELLED = "Made of a labelled scan; its licence and its patient's rights are those of the scan. Research use only."
ANATOMY_STEPS = 12  # of the progress; images and surfaces are one each
IMAGES = 31  # tells the random streams of the images from those of the anatomy
MAX_JSON_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class BodyFolderConfig:
    """How a body is made and imaged; each part as in its own room.

    Args:
        body: of a procedural body. labels: of one made of a segmentation.
        ct, t1, t2, surfaces: what is written of it.
    """

    body: BodyConfig = field(default_factory=BodyConfig)
    labels: LabelConfig = field(default_factory=LabelConfig)
    ct: CtConfig = field(default_factory=CtConfig)
    t1: MrConfig = field(default_factory=MrConfig)
    t2: MrConfig = field(default_factory=lambda: MrConfig(weighting="t2"))
    surfaces: SurfaceConfig = field(default_factory=SurfaceConfig)

    def __post_init__(self) -> None:
        if self.t1.weighting != "t1" or self.t2.weighting != "t2":
            raise ConfigError(f"t1 and t2 have weightings {self.t1.weighting} and {self.t2.weighting}: swap them")


@dataclass(frozen=True)
class BodyFile:
    """What body.yaml says.

    Args:
        seed: of the draw; -1 for a labelled scan. image_seed: of noise and texture.
        contrast: phase of the CT: none, arterial, portal; "given" where the CT is the scan's own.
        measures: name with unit -> value. label_names: value -> structure.
        files: kind -> path inside the folder. surfaces: name -> path. unknown_labels: what no structure was found for.
    """

    seed: int
    image_seed: int
    contrast: str
    measures: dict[str, float]
    label_names: dict[str, str]
    files: dict[str, str]
    surfaces: dict[str, str] = field(default_factory=dict)
    unknown_labels: tuple[str, ...] = ()
    description: str = ""
    licence: str = ""


def simulate_body(
    out: str | Path,
    seed: int = 0,
    labels: str | Path | None = None,
    ct: str | Path | None = None,
    names: str | Path | None = None,
    config: BodyFolderConfig | None = None,
    progress: Progress | None = None,
) -> Path:
    """Make a body and write its folder: the same seed gives the same volumes.

    Args:
        out: folder to be made; it appears only when everything in it is written.
        seed: of the anatomy, and of noise and texture of the images.
        labels: a segmentation to take instead of a procedural anatomy, ct: its CT, names: what its labels mean (as
            `read_labelled`). The folder's CT is then the given one, on the body's voxels.
        progress: called with (steps done, steps in all).

    Returns:
        The folder.

    Raises:
        WriteError: the folder exists, or cannot be written. ConfigError: a value out of its range, or `ct` or `names`
            without `labels`. Others: as `read_labelled` and `body_from_labels`. Nothing is left behind.
    """
    config = config or BodyFolderConfig()
    check_range("seed", seed, 0, 2**31 - 1)
    if labels is None and (ct is not None or names is not None):
        raise ConfigError("a CT or names of labels were given without labels: give the segmentation too (--labels)")
    total = ANATOMY_STEPS + 5

    def report(done: float) -> None:
        if progress is not None:
            progress(int(done), total)

    with atomic_folder(out) as folder:
        if labels is None:
            body = make_body(seed, config.body, lambda i, n: report(ANATOMY_STEPS * i / n))
            given: Volume | None = None
            unknown: list[str] = []
        else:
            volume = read_labelled(labels, ct, names)
            body, unknown = body_from_labels(volume, config.labels)
            given = fine_ct(volume, body.labels.grid) if volume.modality == "CT" else None
        report(ANATOMY_STEPS)
        _write_folder(folder, body, given, unknown, seed, config, lambda i: report(ANATOMY_STEPS + i))
    return Path(out)


def _write_folder(
    folder: Path, body: Body, given: Volume | None, unknown: list[str], seed: int, config: BodyFolderConfig,
    report: Callable[[int], None],
) -> None:  # fmt: skip
    streams = [np.random.Generator(np.random.PCG64(s)) for s in np.random.SeedSequence([seed, IMAGES]).spawn(3)]
    files = {"labels": "labels.nii.gz", "ct": "ct.nii.gz", "t1": "t1.nii.gz", "t2": "t2.nii.gz"}
    write_volume(body.labels, folder / files["labels"])
    report(1)
    write_volume(given if given is not None else ct_image(body, streams[0], config.ct), folder / files["ct"])
    report(2)
    write_volume(mr_image(body, streams[1], config.t1), folder / files["t1"])
    report(3)
    write_volume(mr_image(body, streams[2], config.t2), folder / files["t2"])
    report(4)
    files |= _write_points(folder, body)
    meshes = _write_surfaces(folder / "surfaces", body, config.surfaces)
    content = BodyFile(
        seed=body.seed, image_seed=seed, contrast="given" if given is not None else config.ct.contrast,
        measures={k: round(float(v), 4) for k, v in body.measures.items()},
        label_names={str(v): n for v, n in STRUCTURES.items()}, files=files, surfaces=meshes,
        unknown_labels=tuple(unknown), description=PROCEDURAL if body.seed >= 0 else LABELLED,
        licence=LICENCE if body.seed >= 0 else "",
    )  # fmt: skip
    write_text(folder / FILE_NAME, yaml.safe_dump(to_mapping(content), sort_keys=False, width=120))
    report(5)


def _write_points(folder: Path, body: Body) -> dict[str, str]:
    """Landmarks and vessels, where there are any."""
    files: dict[str, str] = {}
    if body.landmarks:
        files |= {"landmarks": "landmarks.yaml", "markups": "landmarks.mrk.json"}
        write_landmarks(folder / files["landmarks"], body.landmarks)
        write_landmarks(folder / files["markups"], body.landmarks)
    if body.tubes:
        files["vessels"] = "vessels.json"
        write_text(folder / files["vessels"], json.dumps([asdict(t) for t in body.tubes]) + "\n")
    return files


def _write_surfaces(folder: Path, body: Body, config: SurfaceConfig) -> dict[str, str]:
    folder.mkdir()
    found = surfaces(body, None, config)
    for name, surface in found.items():
        write_mesh(folder / f"{name}.ply", surface.vertices_mm, surface.triangles)
    return {name: f"{folder.name}/{name}.ply" for name in found}


def read_body_file(folder: str | Path) -> BodyFile:
    """body.yaml of a folder.

    Raises:
        MissingFileError, FileFormatError, ConfigError: no such file, not YAML, or other keys.
    """
    return from_mapping(BodyFile, load_yaml(Path(folder) / FILE_NAME), FILE_NAME)


def read_body(folder: str | Path) -> Body:
    """The body that a folder holds: labels, landmarks to the micrometre, vessels, measures.

    Raises:
        MissingFileError, FileFormatError, ConfigError: a file is missing or damaged, other labels than STRUCTURES, or a
            path that leads out of the folder.
    """
    folder = Path(folder)
    content = read_body_file(folder)
    if content.label_names != {str(v): n for v, n in STRUCTURES.items()} or "labels" not in content.files:
        raise FileFormatError(
            f"'{folder.name}' has no labels, or other names than this version of usreg: make it again"
        )
    labels = read_volume(inside(folder, content.files["labels"], "labels"))
    if labels.data.dtype != torch.uint8 or int(labels.data.max()) > max(STRUCTURES):
        raise FileFormatError(f"'{content.files['labels']}' holds no labels of a body: make it again")
    landmarks = {}
    if "landmarks" in content.files:
        landmarks = read_landmarks(inside(folder, content.files["landmarks"], "landmarks"))
    tubes: tuple[Tube, ...] = ()
    if "vessels" in content.files:
        tubes = _read_tubes(inside(folder, content.files["vessels"], "vessels"))
    return Body(labels, landmarks, tubes, content.measures, content.seed)


def _read_tubes(path: Path) -> tuple[Tube, ...]:
    if not path.is_file() or path.stat().st_size > MAX_JSON_BYTES:
        raise FileFormatError(f"'{path.name}' is missing, or has more than {MAX_JSON_BYTES} bytes")
    try:
        rows: Any = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise FileFormatError(f"'{path.name}' is no readable JSON: {error}") from error
    if not isinstance(rows, list):
        raise FileFormatError(f"'{path.name}' must hold a list of vessels with {[f.name for f in fields(Tube)]}")
    return tuple(from_mapping(Tube, row, path.name) for row in rows)
