# SPDX-License-Identifier: Apache-2.0
"""What happened in a session, in the order of the stamps: the input of a replay without ROS."""

from __future__ import annotations

import heapq
import itertools
import logging
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..config import check_range
from ..errors import UsregError
from . import ros_time
from .bag_messages import decode_joints
from .bag_poses import StampedTransform, decode_transforms
from .bag_reader import BagReader
from .bag_types import Place, RawMessage
from .pairing import FramePairs
from .sessions import Session
from .types import Frame, ImageGeometry

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class FrameEvent:
    """An image with its geometry, not tracked yet; `place` finds the image in its bag again."""

    frame: Frame
    place: Place = (0, 0)

    @property
    def stamp_s(self) -> float:
        """Time of acquisition."""
        return self.frame.stamp_s


@dataclass(frozen=True)
class JointEvent:
    """Positions of named joints as the bag has them: rad, metres for prismatic joints (see `joints_in_mm`)."""

    stamp_s: float
    names: tuple[str, ...]
    positions: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class TransformEvent:
    """A measured or static transform (4, 4), mm."""

    stamp_s: float
    parent: str
    child: str
    parent_T_child: Tensor
    static: bool = False


@dataclass(frozen=True, eq=False)
class TruthEvent:
    """What a simulation knows: `parent_T_child` (4, 4), mm. For evaluation only."""

    stamp_s: float
    parent: str
    child: str
    parent_T_child: Tensor


@dataclass(frozen=True)
class SkippedEvent:
    """A message that could not be used, and why."""

    stamp_s: float
    topic: str
    reason: str


Event = FrameEvent | JointEvent | TransformEvent | TruthEvent | SkippedEvent
_RANK = {
    TransformEvent: 1,
    JointEvent: 2,
    TruthEvent: 3,
    FrameEvent: 4,
    SkippedEvent: 5,
}  # among equal stamps: poses before frames


@dataclass(frozen=True)
class ReplayConfig:
    """How a bag is put in order.

    Args:
        reorder_s: messages may have been recorded up to this much out of the order of their stamps.
        hold_s: a frame waits at most this long for poses at or after its stamp (poses are interpolated, never
            extrapolated).
        max_pending: images that wait for their geometry.
        skip_damaged: leave out what cannot be read of the bag; the last events say what that was.
    """

    reorder_s: float = 1.0
    hold_s: float = 0.25
    max_pending: int = 64
    skip_damaged: bool = False

    def __post_init__(self) -> None:
        check_range("reorder_s", self.reorder_s, 0, 60)
        check_range("hold_s", self.hold_s, 0, 60)
        check_range("max_pending", self.max_pending, 1, 10000)


def session_events(
    session: Session, geometry: ImageGeometry | None = None, config: ReplayConfig | None = None, truth: bool = True
) -> Iterator[Event]:
    """Every event of a session in the order of its stamp (equal stamps: statics, transforms, joints, truth, frames).

    Args:
        geometry: for a bag without a geometry topic, from config/probes.
        truth: also give out what the simulation knows.

    Raises:
        FileFormatError: the bag cannot be read. MissingFileError: it has no images.
    """
    config = config or ReplayConfig()
    with BagReader(session.bag_path, skip_damaged=config.skip_damaged) as bag:
        names = session.config.topics
        wanted = [
            names.image,
            names.geometry,
            names.joints,
            names.tf,
            names.tf_static,
            *([names.truth] if truth else []),
        ]
        present = [n for n in wanted if n in bag.topics]
        decoder = _Decoder(session, geometry if names.geometry not in bag.topics else None, config)
        yield from _ordered(bag, [*present, *([] if names.image in present else [names.image])], decoder, config)


def session_frames(
    session: Session, geometry: ImageGeometry | None = None, config: ReplayConfig | None = None
) -> Iterator[Event]:
    """`session_events`, but a frame comes out only once every pose stream has reached its stamp, or `hold_s` later.

    In this order a tracker that interpolates can place each frame at once, as the live graph does by waiting.
    """
    config = config or ReplayConfig()
    waiting: deque[FrameEvent] = deque()
    reached: dict[Any, float] = {}
    for event in session_events(session, geometry, config):
        if isinstance(event, FrameEvent):
            waiting.append(event)
        else:
            yield event
        if _moves(event):
            reached[_stream(event)] = event.stamp_s
        while waiting and _ready(waiting[0].stamp_s, event.stamp_s, reached, config.hold_s):
            yield waiting.popleft()
    yield from waiting


