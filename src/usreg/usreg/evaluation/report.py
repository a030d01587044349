# SPDX-License-Identifier: Apache-2.0
"""A report folder: result.json (same bytes for the same poses), timing.json, one page that needs no network."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike

from ..data.atomic import write_text
from ..data.types import Trajectory
from ..errors import ShapeError, WriteError
from .page import page
from .result import dump_json, rows_of, without_times


@dataclass(frozen=True)
class Event:
    """Something that happened at a frame: REJECTED, LOST, ERROR, ... and why."""

    stamp_s: float
    status: str
    reason: str = ""


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A fused picture: uint8 (h, w) or (h, w, 3) RGB, with its caption."""

    image: ArrayLike
    caption: str


@dataclass(frozen=True, eq=False)
class Report:
    """What a page shows; see `write_report`."""

    result: Mapping[str, Any]
    timing: Mapping[str, Any] = field(default_factory=dict)
    trajectories: Mapping[str, Trajectory] = field(default_factory=dict)
    pictures: Sequence[tuple[str, str]] = ()
    title: str = "usreg report"


def write_report(
    folder: str | Path,
    result: Mapping[str, Any],
    timing: Mapping[str, Any] | None = None,
    trajectories: Mapping[str, Trajectory] | None = None,
    snapshots: Iterable[Snapshot] = (),
    title: str = "usreg report",
) -> Path:
    """Write `result.json`, `timing.json` and `index.html` into a folder, which is made if need be.

    Args:
        folder: where.
        result: as `result_json` gives it, with or without truth; `events` (list of `Event`) may stand beside the rows.
            Wall times in it go to `timing.json`.
        timing: `stages`: name -> list of seconds; other keys are kept in `timing.json`.
        trajectories: name -> poses, for a plot of their shift.
        snapshots: fused pictures.
        title: of the page.

    Returns:
        The page.

    Raises:
        WriteError: the folder cannot be written. ShapeError: a snapshot is not a uint8 picture.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(f"cannot make the folder '{folder}': {error.strerror}") from error
    pictures = [(picture_uri(s.image), s.caption) for s in snapshots]
    times = {"starts": [r.seconds for r in rows_of(result)], **(timing or {})}
    html = page(Report(result, times, trajectories or {}, pictures, title))
    write_text(folder / "result.json", dump_json(without_times(_lists(result))))
    write_text(folder / "timing.json", dump_json(times))
    write_text(folder / "index.html", html)
    return folder / "index.html"


def report_result(content: Mapping[str, Any], folder: str | Path, title: str = "usreg register") -> Path:
    """The report of a RESULT.json (`read_result`)."""
    seconds = [r.seconds for r in rows_of(content) if np.isfinite(r.seconds)]
    return write_report(folder, content, {"stages": {"registration": seconds}} if seconds else {}, title=title)


def picture_uri(image: ArrayLike) -> str:
    """A picture as a `data:` address of a PNG.

    Args:
        image: uint8 (h, w) or (h, w, 3) RGB; array or CPU tensor.
    """
    array = np.asarray(image)
    if (
        array.dtype != np.uint8
        or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3))
        or 0 in array.shape
    ):
        raise ShapeError(f"a snapshot is uint8 (h, w) or (h, w, 3), got {array.shape} {array.dtype}")
    coded, png = cv2.imencode(".png", array if array.ndim == 2 else np.ascontiguousarray(array[..., ::-1]))
    if not coded:
        raise ShapeError(f"a snapshot of {array.shape} cannot be coded as PNG")
    return "data:image/png;base64," + base64.b64encode(png.tobytes()).decode("ascii")


def _lists(result: Mapping[str, Any]) -> dict[str, Any]:
    return {
        k: [vars(e) if isinstance(e, Event) else e for e in v] if isinstance(v, (list, tuple)) else v
        for k, v in result.items()
    }
