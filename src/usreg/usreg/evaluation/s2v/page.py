# SPDX-License-Identifier: Apache-2.0
"""The report of the protocol: tables and cumulative curves on one page, the curves as pictures beside it."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..figures import draw
from ..page import html_page, section
from .tables import Table, as_html

Curves = Mapping[str, tuple[list[float], list[float]]]

MOST_MM = 30.0


@dataclass(frozen=True)
class StudyPage:
    """What is shown of one study.

    Args:
        name: for file names. title, text: what was asked, and how.
        tables: in their order. methods, cases: cumulative curves by method, and by case of one method.
        case_method: the method whose cases are shown.
    """

    name: str
    title: str
    text: str
    tables: tuple[Table, ...]
    methods: Curves
    cases: Curves
    case_method: str = ""


def plot_curves(axes: Axes, curves: Curves) -> None:
    """Cumulative curves, from no error on; the axis ends where the last does, or at 30 mm."""
    end = min(MOST_MM, max((1.05 * distance[-1] for distance, _ in curves.values()), default=1.0) + 1e-3)
    for number, (name, (distance, share)) in enumerate(curves.items()):
        x, y = [0.0, *distance, max(end, distance[-1])], [0.0, *(100.0 * s for s in share), 100.0]
        axes.step(x, y, "-" if number < 10 else "--", where="post", label=name)
    axes.axvline(10.0, color="#888888", linewidth=0.8, linestyle=":")
    axes.set(xlabel="distance / mm", ylabel="pairs at or below / %", xlim=(0.0, end))
    axes.set(ylim=(0.0, 101.0))
    axes.legend(fontsize=8, loc="lower right")


def plot_learning(axes: Axes, curves: Curves) -> None:
    """Errors of the validation over the samples that a network had seen."""
    for name, (samples, error) in curves.items():
        axes.plot(samples, error, marker=".", label=name)
    axes.set(xlabel="samples seen", ylabel="error of the validation", yscale="log")
    axes.legend(fontsize=8)


def report_page(
    title: str, facts: Mapping[str, str], studies: Sequence[StudyPage], notes: Sequence[str],
    training: Table | None = None, learning: Curves | None = None,
) -> str:  # fmt: skip
    """One HTML text.

    Args:
        notes: what was not run, and why. training, learning: of the networks' weights; None: there are none.
    """
    line = " · ".join(f"{k}: {v}" for k, v in facts.items())
    parts = [section("What was not run, and why", "".join(f"<p>{n}</p>" for n in map(escape, notes)))]
    for study in studies:
        parts += _study(study)
    if training is not None:
        svg = draw(functools.partial(plot_learning, curves=learning), 8.0, 3.6) if learning else ""
        parts.append(section(training.title, as_html(training) + svg))
    return html_page(title, f'<p class="soft">{escape(line)}</p>', parts)


def _study(study: StudyPage) -> list[str]:
    found = [section(study.title, f"<p>{escape(study.text)}</p>")]
    found += [section(f"{study.title}: {t.title}", as_html(t)) for t in study.tables]
    for words, curves in (("by method", study.methods), (f"by case, {study.case_method}", study.cases)):
        if curves:
            svg = draw(functools.partial(plot_curves, curves=curves), 8.0, 4.2)
            found.append(section(f"{study.title}: cumulative error, {words} (Fig. 7)", svg))
    return found


def write_pictures(study: StudyPage, folder: Path) -> list[Path]:
    """Fig. 7 as PNG: by method on the left, by case on the right."""
    shown = [(w, c) for w, c in (("by method", study.methods), (study.case_method, study.cases)) if c]
    if not shown:
        return []
    figure = Figure(figsize=(7.0 * len(shown), 4.5), layout="constrained")
    for axes, (words, curves) in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        plot_curves(axes, curves)
        axes.set(title=f"{study.title}, {words}")
    path = folder / f"cumulative_{study.name}.png"
    figure.savefig(path, dpi=110, metadata={"Software": None})
    return [path]
