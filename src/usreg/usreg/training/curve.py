# SPDX-License-Identifier: Apache-2.0
"""The log of a training, its learning curve, and whether the curve still falls."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..data.atomic import atomic_path, write_text
from ..errors import FileFormatError

MAX_LOG_BYTES = 256 * 1024 * 1024
STILL_FALLS = 0.03  # per tenth of the run
FEWEST = 3  # points in the last third by which to judge
RULE = (
    f"undertrained: over the last third of the run the validation curve's line falls by more than {STILL_FALLS:.0%} of "
    f"its mean per tenth of the run, or there are fewer than {FEWEST} points to tell"
)
Point = tuple[float, float]


def is_undertrained(points: Sequence[Point]) -> bool:
    """Whether a validation curve of (samples seen, error) still falls, by `RULE`."""
    if not points:
        return True
    end = points[-1][0]
    last = [(x, y) for x, y in points if x >= end * 2 / 3]
    if len(last) < FEWEST:
        return True
    x, y = np.array(last, dtype=np.float64).T
    slope = np.polyfit(x, y, 1)[0]
    return bool(not np.isfinite(slope) or -slope * end / 10 > STILL_FALLS * abs(y.mean()))


class Log:
    """One JSON object a line; what a resumed run does again is cut off."""

    def __init__(self, path: Path, until_step: int = 0) -> None:
        self.path = path
        self.entries = [e for e in read_log(path) if e["step"] <= until_step] if path.is_file() else []
        write_text(path, "".join(json.dumps(e) + "\n" for e in self.entries))

    def add(self, entry: Mapping[str, Any]) -> None:
        """Append and write at once."""
        self.entries.append(dict(entry))
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(entry) + "\n")

    def curve(self, name: str) -> list[Point]:
        """(samples, value) of a figure of the validation."""
        return [(e["samples"], e["validation"][name]) for e in self.entries if name in e.get("validation", {})]


def read_log(path: Path) -> list[dict[str, Any]]:
    """Entries of a log; a last line that was cut off is left out.

    Raises:
        FileFormatError: too large, or not a log.
    """
    if path.stat().st_size > MAX_LOG_BYTES:
        raise FileFormatError(f"'{path.name}' has more than {MAX_LOG_BYTES} bytes: this is no log of a training")
    entries: list[dict[str, Any]] = []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines):
        try:
            entry = json.loads(line)
            if not isinstance(entry, dict) or not isinstance(entry.get("step"), int):
                raise ValueError("no entry of a log")
        except (ValueError, RecursionError) as error:
            if number == len(lines) - 1:
                break
            raise FileFormatError(f"'{path.name}', line {number + 1}, is no entry of a training's log") from error
        entries.append(entry)
    return entries


def draw_curve(entries: Iterable[Mapping[str, Any]], name: str, path: Path, title: str = "") -> None:
    """Write a PNG: the loss and a figure of the validation over the samples seen, logarithmic."""
    from matplotlib.figure import Figure

    entries = list(entries)
    losses = [(e["samples"], e["loss"]) for e in entries if "loss" in e]
    points = [(e["samples"], e["validation"][name]) for e in entries if name in e.get("validation", {})]
    figure = Figure(figsize=(9.0, 3.4), layout="constrained")
    for number, (label, rows) in enumerate((("loss", losses), (f"validation: {name}", points))):
        axes = figure.add_subplot(1, 2, number + 1)
        if rows:
            x, y = zip(*rows, strict=True)
            axes.plot(x, y, marker="o" if number else "", linewidth=1.2)
            if min(y) > 0:
                axes.set_yscale("log")
        axes.set(xlabel="samples", title=label)
        axes.grid(alpha=0.3)
    mark = " (undertrained)" if is_undertrained(points) else ""
    figure.suptitle(f"{title}{mark}")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110, metadata={"Software": None})
