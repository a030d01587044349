# SPDX-License-Identifier: Apache-2.0
"""What the page may ask for: one frozen dataclass a command, checked when it is built. Points in mm."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from ..config import check_range, from_mapping
from ..errors import ConfigError

MAX_MM = 10_000.0  # nobody is treated further away
MAX_NAME = 64
PLAYBACK = ("pause", "step", "seek", "speed")  # what a read-only replay still takes

Point = tuple[float, float, float]


def check_point(name: str, point: Point) -> None:
    """Raise ConfigError unless all three values are finite and within 10 m."""
    for axis, value in zip("xyz", point, strict=True):
        check_range(f"{name}.{axis}", value, -MAX_MM, MAX_MM)


@dataclass(frozen=True)
class Pair:
    """One landmark, seen in the room and in the volume."""

    world: Point
    ct: Point

    def __post_init__(self) -> None:
        check_point("world", self.world)
        check_point("ct", self.ct)


@dataclass(frozen=True)
class InitializeHypothesis:
    """Start from one of the ranked hypotheses."""

    rank: int

    def __post_init__(self) -> None:
        check_range("rank", self.rank, 0, 1000)


@dataclass(frozen=True)
class InitializePairs:
    """Start from landmark pairs."""

    pairs: tuple[Pair, ...]

    def __post_init__(self) -> None:
        if not 3 <= len(self.pairs) <= 20:
            raise ConfigError(f"{len(self.pairs)} landmark pairs came; place 3 to 20")


@dataclass(frozen=True)
class Reset:
    """Forget the registration and start again."""


@dataclass(frozen=True)
class Accept:
    """Let registered poses be used, or refuse them."""

    on: bool


@dataclass(frozen=True)
class Target:
    """Where to go, in the volume; None clears it."""

    ct: Point | None

    def __post_init__(self) -> None:
        if self.ct is not None:
            check_point("ct", self.ct)


@dataclass(frozen=True)
class Record:
    """Start or stop the recorder."""

    on: bool


@dataclass(frozen=True)
class Pause:
    """Hold the session, or go on."""

    on: bool


@dataclass(frozen=True)
class Step:
    """One frame forward."""


@dataclass(frozen=True)
class Seek:
    """Go to a frame of a recorded session."""

    index: int

    def __post_init__(self) -> None:
        check_range("index", self.index, 0, 100_000_000)


@dataclass(frozen=True)
class Speed:
    """Play a recorded session slower or faster."""

    factor: float

    def __post_init__(self) -> None:
        check_range("factor", self.factor, 0.1, 8.0)


@dataclass(frozen=True)
class Landmark:
    """A landmark pair for a manual TRE."""

    world: Point
    ct: Point
    name: str = ""

    def __post_init__(self) -> None:
        check_point("world", self.world)
        check_point("ct", self.ct)
        if len(self.name) > MAX_NAME or not self.name.isprintable():
            raise ConfigError(f"the landmark's name must be at most {MAX_NAME} printable characters")


@dataclass(frozen=True)
class ClearLandmarks:
    """Forget the landmark pairs."""


Command = (
    InitializeHypothesis
    | InitializePairs
    | Reset
    | Accept
    | Target
    | Record
    | Pause
    | Step
    | Seek
    | Speed
    | Landmark
    | ClearLandmarks
)
COMMANDS: Mapping[str, type[Command]] = {
    "initialize_hypothesis": InitializeHypothesis,
    "initialize_pairs": InitializePairs,
    "reset": Reset,
    "accept": Accept,
    "target": Target,
    "record": Record,
    "pause": Pause,
    "step": Step,
    "seek": Seek,
    "speed": Speed,
    "landmark": Landmark,
    "clear_landmarks": ClearLandmarks,
}


class Controls(Protocol):
    """What a source lets the page do."""

    @property
    def kind(self) -> str:
        """Of the session: "live" or "replay"."""

    @property
    def names(self) -> tuple[str, ...]:
        """Commands that are taken now."""

    def call(self, command: Command) -> dict[str, Any]:
        """Do it, in a worker thread; returns data for the reply. Raises UsregError."""


class NoControls:
    """A source that takes no commands."""

    kind = "live"
    names: tuple[str, ...] = ()

    def call(self, command: Command) -> dict[str, Any]:
        raise ConfigError("this view takes no commands")


def allowed(controls: Controls, read_only: bool) -> tuple[str, ...]:
    """Names of the commands that clients may send now; a read-only view leaves a replay's playback only."""
    if not read_only:
        return tuple(controls.names)
    return tuple(name for name in controls.names if controls.kind == "replay" and name in PLAYBACK)


def parse_command(name: Any, args: Any, controls: Controls, read_only: bool = False) -> Command:
    """A checked command.

    Raises:
        ConfigError: unknown or not allowed now, or arguments that do not fit; the message says what was expected.
    """
    if not isinstance(name, str) or name not in COMMANDS:
        raise ConfigError(f"no command {name!r:.50}; there are {', '.join(COMMANDS)}")
    if name not in allowed(controls, read_only):
        why = "this view is read only" if read_only else "this session does not take it now"
        raise ConfigError(f"'{name}' is refused: {why}")
    kind = COMMANDS[name]
    given = set(args) if isinstance(args, Mapping) else set()
    needed = {f.name for f in dataclasses.fields(kind) if f.default is dataclasses.MISSING}
    if not isinstance(args, Mapping) or needed - given:
        raise ConfigError(f"'{name}' needs {{{', '.join(sorted(needed))}}}, it came with {args!r:.100}")
    try:
        return from_mapping(kind, args, name)
    except OverflowError as error:
        raise ConfigError(f"'{name}' has a number that is too large: {error}") from error


def finite(value: Any) -> bool:
    """A JSON number, not a bool, that fits a float and is finite."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < 1e300 and math.isfinite(value)
