# SPDX-License-Identifier: Apache-2.0
"""The node graph of a session, described once: which nodes, with which parameters and remappings.

`launch/*.launch.py` and `usreg run` both read it. Nothing here needs ROS.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from ..data.share import share_dir
from ..errors import ConfigError, MissingFileError
from .options import Options, arguments, descriptions, flag, with_text

__all__ = ["NodeSpec", "Options", "arguments", "descriptions", "environment", "find_session", "flag", "nodes",
           "played_session", "session_name", "threads", "with_text"]  # fmt: skip

# executable (console script) and node name: module below usreg.nodes
MODULES = {
    "us_acquisition": "acquisition",
    "arm_tracking": "arm_tracking",
    "registration": "registration",
    "pose_smoothing": "pose_smoothing",
    "fusion": "fusion",
    "player": "player",
    "recorder": "recorder",
    "simulator": "simulator",
    "web_view": "web_view",
}
SHIPPED = ("phantom", "volunteer")  # kinds that play a session of the same name
KINDS = (*SHIPPED, "replay", "live")
ALWAYS = ("us_acquisition", "arm_tracking", "registration", "pose_smoothing", "fusion")
ASIDE = ("web_view",)  # in a process of its own always; its end never ends the session
TOKEN = "USREG_VIEW_TOKEN"  # of its environment: a command line can be read by everybody on the machine
PARENT = "USREG_PARENT"  # of the environment of a session's processes: they end when this one does
RECORDINGS = "recordings/usreg"  # where the page records, below the working directory; date and time are added
# subscribers of the graph's own nodes, by topic: the player begins when they are there
LISTENERS = {
    "raw/image": 1, "us/image": 2, "us/geometry": 3, "us/pose": 3, "registration/smoothed": 1,
    "registration/estimate": 1, "registration/hypotheses": 1,
}  # fmt: skip
RECORDED = (
    "us/image",
    "us/geometry",
    "us/pose",
    "registration/smoothed",
    "registration/estimate",
    "registration/hypotheses",
)
ANSWERS = ("registration/estimate",)
# what a kind of session chooses where nobody else does; `system: deep_s2v` registers the volunteer by networks
CHOICES: dict[str, dict[str, str]] = {"volunteer": {"system": "intensity", "overlay": "vessels"}}


@dataclass(frozen=True)
class NodeSpec:
    """A node: its name is also that of its executable.

    Args:
        parameters: values by dotted name, over those of the files.
        remappings: topics by the name in the code.
        files: parameter files, later ones win.
        environment: variables of its process alone.
    """

    name: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    remappings: Mapping[str, str] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    namespace: str = ""
    log_level: str = "info"
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def module(self) -> str:
        """Module with its `main`."""
        return f"usreg.nodes.{MODULES[self.name]}"

    def arguments(self) -> list[str]:
        """`--ros-args ...` of this node."""
        words = ["--ros-args", "-r", f"__node:={self.name}", "--log-level", self.log_level]
        if self.namespace:
            words += ["-r", f"__ns:=/{self.namespace.strip('/')}"]
        base, *later = self.files or ("",)
        for word in filter(None, (base,)):
            words += ["--params-file", word]
        for name, value in self.parameters.items():
            words += ["-p", f"{name}:={json.dumps(value)}"]
        for word in later:
            words += ["--params-file", word]
        for old, new in self.remappings.items():
            words += ["-r", f"{old}:={new}"]
        return words


def nodes(kind: str, options: Options) -> list[NodeSpec]:
    """The nodes of a session.

    Args:
        kind: "phantom" or "volunteer" (the sessions that ship), "replay" (a session's bag) or "live".

    Raises:
        ConfigError, MissingFileError: the session is not usable, or an option is missing.
    """
    if kind not in KINDS:
        raise ConfigError(f"there is no session kind '{kind}'; choose one of {list(KINDS)}")
    options = with_choices(kind, options)
    if kind == "live":
        parameters, remappings = _live(options)
    else:
        parameters, remappings = _recorded(session_name(kind, options), options)
    short = {key: getattr(options, key) for key in ("similarity", "optimizer", "mode")}
    weights = options.weights and str(Path(options.weights).absolute())
    parameters["registration"] |= {**short, "weights": weights}
    parameters["fusion"] |= {"overlay.mode": options.overlay}
    parameters["recorder"], parameters["web_view"] = _recorder(options), parameters["web_view"] | _view(kind, options)
    names = [*ALWAYS, *(["player"] if kind != "live" else []), *(["recorder"] if parameters["recorder"] else [])]
    names += ASIDE if options.view else ()
    files = tuple(filter(None, (str(share_dir() / "config" / "nodes.yaml"), options.params_file)))
    sim = options.use_sim_time if kind == "live" else True
    made = []
    for name in names:
        values = {"use_sim_time": sim and name != "player", **parameters.get(name, {})}
        values = {k: v for k, v in values.items() if v not in ("", None) and v != []}
        own = {TOKEN: options.view_token} if name == "web_view" and options.view_token else {}
        topics = remappings.get(name, {})
        made.append(NodeSpec(name, values, topics, files, options.namespace, options.log_level, own))
    return made


def _recorder(options: Options) -> dict[str, Any]:
    """Begins at once where a bag is named; else waits for the page's button. Nothing where there is neither."""
    if options.record:
        return {"bag": str(Path(options.record).absolute())}
    if options.view and not options.read_only:
        return {"bag": str(Path(RECORDINGS).absolute()), "dated": True, "autostart": False}
    return {}


def _view(kind: str, options: Options) -> dict[str, Any]:
    named = Path(session_name(kind, options) or options.session).name
    return {
        "host": options.view_host, "port": options.view_port, "read_only": options.read_only,
        "title": f"{kind}: {named}" if named and named != kind else kind, "overlay.mode": options.overlay,
    }  # fmt: skip


def with_choices(kind: str, options: Options) -> Options:
    """The options with those that the kind stands for where they were left open.

    They are for the session that ships and its own volume: another one says itself how it is registered.
    """
    if options.register_to or options.bag:
        return options
    left_open: dict[str, Any] = {k: v for k, v in CHOICES.get(kind, {}).items() if not getattr(options, k)}
    return replace(options, **left_open)


def session_name(kind: str, options: Options) -> str:
    """The session that is played: the one that was chosen, else the one that the kind stands for."""
    return options.bag or (kind if kind in SHIPPED else "")


def environment(network: bool = False) -> dict[str, str]:
    """Variables of every process: images fit into shared memory, and sockets open on loopback alone.

    The discovery range must stay at its default: LOCALHOST makes the middleware add a transport on every interface
    beside those of the profile.
    """
    if network:
        return {}
    profile = share_dir() / "config" / "fastdds.xml"
    return {"FASTDDS_DEFAULT_PROFILES_FILE": str(profile), "ROS_AUTOMATIC_DISCOVERY_RANGE": "SYSTEM_DEFAULT"}


def find_session(name: str) -> Any:
    """A session by its folder, or by the name of one that ships.

    Raises:
        MissingFileError: neither.
    """
    from ..data.sessions import FILE_NAME, read_session

    if not name:
        raise ConfigError(
            f"no session is named: give the argument 'bag' (a session's folder, or one that ships: {list(SHIPPED)})"
        )
    shipped = share_dir() / "bags" / name
    if Path(name).exists():
        return read_session(name)
    if len(Path(name).parts) == 1 and (shipped / FILE_NAME).is_file():
        return read_session(shipped)
    raise MissingFileError(f"no session '{name}': give its folder, or the name of one that ships: {list(SHIPPED)}")


def played_session(name: str, options: Options) -> Any:
    """The session that is played, with the volume to which it is registered.

    Raises:
        MissingFileError, ConfigError: there is no such session, or it has no such volume.
    """
    from ..data.session_volumes import with_volume

    return with_volume(find_session(name), options.register_to)


def _recorded(
    name: str, options: Options, streamed: bool = False
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, str]]]:
    from ..data.session_options import options_for

    session = played_session(name, options)
    if not (session.config.bag or streamed):
        raise ConfigError(f"session '{name}' was made for a stream and has no bag: give it as session:={name} to live")
    config, common = session.config, _frames(session)
    volume = _volume(session)
    system = options.system or config.system
    registration = {**volume, "system": system}
    meant = options_for(system, config.system, config.options)
    if meant:
        registration["options"] = yaml.safe_dump(meant, default_flow_style=True).strip()
    if config.initial is not None:
        registration["initial.world_T_ct"] = config.initial.pose.flatten().tolist()
        registration["initial.covariance"] = config.initial.covariance_matrix.flatten().tolist()
    tracking = {
        "pose_source": config.pose_source, "arm": str(session.arm_path or ""),
        "calibration": str(session.calibration_path or ""),
    }  # fmt: skip
    parameters: dict[str, dict[str, Any]] = {
        "us_acquisition": {"latency_s": 0.0, "probe": _probe(session)},  # its stamps are those of acquisition
        "arm_tracking": tracking,
        "registration": registration | _filter(config.smoothing),
        "pose_smoothing": _filter(config.smoothing),
        "fusion": volume,
        "player": _player(session, options),
        "web_view": volume | {"session": "" if streamed else str(session.folder.absolute())},
    }
    topics = config.topics
    raw = {topics.image: "raw/image", topics.geometry: "raw/geometry", topics.joints: "joint_states", topics.tf: "/tf"}
    played = {_relative(old): new for old, new in raw.items() if _relative(old) != new}
    remappings = {"us_acquisition": {"image_raw": "raw/image", "geometry_raw": "raw/geometry"}, "player": played}
    return {name: common | values for name, values in parameters.items()}, remappings


