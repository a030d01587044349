# SPDX-License-Identifier: Apache-2.0
"""The page of a report: one HTML text with everything inside."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from . import figures
from .reliability import Reliability, rows_reliability
from .result import rows_of
from .summary import Row, Spread, Summary, summarise

if TYPE_CHECKING:
    from .report import Report

MAX_EVENTS = 200
_CSS = """
:root { color-scheme: light dark; --ink: #1c2733; --page: #ffffff; --card: #f4f6f8; --line: #d5dbe1; --soft: #5b6875; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e9ee; --page: #14191e; --card: #1d242b; --line: #35404b; --soft: #9aa7b3; } }
body { margin: 0 auto; max-width: 1080px; padding: 1.5rem; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { margin: 0; font-size: 1.5rem; } h2 { font-size: 1.05rem; margin: 0 0 .6rem; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 1rem; margin: 1rem 0;
  overflow-x: auto; }
.warning { color: #a3400c; font-weight: 600; } @media (prefers-color-scheme: dark) { .warning { color: #f0a060; } }
.soft { color: var(--soft); } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .2rem .7rem; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child, td.text, th.text { text-align: left; } svg { max-width: 100%; height: auto; }
.tiles { display: flex; flex-wrap: wrap; gap: .8rem; margin-bottom: 1rem; } .tile { min-width: 8rem; }
.tile b { display: block; font-size: 1.4rem; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(300px, 1fr)); gap: 1rem; }
figure { margin: 0; } figure img { width: 100%; image-rendering: auto; background: #000; }
.pair { display: flex; flex-wrap: wrap; }
"""


def page(report: Report) -> str:
    """The whole text. Sections that have nothing to show are left out."""
    rows = rows_of(report.result)
    summary = summarise(rows)
    parts = [
        section("Summary", _tiles(summary) + _shown(report.result) + _table(summary)),
        section("Fused views", _pictures(report.pictures)),
        *_error_sections(rows, summary),
        section("Estimated motion", figures.positions(report.trajectories) if report.trajectories else ""),
        section("Time of each stage", _stages(report.timing)),
        section("Not accepted, lost, errors", _events(rows, report.result.get("events", ()))),
    ]
    return html_page(report.title, _facts(report.result), parts)


def html_page(title: str, facts: str, parts: Iterable[str]) -> str:
    """A whole page of sections, with the warning that every page carries; `facts` is HTML below the title."""
    meta = '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    head = f"{meta}<title>{escape(title)}</title><style>{_CSS}</style>"
    warning = '<p class="warning">Research use only. Not for diagnosis or treatment.</p>'
    intro = f"<h1>{escape(title)}</h1>{warning}{facts}"
    body = "".join(filter(None, parts))
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head>\n<body>{intro}\n{body}</body></html>\n'


def section(title: str, content: str) -> str:
    """A section of a page; nothing where there is no content."""
    return f"<section><h2>{escape(title)}</h2>{content}</section>\n" if content else ""


def _facts(result: Mapping[str, Any]) -> str:
    facts = [f"{escape(k)}: {escape(str(v))}" for k, v in sorted(result.items()) if isinstance(v, (str, int, float))]
    return f'<p class="soft">{" · ".join(facts)}</p>' if facts else ""


def _tiles(s: Summary) -> str:
    tiles = [("registrations", str(s.count)), ("accepted", _percent(s.accepted_share)), ("lost", str(s.lost))]
    if s.with_truth:
        tiles += [
            ("median TRE", _number(s.final_tre_mm.median, " mm")),
            ("95 % below", _number(s.final_tre_mm.p95, " mm")),
            ("below 2 mm", _percent(s.success_2mm)),
            ("below 5 mm", _percent(s.success_5mm)),
            ("below 10 mm", _percent(s.success_10mm)),
            ("accepted above 5 mm", str(s.failures_among_accepted)),
        ]
    if math.isfinite(s.landmark_tre_mm.mean):
        tiles += [
            ("mean TRE at the landmarks", _number(s.landmark_tre_mm.mean, " mm")),
            ("worst", _number(s.landmark_tre_mm.max, " mm")),
            ("accepted above 10 mm there", str(s.gross_among_accepted)),
        ]
    if math.isfinite(s.nees_per_dof):
        tiles += [("NEES per dof", _number(s.nees_per_dof)), ("in 95 % ellipsoid", _percent(s.coverage_95))]
    if math.isfinite(s.median_seconds):
        tiles.append(("median time", _number(1e3 * s.median_seconds, " ms")))
    inside = "".join(
        f'<div class="tile"><b>{escape(v)}</b><span class="soft">{escape(k)}</span></div>' for k, v in tiles
    )
    return f'<div class="tiles">{inside}</div>'


def _shown(result: Mapping[str, Any]) -> str:
    """Of a session: how often a pose was given out, and how far off it was at the landmarks."""
    summary = result.get("summary", {})
    share, smoothed = summary.get("output_share"), summary.get("smoothed_landmark_tre_mm") or {}
    words = [] if share is None else [f"Output on {_percent(share)} of the frames."]
    if smoothed.get("mean") is not None:
        mean, worst = (_number(smoothed[k], " mm") for k in ("mean", "max"))
        words.append(
            f"Smoothed pose at the landmarks: mean {mean}, worst {worst}, against the true pose of the volume in the "
            "room, so with the error of the tracking; the TRE in the image leaves that out."
        )
    return f"<p>{escape(' '.join(words))}</p>" if words else ""


def _table(s: Summary) -> str:
    if not s.with_truth:
        return '<p class="soft">The truth is not known here: no TRE, only what the registration says of itself.</p>'
    named: list[tuple[str, Spread]] = [
        ("initial TRE / mm", s.initial_tre_mm),
        ("final TRE / mm", s.final_tre_mm),
        ("TRE of accepted / mm", s.accepted_tre_mm),
        ("translation / mm", s.translation_mm),
        ("rotation / degree", s.rotation_deg),
        ("out of plane / mm", s.out_of_plane_mm),
        *([("landmarks, accepted / mm", s.landmark_tre_mm)] if math.isfinite(s.landmark_tre_mm.mean) else []),
    ]
    head = "<tr><th></th><th>mean</th><th>median</th><th>95th percentile</th><th>maximum</th></tr>"
    body = "".join(
        f"<tr><td>{escape(n)}</td>"
        + "".join(f"<td>{_number(v)}</td>" for v in (p.mean, p.median, p.p95, p.max))
        + "</tr>"
        for n, p in named
    )
    return f"<table>{head}{body}</table>"


def _error_sections(rows: Sequence[Row], summary: Summary) -> list[str]:
    scored = any(math.isfinite(r.score) for r in rows)
    if not summary.with_truth:
        return [section("Score over time", figures.score_over_time(rows) if scored else "")]
    pair = figures.against_error(rows, "score", "score") if scored else ""
    if any(math.isfinite(r.predicted_mm) for r in rows):
        pair += figures.against_error(rows, "predicted_mm", "error predicted by the covariance / mm")
    return [
        section("Error over time", figures.error_over_time(rows)),
        section("Distribution of the error", figures.histogram(rows)),
        section("What the registration says against the true error", f'<div class="pair">{pair}</div>' if pair else ""),
        section("Stated probability of a TRE below 5 mm", _reliability(rows_reliability(rows))),
    ]


def _reliability(found: Reliability | None) -> str:
    """Curve and figures of stated probabilities, where enough estimates have one."""
    if found is None:
        return ""
    facts = (
        f"{found.count} estimates, {_percent(found.failures)} of them above 5 mm. "
        f"Told apart (AUROC): {_number(found.auroc)}. "
        f"Calibration error over {len(found.bins)} equal bins: {_percent(found.calibration_error)}. "
        f"Brier score {_number(found.brier)}; always stating the base rate would give {_number(found.brier_base)}."
    )
    return f"<p>{escape(facts)}</p>{figures.reliability_curve(found)}"


def _stages(timing: Mapping[str, Any]) -> str:
    stages = {str(k): list(v) for k, v in timing.get("stages", {}).items() if len(v)}
    return figures.stage_times(stages) if stages else ""


def _pictures(pictures: Sequence[tuple[str, str]]) -> str:
    if not pictures:
        return ""
    inside = "".join(
        f'<figure><img src="{uri}" alt="{escape(text, quote=True)}">'
        f'<figcaption class="soft">{escape(text)} · research use only</figcaption></figure>'
        for uri, text in pictures
    )
    return f'<div class="pictures">{inside}</div>'


def _events(rows: Sequence[Row], extra: Sequence[Any]) -> str:
    found = [(r.stamp_s, r.status or "NOT ACCEPTED", r.reason) for r in rows if not r.accepted]
    for event in extra:
        values = event if isinstance(event, Mapping) else vars(event)
        found.append(
            (float(values.get("stamp_s", math.nan)), str(values.get("status", "")), str(values.get("reason", "")))
        )
    if not found:
        return ""
    found.sort(key=lambda e: (e[0], e[1], e[2]))
    counts = " · ".join(f"{escape(k)}: {n}" for k, n in sorted(Counter(f[1] for f in found).items()))
    lines = "".join(
        f'<tr><td>{t:.3f}</td><td class="text">{escape(status)}</td><td class="text">{escape(reason)}</td></tr>'
        for t, status, reason in found[:MAX_EVENTS]
    )
    more = f'<p class="soft">and {len(found) - MAX_EVENTS} more in result.json</p>' if len(found) > MAX_EVENTS else ""
    head = '<tr><th>stamp / s</th><th class="text">status</th><th class="text">reason</th></tr>'
    return f"<p>{counts}</p><table>{head}{lines}</table>{more}"


def _number(value: float, unit: str = "") -> str:
    return f"{value:.3g}{unit}" if math.isfinite(value) else "–"


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %" if math.isfinite(value) else "–"
