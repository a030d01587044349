# SPDX-License-Identifier: Apache-2.0
"""Plots of a report as inline SVG whose axes take the colour of the page's text."""

from __future__ import annotations

import functools
import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..data.types import Trajectory
from .reliability import Reliability
from .summary import Row

INK = "#010203"  # replaced by the page's text colour
BLUE, ORANGE, RED = "#3d85c6", "#e08a1e", "#d04a3a"
_STYLE: Any = {
    "svg.hashsalt": "usreg",
    "svg.fonttype": "none",
    "font.size": 10,
    "font.family": "sans-serif",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#888888",
    "grid.alpha": 0.25,
    "legend.frameon": False,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
}


def draw(plot: Callable[[Axes], None], width: float = 10.0, height: float = 3.2) -> str:
    """One plot as an `<svg>` element: no ids, dates or addresses that change from run to run."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        plot(figure.add_subplot())
        out = io.StringIO()
        figure.savefig(
            out, format="svg", transparent=True, metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
        )
    text = out.getvalue()
    return text[text.index("<svg") :].replace(INK, "currentColor")


def error_over_time(rows: Sequence[Row]) -> str:
    """Initial and final TRE of each frame; estimates that were not accepted are crosses."""

    def plot(axes: Axes) -> None:
        time = _time(rows)
        _points(axes, time, [r.initial_tre_mm for r in rows], "start", ORANGE, ".", alpha=0.45)
        for accepted, colour, marker in ((True, BLUE, "o"), (False, RED, "x")):
            final = [r.final_tre_mm if r.accepted is accepted else math.nan for r in rows]
            _points(axes, time, final, "accepted" if accepted else "not accepted", colour, marker)
        _log_mm(axes, "y")
        axes.set(xlabel="time / s", ylabel="TRE / mm")
        _legend(axes)

    return draw(plot)


def score_over_time(rows: Sequence[Row]) -> str:
    """Score of each frame: what there is to see where nobody knows the truth."""

    def plot(axes: Axes) -> None:
        for accepted, colour, marker in ((True, BLUE, "o"), (False, RED, "x")):
            score = [r.score if r.accepted is accepted else math.nan for r in rows]
            _points(axes, _time(rows), score, "accepted" if accepted else "not accepted", colour, marker)
        axes.set(xlabel="time / s", ylabel="score")
        _legend(axes)

    return draw(plot)


def histogram(rows: Sequence[Row]) -> str:
    """Distribution of initial and final TRE over common logarithmic bins."""

    def plot(axes: Axes) -> None:
        named = [
            ("start", ORANGE, [r.initial_tre_mm for r in rows]),
            ("estimate", BLUE, [r.final_tre_mm for r in rows]),
        ]
        known = [(n, c, np.array([v for v in values if math.isfinite(v)])) for n, c, values in named]
        everything = np.concatenate([v for _, _, v in known])
        low, high = max(1e-3, everything.min()), max(2e-3, everything.max())
        edges = np.geomspace(low * 0.9, high * 1.1, 31)
        for name, colour, values in known:
            axes.hist(values.clip(low), bins=edges.tolist(), color=colour, alpha=0.65, label=name)
        _log_mm(axes, "x")
        axes.set(xlabel="TRE / mm", ylabel="count")
        _legend(axes)

    return draw(plot)


def against_error(rows: Sequence[Row], field: str, label: str) -> str:
    """A stated quality against the true error; for `predicted_mm` the diagonal is ideal."""

    def plot(axes: Axes) -> None:
        error = [r.final_tre_mm for r in rows]
        for accepted, colour, marker in ((True, BLUE, "o"), (False, RED, "x")):
            stated = [getattr(r, field) if r.accepted is accepted else math.nan for r in rows]
            _points(axes, error, stated, "accepted" if accepted else "not accepted", colour, marker)
        _log_mm(axes, "x")
        if field == "predicted_mm":
            _log_mm(axes, "y")
            ends = [min(axes.get_xlim()[0], axes.get_ylim()[0]), max(axes.get_xlim()[1], axes.get_ylim()[1])]
            axes.plot(ends, ends, color=INK, linewidth=0.8, linestyle="--", label="ideal")
        axes.set(xlabel="true TRE / mm", ylabel=label)
        _legend(axes)

    return draw(plot, 5.0, 3.6)


def reliability_curve(found: Reliability) -> str:
    """What was stated against what came true, bin by bin; bars of one standard error, the diagonal is ideal."""
    return draw(functools.partial(plot_reliability, found=found), 5.0, 3.6)


def plot_reliability(axes: Axes, found: Reliability) -> None:
    """The same on given axes."""
    stated, observed = [b.stated for b in found.bins], [b.observed for b in found.bins]
    spread = [math.sqrt(max(b.observed * (1 - b.observed), 1.0 / (4 * b.count)) / b.count) for b in found.bins]
    axes.plot((0, 1), (0, 1), color=INK, linewidth=0.8, linestyle="--", label="ideal")
    axes.errorbar(stated, observed, yerr=spread, color=BLUE, marker="o", markersize=4, linewidth=1.2, label="bins")
    axes.set(xlabel="stated probability of a TRE below 5 mm", ylabel="share that came true")
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
    _legend(axes)


def stage_times(stages: Mapping[str, Sequence[float]]) -> str:
    """Median (bar) and 95th percentile (tick) of the time of each stage, ms."""

    def plot(axes: Axes) -> None:
        names = list(stages)
        median = [1e3 * float(np.median(stages[n])) for n in names]
        slow = [1e3 * float(np.percentile(stages[n], 95)) for n in names]
        place = np.arange(len(names))
        axes.barh(place, median, color=BLUE, height=0.6, label="median")
        axes.scatter(slow, place, marker="|", s=220, color=ORANGE, label="95th percentile", zorder=3)
        axes.set_yticks(place, [f"{n}: {m:.3g} ms" for n, m in zip(names, median, strict=True)])
        axes.invert_yaxis()
        axes.set(xlabel="time / ms")
        _legend(axes)

    return draw(plot, 10.0, 1.2 + 0.4 * len(stages))


def positions(trajectories: Mapping[str, Trajectory]) -> str:
    """Translation of each trajectory over time relative to the first pose of all, one line style for each."""

    def plot(axes: Axes) -> None:
        origin = None
        for line, (name, path) in zip(_cycle(("-", "--", ":", "-.")), trajectories.items(), strict=False):
            if not bool(path.valid.any()):
                continue
            time, places = path.stamps_s[path.valid], path.poses[path.valid][:, :3, 3]
            origin = (float(time[0]), places[0]) if origin is None else origin
            for axis, colour in enumerate((RED, "#3a9d5d", BLUE)):
                label = f"{name} {'xyz'[axis]}"
                axes.plot(
                    time - origin[0], places[:, axis] - origin[1][axis], line, color=colour, linewidth=1.2, label=label
                )
        axes.set(xlabel="time / s", ylabel="shift / mm")
        _legend(axes)

    return draw(plot, 10.0, 3.6)


def _cycle(styles: Sequence[str]) -> list[str]:
    return list(styles) * 16


def _time(rows: Sequence[Row]) -> list[float]:
    first = min((r.stamp_s for r in rows), default=0.0)
    return [r.stamp_s - first for r in rows]


def _points(
    axes: Axes, x: Sequence[float], y: Sequence[float], label: str, colour: str, marker: str, alpha: float = 0.8
) -> None:
    keep = [n for n in range(len(x)) if math.isfinite(x[n]) and math.isfinite(y[n])]
    if keep:
        axes.scatter(
            [x[n] for n in keep], [y[n] for n in keep], s=14, color=colour, marker=marker, label=label, alpha=alpha
        )


def _log_mm(axes: Axes, name: Literal["x", "y"]) -> None:
    """Logarithmic above 0.1 mm, linear below: errors of exactly zero stay on the plot."""
    (axes.set_xscale if name == "x" else axes.set_yscale)("symlog", linthresh=0.1)
    axis = axes.xaxis if name == "x" else axes.yaxis
    axis.set_major_formatter(lambda value, _: f"{value:g}")


def _legend(axes: Axes) -> None:
    if axes.get_legend_handles_labels()[1]:
        axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=6, fontsize=9, borderaxespad=0.2)
