# SPDX-License-Identifier: Apache-2.0
"""Figures as cells: the paper's tables with the published lines beside the measured ones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from . import published
from .cases import CaseLine
from .errors import ErrorLine
from .tables import Table, mean_sd, number, percent, probability, seconds
from .times import MethodRun, TimeLine

AXES = ("Tx mm", "Ty mm", "Tz mm", "distance mm", "p", "Rx deg", "Ry deg", "Rz deg", "geodesic deg", "p", "< 10 mm")
Labels = Mapping[str, str]


def error_table(title: str, lines: Sequence[ErrorLine], control: str, labels: Labels) -> Table:
    """Table 1. control: the line that the others are compared with; p-values below 0.05 are significant."""
    cells = tuple((_named(line, labels), *_error_cells(line, control)) for line in lines)
    return Table(title, ("method", *AXES), cells, _error_notes(lines, control, labels))


def published_table(lines: Sequence[ErrorLine], control: str, labels: Labels) -> Table:
    """Each line of Table 1 that was measured beside the published one, with what differs."""
    cells, notes = [], list(published.EVERYWHERE)
    for line in lines:
        known = published.TABLE_1.get(line.method)
        if known is None:
            continue
        cells.append((f"{_named(line, labels)}: measured", *_error_cells(line, control)))
        bound = published.BOUNDS[line.method]
        cells.append((f"{labels.get(line.method, line.method)}: published", *_error_cells(known, control, bound)))
        notes.append(f"{labels.get(line.method, line.method)}: {published.DIFFERS[line.method]}.")
    return Table("Table 1 beside the published one", ("method", *AXES), tuple(cells), tuple(notes))


def _named(line: ErrorLine, labels: Labels) -> str:
    return labels.get(line.method, line.method) + (" [undertrained]" if line.undertrained else "")


def _error_cells(line: ErrorLine, control: str, bound: str = "") -> tuple[str, ...]:
    def p(value: float) -> str:
        if bound:
            return bound
        if line.method == control:
            return "control"
        return "no claim" if line.undertrained else probability(value)

    return (
        *(number(v) for v in line.shift_mm), mean_sd(line.distance_mm), p(line.p_distance),
        *(number(v) for v in line.turn_deg), mean_sd(line.angle_deg), p(line.p_angle),
        f"{line.successful}/{line.count}",
    )  # fmt: skip


def _error_notes(lines: Sequence[ErrorLine], control: str, labels: Labels) -> tuple[str, ...]:
    notes = [
        "Means of |Tx| ... |Rz| about the image's centre, in the axes of the true image: x lateral, y in depth, z out "
        "of the plane; Rx Ry Rz: components of the rotation vector of true_T_found. ±: one standard deviation.",
        f"p: two-sided, Dunnett's test against {labels.get(control, control)}; pairs of one subject count as "
        "independent.",
    ]
    if any(line.undertrained for line in lines):
        notes.append("undertrained: the validation error was still falling when the training ended: no claim.")
    return tuple(notes)


def beside_table(lines: Sequence[ErrorLine], labels: Labels) -> Table:
    """What Table 1 does not tell: worst case, failures, the gate, the target registration error, time."""
    head = ("method", "pairs", "initial mm", "initial deg", "TRE mm", "worst mm", "at", "worst deg", "< 3 mm",
            "TRE < 3 mm", "refused", "accepted mm", "no result", "median time")  # fmt: skip
    cells = tuple(
        (
            labels.get(x.method, x.method), str(x.count), number(x.initial_mm), number(x.initial_deg), number(x.tre_mm),
            number(x.worst_mm), x.worst_pair, number(x.worst_deg), percent(x.below_3mm),
            percent(x.tre_below_3mm), percent(x.refused), number(x.accepted_mm), percent(x.nothing),
            seconds(x.median_s),
        )
        for x in lines
    )  # fmt: skip
    note = (
        "Every pair counts, accepted or not; a pair without a result ends where it began. TRE: mean over 5x5 points of "
        "the sector. accepted: mean distance of the pairs that the gate let through."
    )
    return Table("Worst cases, failures and refusals", head, cells, (note,))


def landmark_table(lines: Sequence[CaseLine], method: str) -> Table:
    """Table 2, with its published lines below."""
    head = ("case", "landmarks", "sightings", "TRE mm", "whole liver mm", "pairs", "distance mm", "< 5 mm")
    cells = tuple(
        (x.case, str(x.landmarks), str(x.measured), mean_sd(x.tre_mm), number(x.liver_mm), str(x.pairs),
         mean_sd(x.distance_mm), percent(x.below_5mm))
        for x in lines
    )  # fmt: skip
    known = tuple(
        (f"published {n + 1}", str(count), "-", mean_sd((mean, sd)), "-", "-", "-", "-")
        for n, (count, mean, sd) in enumerate(published.TABLE_2)
    )
    notes = (
        f"{method}. Landmarks: bifurcations of the liver's vessels at most 5 mm from the true image plane and within "
        "the sector; whole liver: mean over all of them, however far from the image.",
    )
    return Table("Table 2: TRE at the bifurcations, by case", head, cells + known, notes)


def time_table(lines: Sequence[TimeLine], labels: Labels) -> Table:
    """Table 3."""
    head = ("method", "threads", "make", "volume", "first pair", "median", "p95", "processor", "pairs", "in all",
            "i7-9700K", "2080 Ti", "RTX 6000")  # fmt: skip
    cells = tuple(
        (labels.get(x.method, x.method), str(x.threads), seconds(x.build_s), seconds(x.prepare_s), seconds(x.first_s),
         seconds(x.median_s), seconds(x.p95_s), seconds(x.cpu_s), str(x.count), seconds(x.total_s),
         *published.TABLE_3.get(x.method, ("-", "-", "-")))
        for x in lines
    )  # fmt: skip
    notes = (
        "make: building it, with its weights; volume: preparing a volume (pyramids, features, compilation), the "
        "longest; median, p95 and processor (median time of all threads): of all pairs but the first (warm). The last "
        "three columns are the published ones.",
    )
    return Table("Table 3: time of a pair", head, cells, notes)


def training_table(runs: Sequence[MethodRun], labels: Labels) -> Table:
    """How the networks were trained, as their weights say; a line for each run with weights."""
    head = ("method", "parameters", "bodies", "steps", "samples", "minutes", "validation", "curve")
    told = [run for run in runs if run.training]
    cells = tuple(
        (
            labels.get(run.method, run.method), str(t.get("parameters", "-")), _span(t.get("bodies", ())),
            str(t.get("steps", "-")), str(t.get("samples", "-")), number(float(t.get("wall_s", math.nan)) / 60.0, 1),
            _ends(_points(t)), "undertrained" if run.undertrained else "flat",
        )
        for run in told
        for t in (run.training,)
    )  # fmt: skip
    samples = {run.training.get("samples") for run in told}
    same = "All networks saw the same number of samples." if len(samples) == 1 else "The numbers of samples differ."
    return Table("Training of the networks", head, cells, (same,) if len(told) > 1 else ())


def learning_curves(runs: Sequence[MethodRun], labels: Labels) -> dict[str, tuple[list[float], list[float]]]:
    """(samples, error of the validation) for each run with weights; one for weights that several share."""
    found: dict[str, tuple[list[float], list[float]]] = {}
    for run in runs:
        points = _points(run.training)
        curve = ([x for x, _ in points], [y for _, y in points])
        if points and curve not in found.values():
            found[labels.get(run.method, run.method)] = curve
    return found


def _span(bodies: Sequence[int]) -> str:
    return f"{min(bodies)} to {max(bodies)} ({len(bodies)})" if bodies else "-"


def _points(training: Mapping[str, Any]) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in training.get("curve", ()) if x is not None and y is not None]


def _ends(curve: Sequence[Sequence[float]]) -> str:
    return f"{curve[0][1]:.1f} > {curve[-1][1]:.1f}" if curve else "-"


def share_line(lines: Sequence[ErrorLine], first: str, second: str) -> float:
    """By how many percentage points the first method has more pairs below 3 mm than the second; NaN: not known."""
    share = {line.method: line.below_3mm for line in lines}
    return 100.0 * (share.get(first, math.nan) - share.get(second, math.nan))
