# SPDX-License-Identifier: Apache-2.0
"""What bags are made of: topics with their quality of service, raw messages, limits for files that are not trusted."""

from __future__ import annotations

from dataclasses import dataclass, field

from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime

from ..config import check_range

INFINITE = QosTime(2147483647, 4294967295)


@dataclass(frozen=True)
class BagLimits:
    """Bounds while reading; beyond them a file is refused instead of filling the memory.

    Args:
        max_chunk_bytes: of one chunk, uncompressed.
        max_loose_messages: messages outside chunks (they are indexed one by one).
        max_topics: channels of one file.
        max_files: parts of a split bag.
    """

    max_chunk_bytes: int = 256 * 1024 * 1024
    max_loose_messages: int = 2_000_000
    max_topics: int = 4096
    max_files: int = 10_000

    def __post_init__(self) -> None:
        for name in ("max_chunk_bytes", "max_loose_messages", "max_topics", "max_files"):
            check_range(name, getattr(self, name), 1, 2**40)


@dataclass(frozen=True)
class Topic:
    """A topic of a bag.

    Args:
        name: with its leading slash, as recorded.
        type_name: package/msg/Name.
        qos: profiles that its publishers offered.
        definition: text of the schema; empty where the bag has none. encoding: "ros2msg" or "ros2idl".
        count: messages.
        serialization: "cdr".
    """

    name: str
    type_name: str
    qos: tuple[Qos, ...] = ()
    definition: str = field(default="", repr=False)
    encoding: str = "ros2msg"
    type_hash: str = ""
    count: int = 0
    serialization: str = "cdr"


Place = tuple[int, int]


@dataclass(frozen=True)
class RawMessage:
    """One message as recorded: CDR bytes and the time of recording, ns; `place` finds it again (`BagReader.read`)."""

    topic: str
    type_name: str
    log_ns: int
    data: bytes
    place: Place = (0, 0)


def qos_profile(reliable: bool = True, transient_local: bool = False, depth: int = 10) -> Qos:
    """A keep-last profile without deadlines: what usreg's topics offer."""
    return Qos(
        QosHistory.KEEP_LAST,
        depth,
        QosReliability.RELIABLE if reliable else QosReliability.BEST_EFFORT,
        QosDurability.TRANSIENT_LOCAL if transient_local else QosDurability.VOLATILE,
        INFINITE,
        INFINITE,
        QosLiveliness.AUTOMATIC,
        INFINITE,
        False,
    )


def latched(topic: Topic) -> bool:
    """Whether a publisher of the topic offered transient local durability."""
    return any(q.durability == QosDurability.TRANSIENT_LOCAL for q in topic.qos)
