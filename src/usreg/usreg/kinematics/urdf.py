# SPDX-License-Identifier: Apache-2.0
"""Reads one serial chain of a URDF (metres) into a `Chain` (millimetres). The file is not trusted."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path

import torch

from ..errors import FileFormatError, KinematicsError, MissingFileError
from ..geometry import se3
from .chain import Chain
from .dh import rpy_pose, unit_axis
from .limits import JointLimits

MAX_URDF_BYTES = 8 * 1024 * 1024
MAX_JOINTS = 1000
MOVABLE = ("revolute", "continuous", "prismatic")


def read_urdf(path: str | Path, base: str, tip: str) -> Chain:
    """Chain from link `base` to link `tip` of a URDF file.

    Raises:
        MissingFileError: no such file. FileFormatError: too large, not UTF-8, not XML, or with a document type
        (entities).
        KinematicsError: no path from base to tip, or a joint on it that is not revolute, continuous, prismatic or
        fixed.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"no file '{path.name}' in '{path.parent}': check the name")
    if path.stat().st_size > MAX_URDF_BYTES:
        raise FileFormatError(f"'{path.name}' has {path.stat().st_size} bytes; a URDF has at most {MAX_URDF_BYTES}")
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise FileFormatError(f"'{path.name}' is not UTF-8: {error}") from error
    return parse_urdf(text, base, tip)


def parse_urdf(text: str, base: str, tip: str) -> Chain:
    """Chain from link `base` to `tip` of URDF text (the parameter `robot_description`); errors as in `read_urdf`."""
    if len(text) > MAX_URDF_BYTES:
        raise FileFormatError(f"the URDF has {len(text)} characters; at most {MAX_URDF_BYTES} are read")
    if re.search(r"<!(?!--)", text):  # entities live in a document type; URDF has none
        raise FileFormatError(
            "the URDF declares a document type or CDATA, which is refused (entity expansion): remove it"
        )
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as error:
        raise FileFormatError(f"the URDF is not readable XML: {error}") from error
    if root.tag != "robot":
        raise FileFormatError(f"the URDF's first element is <{root.tag}>, expected <robot>; expand xacro files first")
    return _build(_path(root, base, tip), base, tip)


def _path(root: ElementTree.Element, base: str, tip: str) -> list[ElementTree.Element]:
    joints = root.findall("joint")
    if len(joints) > MAX_JOINTS:
        raise FileFormatError(f"the URDF has {len(joints)} joints, at most {MAX_JOINTS} are read")
    by_child = {_link(j, "child"): j for j in joints}
    found: list[ElementTree.Element] = []
    link = tip
    while link != base:
        joint = by_child.get(link)
        if joint is None or len(found) > len(joints):
            links = sorted(e.get("name", "") for e in root.findall("link"))[:40]
            raise KinematicsError(f"no path from link '{base}' to link '{tip}' in the URDF; its links: {links}")
        found.append(joint)
        link = _link(joint, "parent")
    return found[::-1]


def _build(joints: Sequence[ElementTree.Element], base: str, tip: str) -> Chain:
    pending = se3.identity()  # fixed joints are folded into the next movable one, or into the tip
    origins, axes, movable = [], [], []
    for joint in joints:
        pending = pending @ _origin(joint)
        if _kind(joint) != "fixed":
            origins.append(pending)
            axes.append(unit_axis(_numbers(joint, "axis", "xyz", "1 0 0")))
            movable.append(joint)
            pending = se3.identity()
    if not movable:
        raise KinematicsError(f"the URDF has no movable joint between '{base}' and '{tip}'")
    names = tuple(j.get("name", "") for j in movable)
    inner = [_link(j, "child") for j in movable]
    if inner[-1] == tip:  # the flange is the last movable link itself; it keeps its name, the link gets another
        inner[-1] = f"{tip}_moved"
    kinds = tuple(_kind(j) for j in movable)
    return Chain(names, (base, *inner, tip), kinds, torch.stack(origins), torch.stack(axes), pending, _limits(movable))  # type: ignore[arg-type]


def _limits(joints: Sequence[ElementTree.Element]) -> JointLimits:
    rows = [_limit(j) for j in joints]
    return JointLimits(tuple(r[0] for r in rows), tuple(r[1] for r in rows), tuple(r[2] for r in rows))


def _limit(joint: ElementTree.Element) -> tuple[float, float, float]:
    scale = 1000.0 if _kind(joint) == "prismatic" else 1.0
    element = joint.find("limit")
    speed = _number(joint, element, "velocity", 0.0) * scale
    speed = speed if speed > 0 else math.inf  # URDF writers leave 0 where nothing is known
    if _kind(joint) == "continuous":
        return -math.inf, math.inf, speed
    if element is None:
        raise KinematicsError(f"joint '{joint.get('name')}' has no <limit>, which {_kind(joint)} joints need")
    return _number(joint, element, "lower", 0.0) * scale, _number(joint, element, "upper", 0.0) * scale, speed


def _kind(joint: ElementTree.Element) -> str:
    kind = joint.get("type", "")
    if kind not in (*MOVABLE, "fixed") or joint.find("mimic") is not None:
        raise KinematicsError(
            f"joint '{joint.get('name')}' is {kind or 'without type'} (or mimics another); on the chain only "
            f"{(*MOVABLE, 'fixed')} can be used"
        )
    return kind


def _link(joint: ElementTree.Element, role: str) -> str:
    element = joint.find(role)
    name = "" if element is None else element.get("link", "")
    if not name:
        raise FileFormatError(f"joint '{joint.get('name')}' of the URDF names no {role} link")
    return name


def _origin(joint: ElementTree.Element) -> torch.Tensor:
    xyz = [1000.0 * v for v in _numbers(joint, "origin", "xyz", "0 0 0")]
    return rpy_pose(xyz, _numbers(joint, "origin", "rpy", "0 0 0"))


def _numbers(joint: ElementTree.Element, tag: str, key: str, default: str) -> list[float]:
    element = joint.find(tag)
    text = default if element is None else element.get(key, default)
    try:
        values = [float(v) for v in text.split()]
    except ValueError:
        values = []
    if len(values) != 3 or not all(map(math.isfinite, values)):
        raise FileFormatError(
            f"<{tag} {key}> of joint '{joint.get('name')}' must be three finite numbers, it is {text[:60]!r}"
        )
    return values


def _number(joint: ElementTree.Element, element: ElementTree.Element | None, key: str, default: float) -> float:
    text = None if element is None else element.get(key)
    try:
        value = default if text is None else float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise FileFormatError(
            f"<limit {key}> of joint '{joint.get('name')}' must be a finite number, it is {str(text)[:60]!r}"
        )
    return value
