# SPDX-License-Identifier: Apache-2.0
"""The parts of a Navigator from a session's folder."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from ..acquisition.agreement import load_probe
from ..config import from_mapping, to_mapping
from ..data.bag_poses import decode_transforms
from ..data.bag_reader import BagReader
from ..data.calibration import read_calibration
from ..data.landmarks import read_landmarks
from ..data.ros_time import to_s
from ..data.session_events import TransformEvent
from ..data.session_options import options_for
from ..data.sessions import FILE_NAME, Session, read_session
from ..data.share import share_dir
from ..data.types import Calibration, ImageGeometry, Volume
from ..data.volumes import read_labels, read_volume, with_labels
from ..errors import CalibrationError, MissingFileError
from ..evaluation import vessel_points
from ..fusion import Fuser, OverlayConfig
from ..geometry import se3
from ..kinematics import load_arm
from ..navigator import Navigator
from ..registration.registrar import Registrar
from ..smoothing import FilterConfig, NoSmoothing, PoseFilter
from ..systems import build as build_system
from ..tracking import JointBuffer, PoseBufferConfig, Tracker
from .feed import Feed, JointFeed, TransformFeed


@dataclass(frozen=True)
class ReplayConfig:
    """What a replay needs beside the session.

    Args:
        system: registration system; "": the session's own, with the session's options.
        register_to: one of the session's further volumes by name, for `replay_session`; "": its own.
        similarity, optimizer: put into the options; "": as these say, else by the volume's modality.
        mode, weights: put into the options of the system deep_s2v; "": usreg, and those that ship.
        smoothing: false hands every accepted estimate through.
        snapshots: fused pictures in the report.
    """

    system: str = ""
    register_to: str = ""
    similarity: str = ""
    optimizer: str = ""
    mode: str = ""
    weights: str = ""
    smoothing: bool = True
    snapshots: int = 6
    filter: FilterConfig = field(default_factory=FilterConfig)
    overlay: OverlayConfig = field(default_factory=lambda: OverlayConfig(zoom=0))
    poses: PoseBufferConfig = field(default_factory=PoseBufferConfig)


def find_session(path: str | Path) -> Session:
    """A session by its folder, or by the name of one that ships.

    Raises:
        MissingFileError: neither.
    """
    path = Path(path)
    if path.exists():
        return read_session(path)
    shipped = share_dir() / "bags"
    if len(path.parts) == 1 and (shipped / path / FILE_NAME).is_file():
        return read_session(shipped / path)
    names = sorted(p.parent.name for p in shipped.glob(f"*/{FILE_NAME}")) if shipped.is_dir() else []
    raise MissingFileError(f"no session '{path}': give its folder, or one that ships: {names}")


def build_navigator(session: Session, config: ReplayConfig | None = None) -> tuple[Navigator, Feed]:
    """A Navigator for a session, prepared, and what fills its tracker with the bag's events.

    Raises:
        UsregError: a file is missing or not usable; the message says which and what to do.
    """
    config = config or ReplayConfig()
    feed, volume = build_feed(session, config), session_volume(session)
    settings = session_filter(session, config.filter)
    smoother = PoseFilter(settings) if config.smoothing else NoSmoothing(settings)
    tracker = session_tracker(session, feed)
    registrar = session_registrar(session, config, volume.modality)
    navigator = Navigator(tracker, registrar, smoother, Fuser(config.overlay), volume)
    navigator.prepare()
    return navigator, feed


def session_registrar(session: Session, config: ReplayConfig, modality: str) -> Registrar:
    """The system that the configuration or the session names, for volumes of a modality.

    Raises:
        ConfigError: an unknown system, similarity, optimizer or option.
    """
    system = config.system or session.config.system
    options = options_for(system, session.config.system, session.config.options)
    short = {key: getattr(config, key) for key in ("similarity", "optimizer", "mode", "weights")}
    return build_system(system, options | {key: value for key, value in short.items() if value}, modality)


def build_feed(session: Session, config: ReplayConfig) -> Feed:
    """Joints or transforms, as the session says."""
    if session.config.pose_source == "tf":
        return TransformFeed(session.config.frames.world, session.config.frames.probe, config.poses)
    assert session.arm_path is not None  # the session's own check
    return JointFeed(JointBuffer(load_arm(session.arm_path)), session.config.frames.probe)


def session_filter(session: Session, base: FilterConfig) -> FilterConfig:
    """The filter's configuration with what the session changes.

    Raises:
        ConfigError: an unknown key or a bad value in the session's `smoothing`.
    """
    return from_mapping(FilterConfig, to_mapping(base) | session.config.smoothing, "smoothing")


def session_tracker(session: Session, feed: Feed) -> Tracker:
    """A tracker whose calibration follows the session's.

    Raises:
        CalibrationError: there is none.
    """
    (since_s, first), *later = session_calibrations(session)
    tracker = Tracker(first, feed, since_s)
    for stamp_s, calibration in later:
        tracker.recalibrate(stamp_s, calibration)
    return tracker


def session_landmarks(session: Session) -> Tensor | None:
    """Points (N, 3), mm in the volume's frame, at which errors are reported; None where the session names none."""
    return None if session.landmarks_path is None else vessel_points(read_landmarks(session.landmarks_path))


