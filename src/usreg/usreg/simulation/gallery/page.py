# SPDX-License-Identifier: Apache-2.0
"""The page: one HTML text with every picture inside."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

from .numbers import Appearance
from .pictures import NOTICE

DEPTHS_MM = (10.0, 30.0, 60.0, 90.0, 120.0, 150.0)
_CSS = """
:root { color-scheme: light dark; --ink: #1c2733; --page: #ffffff; --card: #f4f6f8; --line: #d5dbe1; --soft: #5b6875; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e9ee; --page: #14191e; --card: #1d242b; --line: #35404b; --soft: #9aa7b3; } }
body { margin: 0 auto; max-width: 1560px; padding: 1.5rem; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { margin: 0; font-size: 1.5rem; } h2 { font-size: 1.1rem; margin: 0 0 .4rem; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 1rem; margin: 1rem 0;
  overflow-x: auto; }
.warning { color: #a3400c; font-weight: 600; } @media (prefers-color-scheme: dark) { .warning { color: #f0a060; } }
.soft { color: var(--soft); } figure { margin: .6rem 0; } figure img, svg { max-width: 100%; height: auto; }
.plots { display: flex; flex-wrap: wrap; gap: 1rem; } .plots figure { margin: 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .2rem .8rem; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; }
"""


@dataclass(frozen=True, eq=False)
class Section:
    """A part of the page.

    Args:
        text: what one sees, plain. pictures: caption -> JPEG. plots: caption -> SVG element. table: rows of numbers.
    """

    title: str
    text: str
    pictures: Mapping[str, bytes] = field(default_factory=dict)
    plots: Mapping[str, str] = field(default_factory=dict)
    table: Sequence[Appearance] = ()


def gallery_page(title: str, facts: str, sections: Sequence[Section]) -> str:
    """The whole text; no network is needed to read it."""
    meta = '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    warning = f'<p class="warning">{escape(NOTICE[0].upper() + NOTICE[1:])}. Not for diagnosis or treatment.</p>'
    body = "".join(_section(s) for s in sections)
    head = f"{meta}<title>{escape(title)}</title><style>{_CSS}</style>"
    intro = f'<h1>{escape(title)}</h1>{warning}<p class="soft">{escape(facts)}</p>'
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head>\n<body>{intro}\n{body}</body></html>\n'


def _section(section: Section) -> str:
    pictures = "".join(_picture(caption, data) for caption, data in section.pictures.items())
    plots = "".join(
        f'<figure>{svg}<figcaption class="soft">{escape(caption)}</figcaption></figure>'
        for caption, svg in section.plots.items()
    )
    inside = pictures + (f'<div class="plots">{plots}</div>' if plots else "") + table(section.table)
    return f"<section><h2>{escape(section.title)}</h2><p>{escape(section.text)}</p>{inside}</section>\n"


def _picture(caption: str, data: bytes) -> str:
    uri = "data:image/jpeg;base64," + base64.b64encode(data).decode("ascii")
    return (
        f'<figure><img src="{uri}" alt="{escape(caption, quote=True)}">'
        f'<figcaption class="soft">{escape(caption)} · research use only</figcaption></figure>'
    )


def table(rows: Sequence[Appearance]) -> str:
    """One row a source."""
    if not rows:
        return ""
    depths = "".join(f"<th>at {d:g} mm</th>" for d in DEPTHS_MM)
    head = (
        "<tr><th></th><th>frames</th><th>mean grey</th><th>sd</th><th>below grey 5</th><th>speckle axial / mm</th>"
        f"<th>lateral / mm</th><th>patches</th>{depths}</tr>"
    )
    body = "".join(
        f"<tr><td>{escape(r.name)}</td><td>{r.frames}</td><td>{r.mean:.1f}</td><td>{r.spread:.1f}</td>"
        f"<td>{100 * r.dark:.1f} %</td><td>{_number(r.axial_mm)}</td><td>{_number(r.lateral_mm)}</td>"
        f"<td>{r.patches}</td>" + "".join(f"<td>{_number(r.at(d), 1)}</td>" for d in DEPTHS_MM) + "</tr>"
        for r in rows
    )
    return f"<table>{head}{body}</table>"


def _number(value: float, digits: int = 2) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else "–"