def _ready(stamp_s: float, now_s: float, reached: dict[Any, float], hold_s: float) -> bool:
    """Every pose stream seen so far has a sample at or after the stamp, or the wait is over."""
    return now_s > stamp_s + hold_s or (bool(reached) and min(reached.values()) >= stamp_s)


def _moves(event: Event) -> bool:
    return isinstance(event, JointEvent) or (isinstance(event, TransformEvent) and not event.static)


def _stream(event: Event) -> Any:
    if isinstance(event, TransformEvent):
        return event.parent, event.child
    return event.names if isinstance(event, JointEvent) else type(event)


def _ordered(bag: BagReader, topics: list[str], decoder: _Decoder, config: ReplayConfig) -> Iterator[Event]:
    """Messages leave in the order of their stamps after `reorder_s` of recording time in a heap."""
    heap: list[tuple[float, int, int, int, Event]] = []
    window = int(config.reorder_s * 1e9)
    order = itertools.count()  # a message may hold several events of one stamp; events themselves have no order
    for raw in bag.raw_messages(topics):
        for event in decoder(raw, lambda raw=raw: bag.decode(raw)):  # type: ignore[misc]
            rank = 0 if isinstance(event, TransformEvent) and event.static else _RANK[type(event)]
            heapq.heappush(heap, (event.stamp_s, rank, next(order), raw.log_ns, event))
        while heap and raw.log_ns - heap[0][3] > window:
            yield heapq.heappop(heap)[4]
    for event in decoder.unpaired():
        heapq.heappush(heap, (event.stamp_s, _RANK[type(event)], next(order), 0, event))
    last_s = 0.0
    while heap:
        last_s, *_, event = heapq.heappop(heap)
        yield event
    if config.skip_damaged:
        yield from (SkippedEvent(last_s, bag.path.name, problem) for problem in bag.problems)


class _Decoder:
    """Messages to events; pairs images with geometries of the same stamp."""

    def __init__(self, session: Session, fixed: ImageGeometry | None, config: ReplayConfig) -> None:
        names = session.config.topics
        self._image_topic = names.image
        self._pairs = FramePairs(fixed, config.max_pending)
        self._places: dict[float, Place] = {}
        self._handlers: dict[str, Callable[[Any], list[Event]]] = {
            names.image: lambda m: self._frames(self._pairs.add_image(m)),
            names.geometry: lambda m: self._frames(self._pairs.add_geometry(m)),
            names.joints: lambda m: [JointEvent(*decode_joints(m))],
            names.tf: lambda m: [TransformEvent(*_fields(t)) for t in decode_transforms(m)],
            names.tf_static: lambda m: [TransformEvent(*_fields(t), static=True) for t in decode_transforms(m)],
            names.truth: lambda m: [TruthEvent(*_fields(t)) for t in decode_transforms(m)],
        }

    def __call__(self, raw: RawMessage, decoded: Callable[[], Any]) -> list[Event]:
        try:
            message = decoded()
            if raw.topic == self._image_topic:
                self._places[ros_time.of_header(message.header.stamp)] = raw.place
            return self._handlers[raw.topic](message)
        except UsregError as error:
            log.warning("a message on %s was left out: %s", raw.topic, error)
            return [SkippedEvent(ros_time.to_s(raw.log_ns), raw.topic, str(error))]

    def _frames(self, frame: Frame | None) -> list[Event]:
        lost: list[Event] = [SkippedEvent(s, self._image_topic, reason) for s, reason in self._pairs.lost]
        self._pairs.lost.clear()
        for event in lost:
            self._places.pop(event.stamp_s, None)
        return lost if frame is None else [*lost, FrameEvent(frame, self._places.pop(frame.stamp_s))]

    def unpaired(self) -> list[Event]:
        """What still waits at the end of the bag."""
        return [SkippedEvent(s, self._image_topic, reason) for s, reason in self._pairs.finish()]


def _fields(t: StampedTransform) -> tuple[float, str, str, Tensor]:
    return t.stamp_s, t.parent, t.child, t.parent_T_child