def session_volume(session: Session) -> Volume:
    """The volume with its labels.

    Raises:
        MissingFileError: the session names none.
    """
    if session.volume_path is None:
        raise MissingFileError(
            f"session '{session.folder.name}' names no volume: add 'volume: FILE' to {FILE_NAME} "
            "(`usreg reconstruct` makes one of a sweep)"
        )
    volume = read_volume(session.volume_path, session.config.modality)
    if session.labels_path is None:
        return volume
    names = {int(k): v for k, v in session.config.label_names.items()}
    return with_labels(volume, *read_labels(session.labels_path, names))


def session_calibrations(session: Session) -> list[tuple[float, Calibration]]:
    """From the session's calibration file, else probe to image from the bag's statics: each with the stamp from which
    it holds.

    Raises:
        CalibrationError: neither is there.
    """
    if session.calibration_path is not None:
        return [(0.0, read_calibration(session.calibration_path))]
    frames = session.config.frames
    found = []
    for event in static_transforms(session):
        if (event.parent, event.child) == (frames.probe, frames.image):
            pose = se3.check_rigid(event.parent_T_child, f"{frames.probe} -> {frames.image}")
            found.append((event.stamp_s, Calibration(pose, ((1.0, 0.0), (0.0, 1.0)))))  # pixels come with the frames
    if not found:
        raise CalibrationError(
            f"session '{session.folder.name}' has no calibration: name a file in {FILE_NAME}, or record "
            f"{frames.probe} -> {frames.image} on {session.config.topics.tf_static}"
        )
    return found


def session_geometry(session: Session) -> ImageGeometry | None:
    """For bags without a geometry topic: of the probe's file, else of the calibration; None where neither says it."""
    if session.probe_path is not None:
        return load_probe(session.probe_path).geometry
    return None if session.calibration_path is None else read_calibration(session.calibration_path).geometry


def static_transforms(session: Session) -> list[TransformEvent]:
    """Every static transform of the bag; one without a stamp of its own holds from when it was recorded."""
    topic = session.config.topics.tf_static
    with BagReader(session.bag_path, skip_damaged=True) as bag:  # what is damaged is told where the bag is replayed
        if topic not in bag.topics:
            return []
        found = [(to_s(log_ns), t) for _, log_ns, message in bag.messages([topic]) for t in decode_transforms(message)]
    return [TransformEvent(t.stamp_s or log_s, t.parent, t.child, t.parent_T_child, True) for log_s, t in found]


def frame_count(session: Session) -> int:
    """Images in the bag."""
    with BagReader(session.bag_path) as bag:
        topic = bag.topics.get(session.config.topics.image)
        return 0 if topic is None else topic.count


def initial_pose(session: Session) -> tuple[Tensor, Tensor] | None:
    """Where registration begins, with covariance; None where the session does not say."""
    initial = session.config.initial
    if initial is None:
        return None
    return se3.check_rigid(initial.pose, "initial.world_T_ct"), initial.covariance_matrix
