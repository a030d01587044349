# SPDX-License-Identifier: Apache-2.0
"""Tables as text and as HTML from the same cells."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True)
class Table:
    """Cells that are text already; the first column names the line."""

    title: str
    head: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def as_text(table: Table) -> list[str]:
    """Lines for a terminal: first column to the left, the others to the right."""
    cells = [table.head, *table.lines]
    widths = [max(len(line[n]) for line in cells if n < len(line)) for n in range(len(table.head))]
    return [table.title, *(_aligned(line, widths) for line in cells), *(f"  {note}" for note in table.notes)]


def _aligned(line: Sequence[str], widths: Sequence[int]) -> str:
    first, *rest = (f"{c:<{w}}" if n == 0 else f"{c:>{w}}" for n, (c, w) in enumerate(zip(line, widths, strict=False)))
    return "  ".join([first, *rest]).rstrip()


def as_html(table: Table) -> str:
    """A `<table>` and its notes."""
    head = "".join(f"<th>{escape(c)}</th>" for c in table.head)
    body = "".join("<tr>" + "".join(f"<td>{escape(c)}</td>" for c in line) + "</tr>" for line in table.lines)
    notes = "".join(f'<p class="soft">{escape(note)}</p>' for note in table.notes)
    return f"<table><tr>{head}</tr>{body}</table>{notes}"


def number(value: float, digits: int = 2) -> str:
    """A dash where it is not known."""
    return f"{value:.{digits}f}" if math.isfinite(value) else "-"


def percent(value: float) -> str:
    """Share as a percentage with one digit."""
    return f"{100 * value:.1f} %" if math.isfinite(value) else "-"


def seconds(value: float) -> str:
    """Milliseconds below a second."""
    if not math.isfinite(value):
        return "-"
    return f"{1e3 * value:.0f} ms" if value < 1.0 else f"{value:.1f} s"


def mean_sd(values: tuple[float, float]) -> str:
    """mean ± sd."""
    return f"{number(values[0])} ± {number(values[1])}"


def probability(p: float) -> str:
    """A p-value as it is printed; small ones as a bound."""
    if not math.isfinite(p):
        return "-"
    return "< 0.001" if p < 1e-3 else f"{p:.3f}"
