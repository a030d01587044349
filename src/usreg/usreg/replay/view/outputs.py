# SPDX-License-Identifier: Apache-2.0
"""What the nodes of a running graph published beside the frames, from their recording."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...data import ros_time
from ...data.bag_poses import decode_registration, decode_stamped_pose
from ...data.bag_reader import BagReader
from ...data.sessions import TopicNames
from ...errors import FileFormatError, UsregError
from ...geometry import se3
from ...smoothing import Breathing
from .content import Hypotheses
from .known import FrameNote, Matrix, Result, sigma_of
from .stages import RecordedStages

IMAGE, IMAGE_TYPE, MADE, DIAGNOSTICS = "us/image", "sensor_msgs/msg/Image", "fusion/", "diagnostics"
OUTPUTS = ("us/pose", "registration/estimate", "registration/smoothed", "registration/lagged",
           "registration/hypotheses", "registration/breathing", "volume", "target", DIAGNOSTICS)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Registered:
    """An estimate without what is not shown; `pivot` (3,) is the volume's centre in the room, mm."""

    stamp_s: float
    status: str
    reason: str
    pose: Matrix
    pivot: Matrix
    sigma: tuple[float, ...]
    score: float
    overlap: float
    probability: float
    compute_s: float
    system: str


@dataclass(frozen=True, eq=False)
class Given:
    """A pose that was given out: world_T_ct and its covariance (6, 6) about the origin of `ct`, mm and rad."""

    pose: Matrix
    covariance: Matrix


@dataclass(eq=False)
class Outputs:
    """By the stamp of their frames."""

    measured: dict[float, Matrix] = field(default_factory=dict)
    estimates: list[Registered] = field(default_factory=list)
    smoothed: dict[float, Given] = field(default_factory=dict)
    lagged: dict[float, Given] = field(default_factory=dict)
    hypotheses: list[Hypotheses] = field(default_factory=list)
    breathing: dict[float, Breathing] = field(default_factory=dict)
    volume: Any = None
    target_ct: Tensor | None = None
    stages: RecordedStages = field(default_factory=RecordedStages)
    world: str = ""
    child: str = ""
    problems: list[tuple[float, str]] = field(default_factory=list)

    @property
    def registered(self) -> bool:
        """Whether anything was registered."""
        return bool(self.estimates or self.smoothed)

    def take(self, name: str, logged_s: float, message: Any) -> None:
        """A message of one of `OUTPUTS`, and when it was recorded."""
        if name == DIAGNOSTICS:
            self.stages.take(logged_s, message)
            return
        actions: dict[str, Callable[[Any], None]] = {
            "us/pose": self._measured, "registration/estimate": self._estimate, "volume": self._volume,
            "registration/smoothed": lambda m: self._given(self.smoothed, m), "target": self._target,
            "registration/lagged": lambda m: self._given(self.lagged, m),
            "registration/hypotheses": self._hypotheses, "registration/breathing": self._breathing,
        }  # fmt: skip
        actions[name](message)

    def _measured(self, message: Any) -> None:
        stamp_s, self.world, pose, _ = decode_stamped_pose(message)
        self.measured[stamp_s] = pose.numpy()

    def _given(self, kept: dict[float, Given], message: Any) -> None:
        stamp_s, _, pose, covariance = decode_stamped_pose(message)
        kept[stamp_s] = Given(pose.numpy(), covariance.numpy())

    def _estimate(self, message: Any) -> None:
        record = decode_registration(message)
        self.child, e = record.child, record.estimate
        self.estimates.append(Registered(
            record.stamp_s, record.status, e.reason, e.world_T_ct.numpy(), e.pivot.numpy(), sigma_of(e.covariance),
            e.score, e.overlap, e.probability, e.compute_s, e.system,
        ))  # fmt: skip

    def _hypotheses(self, message: Any) -> None:
        records = [decode_registration(m) for m in message.hypotheses]
        rows = tuple(
            {"rank": r.rank, "score": r.estimate.score if math.isfinite(r.estimate.score) else None,
             "reason": r.estimate.reason, "world_T_ct": r.estimate.world_T_ct.flatten().tolist()}
            for r in records
        )  # fmt: skip
        self.hypotheses.append(Hypotheses(ros_time.of_header(message.header.stamp), rows))

    def _breathing(self, message: Any) -> None:
        stamp_s = ros_time.of_header(message.header.stamp)
        self.breathing[stamp_s] = Breathing(float(message.phase), 1000 * float(message.depth), float(message.period))

    def _volume(self, message: Any) -> None:
        self.volume = message

    def _target(self, message: Any) -> None:
        p = message.point
        point = torch.tensor([p.x, p.y, p.z], dtype=torch.float64) * 1000
        self.target_ct = point if bool(torch.isfinite(point).all()) else None


@dataclass(frozen=True)
class Found:
    """Topics of a bag: of its measurements, and what nodes published (`OUTPUTS`) by its plain name; count of images."""

    measured: TopicNames
    published: dict[str, str]
    joints: bool
    images: int