def _filter(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of the filter that the session changes, in the types that they have there."""
    from ..config import from_mapping, to_mapping
    from ..smoothing import FilterConfig

    values = to_mapping(from_mapping(FilterConfig, changes, "session.smoothing"))
    return _flat({key: values[key] for key in changes}, "filter.")


def _flat(values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Nested mappings as names with dots."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def _player(session: Any, options: Options) -> dict[str, Any]:
    topics, tf_pose = session.config.topics, session.config.pose_source == "tf"
    listeners = LISTENERS | {("/tf" if tf_pose else "joint_states"): 1}
    if not _probe(session):
        listeners["raw/geometry"] = 1
    counts = {t: n + (bool(options.record) and t in RECORDED) for t, n in listeners.items()}
    counts |= {t: counts[t] + 1 for t in (ANSWERS if options.step else ())}
    return {
        "bag": str(session.bag_path),
        "topics": [topics.image, topics.geometry, topics.joints, topics.tf, topics.tf_static],
        "image_topic": topics.image, "owned_frames": _owned(session), "rate": float(options.rate), "loop": options.loop,
        "paused": options.paused, "lockstep": list(ANSWERS) if options.step else [],
        "wait_for": [f"{topic}={count}" for topic, count in counts.items()],
    }  # fmt: skip


def _live(options: Options) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, str]]]:
    if options.session:
        parameters, _ = _recorded(options.session, options, streamed=True)
    else:
        parameters = _of_drivers(options)
    topics = {
        "us_acquisition": {"image_raw": options.image_topic, "geometry_raw": options.geometry_topic},
        "arm_tracking": {"joint_states": options.joint_topic},
    }
    remappings = {name: {old: new for old, new in pairs.items() if old != new} for name, pairs in topics.items()}
    return parameters, remappings


def _of_drivers(options: Options) -> dict[str, dict[str, Any]]:
    volume = {"volume": options.volume and str(Path(options.volume).absolute()), "modality": options.modality}
    file = options.file and str(Path(options.file).absolute())
    return {
        "us_acquisition": {"source": options.source, "probe": options.probe, "device": options.device, "file": file},
        "arm_tracking": {
            "pose_source": options.pose_source, "arm": options.arm, "calibration": options.calibration,
        },
        "registration": {**volume, "system": options.system},
        "fusion": volume,
        "web_view": volume,
    }  # fmt: skip


def _frames(session: Any) -> dict[str, Any]:
    names = session.config.frames
    return {
        "world_frame": names.world,
        "probe_frame": names.probe,
        "image_frame": names.image,
        "volume_frame": names.volume,
    }


def _volume(session: Any) -> dict[str, Any]:
    config = session.config
    names = [f"{value}={name}" for value, name in config.label_names.items()]
    labels = str(session.labels_path or "")
    return {
        "volume": str(session.volume_path or ""), "modality": config.modality, "labels": labels,
        "label_names": names if labels else [],
    }  # fmt: skip


def _probe(session: Any) -> str:
    """The probe's file where the bag does not carry the geometry."""
    from ..data.bags import BagReader

    if not session.config.bag:
        return ""  # a stream that was simulated carries it
    with BagReader(session.bag_path) as bag:
        carried = session.config.topics.geometry in bag.topics
    return "" if carried else str(session.probe_path or "")


def _owned(session: Any) -> list[str]:
    """Child frames of the transforms that arm_tracking publishes, and of the one that pose_smoothing does."""
    from ..kinematics.arm import load_arm

    frames, found = session.config.frames, [session.config.frames.volume]
    if session.config.pose_source == "joints":
        found += [*load_arm(session.arm_path).link_names, frames.probe]
    return found + ([frames.image] if session.calibration_path else [])


def _relative(name: str) -> str:
    from .topics import relative

    return relative(name)


def threads() -> dict[str, str]:
    """Small images gain nothing from several threads in each process; registration's kernels have their own."""
    return {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
