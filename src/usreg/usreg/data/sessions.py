# SPDX-License-Identifier: Apache-2.0
"""A session: a folder with a bag, a volume, where the volume was first placed, and the names of arm and probe."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from torch import Tensor

from ..config import check_range, from_mapping, load_yaml, to_mapping
from ..errors import ConfigError, GeometryError, MissingFileError, WriteError
from ..geometry import se3
from .share import find_named, inside
from .types import check_covariance

FILE_NAME = "session.yaml"
Row4 = tuple[float, float, float, float]
Row6 = tuple[float, float, float, float, float, float]


@dataclass(frozen=True)
class InitialPose:
    """Where the registration begins.

    Args:
        world_T_ct: 4x4, mm.
        covariance: 6x6 of (v, w), mm and rad, world axes, about the volume's centre.
        draw_mm, draw_deg: half widths of the uniform draw that moved it off the truth (0: placed by hand), for reports.
    """

    world_T_ct: tuple[Row4, Row4, Row4, Row4]
    covariance: tuple[Row6, Row6, Row6, Row6, Row6, Row6]
    draw_mm: float = 0.0
    draw_deg: float = 0.0

    def __post_init__(self) -> None:
        se3.check_rigid(self.pose, "initial.world_T_ct")
        check_covariance(self.covariance_matrix, "initial.covariance")
        check_range("initial.draw_mm", self.draw_mm, 0, 1000)
        check_range("initial.draw_deg", self.draw_deg, 0, 180)

    @property
    def pose(self) -> Tensor:
        """(4, 4) float64, as written."""
        return torch.tensor(self.world_T_ct, dtype=torch.float64)

    @property
    def covariance_matrix(self) -> Tensor:
        """(6, 6) float64."""
        return torch.tensor(self.covariance, dtype=torch.float64)

    @staticmethod
    def of(world_T_ct: Tensor, covariance: Tensor, draw_mm: float = 0.0, draw_deg: float = 0.0) -> InitialPose:
        """From matrices."""
        rows = [tuple(map(float, row)) for row in world_T_ct.tolist()]
        sigma = [tuple(map(float, row)) for row in covariance.tolist()]
        return InitialPose(tuple(rows), tuple(sigma), draw_mm, draw_deg)  # type: ignore[arg-type]


@dataclass(frozen=True)
class FrameNames:
    """Names of coordinate frames in the bag."""

    world: str = "world"
    probe: str = "us_probe"
    image: str = "us_image"
    volume: str = "ct"

    def __post_init__(self) -> None:
        names = (self.world, self.probe, self.image, self.volume)
        if len(set(names)) != 4 or not all(names):
            raise ConfigError(f"frames must be four different names, got {names}")


@dataclass(frozen=True)
class TopicNames:
    """Names of topics in the bag."""

    image: str = "/us/image"
    geometry: str = "/us/geometry"
    joints: str = "/joint_states"
    tf: str = "/tf"
    tf_static: str = "/tf_static"
    truth: str = "/truth/tf"

    def __post_init__(self) -> None:
        names = tuple(to_mapping(self).values())
        if len(set(names)) != len(names) or not all(n.startswith("/") for n in names):
            raise ConfigError(f"topics must be different names with a leading slash, got {names}")


@dataclass(frozen=True)
class SessionConfig:
    """What `session.yaml` holds. Paths are relative to its folder and stay inside it.

    Args:
        bag: folder or file of the recording.
        volume: the pre-procedural volume. modality: "CT", "MR", "US" or "".
        labels: a label volume; label_names: names by value.
        volumes: further volumes in the same physical frame, file by name ("ct").
        landmarks: points in the volume's frame at which errors are reported (`data/landmarks.py`).
        sweep: a second bag: the 3D sweep from which the volume was reconstructed.
        initial: where registration begins; None: it waits for `registration/initialize`.
        pose_source: "joints" (the arm's kinematics give the pose) or "tf" (the bag's TF does).
        arm, probe: names in config/arms and config/probes, or files inside the folder.
        calibration: a calibration file inside the folder; "": the statics of the bag say it.
        latency_applied_s: already subtracted from the stamps in the bag, for the record.
        seed: of every draw in a replay.
        system: registration system; options: its options.
        smoothing: keys of the pose filter that differ from its defaults.
        still: the body does not move: frames of different times show the same, see `session_volumes`.
        truth: whether the bag holds the truth.
    """

    bag: str = "bag"
    volume: str = ""
    modality: Literal["", "CT", "MR", "US"] = ""
    labels: str = ""
    label_names: dict[str, str] = field(default_factory=dict)
    volumes: dict[str, str] = field(default_factory=dict)
    landmarks: str = ""
    sweep: str = ""
    initial: InitialPose | None = None
    pose_source: Literal["joints", "tf"] = "joints"
    arm: str = ""
    probe: str = ""
    calibration: str = ""
    latency_applied_s: float = 0.0
    seed: int = 0
    system: str = "intensity"
    options: dict[str, Any] = field(default_factory=dict)
    smoothing: dict[str, Any] = field(default_factory=dict)
    frames: FrameNames = field(default_factory=FrameNames)
    topics: TopicNames = field(default_factory=TopicNames)
    still: bool = False
    truth: bool = False
    description: str = ""
    licence: str = ""

    def __post_init__(self) -> None:
        check_range("latency_applied_s", self.latency_applied_s, -10, 10)
        check_range("seed", self.seed, 0, 2**31 - 1)
        if self.pose_source == "joints" and not self.arm:
            raise ConfigError(
                "pose_source is 'joints' but no arm is named; name one of config/arms, or set pose_source: tf"
            )


@dataclass(frozen=True)
class Session:
    """A session's folder with its checked configuration."""

    folder: Path
    config: SessionConfig

    @property
    def bag_path(self) -> Path:
        """The recording."""
        return inside(self.folder, self.config.bag, "bag")

    @property
    def volume_path(self) -> Path | None:
        """The volume; None where the session names none."""
        return self._optional(self.config.volume, "volume")

    @property
    def labels_path(self) -> Path | None:
        """The label volume, or None."""
        return self._optional(self.config.labels, "labels")

    @property
    def landmarks_path(self) -> Path | None:
        """The landmarks, or None."""
        return self._optional(self.config.landmarks, "landmarks")

    @property
    def sweep_path(self) -> Path | None:
        """The bag of the 3D sweep, or None."""
        return self._optional(self.config.sweep, "sweep")

    @property
    def volume_paths(self) -> dict[str, Path]:
        """Further volumes by name."""
        return {name: inside(self.folder, file, f"volumes.{name}") for name, file in self.config.volumes.items()}

    @property
    def calibration_path(self) -> Path | None:
        """The calibration file, or None."""
        return self._optional(self.config.calibration, "calibration")

    @property
    def arm_path(self) -> Path | None:
        """YAML of the arm: inside the folder where it is there, else from config/arms."""
        return self._named("arm", self.config.arm, "config/arms")

    @property
    def probe_path(self) -> Path | None:
        """YAML of the probe: inside the folder where it is there, else from config/probes."""
        return self._named("probe", self.config.probe, "config/probes")

    def _optional(self, relative: str, what: str) -> Path | None:
        return inside(self.folder, relative, what) if relative else None

    def _named(self, what: str, name: str, shipped: str) -> Path | None:
        if not name:
            return None
        path = inside(self.folder, name, what)
        if path.is_file():
            return path
        if len(Path(name).parts) != 1:
            raise MissingFileError(f"session '{self.folder.name}' names {what} '{name}', which is not in its folder")
        return find_named(shipped, name)


