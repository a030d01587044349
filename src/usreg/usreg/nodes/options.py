# SPDX-License-Identifier: Apache-2.0
"""What a user may choose of a session's graph: the arguments of the launch files and of `usreg run`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from ..errors import ConfigError

PLAYER_OPTIONS = ("bag", "rate", "loop", "step", "paused")


@dataclass(frozen=True)
class Options:
    """What a user may choose; the arguments of the launch files and of `usreg run`.

    Args:
        bag: session to play: its folder, or the name of one that ships.
        rate: speed of the player.
        loop: play again and again; the clock jumps back.
        step: lock-step: the next frame waits for the result of the one before.
        paused: start paused; services player/step and player/pause.
        record: bag to record into; empty: none.
        system: registration system: intensity, deep_s2v or itk; empty: the session's, else intensity.
        mode: of the system deep_s2v: usreg, paper or fvr; empty: usreg.
        weights: of the system deep_s2v: a file that `usreg train` wrote; empty: those that ship.
        overlay: picture of fusion: alpha, checkerboard, contours or vessels; empty: as the parameters say.
        similarity: auto, ncc, lncc, lc2, mind, ssc, mi, nmi, gc or ngf; empty: the session's, else auto.
        optimizer: auto, lm, adam, lbfgs, bobyqa or cmaes; empty: the session's, else auto.
        register_to: one of the session's further volumes by name, for example ct; empty: the session's own volume.
        namespace: of every node.
        params_file: further parameters, over config/nodes.yaml and the session.
        log_level: debug, info, warn or error.
        view: show the session on a page in the browser (the node web_view, a process of its own).
        view_port: its TCP port.
        view_host: its address; any other than that of this machine alone (127.0.0.1) asks for a token.
        view_token: what a browser must give; empty: one is made where it is needed.
        read_only: the page cannot control the session.
        volume: live: path of the volume.
        session: live: session whose volume, start, arm and calibration are used, for a simulator that streams it.
        modality: live: CT, MR, US or empty.
        source: live: topic, video or dicom.
        probe: live: name in config/probes or a file.
        image_topic: live: the driver's image topic.
        geometry_topic: live: the driver's topic of image geometries, where no probe is named.
        device: live: index of the video device.
        file: live: video file or DICOM cine.
        pose_source: live: joints or tf.
        arm: live: name in config/arms or a file.
        joint_topic: live: the driver's joint states.
        calibration: live: probe calibration; empty: TF statics say it.
        use_sim_time: live: follow /clock (a simulator's).
    """

    bag: str = ""
    rate: float = 1.0
    loop: bool = False
    step: bool = False
    paused: bool = False
    record: str = ""
    system: str = ""
    mode: str = ""
    weights: str = ""
    overlay: str = ""
    similarity: str = ""
    optimizer: str = ""
    register_to: str = ""
    namespace: str = ""
    params_file: str = ""
    log_level: str = "info"
    view: bool = True
    view_port: int = 8090
    view_host: str = "127.0.0.1"
    view_token: str = ""
    read_only: bool = False
    volume: str = ""
    session: str = ""
    modality: str = ""
    source: str = "topic"
    probe: str = ""
    image_topic: str = "image_raw"
    geometry_topic: str = "geometry_raw"
    device: int = 0
    file: str = ""
    pose_source: str = "joints"
    arm: str = "iiwa7"
    joint_topic: str = "joint_states"
    calibration: str = ""
    use_sim_time: bool = False


def with_text(options: Options, values: Mapping[str, str]) -> Options:
    """Options from texts, as launch arguments are.

    Raises:
        ConfigError: a text that is not of the option's type.
    """
    kinds: dict[str, Any] = {"bool": _as_bool, "float": float, "int": int, "str": str}
    made: dict[str, Any] = {}
    for option in fields(Options):
        if option.name in values:
            try:
                made[option.name] = kinds[str(option.type)](values[option.name])
            except ValueError as error:
                raise ConfigError(f"argument '{option.name}' is {values[option.name]!r}: {error}") from error
    return replace(options, **made)


def arguments(kind: str) -> tuple[str, ...]:
    """Options that a kind of session takes."""
    names = tuple(f.name for f in fields(Options))
    played = names[: names.index("volume")]
    return played if kind != "live" else tuple(n for n in names if n not in PLAYER_OPTIONS)


def flag(name: str, text: str) -> bool:
    """A text as true or false.

    Raises:
        ConfigError: neither.
    """
    try:
        return _as_bool(text)
    except ValueError as error:
        raise ConfigError(f"argument '{name}' is {text!r}: {error}") from error


def _as_bool(text: str) -> bool:
    if text.lower() not in ("true", "false", "1", "0"):
        raise ValueError("write true or false")
    return text.lower() in ("true", "1")


def descriptions() -> dict[str, str]:
    """What each option means, from its one description above."""
    text = (Options.__doc__ or "").partition("Args:")[2]
    rows = [line.strip().partition(": ") for line in text.splitlines() if ": " in line]
    return {name: meaning for name, _, meaning in rows}
