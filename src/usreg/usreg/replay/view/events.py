# SPDX-License-Identifier: Apache-2.0
"""What happened in a recording, for the marks on the timeline: where it was lost, rejected, found; gaps."""

from __future__ import annotations

import statistics
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from ...data.bags import GAP_FACTOR
from .known import FrameNote, Result

MOST = 1000  # events that are told
REFUSED = ("REJECTED", "NO_OVERLAP", "ERROR")
AGAIN = "re-initialised"


def events_of(
    frames: Sequence[FrameNote], results: Sequence[Result | None], skipped: Sequence[tuple[float, str]] = ()
) -> list[dict[str, Any]]:
    """Events in the order of the frames, {index, stamp_s, kind, text} each: where a state begins."""
    found = [*_gaps(frames), *_left_out(frames, skipped), *_changes(frames, results)]
    found.sort(key=lambda e: e[0])
    if len(found) > MOST:
        k, kind, text = found[MOST - 1]
        found[MOST - 1] = k, kind, f"{text} (and {len(found) - MOST} more events)"
    return [{"index": k, "stamp_s": frames[k].stamp_s, "kind": kind, "text": text} for k, kind, text in found[:MOST]]


def _gaps(frames: Sequence[FrameNote]) -> Iterator[tuple[int, str, str]]:
    steps = [b.stamp_s - a.stamp_s for a, b in pairwise(frames)]
    usual = statistics.median(steps) if steps else 0.0
    for k, step in enumerate(steps):
        if step > GAP_FACTOR * usual:
            yield k + 1, "gap", f"no frame for {step:.2f} s"


def _left_out(frames: Sequence[FrameNote], skipped: Sequence[tuple[float, str]]) -> Iterator[tuple[int, str, str]]:
    """Messages that could not be used, together where they lie at one frame."""
    at: dict[int, list[str]] = {}
    for stamp_s, reason in skipped:
        at.setdefault(min(bisect_left(frames, stamp_s, key=_stamp), len(frames) - 1), []).append(reason)
    for index, reasons in at.items():
        yield index, "gap", reasons[0] + (f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else "")


def _changes(frames: Sequence[FrameNote], results: Sequence[Result | None]) -> Iterator[tuple[int, str, str]]:
    before, begun, lost = "", False, False
    for k, result in enumerate(results):
        if result is None:
            continue
        status = "REFUSED" if result.status in REFUSED else result.status
        if status == "ACCEPTED" and (not begun or result.reason.startswith(AGAIN)):
            yield k, "initialized", result.reason or "registered from here on"
        elif status == "ACCEPTED" and lost:
            yield k, "found", "registered again"
        elif status == "LOST" and not lost:
            yield k, "lost", result.reason
        elif status == "REFUSED" and before != status:
            yield k, "rejected", result.reason
        elif status == "NOT_TRACKED" and before != status:
            yield k, "gap", result.reason
        before, begun = status, begun or status == "ACCEPTED"
        lost = status == "LOST" or (lost and status != "ACCEPTED")


def _stamp(note: FrameNote) -> float:
    return note.stamp_s
