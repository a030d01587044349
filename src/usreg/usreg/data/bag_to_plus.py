# SPDX-License-Identifier: Apache-2.0
"""A bag into a PLUS sequence: exactly the one it was made of, or one of the images and poses of a session."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ..errors import FileFormatError, MissingFileError, MissingTransformError, UsregError
from . import plus_topics as plus
from .bag_messages import decode_image
from .bag_poses import StampedTransform, decode_stamped_pose, decode_transforms
from .bag_reader import BagReader
from .chain import split_name
from .pairing import FramePairs
from .sequences import Sequence
from .sessions import FrameNames, TopicNames
from .tracked import interpolate_poses
from .types import Frame, ImageGeometry, Trajectory

MAX_BYTES = 8 * 1024**3
POSE_TOPIC = "/us/pose"


def bag_to_sequence(
    path: str | Path,
    poses: Trajectory | None = None,
    geometry: ImageGeometry | None = None,
    frames: FrameNames | None = None,
    topics: TopicNames | None = None,
    max_gap_s: float = 0.25,
) -> tuple[Sequence, list[str]]:
    """Read a bag as a sequence.

    A bag that was made of a sequence gives that sequence again, to the bit. Any other gives its images with the pose of
    the image plane at their stamps (`ImageToTracker`, or `ImageToProbe` and `ProbeToTracker`), from `poses`, from
    `/us/pose` or from TF; a frame whose pose is not known there is INVALID.

    Args:
        poses: world_T_image over time, for a bag with joints (its arm is known elsewhere).
        geometry: for a bag without a geometry topic.
        max_gap_s: poses farther apart are not interpolated.

    Returns:
        The sequence, and what was lost, in words.

    Raises:
        FileFormatError: damaged, or more than 8 GiB of images. MissingTransformError: no poses at all.
        MissingFileError: no images and no sequence in it.
    """
    names, topics = frames or FrameNames(), topics or TopicNames()
    with BagReader(path) as bag:
        if plus.FRAME in bag.topics and plus.HEADER in bag.topics:
            sequence, lost = _original(bag, topics)
        else:
            sequence, lost = _recorded(bag, poses, geometry, names, topics, max_gap_s)
        return sequence, [*bag.problems, *lost]


# a bag that was made of a sequence


def _original(bag: BagReader, topics: TopicNames) -> tuple[Sequence, list[str]]:
    try:
        (_, _, first), *_ = bag.messages([plus.HEADER])
        facts = plus.values_of(first.status[0])
        width, height = (int(v) for v in facts["Size"].split())
        rows = [[(str(s.name), plus.values_of(s)) for s in m.status] for _, _, m in bag.messages([plus.FRAME])]
        stamps = torch.tensor([float(r[0][1][plus.TIMESTAMP]) for r in rows], dtype=torch.float64)
    except (KeyError, IndexError, ValueError, TypeError) as error:
        raise FileFormatError(
            f"'{bag.path.name}' has the topics of a sequence, but not their content: {error!r}"
        ) from error
    images, valid, lost = _images(bag, topics, rows, width, height)
    names = [str(s.name) for s in first.status[1:]]
    statuses = {n: tuple(_of(r, n).get(plus.STATUS) for r in rows) for n in names}
    expected = int(facts.get("Frames", len(rows)))
    if expected != len(rows):
        lost.append(f"{expected - len(rows)} of {expected} frames are missing at the end")
    return Sequence(
        images,
        valid,
        stamps,
        {n: _trajectory(n, stamps, rows, statuses[n]) for n in names},
        facts.get("Orientation", "MF"),
        tuple(_others(r[0][1]) for r in rows),
        facts.get("Format", ""),
        _others(facts),
        {n: s for n, s in statuses.items() if any(v is not None for v in s)},
        tuple(r[0][1].get(plus.STATUS) for r in rows),
    ), lost  # fmt: skip


def _of(row: list[tuple[str, dict[str, str]]], name: str) -> dict[str, str]:
    return next((values for n, values in row[1:] if n == name), {})


def _others(values: dict[str, str]) -> dict[str, str]:
    return {k.removeprefix(plus.OTHER): v for k, v in values.items() if k.startswith(plus.OTHER)}


def _trajectory(name: str, stamps: Tensor, rows: list, statuses: tuple[str | None, ...]) -> Trajectory:
    found = [plus.matrix_of(_of(r, name).get(plus.MATRIX), name) for r in rows]
    poses = torch.stack(found) if found else torch.zeros(0, 4, 4, dtype=torch.float64)
    said = torch.tensor([s is None or s.upper() == "OK" for s in statuses], dtype=torch.bool)
    return Trajectory(stamps, poses, said & torch.isfinite(poses).flatten(1).all(1), *split_name(name))


def _images(
    bag: BagReader,
    topics: TopicNames,
    rows: list,
    width: int,
    height: int,
) -> tuple[Tensor | None, Tensor, list[str]]:
    """Images by the order in which they were written on their topics."""
    n, valid = len(rows), torch.zeros(len(rows), dtype=torch.bool)
    if width * height == 0:
        return None, valid, []
    images = _room(n, height, width, bag)
    for topic in (topics.image, plus.UNSTAMPED):
        wanted = [i for i, r in enumerate(rows) if r[0][1].get(plus.WHERE) == topic]
        messages = bag.messages([topic]) if topic in bag.topics else iter(())
        for i, (_, _, message) in zip(wanted, messages, strict=False):
            images[i] = _sized(decode_image(message)[1], height, width)
            valid[i] = True
    missing = sum(plus.WHERE in r[0][1] for r in rows) - int(valid.sum())
    return images, valid, [f"{missing} images are missing at the end"] if missing else []


def _sized(image: Tensor, height: int, width: int) -> Tensor:
    if tuple(image.shape) != (height, width):
        raise FileFormatError(f"an image is {image.shape[1]}x{image.shape[0]}; the sequence has {width}x{height}")
    return image


def _room(n: int, height: int, width: int, bag: BagReader) -> Tensor:
    if min(n, height, width) < 0 or n * height * width > MAX_BYTES:
        raise FileFormatError(f"'{bag.path.name}' holds {n} images of {width}x{height}: more than {MAX_BYTES} bytes")
    return torch.zeros(n, height, width, dtype=torch.uint8)


# any other bag


def _recorded(
    bag: BagReader,
    poses: Trajectory | None,
    geometry: ImageGeometry | None,
    names: FrameNames,
    topics: TopicNames,
    max_gap_s: float,
) -> tuple[Sequence, list[str]]:
    frames, lost = _frames(bag, geometry, topics)
    same = [f for f in frames if f.geometry == frames[0].geometry]
    if len(same) < len(frames):
        lost.append(f"{len(frames) - len(same)} frames have another geometry than the first: a sequence holds one")
    stamps = torch.tensor([f.stamp_s for f in same], dtype=torch.float64)
    images = _room(len(same), same[0].plane.height, same[0].plane.width, bag)
    for i, frame in enumerate(same):
        images[i] = frame.image
    image_T_pixel = same[0].plane.image_T_pixel
    transforms = _transforms(bag, poses, names, topics, stamps, max_gap_s, image_T_pixel)
    used = {
        topics.image,
        topics.geometry,
        *((POSE_TOPIC,) if "ImageToTracker" in transforms else (topics.tf, topics.tf_static)),
    }
    left = sorted(set(bag.topics) - used)
    if left:
        lost.append(f"topics that a sequence cannot hold: {', '.join(left)}")
    lost.append("of the geometry only the pixel size is kept: write a calibration beside the sequence")
    unknown = int((~next(iter(transforms.values())).valid).sum())
    if unknown:
        lost.append(f"{unknown} frames have no pose at their stamp: INVALID")
    valid = torch.ones(len(same), dtype=torch.bool)
    return Sequence(images, valid, stamps, transforms, source_format="bag"), lost


def _frames(bag: BagReader, geometry: ImageGeometry | None, topics: TopicNames) -> tuple[list[Frame], list[str]]:
    if topics.image not in bag.topics:
        raise MissingFileError(f"'{bag.path.name}' has no images on {topics.image}; its topics: {sorted(bag.topics)}")
    fixed = None if topics.geometry in bag.topics else geometry
    if topics.geometry not in bag.topics and fixed is None:
        raise MissingFileError(f"'{bag.path.name}' has no {topics.geometry}: give a calibration or a probe")
    size = bag.topics[topics.image].count
    pairs, frames, refused = FramePairs(fixed, max_pending=min(10_000, max(size, 1))), [], 0
    for raw in bag.raw_messages([topics.image] if fixed else [topics.image, topics.geometry]):
        try:
            message = bag.decode(raw)
            frame = pairs.add_image(message) if raw.topic == topics.image else pairs.add_geometry(message)
        except UsregError:
            refused, frame = refused + 1, None
        if frame is not None:
            frames.append(frame)
    lost = [f"{refused} messages contradict themselves and are left out"] if refused else []
    unpaired = len(pairs.finish())
    if unpaired:
        lost.append(f"{unpaired} images or geometries found no partner of the same stamp")
    if not frames:
        raise FileFormatError(f"'{bag.path.name}' gives no frame: {'; '.join(lost) or 'it has no images'}")
    return sorted(frames, key=lambda f: f.stamp_s), lost


def _transforms(
    bag: BagReader,
    poses: Trajectory | None,
    names: FrameNames,
    topics: TopicNames,
    stamps: Tensor,
    max_gap_s: float,
    image_T_pixel: Tensor,
) -> dict[str, Trajectory]:
    if poses is None and POSE_TOPIC in bag.topics:
        poses = _stamped_poses(bag)
    if poses is not None:
        found = _at(poses, stamps, max_gap_s)
        return {"ImageToTracker": _named(found, found.poses @ image_T_pixel, "Image", "Tracker")}
    edges = _edges(bag, topics)
    world_T_image = _along(edges, names.image, names.world, stamps, max_gap_s)
    try:
        probe_T_image = _along(edges, names.image, names.probe, stamps, max_gap_s)
    except MissingTransformError:
        return {"ImageToTracker": _named(world_T_image, world_T_image.poses @ image_T_pixel, "Image", "Tracker")}
    world_T_probe = _along(edges, names.probe, names.world, stamps, max_gap_s)
    return {
        "ProbeToTracker": _named(world_T_probe, world_T_probe.poses, "Probe", "Tracker"),
        "ImageToProbe": _named(probe_T_image, probe_T_image.poses @ image_T_pixel, "Image", "Probe"),
    }


def _named(trajectory: Trajectory, matrices: Tensor, source: str, target: str) -> Trajectory:
    matrices = torch.where(trajectory.valid[:, None, None], matrices, torch.full_like(matrices, math.nan))
    return replace(trajectory, poses=matrices, source=source, target=target)


def _stamped_poses(bag: BagReader) -> Trajectory:
    rows = sorted(((s, p) for s, _, p, _ in map(decode_stamped_pose, _only(bag, POSE_TOPIC))), key=lambda r: r[0])
    return _as_trajectory([StampedTransform(s, "", "", p) for s, p in rows])


def _only(bag: BagReader, topic: str) -> Iterator[object]:
    return (m for _, _, m in bag.messages([topic]))


def _edges(bag: BagReader, topics: TopicNames) -> dict[str, tuple[str, Trajectory | Tensor]]:
    """By child: its parent, and the static pose or the trajectory."""
    edges: dict[str, tuple[str, Trajectory | Tensor]] = {}
    moving: dict[str, list[StampedTransform]] = {}
    for topic in (topics.tf, topics.tf_static):
        for message in _only(bag, topic) if topic in bag.topics else ():
            for t in decode_transforms(message):
                if topic == topics.tf:
                    moving.setdefault(t.child, []).append(t)
                else:
                    edges[t.child] = (t.parent, t.parent_T_child)
    return edges | {child: (rows[0].parent, _as_trajectory(rows)) for child, rows in moving.items()}


def _as_trajectory(rows: list[StampedTransform]) -> Trajectory:
    """In the order of the stamps; of equal stamps the first."""
    unique = {r.stamp_s: r for r in reversed(rows)}
    rows = [unique[s] for s in sorted(unique)]
    stamps = torch.tensor([r.stamp_s for r in rows], dtype=torch.float64)
    poses = torch.stack([r.parent_T_child for r in rows]) if rows else torch.zeros(0, 4, 4, dtype=torch.float64)
    return Trajectory(stamps, poses, torch.ones(len(rows), dtype=torch.bool))


def _along(
    edges: dict[str, tuple[str, Trajectory | Tensor]], child: str, root: str, stamps: Tensor, max_gap_s: float
) -> Trajectory:
    """root_T_child at the stamps, up the tree."""
    poses = torch.eye(4, dtype=torch.float64).repeat(len(stamps), 1, 1)
    valid, start, seen = torch.ones(len(stamps), dtype=torch.bool), child, set()
    while child != root:
        if child not in edges or child in seen:
            raise MissingTransformError(
                f"no TF leads from '{start}' to '{root}' (it ends at '{child}'), and there is no {POSE_TOPIC}"
            )
        seen.add(child)
        child, step = edges[child][0], edges[child][1]
        moved = _at(step, stamps, max_gap_s) if isinstance(step, Trajectory) else None
        poses = (step if moved is None else moved.poses) @ poses  # type: ignore[operator]
        valid = valid if moved is None else valid & moved.valid
    return Trajectory(stamps, poses, valid)


def _at(trajectory: Trajectory, stamps: Tensor, max_gap_s: float) -> Trajectory:
    poses, valid = interpolate_poses(trajectory.stamps_s, trajectory.poses, trajectory.valid, stamps, max_gap_s)
    return Trajectory(stamps, poses, valid)
