# SPDX-License-Identifier: Apache-2.0
"""What the node `player` is told, and what it looks at in a bag's bytes. Imports nothing of ROS."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from ..config import check_range
from ..data.bags import Topic
from ..data.definitions import standard_store
from ..errors import ConfigError, FileFormatError


@dataclass(frozen=True)
class PlayerConfig:
    """What is played and how.

    Args:
        bag: folder or file.
        topics: names in the bag; results and the truth are not played.
        image_topic: what counts as a frame, for stepping and lock-step.
        owned_frames: child frames of the transforms that a running node publishes: left out here.
        wait_for: topic=count each: play begins when so many subscribers are there.
        wait_s: at most so long.
        rate: speed.
        loop: begin again at the end.
        paused: wait for player/step, or for player/pause with false. A step plays until the next frame would go out.
        lockstep: topics on which each frame is answered; the next frame waits for it. Empty: real time.
        lockstep_s: but at most so long.
        settle_s: wait after the last message, so that its results come through.
        exit_at_end: end the process after that.
    """

    bag: str = ""
    topics: tuple[str, ...] = ("/us/image", "/us/geometry", "/joint_states", "/tf", "/tf_static")
    image_topic: str = "/us/image"
    owned_frames: tuple[str, ...] = ()
    wait_for: tuple[str, ...] = ()
    wait_s: float = 120.0
    rate: float = 1.0
    loop: bool = False
    paused: bool = False
    lockstep: tuple[str, ...] = ()
    lockstep_s: float = 5.0
    settle_s: float = 1.0
    exit_at_end: bool = True

    def __post_init__(self) -> None:
        check_range("rate", self.rate, 0.01, 100.0)
        check_range("wait_s", self.wait_s, 0.0, 3600.0)
        check_range("lockstep_s", self.lockstep_s, 0.1, 600.0)
        check_range("settle_s", self.settle_s, 0.0, 60.0)
        if not self.bag:
            raise ConfigError("no bag is named: set the parameter 'bag'")
        if any("truth" in topic.split("/") for topic in self.topics):
            raise ConfigError("the truth is never played: no node may hear it; take it out of 'topics'")
        for entry in self.wait_for:
            if not entry.partition("=")[2].isdigit():
                raise ConfigError(f"wait_for has '{entry}'; write topic=count, for example us/image=2")


def stamp_ns(data: bytes) -> int:
    """Stamp of a message that begins with a header, from its CDR bytes; 0 where they are too few."""
    if len(data) < 12:
        return 0
    sec, nanosec = struct.unpack_from("<iI" if data[1] & 1 else ">iI", data, 4)
    return sec * 10**9 + nanosec


def check_type(topic: Topic) -> None:
    """Bytes are published as they are: a type that has changed since the recording would be misread."""
    if topic.serialization != "cdr":
        raise FileFormatError(f"topic '{topic.name}' is written as '{topic.serialization}'; only cdr is played")
    store = standard_store()
    if topic.type_hash and topic.type_name in store.fielddefs:
        if topic.type_hash != store.hash_rihs01(topic.type_name):
            raise ConfigError(
                f"{topic.type_name} in the bag (topic '{topic.name}') is not the type that is installed: convert "
                "the bag with the version of usreg that recorded it"
            )
