# SPDX-License-Identifier: Apache-2.0
"""How a PLUS sequence is kept in a bag, so that nothing of it is lost.

`/us/image`, `/us/geometry`, `/tf`, `/tf_static`: what the stack uses. `/plus/frame`: for each frame, in the order of
the file, a DiagnosticArray with one entry for the image and one for each transform: status, matrix as text, other keys.
`/plus/header`: keys of the file. `/plus/<AToB>`: poses that are valid, as PoseStamped. `/plus/unstamped_image`: images
whose stamp is missing, repeats or runs backwards; nothing listens there.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..errors import FileFormatError
from .bag_messages import header, make

FRAME, HEADER, UNSTAMPED, NAMESPACE = "/plus/frame", "/plus/header", "/plus/unstamped_image", "/plus"
DIAGNOSTICS = "diagnostic_msgs/msg/DiagnosticArray"
IMAGE, TIMESTAMP, STATUS, MATRIX, WHERE = "Image", "Timestamp", "Status", "Matrix", "Topic"
GOOD, BAD, MISSING = 0, 2, 3  # DiagnosticStatus: OK, ERROR, STALE
OTHER = "key/"  # before the name of any other key of the file
_WORDS = {GOOD: "OK", BAD: "INVALID", MISSING: "no pose"}


def pose_topic(name: str) -> str:
    """Topic of a transform; characters that ROS does not allow become underscores (the name itself is in FRAME)."""
    return f"{NAMESPACE}/{re.sub(r'[^A-Za-z0-9_]', '_', name)}"


def entry(name: str, level: int, status: str | None, values: Mapping[str, str]) -> Any:
    """One DiagnosticStatus; a status that the file does not state is not written down."""
    pairs = dict(values) if status is None else {STATUS: status, **values}
    message = status if status is not None else _WORDS[level]
    keys = [make("diagnostic_msgs/msg/KeyValue", k, v) for k, v in pairs.items()]
    return make("diagnostic_msgs/msg/DiagnosticStatus", level, name, message, "", keys)


def array(stamp_s: float, entries: list[Any]) -> Any:
    """DiagnosticArray."""
    return make(DIAGNOSTICS, header(stamp_s, ""), entries)


def values_of(status: Any) -> dict[str, str]:
    """Key and value of an entry."""
    return {str(v.key): str(v.value) for v in status.values}


def matrix_text(matrix: Tensor) -> str:
    """16 numbers that read back exactly."""
    return " ".join(repr(v) for v in matrix.reshape(-1).tolist())


def matrix_of(text: str | None, name: str) -> Tensor:
    """(4, 4); NaN where there is none.

    Raises:
        FileFormatError: not 16 numbers.
    """
    if text is None:
        return torch.full((4, 4), math.nan, dtype=torch.float64)
    try:
        numbers = [float(v) for v in text.split()]
    except ValueError:
        numbers = []
    if len(numbers) != 16:
        raise FileFormatError(f"the bag's matrix of {name} is '{text[:40]}'; 16 numbers are expected")
    return torch.tensor(numbers, dtype=torch.float64).reshape(4, 4)