def find_topics(bag: Path) -> Found:
    """What a bag holds, by the names that the graph gives, in any namespace.

    Raises:
        FileFormatError: it holds no images.
    """
    with BagReader(bag, skip_damaged=True) as reader:
        topics = {name: topic for name, topic in reader.topics.items() if topic.count}
    images = [n for n, t in topics.items() if t.type_name == IMAGE_TYPE and MADE not in n]
    image = next((n for n in images if n.endswith("/" + IMAGE)), images[0] if images else "")
    if not image:
        raise FileFormatError(
            f"'{bag.name}' holds no images (sensor_msgs/Image); it has {sorted(topics) or 'no messages'}"
        )
    space = image[: -len(IMAGE)] if image.endswith("/" + IMAGE) else "/"
    near = {name: _near(topics, space, name) for name in ("us/geometry", "joint_states", "truth/tf", *OUTPUTS)}
    plain = TopicNames()
    measured = TopicNames(
        image=image,
        geometry=near["us/geometry"] or plain.geometry,
        joints=near["joint_states"] or plain.joints,
        truth=near["truth/tf"] or plain.truth,
    )
    published = {name: near[name] for name in OUTPUTS if near[name]}
    return Found(measured, published, bool(near["joint_states"]), topics[image].count)


def _near(topics: dict[str, Any], space: str, name: str) -> str:
    """The topic of a plain name: in the images' namespace, else in any."""
    if space + name in topics:
        return space + name
    return next((n for n in topics if n.endswith("/" + name)), "")


def read_outputs(bag: Path, names: dict[str, str]) -> Outputs:
    """What was published; what cannot be decoded is left out and told."""
    found, plain = Outputs(), {topic: name for name, topic in names.items()}
    if not names:
        return found
    with BagReader(bag, skip_damaged=True) as reader:
        for raw in reader.raw_messages(plain):
            try:
                found.take(plain[raw.topic], ros_time.to_s(raw.log_ns), reader.decode(raw))
            except UsregError as error:
                found.problems.append((ros_time.to_s(raw.log_ns), f"{raw.topic}: {error}"))
    found.estimates.sort(key=_stamp)
    found.hypotheses.sort(key=_stamp)
    return found


def recorded_results(
    frames: Sequence[FrameNote], outputs: Outputs, centre_ct: Tensor | None
) -> Iterator[tuple[float, Result]]:
    """What was known of each frame: the newest estimate at its stamp, and the pose that was given out for it.

    Args:
        centre_ct: (3,) of the volume, mm; None: as the estimates say it.
    """
    accepted = [e for e in outputs.estimates if e.status == "ACCEPTED"]
    centre = _centre(accepted) if centre_ct is None else centre_ct
    for note in frames:
        newest, raw = _at(outputs.estimates, note.stamp_s), _at(accepted, note.stamp_s)
        given = outputs.smoothed.get(note.stamp_s) or outputs.lagged.get(note.stamp_s)
        shown, sigma = (None, None) if given is None else (given.pose, _sigma(given, centre))
        if given is None and not outputs.smoothed and raw is not None and raw.stamp_s == note.stamp_s:
            shown, sigma = raw.pose, raw.sigma  # nobody smoothed: an accepted estimate holds for its own frame
        if newest is not None or shown is not None:
            yield note.stamp_s, _result(note, newest, raw, shown, sigma, outputs.breathing.get(note.stamp_s))


def _result(
    note: FrameNote,
    newest: Registered | None,
    raw: Registered | None,
    shown: Matrix | None,
    sigma: tuple[float, ...] | None,
    breathing: Breathing | None,
) -> Result:
    status, reason = ("WAITING", "no estimate so far") if newest is None else (newest.status, newest.reason)
    if note.world_T_image is None:
        status, reason = "NOT_TRACKED", note.untracked
    elif shown is None and status == "ACCEPTED":
        status, reason = "LOST", "the recording holds no pose of the volume that was given out for this frame"
    where = {} if raw is None else {"raw": raw.pose, "raw_s": raw.stamp_s}
    more = ("score", "overlap", "probability", "compute_s", "system")
    said = {} if newest is None else {name: getattr(newest, name) for name in more}
    return Result(status, reason, shown, sigma, breathing=breathing, **where, **said)  # type: ignore[arg-type]


def _at(estimates: Sequence[Registered], stamp_s: float) -> Registered | None:
    place = bisect_right(estimates, stamp_s, key=_stamp)
    return estimates[place - 1] if place else None


def _centre(accepted: Sequence[Registered]) -> Tensor | None:
    if not accepted:
        return None
    e = accepted[-1]
    return se3.transform_points(se3.inverse(torch.from_numpy(e.pose)), torch.from_numpy(e.pivot)[None])[0]


def _sigma(given: Given, centre_ct: Tensor | None) -> tuple[float, ...] | None:
    """About the volume's centre; None where nobody knows where that is, or no covariance was said."""
    if centre_ct is None or not np.any(given.covariance):
        return None
    pose = torch.from_numpy(given.pose)
    offset = se3.transform_points(pose, centre_ct[None])[0] - pose[:3, 3]
    return sigma_of(se3.move_pivot(torch.from_numpy(given.covariance), offset))


def _stamp(item: Any) -> float:
    return float(item.stamp_s)