def read_session(path: str | Path) -> Session:
    """Read a session from its folder or its `session.yaml`; every file that it names must be there, inside the folder.

    Raises:
        MissingFileError: no session there, or a named file is missing.
        ConfigError: unknown keys, bad values, paths that lead out. GeometryError: the initial pose is not rigid.
    """
    path = Path(path)
    folder = path.parent if path.name == FILE_NAME else path
    if not (folder / FILE_NAME).is_file():
        raise MissingFileError(
            f"no {FILE_NAME} in '{folder.name}': give the folder of a session ('usreg convert' makes one of a sequence)"
        )
    mapping = load_yaml(folder / FILE_NAME)
    if isinstance(mapping.get("label_names"), dict):
        mapping["label_names"] = {str(k): v for k, v in mapping["label_names"].items()}
    session = Session(folder, from_mapping(SessionConfig, mapping, "session"))
    named = {
        "bag": session.bag_path, "volume": session.volume_path, "labels": session.labels_path,
        "calibration": session.calibration_path, "arm": session.arm_path, "probe": session.probe_path,
        "landmarks": session.landmarks_path, "sweep": session.sweep_path, **session.volume_paths,
    }  # fmt: skip
    for what, file in named.items():
        if file is not None and not file.exists():
            raise MissingFileError(
                f"session '{folder.name}' names the {what} '{file.name}', which is not in its folder"
            )
    return session


def write_session(folder: str | Path, config: SessionConfig) -> Session:
    """Write `session.yaml` (whole or not at all) into a folder; its files are written by their own writers.

    Raises:
        WriteError: no permission or a full disk.
    """
    folder = Path(folder)
    session = Session(folder, config)
    for what in ("bag", "volume", "labels", "calibration", "landmarks", "sweep"):
        if getattr(config, what):
            inside(folder, getattr(config, what), what)
    partial = folder / f".{FILE_NAME}.partial"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        partial.write_text(
            yaml.safe_dump(to_mapping(config), sort_keys=False, width=120, default_flow_style=None), encoding="utf-8"
        )
        os.replace(partial, folder / FILE_NAME)
    except OSError as error:
        raise WriteError(f"cannot write {FILE_NAME} in '{folder.name}': {error.strerror}") from error
    return session


def start_pose(session: Session) -> tuple[Tensor, Tensor]:
    """Initial world_T_ct, exactly orthonormal, and its covariance.

    Raises:
        GeometryError: the session has none.
    """
    if session.config.initial is None:
        raise GeometryError(
            f"session '{session.folder.name}' has no initial pose: add 'initial' to {FILE_NAME}, or initialise by hand"
        )
    initial = session.config.initial
    return se3.check_rigid(initial.pose, "initial.world_T_ct"), initial.covariance_matrix
